"""The pieces of a `RunLoop`: tasks, futures, handles, timers, and what closes coroutines that must end."""

from __future__ import annotations

import asyncio
import math
from contextvars import Context, copy_context
from itertools import repeat
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from typing_extensions import override

from duramen._logging import logger
from duramen.errors import RunEvicted

from .insides import ANYIO_CANCELS_AGAIN, current_frame, handle_slot, unblock

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

T = TypeVar("T")

_log = logger("duramen.loop")

_CLOSING_ROUNDS = 100
"""How often a coroutine that awaits again and again while it is ended is asked to."""


class RunTask(asyncio.Task[T]):
    """A task whose place in sets is its number in the run: iterating over a set of tasks is deterministic."""

    __slots__ = ("order", "run_context")

    order: int
    """What it hashes by: its number in the run, and above that the loop's salt."""
    run_context: Context
    """The context that the task runs in (`Task.get_context` came with 3.12)."""

    @override
    def __hash__(self) -> int:
        return self.order

    @override
    def cancel(self, msg: Any | None = None) -> bool:
        if current_frame(1).f_code.co_name != ANYIO_CANCELS_AGAIN:
            return super().cancel(msg)
        # anyio cancels the tasks of a scope through the scopes below it, which it keeps in a set: in the
        # order of their addresses. The loop is told which callbacks came of each, and puts them into the
        # order of the tasks.
        loop = cast("Any", self.get_loop())
        before = loop.ready_count()
        cancelled = super().cancel(msg)
        loop.note_cancellation(self.order, before)
        return cancelled


class RunFuture(asyncio.Future[T]):
    """A future whose place in sets is its number in the run. See `RunTask`."""

    __slots__ = ("_order",)

    _order: int

    @override
    def __hash__(self) -> int:
        # Numbered when first asked, for a future is seldom put in a set; whoever asks is deterministic
        # itself.
        try:
            return self._order
        except AttributeError:
            self._order = order = cast("Any", self.get_loop()).next_order()
            return order


class RunHandle(asyncio.Handle):
    """An `asyncio.Handle` that is cheaper to make: no source traceback, whatever the debug flag says."""

    __slots__ = ()

    # asyncio's own fields, for the loop to read.
    callback: Any = handle_slot("_callback")
    args: Any = handle_slot("_args")
    context: Any = handle_slot("_context")
    is_cancelled: Any = handle_slot("_cancelled")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None = None,
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


def _nothing() -> None:
    """Stands in the handle of a callback that was dropped."""


DEAD_HANDLE = RunHandle(_nothing, (), cast("Any", None), Context())
"""The handle of every callback that a run in its end still schedules: cancelled from the start."""
DEAD_HANDLE.is_cancelled = True


class RunTimer(asyncio.TimerHandle):
    """A timer of a handler.

    The driver makes a durable timer for it, and gives it to `RunLoop.fire` when that is due.
    """

    __slots__ = ("op",)

    callback: Any = handle_slot("_callback")
    args: Any = handle_slot("_args")
    context: Any = handle_slot("_context")
    is_cancelled: Any = handle_slot("_cancelled")
    is_open: Any = handle_slot("_scheduled")
    """As in asyncio: true while the driver keeps a timer for it."""
    deadline: Any = handle_slot("_when")

    op: Any
    """For the driver's use: the operation that stands for this timer. The loop never touches it."""

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: asyncio.AbstractEventLoop,
        context: Context | None = None,
    ) -> None:
        self._callback = callback
        self._args = args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._when = when
        self._scheduled = False
        self.op = None

    @property
    def when_ms(self) -> int:
        """The deadline in UTC milliseconds since the epoch, rounded up: a timer never fires early."""
        # A float of seconds has a step of 0.2 µs in our century, and a deadline computed as a sum may miss
        # its millisecond by as much. Within a microsecond it is taken for that one; `RunLoop.fire` evens it
        # out.
        return math.ceil(self._when * 1000 - 0.001)

    # Handles compare by their time and hash by it in asyncio. Two timers of one instant are still two timers
    # here.

    @override
    def __hash__(self) -> int:
        return id(self)

    @override
    def __eq__(self, other: object) -> bool:
        return self is other


class TimerHost(Protocol):
    """What a `RunLoop` asks of its driver."""

    def open_timer(self, handle: RunTimer, /) -> None:
        """Make a durable timer for `handle.when()`. Called in the order in which the handler asks."""
        ...

    def close_timer(self, handle: RunTimer, /) -> None:
        """Forget a timer that was cancelled before it fired."""
        ...


def order_cancellations(
    ready: deque[RunHandle | RunTimer], cancellations: list[tuple[int, int, int]]
) -> None:
    """Put ready callbacks that came of cancelling tasks into the order of the tasks.

    Args:
        ready: the queue.
        cancellations: for each cancellation the task's order, and where its callbacks begin and end in the
        queue.
            Emptied.
    """
    if len(cancellations) > 1:
        places = [place for _, first, end in cancellations for place in range(first, end)]
        handles = [ready[place] for _, first, end in sorted(cancellations) for place in range(first, end)]
        for place, handle in zip(places, handles, strict=True):
            ready[place] = handle
    cancellations.clear()


def close_coroutine(coroutine: Any) -> bool:
    """End a coroutine with `RunEvicted`, also one that awaits in `finally`: each such await gets another.

    Not with `close`: up to 3.12 that does not reach into an async generator that is being iterated over.

    Returns:
        False if it swallowed them all. It is then never freed: that would run its code once more.
    """
    for _ in repeat(None, _CLOSING_ROUNDS):
        try:
            awaited = coroutine.throw(RunEvicted("the run was dropped from memory"))
        except KeyboardInterrupt:
            raise
        except (RunEvicted, StopIteration, asyncio.CancelledError):
            return True
        except BaseException as error:  # noqa: BLE001 - a dropped run has nobody to report to
            try:
                _log.debug("a handler raised while it was dropped from memory", exc_info=error)
            except Exception:  # noqa: BLE001, S110 - what it raised cannot be shown
                pass
            return True
        unblock(awaited)
    make_immortal(coroutine)
    return False


def make_immortal(thing: object) -> None:
    """Keep an object for ever, also from the interpreter's own end.

    A list would not do: the interpreter clears the modules as it ends, and throws `GeneratorExit` into each
    coroutine that it frees. One that swallows everything would then loop for ever, with nobody to see why.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def close_asyncgen(generator: Any) -> None:
    """Close an async generator without a loop."""
    for _ in repeat(None, _CLOSING_ROUNDS):
        if asyncgen_ended(generator) or generator.ag_running:
            return
        closing = generator.aclose()
        try:
            closing.send(None)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001, S110 - StopIteration is the normal end
            pass
        close_coroutine(closing)


def asyncgen_ended(generator: Any) -> bool:
    """Tell whether nothing of an async generator is left to run."""
    return generator.ag_frame is None
