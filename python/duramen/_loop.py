"""The event loop of one run: deterministic, without I/O, drained by a driver.

A handler and the tasks it makes run on a `RunLoop`. The loop has no clock, no selector and no thread of its
own. It has a queue of ready callbacks and timers that belong to somebody else: its driver opens a durable
timer for each, delivers outcomes one at a time in the journal's order, and drains the loop between two of
them. What the handler does is then a function of the order of delivery alone.

Three things of asyncio would spoil that and are dealt with here:

- Sets of tasks. `TaskGroup`, `asyncio.wait` and anyio keep tasks in sets and cancel or return them in the
  order of iteration, which for ordinary tasks is the order of their addresses. Tasks and futures of this loop
  hash by the order of their creation.
- The garbage collector. Ordinary loops hold tasks and async generators weakly and close them when they are
  collected. This loop holds them strongly until they are done or the run is over.
- The clock. `time()` is the time of the last delivered entry, and it moves only between two deliveries.
"""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from _thread import get_ident
from asyncio import tasks as _asyncio_tasks
from asyncio.events import _get_running_loop, _set_running_loop  # pyright: ignore[reportPrivateUsage]
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from itertools import repeat
from typing import Any, NoReturn, Protocol, TypeVar, cast

from ._loop_compat import close_gathered_coroutines, ordered_as_completed
from ._loop_refusals import RefusingLoop, refuse
from .errors import NotDurableError, RunEvicted

__all__ = ["RunFuture", "RunLoop", "RunTask", "RunTimer", "TimerHost"]

T = TypeVar("T")
ExceptionContext = dict[str, Any]
ExceptionHandler = Callable[[asyncio.AbstractEventLoop, ExceptionContext], object]

_log = logging.getLogger("duramen.loop")

# Tasks that are in an eager start at this moment (3.12 and later): code that made them is runnable too,
# although no queue says so. The set is the interpreter's, so a loop of another thread can make it look busy;
# that costs a suspension and changes nothing else.
_eager_starts: set[Any] = getattr(_asyncio_tasks, "_eager_tasks", set())

_NEVER_SECONDS = 100 * 365.25 * 86400
"""A timer further away than this never fires: `sleep(math.inf)` and its kind are ways to say "for ever"."""

_CLOSING_ROUNDS = 100
"""How often a coroutine that awaits again and again while it is closed is asked to end."""


class RunTask(asyncio.Task[T]):
    """A task whose place in sets is its number in the run, so that iterating over a set of tasks is deterministic."""

    __slots__ = ("_order", "run_context")

    _order: int
    run_context: Context
    """The context that the task runs in (`Task.get_context` came with 3.12)."""

    def __hash__(self) -> int:
        return self._order


class RunFuture(asyncio.Future[T]):
    """A future whose place in sets is its number in the run. See `RunTask`."""

    __slots__ = ("_order",)

    _order: int

    def __hash__(self) -> int:
        # Numbered when first asked, for a future is seldom put in a set; whoever asks is deterministic
        # itself.
        try:
            return self._order
        except AttributeError:
            self._order = order = cast(RunLoop, self.get_loop()).next_order()
            return order


class RunHandle(asyncio.Handle):
    """An `asyncio.Handle` that is cheaper to make: no source traceback, whatever the debug flag says."""

    __slots__ = ()

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


class RunTimer(asyncio.TimerHandle):
    """A timer of a handler. The driver makes a durable timer for it and gives it to `RunLoop.fire` when that is due."""

    __slots__ = ("op",)

    op: Any
    """For the driver's use: the operation that stands for this timer. The loop never touches it."""

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: RunLoop,
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
        self._scheduled = False  # as in asyncio: true while the driver keeps a timer for it
        self.op = None

    @property
    def when_ms(self) -> int:
        """The deadline in UTC milliseconds since the epoch, rounded up, so that the timer never fires early."""
        return _ceil_ms(self._when)


class TimerHost(Protocol):
    """What a `RunLoop` asks of its driver."""

    def open_timer(self, handle: RunTimer) -> None:
        """Make a durable timer for `handle.when()`. Called in the order in which the handler asks."""
        ...

    def close_timer(self, handle: RunTimer) -> None:
        """Forget a timer that was cancelled before it fired."""
        ...


