"""Updates and queries: what a handler answers while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from duramen._bridge import Halted, InvalidIdError
from duramen._handlers.callables import is_async_callable, refusal
from duramen._handlers.requests import UNSET, Query, Update, check_name, plan_of_request
from duramen._handlers.signatures import check_stored
from duramen.errors import InvalidId, WorkflowDefinitionError

from .base import Calls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["RequestCalls"]

P = TypeVar("P")
R = TypeVar("R")


class RequestCalls(Calls):
    """See `Context`."""

    __slots__ = ()

    @overload
    def on_update(
        self,
        update: Update[P, R],
        fn: Callable[[P], Awaitable[R]],
        /,
        *,
        validate: Callable[[P], object] | None = None,
    ) -> None: ...
    @overload
    def on_update(
        self,
        update: Update[P, R],
        fn: Callable[[P], R],
        /,
        *,
        validate: Callable[[P], object] | None = None,
    ) -> None: ...
    @overload
    def on_update(
        self,
        update: str,
        fn: Callable[..., Any],
        /,
        *,
        type: Any = ...,
        validate: Callable[..., object] | None = None,
    ) -> None: ...
    def on_update(
        self,
        update: Update[Any, Any] | str,
        fn: Callable[..., Any],
        /,
        *,
        type: Any = UNSET,  # noqa: A002
        validate: Callable[..., object] | None = None,
    ) -> None:
        """Take the updates of a name from now on: requests that change the run and get an answer.

        Each is validated, recorded in its place, applied once by `fn` in a task of its own on the handler's
        loop, and answered with what `fn` returns or raises. Replay applies it again at that place. One that
        came before this call was kept. Those whose `fn` goes on when the handler ends are not answered: their
        callers get `RunFinished`.

        Args:
            update: its name, or an `Update`, which says the types too.
            fn: called with the payload (or with nothing, if it takes nothing); async or sync. It may use the
                context's durable calls.
            type: what the payload is read as. Default: the annotation of the parameter of `fn`.
            validate: called with the payload before the update is accepted; it refuses by raising. It must
                change nothing: it is not called on replay.

        Raises:
            InvalidId: the name cannot be used.
            WorkflowDefinitionError: `fn` or `validate` cannot be called so, or a type cannot be stored.
            NotADurableContext: called outside of the handler.
        """
        self._check("ctx.on_update")
        name = update.name if isinstance(update, Update) else check_name("update", update)
        plan = plan_of_request(name, fn)
        if isinstance(update, Update):
            payload, result = update.payload, update.result
            plan = plan._replace(
                payload=plan.payload if payload is None else payload,
                result=plan.result if result is None else result,
            )
        elif type is not UNSET:
            check_stored(type, f"payload of update {name!r}")
            plan = plan._replace(payload=type)
        if validate is not None:
            if why := refusal(validate):
                raise WorkflowDefinitionError(f"validate of update {name!r}: {why}")
            if is_async_callable(validate):
                raise WorkflowDefinitionError(
                    f"validate of update {name!r} is async: it only looks at what is there, so let it be "
                    "sync, and do what needs waiting in the function of the update"
                )
        try:
            slot = self._run.updates(name)
        except Halted as error:
            self._ended(error)
            return
        except InvalidIdError as error:
            raise InvalidId(str(error)) from None
        self._host.updates.take(slot, name, fn, plan, validate)

    @overload
    def on_query(self, query: Query[R], fn: Callable[..., Awaitable[R]], /) -> None: ...
    @overload
    def on_query(self, query: Query[R], fn: Callable[..., R], /) -> None: ...
    @overload
    def on_query(self, query: str, fn: Callable[..., Any], /) -> None: ...
    def on_query(self, query: Query[Any] | str, fn: Callable[..., Any], /) -> None:
        """Answer the queries of a name: `fn` is called with their arguments, and looks at the handler's data.

        It is called in a copy of the run that is built by replay from what is recorded, in the process of
        whoever asks, also after the run has ended. So what it changes is lost. Nothing is recorded.

        Args:
            query: its name, or a `Query`, which says the type of the answer too.
            fn: sync, or async without anything to wait for. It makes no durable calls.

        Raises:
            InvalidId: the name cannot be used.
            WorkflowDefinitionError: `fn` cannot be called.
            NotADurableContext: called outside of the handler.
        """
        self._check("ctx.on_query")
        name = query.name if isinstance(query, Query) else check_name("query", query)
        if why := refusal(fn):
            raise WorkflowDefinitionError(f"query {name!r}: {why}")
        self._host.queries[name] = fn
