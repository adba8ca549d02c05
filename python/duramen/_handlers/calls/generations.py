"""Going on with a fresh journal."""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

from duramen._handlers.inputs import NO_INPUT
from duramen.errors import ContinueAsNew, InvalidArgument

from .base import Calls

if TYPE_CHECKING:
    from duramen._handlers.workflow import WorkflowDef

__all__ = ["GenerationCalls"]

InputT = TypeVar("InputT")


class GenerationCalls(Calls):
    """See `Context`."""

    __slots__ = ()

    @overload
    def continue_as_new(self, input: InputT, *, version: WorkflowDef[InputT, Any]) -> NoReturn: ...
    @overload
    def continue_as_new(self, input: Any = ..., *, version: str | None = None) -> NoReturn: ...
    def continue_as_new(
        self,
        input: Any = NO_INPUT,  # noqa: A002
        *,
        version: str | WorkflowDef[Any, Any] | None = None,
    ) -> NoReturn:
        """End the handler here and go on with the same run in its next generation, with a fresh journal.

        For runs that go on for ever: what they cost depends on one generation, not on how many there were.
        The run keeps its id, its tags, its parent, and the messages that it has not read; what its journal
        recorded is gone, and `state` begins anew, so whatever the next generation has to know stands in its
        input. The workflow's timeout is counted anew. `Runtime.result` waits for the last generation.

        It raises `ContinueAsNew` (a `BaseException`), so ``finally`` and ``async with`` do their work, with
        durable calls if need be. An exception on that way fails the run, as it would anywhere. The step is
        taken, atomically, when the handler has ended; operations that it left behind are forgotten. If it is
        called again meanwhile, the last call counts.

        A run that was cancelled, or whose time is over, does not continue: `asyncio.CancelledError` is raised
        instead.

        Args:
            input: the next generation's input. Default: that of the handler's parameter.
            version: the version to go on with, by its name, or as the workflow itself, whose input type the
                type checker then compares. Default: the newest one that the process which drives the run
                knows. Long runs move on to new code here, without `Context.patched`.

        Raises:
            ContinueAsNew: always; leave it alone.
            SerializationError: the input does not fit the input type of that version. Nothing has happened.
            InvalidArgument: that version takes no input, or it is a version of another workflow; or undos are
                registered (`compensate`), which the next generation would not know.
            UnknownWorkflow: there is no such version here.

        Example:
            >>> import asyncio
            >>> from duramen import Context, Runtime, workflow
            >>> @workflow
            ... async def countdown(ctx: Context, left: int) -> str:
            ...     await ctx.step("count", print, left)
            ...     if left:
            ...         ctx.continue_as_new(left - 1)
            ...     return "lift-off"
            >>> async def main() -> str:
            ...     async with Runtime("memory://", workflows=[countdown]) as runtime:
            ...         return await (await runtime.start(countdown, 2)).result()
            >>> asyncio.run(main())
            2
            1
            0
            'lift-off'
        """
        self._check("ctx.continue_as_new")
        run = self._run
        if run.cancelled or run.timed_out:
            raise CancelledError("the run was cancelled" if run.cancelled else "the run's time is over")
        if self._host.undoing:
            raise InvalidArgument(
                "this handler has registered undos with ctx.compensate, and the next generation would know "
                "nothing of them: continue as new when there is nothing to be undone, or put the saga into a "
                "child"
            )
        self._host.wish_for(input, version)
        raise ContinueAsNew(f"run {run.run_id!r} continues as new")