def _ceil_ms(seconds: float) -> int:
    # A float of seconds has a step of 0.2 µs in our century, so a deadline that was computed as a sum may
    # miss its millisecond by as much. Within a microsecond it is taken for that millisecond; `fire` evens out
    # the difference.
    return math.ceil(seconds * 1000 - 0.001)


class RunLoop(RefusingLoop):
    """The deterministic event loop of one run.

    Args:
        timers: who keeps the timers; usually the driver.
        now: seconds since the epoch, UTC, at the start.
        strict: if true, a callback that arrives while the loop is not being drained, and not through
        `deliver`, is
            refused: it comes from a step that wakes the handler past the journal (for instance by setting an
            `asyncio.Event` that the handler passed to it).

    The driver sets `now`, hands over one outcome with `deliver` (or resolves a future and calls `drain`), and
    repeats.

    >>> class NoTimers:
    ...     def open_timer(self, handle: RunTimer) -> None: ...
    ...     def close_timer(self, handle: RunTimer) -> None: ...
    >>> async def handler() -> int:
    ...     return sum(await asyncio.gather(*(asyncio.sleep(0, n) for n in range(4))))
    >>> loop = RunLoop(NoTimers(), now=1_700_000_000.0)
    >>> main = loop.create_task(handler())
    >>> loop.drain()
    True
    >>> main.result()
    6
    """

    slow_callback_duration: float = 0.1
    """Part of asyncio's surface; a driver that warns of slow handlers reads it. Seconds."""

    # Class-level defaults keep the making of a loop cheap: hundreds of thousands are made and dropped in a
    # second.
    _running = False
    _closed = False
    _delivering = False
    _debug = False
    _orders = 0
    _prune_at = 64
    _task_factory: Any = None
    _exception_handler: ExceptionHandler | None = None

    evicted = False
    """True once `abandon` was called: no durable call may go through any more."""

    def __init__(self, timers: TimerHost, *, now: float = 0.0, strict: bool = False) -> None:
        self.now = now
        """Time of the last delivered entry: seconds since the epoch, UTC, to the millisecond. Set by the driver."""
        self.strict = strict
        self.errors: list[ExceptionContext] = []
        """What reached the exception handler, as asyncio's context dictionaries, in order."""
        self._timers = timers
        self._thread = get_ident()
        self._ready: deque[asyncio.Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []
        self._asyncgens: list[AsyncGenerator[Any, Any]] = []
        self.premade: dict[int, tuple[object, asyncio.Task[Any]]] = {}
        """For `_loop_compat`: tasks made ahead of `asyncio.as_completed` asking for them."""

    def __repr__(self) -> str:
        state = (
            "evicted"
            if self.evicted
            else "closed"
            if self._closed
            else "running"
            if self._running
            else "idle"
        )
        return f"<RunLoop {state} ready={len(self._ready)} tasks={len(self._tasks)}>"

    # -- driving ---------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """True when nothing but the code that asks could run: nothing is ready, and no eager start is under
        way.

        While a task is being started eagerly the code that made it is waiting to go on, so it counts as
        runnable.
        """
        return not self._ready and not _eager_starts

    def drain(self, limit: int = sys.maxsize) -> bool:
        """Run what is ready until nothing is.

        Call it from a plain callback of a host loop or with no loop running at all, never inside a task: from
        CPython 3.14 on a task cannot run within another.

        Args:
            limit: the most callbacks to run, so that a handler that spins cannot hold the host for ever.

        Returns:
            True if nothing is ready any more, False if the limit was reached first.

        Raises:
            SystemExit, KeyboardInterrupt: as raised in a callback, after the host's loop was put back.
        """
        ready = self._ready
        if not ready:
            return True
        if self._running:
            raise RuntimeError("this run's loop is being drained already")
        if get_ident() != self._thread:
            self._wrong_thread("drain")
        pop = ready.popleft
        host = _get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        self._running = True
        sys.set_asyncgen_hooks(self._asyncgen_started, self._asyncgen_collected)
        _set_running_loop(self)
        try:
            for _ in repeat(None, limit):
                if not ready:
                    return True
                handle = pop()
                if handle._cancelled:
                    continue
                try:
                    handle._context.run(handle._callback, *handle._args)  # pyright:
                    ignore[reportArgumentType]
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._callback_failed(handle, error)
            return not ready
        finally:
            _set_running_loop(host)
            sys.set_asyncgen_hooks(*hooks)
            self._running = False

    def deliver(self, callback: Callable[..., object], *args: Any) -> bool:
        """Call `callback(*args)`, which may resolve futures or cancel tasks of this loop, and drain it.

        Returns:
            what `drain` returns.
        """
        self._delivering = True
        try:
            callback(*args)
        finally:
            self._delivering = False
        return self.drain()

    def fire(self, handle: RunTimer) -> None:
        """Put a timer that is due into the queue. One that was cancelled or has fired already is ignored."""
        if handle._scheduled and not handle._cancelled:
            handle._scheduled = False
            if self.now < handle._when:
                self.now = (
                    handle._when
                )  # see _ceil_ms: code that compares time() with its deadline must find it passed
            self._ready.append(handle)

    def leaked_tasks(self, main: asyncio.Task[Any] | None = None) -> list[asyncio.Task[Any]]:
        """Tasks that are not done, in order of creation, except for `main`."""
        return [task for task in self._tasks if task is not main and not task.done()]

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Refuse all further work. Nothing is cancelled; tasks that are still alive are simply never run again."""
        if self._running:
            raise RuntimeError("a run's loop cannot be closed while it is being drained")
        self._closed = True
        self._silence()
        self._ready.clear()
        self._tasks.clear()
        self._asyncgens.clear()

    def abandon(self) -> None:
        """Drop the run from memory: close the coroutines of all tasks and let nothing they still do get
        through.

        From here on `create_task`, `create_future` and every timer raise `RunEvicted`, a `BaseException`, so
        `finally` blocks unwind without reaching the store. What they only schedule (`Event.set`,
        `Task.cancel`) is dropped. The newest task is closed first. Calling it again does nothing.
        """
        if self._running:
            raise RuntimeError("a run's loop cannot be abandoned while it is being drained")
        if self.evicted:
            return
        self.evicted = True
        if not self._closed:
            host = _get_running_loop()
            hooks = sys.get_asyncgen_hooks()
            sys.set_asyncgen_hooks(None, None)
            _set_running_loop(self)
            try:
                for task in reversed(self._tasks):
                    if not task.done():
                        self._close_task(task)
                for generator in self._asyncgens:
                    _close_asyncgen(generator)
            finally:
                _set_running_loop(host)
                sys.set_asyncgen_hooks(*hooks)
        self.close()

    def _close_task(self, task: asyncio.Task[Any]) -> None:
        coroutine = task.get_coro()
        if coroutine is None:  # eagerly finished
            return
        context = task.run_context if isinstance(task, RunTask) else copy_context()
        # The task stands as the current one while its coroutine unwinds: cancel scopes and timeouts ask who
        # leaves them.
        _asyncio_tasks._enter_task(self, task)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        try:
            context.run(_close_coroutine, coroutine)
        finally:
            _asyncio_tasks._leave_task(self, task)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
        waiter = cast("asyncio.Future[Any] | None", task._fut_waiter)  # pyright: ignore
        if waiter is not None and not isinstance(waiter, asyncio.Task):
            # Cuts the circle task -> future -> callback -> task, so that memory is given back without the
            # collector.
            waiter.cancel()

    def _silence(self) -> None:
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]

    # -- callbacks -------------------------------------------------------------------------------------------

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = RunHandle(callback, args, self, context)
        if get_ident() != self._thread:
            self._wrong_thread("loop.call_soon")
        if not self._running and (self._closed or self.evicted or self.strict and not self._delivering):
            self._not_now(handle)
        else:
            self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if self.evicted:
            _raise_evicted("a timer")
        if get_ident() != self._thread:
            self._wrong_thread("loop.call_at")
        if self._closed:
            self._raise_closed()
        if when != when:
            raise ValueError("the time of a timer cannot be NaN")
        timer = RunTimer(when, callback, args, self, context)
        if when <= self.now:
            self._ready.append(timer)
        elif when - self.now < _NEVER_SECONDS:
            timer._scheduled = True
            self._timers.open_timer(timer)
        return timer

    def _timer_handle_cancelled(self, handle: RunTimer) -> None:
        if handle._scheduled:
            handle._scheduled = False
            if not self.evicted and not self._closed:
                self._timers.close_timer(handle)

    def time(self) -> float:
        return self.now

    # -- futures and tasks -----------------------------------------------------------------------------------

    def create_future(self) -> asyncio.Future[Any]:
        if self.evicted:
            _raise_evicted("a future")
        return RunFuture(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        if self.evicted or self._closed or get_ident() != self._thread:
            self._refuse_task(coro)
        tasks = self._tasks
        if len(tasks) >= self._prune_at:
            tasks[:] = [task for task in tasks if not task.done()]
            self._prune_at = max(64, 2 * len(tasks))
        if self._task_factory is not None:
            return self._make_task(coro, name, context, kwargs)
        if (
            sys._getframe(1).f_code is _ENSURE_FUTURE
            and (premade := ordered_as_completed(self, coro)) is not None
        ):
            return premade
        return self.new_task(coro, name, context, **kwargs)

    def new_task(
        self, coro: Any, name: object = None, context: Context | None = None, **kwargs: Any
    ) -> asyncio.Task[Any]:
        """Make a task, whatever the task factory is."""
        self._orders = order = self._orders + 1
        if context is None:
            context = copy_context()
        task: RunTask[Any] = RunTask.__new__(RunTask)
        task._order = order
        task.run_context = context
        # asyncio numbers unnamed tasks over the whole process; a name that a handler can read must not depend
        # on that.
        task.__init__(
            coro, loop=self, name=f"Task-{order}" if name is None else str(name), context=context, **kwargs
        )
        self._tasks.append(task)
        return task

    def _make_task(
        self, coro: Any, name: str | None, context: Context | None, kwargs: dict[str, Any]
    ) -> asyncio.Task[Any]:
        if context is not None:
            kwargs["context"] = context
        task = self._task_factory(self, coro, **kwargs)
        if name is not None and (set_name := getattr(task, "set_name", None)) is not None:
            set_name(name)
        self._tasks.append(task)
        return task

    def next_order(self) -> int:
        """The next number in the run's order of tasks and futures."""
        self._orders = order = self._orders + 1
        return order

    def set_task_factory(self, factory: Any) -> None:
        if factory is not None and not callable(factory):
            raise TypeError("a task factory must be callable or None")
        self._task_factory = factory

    def get_task_factory(self) -> Any:
        return self._task_factory

    # -- errors ----------------------------------------------------------------------------------------------

    def _callback_failed(self, handle: asyncio.Handle, error: BaseException) -> None:
        self.call_exception_handler(
            {"message": f"Exception in callback {handle._callback!r}", "exception": error, "handle": handle}
        )

    def set_exception_handler(self, handler: ExceptionHandler | None) -> None:
        if handler is not None and not callable(handler):
            raise TypeError("an exception handler must be callable or None")
        self._exception_handler = handler

    def get_exception_handler(self) -> ExceptionHandler | None:
        return self._exception_handler

    def default_exception_handler(self, context: ExceptionContext) -> None:
        """Log the error of a callback, or of a task whose exception nobody looked at."""
        error = context.get("exception")
        info = (type(error), error, error.__traceback__) if error is not None else None
        _log.error("%s (in a workflow handler)", context.get("message", "unhandled exception"), exc_info=info)

    def call_exception_handler(self, context: ExceptionContext) -> None:
        if self._closed or self.evicted:
            return  # asyncio reports from __del__, and what a dropped run leaves behind is nobody's error
        self.errors.append(context)
        if self._exception_handler is None:
            self.default_exception_handler(context)
            return
        try:
            self._exception_handler(self, context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.default_exception_handler(
                {"message": "Unhandled error in exception handler", "exception": error, "context": context}
            )

    # -- async generators ------------------------------------------------------------------------------------

    def _asyncgen_started(self, generator: AsyncGenerator[Any, Any]) -> None:
        generators = self._asyncgens
        if len(generators) >= 64 and len(generators) & (len(generators) - 1) == 0:
            # At 64, 128, 256…: forget those that ended by themselves.
            generators[:] = [each for each in generators if each.ag_frame is not None]
        generators.append(generator)

    def _asyncgen_collected(self, generator: AsyncGenerator[Any, Any]) -> None:
        """Called by the collector for a generator that never ended; the loop holds each one, so only after the end."""

    async def shutdown_asyncgens(self) -> None:
        """Close the async generators that were left in the middle, the oldest first. Await it after the handler."""
        generators, self._asyncgens = self._asyncgens, []
        for generator in generators:
            if generator.ag_frame is None:
                continue
            try:
                await generator.aclose()
            except Exception as error:
                self.call_exception_handler(
                    {
                        "message": f"an error occurred while closing the async generator {generator!r}",
                        "exception": error,
                        "asyncgen": generator,
                    }
                )

    # -- the rest of the surface -----------------------------------------------------------------------------

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to do: a run's loop has no threads."""

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def get_debug(self) -> bool:
        return self._debug

    def set_debug(self, enabled: bool) -> None:
        self._debug = bool(enabled)

    # -- refusals --------------------------------------------------------------------------------------------

    def _wrong_thread(self, call: str) -> NoReturn:
        refuse(
            f"{call} of another thread",
            "a handler and everything it waits for live on one thread; do the threaded work in a step and await that",
        )

    def _raise_closed(self) -> NoReturn:
        raise NotDurableError(
            "the run has ended and its event loop is closed: await background tasks in the handler"
        )

    def _not_now(self, handle: asyncio.Handle) -> None:
        """Deal with a callback that arrives when the loop cannot take it."""
        handle.cancel()
        if self.evicted:
            return
        if self._closed:
            self._raise_closed()
        raise NotDurableError(
            "something outside of a workflow handler woke it (for instance a step that set an Event or a Future of the "
            "handler): replay could not repeat that; return the value from the step, or send a signal"
        )

    def _refuse_task(self, coro: Any) -> NoReturn:
        if self.evicted:
            close_gathered_coroutines()
        close = getattr(coro, "close", None)
        if close is not None:
            close()  # so that no "was never awaited" is printed
        if get_ident() != self._thread:
            self._wrong_thread("create_task")
        if self.evicted:
            _raise_evicted("a task")
        self._raise_closed()


def _raise_evicted(what: str) -> NoReturn:
    raise RunEvicted(
        f"the run was dropped from memory and {what} was asked for while its coroutines were closed"
    )


def _close_coroutine(coroutine: Any) -> None:
    """Close a coroutine, also one whose `finally` blocks await: each such await ends in another `GeneratorExit`."""
    for _ in repeat(None, _CLOSING_ROUNDS):
        try:
            coroutine.close()
            return
        except RuntimeError as error:
            # "coroutine ignored GeneratorExit": it awaited something in a clean-up block. Anything else has
            # ended it.
            if _has_ended(coroutine):
                _log.debug("a handler raised while it was dropped from memory", exc_info=error)
                return
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            if not isinstance(error, RunEvicted | asyncio.CancelledError):
                _log.debug("a handler raised while it was dropped from memory", exc_info=error)
            return
    _log.warning(
        "a handler swallows GeneratorExit in a loop and cannot be dropped from memory: %r", coroutine
    )
    _immortal.append(coroutine)


_immortal: list[Any] = []
"""Coroutines that cannot be closed. Kept, for the interpreter would print an error for each when it frees them."""


def _has_ended(coroutine: Any) -> bool:
    return getattr(coroutine, "cr_frame", None) is None and getattr(coroutine, "gi_frame", None) is None


def _close_asyncgen(generator: AsyncGenerator[Any, Any]) -> None:
    if generator.ag_frame is None or generator.ag_running:
        return
    for _ in repeat(None, _CLOSING_ROUNDS):
        closing = generator.aclose()
        try:
            closing.send(None)
        except BaseException as error:  # StopIteration: closed
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise
        if generator.ag_frame is None:
            return
        _close_coroutine(closing)


_ENSURE_FUTURE = getattr(_asyncio_tasks, "_ensure_future", asyncio.ensure_future).__code__
