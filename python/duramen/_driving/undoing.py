"""Sagas: what a handler has said would undo its work, carried out when it fails or is cancelled."""

from __future__ import annotations

from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from duramen._handlers.callables import is_async_callable
from duramen._handlers.step import StepPlan
from duramen.errors import RunEvicted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from duramen._bridge import Run
    from duramen._handlers.context import Context

__all__ = ["Undo", "Undoing"]


class Undo:
    """A step that undoes something. What its function gives back is dropped: nobody asks for it.

    Args:
        id: the step's.
        plan: how its function is run.
        args: what it is called with.
        options: of the step.
    """

    __slots__ = ("args", "duramen_plan", "id", "options")

    def __init__(self, id: str, plan: StepPlan, args: tuple[Any, ...], options: dict[str, Any]) -> None:  # noqa: A002
        self.id = id
        self.args = args
        self.options = options
        self.duramen_plan = StepPlan(self, _without_result(plan.call), None, plan.retry, plan.timeout)


def _without_result(call: Callable[..., Any]) -> Callable[..., Any]:
    if is_async_callable(call):

        async def undo(*args: Any) -> None:
            await call(*args)

        return undo

    def undo_in_thread(*args: Any) -> Awaitable[None] | None:
        result = call(*args)
        return _ended(result) if isawaitable(result) else None

    return undo_in_thread


async def _ended(awaitable: Awaitable[Any]) -> None:
    await awaitable


class Undoing:
    """The undos of one run, in the order of their registration.

    They are registered anew by each replay, so nothing of that is recorded. While they run, no cancellation
    and no time limit of the run reaches the handler: both are in the journal and change nothing.
    """

    def __init__(self) -> None:
        self._undos: list[Undo] = []
        self.is_active = False
        self.by_time = False
        """They were called for by the end of the run's time, whatever comes in meanwhile."""

    def __len__(self) -> int:
        return len(self._undos)

    def add(self, id: str, plan: StepPlan, args: tuple[Any, ...], options: dict[str, Any]) -> None:  # noqa: A002
        """Register another one; see `Undo`."""
        self._undos.append(Undo(id, plan, args, options))

    def answers(self, error: BaseException) -> bool:
        """Whether the handler has failed or was cancelled, and there is something to undo."""
        # The others say that the coroutine is unwound, or the process is on its way out.
        unwound = issubclass(type(error), GeneratorExit | RunEvicted | KeyboardInterrupt)
        return bool(self._undos) and not unwound

    async def carry_out(self, run: Run, context: Context[Any]) -> None:
        """Run the undos, the last one first. One that fails for good pauses the run, which goes on there."""
        self.is_active = True
        self.by_time = run.timed_out and not run.cancelled
        step: Any = context.step
        while self._undos:
            undo = self._undos.pop()
            await step(undo.id, undo, *undo.args, **undo.options, on_exhausted="pause")
        run.undone()
