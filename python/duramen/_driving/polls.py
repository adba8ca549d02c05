"""A poll that a handler waits for: a step that is repeated until its result is what the handler looks for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from .exits import Trouble, note, recorded
from .waits import StepCall

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Mapping

    from duramen._handlers.retry import Retry
    from duramen._handlers.step import StepPlan

    from .host import RunHost

__all__ = ["PollCall"]


class PollCall(StepCall):
    """A poll over all its looks. One that finds nothing is reported as such, and not recorded."""

    __slots__ = ("until",)

    def __init__(
        self,
        host: RunHost,
        slot: int,
        future: Future[Any],
        plan: StepPlan,
        args: tuple[Any, ...],
        retry: Retry | None,
        timeout: float | None,
        meta: Mapping[str, Any] | None,
        until: Callable[[Any], object],
    ) -> None:
        super().__init__(host, slot, future, plan, args, retry, timeout, meta)
        self.until = until

    @override
    def took(self, result: Any) -> None:
        self._report(partial(self._looked, result))

    def _looked(self, result: Any) -> None:
        found: object = None
        try:
            # As the handler would see it: after the round trip.
            data, self.value = recorded(self.host.serializer, result, self.plan.result)
            found = self.entered(self.host.step_context(self)).run(self.until, self.value)
            if not found:
                self.host.step_not_yet(self.slot)
                return
        except (Trouble, KeyboardInterrupt):
            raise
        except BaseException as failure:  # noqa: BLE001 - also what a user's serializer or condition raises
            note(failure, f"what poll {self.op!r} has found cannot be used")
            self._failed(failure, final=True)
        else:
            self.host.step_ok(self.slot, data)

    def time_is_over(self) -> None:
        """It was looked for long enough."""
        self.future.set_exception(
            TimeoutError(f"poll {self.op!r} has not found what it looks for in its time")
        )
