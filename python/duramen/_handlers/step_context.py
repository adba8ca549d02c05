"""What a step can learn about the attempt it is, and tell of it: `step_context`."""

from __future__ import annotations

from asyncio import CancelledError
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from typing_extensions import override

from duramen._values.checks import check_id
from duramen._values.durations import duration_ms
from duramen.errors import InvalidArgument, NotADurableContext

from .extensions import extend
from .streams import StepStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

__all__ = ["RunningStep", "StepContext", "current_step", "step_context"]

StepT = TypeVar("StepT", bound="StepContext")
R = TypeVar("R")


class RunningStep(Protocol):
    """What a step in flight shows of itself to its attempts."""

    run_id: str
    scope: str
    op: str
    attempt: int
    timeout: float | None
    started: float
    meta: Mapping[str, Any] | None

    def plain(self, progress: Any, /) -> bytes:
        """The payload of a progress, without codecs."""
        ...

    def beat(self, attempt: StepContext, /) -> None:
        """Take note of a sign of life, and of `StepContext.told` if there is any."""
        ...

    def progress(self, told: bytes | None, /) -> Any:
        """What was told, or was recorded last."""
        ...

    def emit(self, attempt: StepContext, name: str, value: Any, /) -> None:
        """Send a live event, on the step's loop or from its thread."""
        ...

    def write(
        self, attempt: StepContext, stream: str, keep: int | None, item: Any, annotation: Any, /
    ) -> Awaitable[None]:
        """Take an item of a stream from an attempt, on the step's loop or from its thread."""
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

    __slots__ = ("_attempt", "_is_over", "_over", "_started", "_step", "_told", "_unread")

    def __init__(self, step: RunningStep) -> None:
        self._step = step
        self._attempt = step.attempt
        self._started = step.started
        self._is_over = False
        self._over: Event | None = None
        """Somebody waits in a thread for the end of the attempt."""
        self._told: bytes | None = None
        self._unread = False

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
        return f"{self._step.scope}/{self._step.op}"

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

    # -- signs of life ---------------------------------------------------------------------------------------

    def heartbeat(self, progress: Any = None) -> None:
        """Say that the attempt gets on, and how far it is.

        It may be called as often as one likes, from the loop or from a thread. The progress is kept with the
        run for the next attempt, also in another process: at once, then at most once a second, and the longer
        the attempt takes, the less often (what a crash loses stays below a sixteenth of its time). With
        ``@step(heartbeat_timeout=…)`` an attempt that falls silent has failed.

        Args:
            progress: how far it is, a value as a step may return; None: a sign of life and no more.

        Raises:
            SerializationError, PayloadTooLarge: the progress cannot be stored.
        """
        if progress is not None:
            self._told = self._step.plain(progress)
        if not self._unread:
            self._unread = True
            self._step.beat(self)

    def read(self) -> bytes | None:
        """What was told last. Not for users."""
        self._unread = False
        return self._told

    @property
    def progress(self) -> Any:
        """What `heartbeat` was told last: by this attempt or, before that, by an earlier one. Else None.

        It is plain JSON, such as a dict for a model.
        """
        told = self._told
        return self._step.progress(told)

    # -- the end ---------------------------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for the attempt any more: for steps in threads, which cannot be stopped.

        The run was cancelled or has gone on without it, its time is over, or this process has lost the run.
        (An async step gets `asyncio.CancelledError` at its await.)
        """
        return self._is_over

    def raise_if_cancelled(self) -> None:
        """Leave the step if nobody waits for the attempt any more.

        Raises:
            asyncio.CancelledError: nobody does. What the step returns or raises is dropped anyway.
        """
        if self._is_over:
            raise CancelledError("nobody waits for this attempt any more")

    def wait_cancelled(self, timeout: timedelta | float) -> bool:
        """Sleep in a thread, at the longest until nobody waits for the attempt any more: gives `cancelled`.

        Args:
            timeout: seconds or `timedelta`.
        """
        milliseconds = duration_ms(timeout, "timeout")
        over = self._over
        if over is None:
            over = self._over = Event()
        # In this order: `end` says it first and looks for who waits then.
        return self._is_over or over.wait(milliseconds / 1000)

    def end(self) -> None:
        """Nobody waits for the attempt any more. Not for users."""
        self._is_over = True
        if self._over is not None:
            self._over.set()

    def emit(self, name: str, value: Any = None) -> None:
        """Send a live event to whoever listens right now, as `Context.emit` does for the handler.

        It is not recorded. An attempt that is over (timed out, say, while its thread runs on) sends no more.

        Raises:
            InvalidId: the name cannot be used.
        """
        self._step.emit(self, check_id("event name", name), value)

    @overload
    def stream(self, name: str, type: type[R], *, keep: int | None = None) -> StepStream[R]: ...
    @overload
    def stream(self, name: str, type: Any = None, *, keep: int | None = None) -> StepStream[Any]: ...
    def stream(self, name: str, type: Any = None, *, keep: int | None = None) -> StepStream[Any]:  # noqa: A002
        """A stream of the run to write to while the step runs, as `Context.stream` is for the handler.

        What an attempt wrote that is repeated stays; `StreamItem.index` tells readers what is void.

        >>> async def answer(question: str) -> str:
        ...     stream = step_context().stream("answer", str)
        ...     parts = []
        ...     async for part in model(question):
        ...         parts.append(part)
        ...         await stream.write(part)
        ...     return "".join(parts)

        Args:
            name: of the stream, in this run.
            type: of its items. Default: any JSON.
            keep: so many items are kept, the last ones. Default: all.

        Raises:
            InvalidId: the name cannot be used.
            InvalidArgument: `keep` is no number of items.
        """
        return StepStream(partial(self._step.write, self), name, type, keep)


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
