"""What a step can learn about the attempt it is, and tell of it: `step_context`."""

from __future__ import annotations

from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from typing_extensions import override

from duramen._values.checks import check_id
from duramen.errors import InvalidArgument, NotADurableContext

from .extensions import extend

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RunningStep", "StepContext", "current_step", "step_context"]

StepT = TypeVar("StepT", bound="StepContext")


class RunningStep(Protocol):
    """What a step in flight shows of itself to its attempts."""

    run_id: str
    op: str
    attempt: int
    timeout: float | None
    started: float
    meta: Mapping[str, Any] | None

    def emit(self, attempt: StepContext, name: str, value: Any, /) -> None:
        """Send a live event, on the step's loop or from its thread."""
        ...


class StepContext:
    """What a step can know about the attempt it is, made anew for each: see `step_context`.

    A class that extends it has attributes for what `step_middleware` brings, such as a database session::

        class ShopStep(StepContext):
            session: AsyncSession


        async def with_session(step: ShopStep, call_next: Next) -> Any:
            async with sessions() as step.session:
                return await call_next()
    """

    __slots__ = ("_attempt", "_started", "_step")

    def __init__(self, step: RunningStep) -> None:
        self._step = step
        self._attempt = step.attempt
        self._started = step.started

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        extend(cls, StepContext, "step_context()")

    @override
    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.idempotency_key!r}, attempt {self._attempt}>"

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._step.run_id

    @property
    def step_id(self) -> str:
        """The operation's id: the step's id, with ``#2``, ``#3`` … where it was used before in the run."""
        return self._step.op

    @property
    def attempt(self) -> int:
        """From 1 up, over crashes and restarts."""
        return self._attempt

    @property
    def idempotency_key(self) -> str:
        """``{run_id}/{step_id}``, the same over attempts, replays and recoveries: for what you call."""
        return f"{self._step.run_id}/{self._step.op}"

    @property
    def deadline(self) -> datetime | None:
        """When the attempt runs into its timeout (UTC)."""
        if self._step.timeout is None:
            return None
        return datetime.fromtimestamp(self._started, UTC) + timedelta(seconds=self._step.timeout)

    @property
    def meta(self) -> Mapping[str, Any] | None:
        """What `Context.step` was given as `meta`."""
        return self._step.meta

    def emit(self, name: str, value: Any = None) -> None:
        """Send a live event to whoever listens right now, as `Context.emit` does for the handler.

        It is not recorded. An attempt that is over (timed out, say, while its thread runs on) sends no more.

        Raises:
            InvalidId: the name cannot be used.
        """
        self._step.emit(self, check_id("event name", name), value)


current_step: ContextVar[StepContext | None] = ContextVar("duramen_step", default=None)
"""The attempt of a step that runs here."""


@overload
def step_context() -> StepContext: ...
@overload
def step_context(kind: type[StepT], /) -> StepT: ...
def step_context(kind: type[StepContext] = StepContext, /) -> StepContext:
    """What the step that calls this can know about its attempt: its idempotency key above all.

    It works in async steps, in sync steps (in their threads) and in what they call.

    Args:
        kind: the class that the workflow names with ``step_context=``, for its attributes.

    Raises:
        NotADurableContext: the caller is not inside a step.
        InvalidArgument: the context of this step is not of that class.
    """
    found = current_step.get()
    if found is None:
        raise NotADurableContext(
            "step_context() was called outside of a step: call it in a function that runs through ctx.step"
        )
    if not isinstance(found, kind):
        raise InvalidArgument(
            f"the context of step {found.step_id!r} is a {type(found).__name__}: name the class where the "
            f"workflow is declared, @workflow(step_context={kind.__name__}, …)"
        )
    return found
