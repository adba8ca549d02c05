"""Children, and messages to other runs."""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, overload

from duramen._bridge import Halted, InvalidIdError
from duramen._handlers.inputs import NO_INPUT
from duramen._values.checks import check_event_name, check_id, check_tags, check_text
from duramen._values.serializer import message_type
from duramen.errors import InvalidArgument, UnknownWorkflow

from .base import Calls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Unpack

    from duramen._driving.children import Child
    from duramen._handlers.workflow import WorkflowDef

__all__ = ["ChildCalls", "ChildHandle", "ChildOptions"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")


class ChildOptions(TypedDict, total=False):
    """What can be said of a child beside its workflow and input."""

    id: str | None
    run_id: str | None
    detached: bool
    tags: Iterable[str]
    memo: Any


class ChildHandle(Generic[OutputT]):
    """A child that a handler has started; see `Context.start_child`."""

    __slots__ = ("_calls", "_child")

    def __init__(self, calls: ChildCalls, child: Child) -> None:
        self._calls = calls
        self._child = child

    def __repr__(self) -> str:
        return f"<ChildHandle of {self.run_id!r}>"

    @property
    def run_id(self) -> str:
        """The child's run id."""
        return self._child.run_id

    async def result(self) -> OutputT:
        """Wait for its output. Any number of tasks may wait, and ask again once it is known.

        A task that stops waiting leaves the child as it is: use `cancel`, or `Context.child`.

        Raises:
            ChildFailed: it has not completed: it failed, or one of the subclasses says how it ended.
        """
        self._calls.check("ChildHandle.result")
        return await self._child.result()

    async def cancel(self, reason: str = "") -> None:
        """Ask it to end: its handler gets `asyncio.CancelledError`. `result` waits for its end.

        One that has ended does not mind.
        """
        await self._calls.cancel_child(self._child, reason)

    async def signal(self, name: str, payload: Any = None) -> None:
        """Send it an event; see `Context.signal`."""
        await self._calls.signal(self.run_id, name, payload)


class ChildCalls(Calls):
    """See `Context`."""

    __slots__ = ()

    @overload
    async def start_child(
        self, workflow: WorkflowDef[None, OutputT], input: None = None, /, **options: Unpack[ChildOptions]
    ) -> ChildHandle[OutputT]: ...
    @overload
    async def start_child(
        self, workflow: WorkflowDef[InputT, OutputT], input: InputT, /, **options: Unpack[ChildOptions]
    ) -> ChildHandle[OutputT]: ...
    @overload
    async def start_child(
        self, workflow: str, input: Any = None, /, **options: Unpack[ChildOptions]
    ) -> ChildHandle[Any]: ...
    async def start_child(
        self,
        workflow: Any,
        input: Any = NO_INPUT,  # noqa: A002
        /,
        *,
        id: str | None = None,  # noqa: A002
        run_id: str | None = None,
        detached: bool = False,
        tags: Iterable[str] = (),
        memo: Any = None,
    ) -> ChildHandle[Any]:
        """Start a run of another workflow, once, and go on: the handle waits for it, cancels it, signals it.

        An attached child ends before this run does. A handler that returns while children are open waits for
        them first, and fails if one of them does; one that raises or is cancelled cancels them and waits for
        their clean-up. A run that is terminated leaves them alone.

        Args:
            workflow: a workflow, or the name of one that is registered here. Whoever serves it drives the
                child.
            input: what its handler gets; checked against its type before anything is recorded.
            id: the operation's id. Default: ``child-1``, ``child-2`` … in the order of the calls.
            run_id: the child's. Default: ``{this run's id}/{operation id}``.
            detached: it goes on when this run ends, whatever becomes of either.
            tags: texts to find it by, beside those of the workflow.
            memo: any value to keep with the run; handlers do not see it.

        Raises:
            UnknownWorkflow: no workflow of that name is registered here.
            InvalidId: an id or a tag cannot be used, or the child's run id is longer than 255 characters.
            SerializationError: the input does not fit its type, or cannot be stored.
        """
        self._check("ctx.start_child")
        child = await self._start(workflow, input, id, run_id, detached, tags, memo)
        return ChildHandle(self, child)

    @overload
    async def child(
        self, workflow: WorkflowDef[None, OutputT], input: None = None, /, **options: Unpack[ChildOptions]
    ) -> OutputT: ...
    @overload
    async def child(
        self, workflow: WorkflowDef[InputT, OutputT], input: InputT, /, **options: Unpack[ChildOptions]
    ) -> OutputT: ...
    @overload
    async def child(self, workflow: str, input: Any = None, /, **options: Unpack[ChildOptions]) -> Any: ...
    async def child(
        self,
        workflow: Any,
        input: Any = NO_INPUT,  # noqa: A002
        /,
        *,
        id: str | None = None,  # noqa: A002
        run_id: str | None = None,
        detached: bool = False,
        tags: Iterable[str] = (),
        memo: Any = None,
    ) -> Any:
        """Start a run of another workflow and wait for its output; `start_child` says what the arguments are.

        When this call is cancelled (with the run, by a timeout around it, with its task group) the child is
        cancelled, too, and `asyncio.CancelledError` goes on when it has cleaned up; a detached one is left
        alone.

        Raises:
            ChildFailed: it has not completed. What it raised is the cause if that class is built in or
                registered; `ChildCancelled`, `ChildTerminated` and `ChildConflict` say how else it ended.
        """
        self._check("ctx.child")
        child = await self._start(workflow, input, id, run_id, detached, tags, memo)
        try:
            return await child.result()
        except CancelledError:
            if child.attached and child.how is None and not self._host.closed:
                await self._sent(child.cancel_and_wait)
            raise

    async def signal(self, run_id: str, name: str, payload: Any = None) -> None:
        """Send an event to another run, once: it is there exactly once, whatever crashes on the way.

        It is on its way as soon as this call is recorded. A run that does not exist (any more) or has ended
        does not get it, and nobody is told.

        Args:
            run_id: the other run.
            name: the event's name; those that begin with ``__`` are refused.
            payload: what `wait_for_event` gives there.

        Raises:
            InvalidId: the run id or the name cannot be used.
            SerializationError: the payload cannot be stored.
        """
        self._check("ctx.signal")
        check_id("run id", run_id)
        check_event_name(name)
        data = await self._host.payload_of(payload, message_type(payload))
        try:
            self._run.send_event(run_id, name, data)
        except (Halted, InvalidIdError) as error:
            await self._failed(error)

    def check(self, call: str) -> None:
        """Refuse a call from outside of the handler."""
        self._check(call)

    async def cancel_child(self, child: Child, reason: str) -> None:
        """See `ChildHandle.cancel`."""
        self._check("ChildHandle.cancel")
        check_text("reason", reason)
        try:
            child.cancel(reason)
        except Halted as error:
            await self._failed(error)

    async def _start(
        self,
        workflow: Any,
        value: Any,
        id: str | None,  # noqa: A002
        run_id: str | None,
        detached: bool,
        tags: Iterable[str],
        memo: Any,
    ) -> Child:
        definition = self._host.services.find(workflow)
        if definition is None:
            raise UnknownWorkflow(workflow, None)
        if id is not None:
            check_id("operation id", id)
        if run_id is not None:
            check_id("run id", run_id)
        if not isinstance(detached, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"detached is {detached!r}: give True or False")
        own = check_tags(tags)
        value = definition.input_or_default(value)
        if not definition.has_input and value is not None:
            raise InvalidArgument(f"workflow {definition.name!r} takes no input, so none can be given")
        data = await self._host.payload_of(value, definition.input_type)
        kept = None if memo is None else await self._host.payload_of(memo, None)
        all_tags = check_tags((*definition.tags, *own))
        row = (run_id, definition.name, definition.version, data, all_tags, kept, definition.timeout_ms)
        try:
            op, child_id = self._run.start_child(id, row)
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
        return self._host.new_child(op, child_id, definition.output_type, attached=not detached)

    async def _sent(self, call: Any) -> None:
        try:
            await call()
        except Halted as error:
            await self._failed(error)
