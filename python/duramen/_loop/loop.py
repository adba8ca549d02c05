"""The event loop of one run: deterministic, without I/O, drained by a driver.

A handler and the tasks it makes run on a `RunLoop`. The loop has no clock, no selector and no thread of its
own. It has a queue of ready callbacks, and timers that belong to somebody else: its driver opens a durable
timer for each, delivers outcomes one at a time in the journal's order, and drains the loop between two of
them. What the handler does is then a function of the order of delivery alone.

Three things of asyncio would spoil that and are dealt with here:

- Sets of tasks. `TaskGroup`, `asyncio.wait` and anyio keep tasks in sets and cancel or return them in the
  order of iteration, which for ordinary tasks is the order of their addresses. Tasks and futures of this loop
  hash by the order of their creation. (`compat` does the same for `asyncio.as_completed`.)
- The garbage collector. Ordinary loops hold tasks and async generators weakly and close them when they are
  collected. This loop holds them strongly until they are done or the run is over.
- The clock. `time()` is the time of the last delivered entry, and it moves only between two deliveries.
"""

from __future__ import annotations

import asyncio
import sys
from _thread import get_ident
from collections import deque
from contextvars import copy_context
from itertools import count, repeat
from types import MethodType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from typing_extensions import override

from duramen._logging import logger
from duramen.errors import NotDurableError, RunEvicted

from .compat import close_passed_coroutines, ordered_as_completed
from .insides import (
    ANYIO_CANCELS_AGAIN,
    ENSURE_FUTURE,
    WRAP_FUTURE,
    current_frame,
    eager_starts,
    enter_task,
    forget_quietly,
    get_running_loop,
    guard_threads,
    leave_task,
    set_running_loop,
    waiter_of,
)
from .parts import (
    DEAD_HANDLE,
    RunFuture,
    RunHandle,
    RunTask,
    RunTimer,
    TimerHost,
    asyncgen_ended,
    close_asyncgen,
    close_coroutine,
    order_cancellations,
)
from .refusals import refuse
from .surface import SurfaceLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context

__all__ = ["RunFuture", "RunLoop", "RunTask", "RunTimer", "TimerHost", "keep_threads_out"]

T = TypeVar("T")

# A task's hash is its number in the run, with another salt for each loop far above it. Sets of one run's
# tasks look at the low bits, so their order is the same in every process, while dictionaries that hold the
# tasks of all runs (anyio has one) can still tell them apart.
_salts = count(1)

_log = logger("duramen.loop")

_NEVER_SECONDS = 100 * 365.25 * 86400
"""A timer further away than this never fires: `sleep(math.inf)` and its kind are ways to say "for ever"."""


_POLL_ROUNDS = 100
"""How often anyio may cancel the tasks of a scope between two deliveries."""

_UNWINDINGS = 100
"""How often `RunEvicted` is raised in code that asks for things on its way out, before that is given up."""


class RunLoop(SurfaceLoop):
    """The deterministic event loop of one run.

    Args:
        timers: who keeps the timers; usually the driver.
        now: seconds since the epoch, UTC, at the start.
        strict: if true, a callback that arrives while the loop is not being drained, and not through
            `deliver`, is refused: it comes from a step that wakes the handler past the journal (for instance
            by setting an `asyncio.Event` that the handler passed to it). `create_task` before the first drain
            is exempt.
        run_id: whose it is, for what is logged.

    The driver sets `now`, hands over one outcome with `deliver` (or resolves a future and calls `drain`), and
    repeats. Futures that never leave the driver's hands are cheapest made as ``asyncio.Future(loop=loop)``.

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

    # Class-level defaults keep the making of a loop cheap: hundreds of thousands are made and dropped in a
    # second.
    _running = False
    _begun = False
    delivering = False
    """The driver is at work: it may resolve futures and cancel tasks."""
    _orders = 0
    _prune_at = 64
    _task_factory: Any = None
    _cancellations: list[tuple[int, int, int]] | None = None  # see order_cancellations

    evicted = False
    """True once `abandon` was called: no durable call may go through any more."""

    def __init__(
        self, timers: TimerHost, *, now: float = 0.0, strict: bool = False, run_id: str = ""
    ) -> None:
        self.errors = []
        self.run_id = run_id
        self.now = now
        """Time of the last delivered entry, set by the driver: seconds since the epoch (UTC)."""
        self.strict = strict
        self.timers = timers
        self._salt = (next(_salts) & 0x7FFF) << 48
        self._thread = get_ident()
        self.ready: deque[RunHandle | RunTimer] = deque()
        self.parked: list[RunHandle | RunTimer] = []
        self._polls: dict[int, int] = {}
        self._unwound = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self.asyncgens: list[Any] = []
        self.premade: dict[int, tuple[object, asyncio.Task[Any]]] = {}
        """For `compat`: tasks made ahead of `asyncio.as_completed` asking for them."""

    @override
    def __repr__(self) -> str:
        state = (
            "evicted" if self.evicted else "closed" if self._over else "running" if self._running else "idle"
        )
        return f"<RunLoop {state} ready={len(self.ready)} tasks={len(self._tasks)}>"

    # -- driving ---------------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """True when nothing but the code that asks could run: nothing is ready, no eager start is under way.

        While a task is being started eagerly the code that made it is waiting to go on, so it counts as
        runnable. So does a cancelled scope of anyio that will cancel its tasks again at the next delivery.
        """
        return not self.ready and not eager_starts and not self.parked

    def drain(self, limit: int = sys.maxsize) -> bool:
        """Run what is ready until nothing is.

        Call it from a plain callback of a host loop, or with no loop running at all, never inside a task:
        from CPython 3.14 on a task cannot run within another.

        Args:
            limit: the most callbacks to run, so that a handler that spins cannot hold the host for ever.

        Returns:
            True if nothing is ready any more, False if the limit was reached first.

        Raises:
            SystemExit, KeyboardInterrupt: as raised in a callback, after the host's loop was put back.
        """
        ready = self.ready
        if not ready:
            return True
        if self._running:
            raise RuntimeError("this run's loop is being drained already")
        if get_ident() != self._thread:
            self._wrong_thread("drain")
        if self._polls:
            self._polls.clear()
            ready.extend(self.parked)
            self.parked.clear()
        pop = ready.popleft
        host = get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        self._running = self._begun = True
        sys.set_asyncgen_hooks(self._asyncgen_started, _asyncgen_collected)
        set_running_loop(self)
        try:
            for _ in repeat(None, limit):
                if not ready:
                    return True
                handle = pop()
                if handle.is_cancelled:
                    continue
                try:
                    handle.context.run(handle.callback, *handle.args)
                except (SystemExit, KeyboardInterrupt):
                    self._cancellations = None
                    raise
                except BaseException as error:  # noqa: BLE001 - as every event loop does
                    self._callback_failed(handle, error)
                if self._cancellations:
                    order_cancellations(ready, self._cancellations)
            return not ready
        finally:
            set_running_loop(host)
            sys.set_asyncgen_hooks(*hooks)
            self._running = False

    def ready_count(self) -> int:
        """How many callbacks are ready."""
        return len(self.ready)

    def note_cancellation(self, order: int, first: int) -> None:
        """Take note that the ready callbacks from number `first` on came of cancelling that task."""
        if not self._cancellations:
            self._cancellations = []
        self._cancellations.append((order, first, len(self.ready)))

    def deliver(self, callback: Callable[..., object], *args: Any) -> bool:
        """Call `callback(*args)`, which may resolve futures or cancel tasks of this loop, and drain it.

        Returns:
            what `drain` returns.
        """
        self.delivering = True
        try:
            callback(*args)
        finally:
            self.delivering = False
        return self.drain()

    def fire(self, handle: RunTimer) -> None:
        """Put a timer that is due into the queue. One that was cancelled or has fired already is ignored."""
        if handle.is_open and not handle.is_cancelled:
            handle.is_open = False
            # See RunTimer.when_ms: code that compares time() with its deadline must find it passed.
            self.now = max(self.now, handle.deadline)
            self.ready.append(handle)

    def leaked_tasks(self, main: asyncio.Task[Any] | None = None) -> list[asyncio.Task[Any]]:
        """Tasks that are not done, in order of creation, except for `main`."""
        return [task for task in self._tasks if task is not main and not task.done()]

    # -- the end ---------------------------------------------------------------------------------------------

    @override
    def close(self) -> None:
        """Refuse all further work. Nothing is cancelled; tasks that are still alive never run again.

        Raises:
            RuntimeError: the loop is being drained.
        """
        if self._running:
            raise RuntimeError("a run's loop cannot be closed while it is being drained")
        self._over = True
        for task in self._tasks:
            if not task.done():
                forget_quietly(task)
        self._forget()

    def _forget(self) -> None:
        # Emptied, not only dropped: what a coroutine still holds on to may hold this loop.
        self.ready.clear()
        self.parked.clear()
        self._tasks.clear()
        if self.asyncgens or self.premade:
            self.asyncgens.clear()
            self.premade.clear()

    def abandon(self) -> None:
        """Drop the run from memory: end all its coroutines and let nothing they still do get through.

        Each task that is not done gets `RunEvicted` (a `BaseException`) at its await, the newest first, and
        from here on `create_task`, `create_future` and every timer raise it too, so that `finally` blocks
        unwind without reaching the store. What they merely schedule (`Event.set`, `Task.cancel`) is dropped.
        Calling it again does nothing.

        Raises:
            RuntimeError: the loop is being drained.
            KeyboardInterrupt: as raised in a `finally` block, after all are ended. (`SystemExit` and whatever
                else they raise has nobody to go to.)
        """
        if self._running:
            raise RuntimeError("a run's loop cannot be abandoned while it is being drained")
        if self.evicted:
            return
        self.evicted = self._over = True
        interrupt: KeyboardInterrupt | None = None
        if self._tasks or self.asyncgens:
            host = get_running_loop()
            hooks = sys.get_asyncgen_hooks()
            sys.set_asyncgen_hooks(None, None)
            set_running_loop(self)
            try:
                for close, thing in [
                    *((self._close_task, task) for task in reversed(self._tasks) if not task.done()),
                    *((close_asyncgen, generator) for generator in self.asyncgens),
                ]:
                    try:
                        close(thing)
                    except KeyboardInterrupt as error:
                        interrupt = error
            finally:
                set_running_loop(host)
                sys.set_asyncgen_hooks(*hooks)
        self._forget()
        if interrupt is not None:
            raise interrupt

    def _close_task(self, task: asyncio.Task[Any]) -> None:
        coroutine: Any = task.get_coro()
        ended = True
        if coroutine is not None:
            context = task.run_context if isinstance(task, RunTask) else copy_context()
            # The task counts as the current one while it unwinds: cancel scopes and timeouts ask who leaves
            # them.
            enter_task(self, task)
            try:
                ended = context.run(close_coroutine, coroutine)
                if not ended:
                    _log.warning(
                        "the handler of run %r swallows RunEvicted in a loop and cannot be dropped from "
                        "memory; let BaseException pass, or `except Exception`: %r",
                        self.run_id,
                        coroutine,
                    )
            finally:
                leave_task(self, task)
        forget_quietly(task)
        waiter = waiter_of(task)
        if ended and waiter is not None and not isinstance(waiter, asyncio.Task):
            # Cuts the circle task -> future -> callback -> task, so that memory comes back without the
            # collector. (A coroutine that did not end must not find the future it awaits again done.)
            waiter.cancel()

    # -- callbacks -------------------------------------------------------------------------------------------

    @override
    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if get_ident() != self._thread:
            self._wrong_thread("loop.call_soon")
        if not self._running and (self._over or (self.strict and self._begun and not self.delivering)):
            return self._not_now()
        handle = RunHandle(callback, args, self, context)
        if type(callback) is MethodType and self._polls_too_often(callback):
            self.parked.append(handle)
        else:
            self.ready.append(handle)
        return handle

    def _polls_too_often(self, callback: Any) -> bool:
        """Count the rounds in which a cancelled scope of anyio cancels its tasks again.

        It does so in each turn of the loop until they have left it. In an ordinary loop that keeps the
        processor busy while a task cleans up; here the outcome that the task waits for could never come, for
        it is delivered only when nothing is ready. So after some rounds the next one waits for the next
        delivery.
        """
        if callback.__name__ != ANYIO_CANCELS_AGAIN:
            return False
        scope = id(callback.__self__)
        self._polls[scope] = rounds = self._polls.get(scope, 0) + 1
        return rounds > _POLL_ROUNDS

    @override
    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    @override
    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    @override
    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if self._over:
            self._raise_over("a timer")
        if get_ident() != self._thread:
            self._wrong_thread("loop.call_at")
        timer = RunTimer(when, callback, args, self, context)
        if self.evicted:
            return timer  # which never fires
        if when <= self.now:
            self.ready.append(timer)
        elif when - self.now < _NEVER_SECONDS:
            timer.is_open = True
            self.timers.open_timer(timer)
        elif when != when:  # noqa: PLR0124 - NaN
            raise ValueError("the time of a timer cannot be NaN")
        return timer

    def _timer_handle_cancelled(self, handle: RunTimer) -> None:
        if handle.is_open:
            handle.is_open = False
            if not self._over:
                self.timers.close_timer(handle)

    @override
    def time(self) -> float:
        return self.now

    # -- futures and tasks -----------------------------------------------------------------------------------

    @override
    def create_future(self) -> asyncio.Future[Any]:
        if self._over:
            self._raise_over("a future")
        if current_frame(1).f_code is WRAP_FUTURE:
            self._refuse_foreign_work(current_frame(1).f_locals["future"])
        return RunFuture(loop=self)

    @override
    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[T]:
        if self._over or get_ident() != self._thread:
            return self._refuse_task(coro)
        tasks = self._tasks
        if len(tasks) >= self._prune_at:
            tasks[:] = [task for task in tasks if not task.done()]
            self._prune_at = max(64, 2 * len(tasks))
        if self._task_factory is not None:
            return self._make_task(coro, name, context, kwargs)
        if (
            current_frame(1).f_code is ENSURE_FUTURE
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
        task: RunTask[Any] = RunTask.__new__(RunTask)  # pyright: ignore[reportUnknownVariableType]
        task.run_context = context
        # asyncio's set of all tasks takes the hash of the moment of __init__. In that set the tasks of one
        # number of all runs would collide, so it is shown another; but not if the task runs, and gets into
        # sets, before its end.
        task.order = self._salt | order if "eager_start" in kwargs else id(task) >> 4
        # asyncio numbers unnamed tasks over the whole process; a name that a handler can read must not depend
        # on it.
        task.__init__(
            coro, loop=self, name=f"Task-{order}" if name is None else str(name), context=context, **kwargs
        )
        task.order = self._salt | order
        self._tasks.append(task)
        return task

    def _make_task(
        self, coro: Any, name: str | None, context: Context | None, kwargs: dict[str, Any]
    ) -> asyncio.Task[Any]:
        # As asyncio does it in the release at hand: the name is set afterwards up to 3.12, and passed since.
        if context is not None:
            kwargs["context"] = context
        if sys.version_info >= (3, 13) and name is not None:
            kwargs["name"] = name
        task = self._task_factory(self, coro, **kwargs)
        if sys.version_info < (3, 13) and name is not None:
            task.set_name(name)
        if not task.done() and task not in self._tasks[-1:]:
            self._tasks.append(task)
        return task

    def next_order(self) -> int:
        """The next place in the run's order of tasks and futures: what they hash by."""
        self._orders = order = self._orders + 1
        return self._salt | order

    @override
    def set_task_factory(self, factory: Any) -> None:
        if factory is not None and not callable(factory):
            raise TypeError("a task factory must be callable or None")
        if sys.version_info >= (3, 12) and factory is asyncio.eager_task_factory:
            # The same with tasks of ours: those it makes would hash by their addresses, and anyio takes the
            # constructor out of such a factory to make tasks that the loop never hears of.
            factory = asyncio.create_eager_task_factory(self._construct_task)
        self._task_factory = factory

    def _construct_task(self, coro: Any, *, name: object = None, **kwargs: Any) -> asyncio.Task[Any]:
        """What an eager task factory has for `asyncio.Task`."""
        kwargs.pop("loop", None)
        return self.new_task(coro, name, **kwargs)

    @override
    def get_task_factory(self) -> Any:
        return self._task_factory

    # -- async generators ------------------------------------------------------------------------------------

    def _asyncgen_started(self, generator: Any) -> None:
        generators = self.asyncgens
        if len(generators) >= 64 and len(generators) & (len(generators) - 1) == 0:
            # At 64, 128, 256…: forget those that ended by themselves.
            generators[:] = [each for each in generators if not asyncgen_ended(each)]
        generators.append(generator)

    @override
    async def shutdown_asyncgens(self) -> None:
        """Close the async generators that were left in the middle, the oldest first.

        Await it after the handler, on this loop: their `finally` blocks may then still make durable calls.
        """
        generators, self.asyncgens = self.asyncgens, []
        for generator in generators:
            if asyncgen_ended(generator):
                continue
            try:
                await generator.aclose()
            except Exception as error:  # noqa: BLE001
                self.call_exception_handler(
                    {
                        "message": f"an error occurred while closing the async generator {generator!r}",
                        "exception": error,
                        "asyncgen": generator,
                    }
                )

    # -- the rest of the surface -----------------------------------------------------------------------------

    @override
    def is_running(self) -> bool:
        return self._running

    @override
    def is_closed(self) -> bool:
        return self._over

    # -- refusals --------------------------------------------------------------------------------------------

    def _refuse_foreign_work(self, future: Any) -> NoReturn:
        # Before its effect where that has not begun: what `run_coroutine_threadsafe` gave to the program's
        # loop cannot have, for that loop stands still while the handler runs.
        future.cancel()
        refuse(
            "work of another thread or loop (asyncio.run_coroutine_threadsafe, asyncio.wrap_future)",
            "put the call and the wait for it in a step",
        )

    def _wrong_thread(self, call: str) -> NoReturn:
        close_passed_coroutines()
        refuse(
            f"{call} from another thread",
            "a handler and all it waits for live on one thread; do threaded work in a step and await that",
        )

    def _raise_over(self, what: str) -> None:
        """Refuse what code asks for after the end. Returns only as `unwind` does."""
        if self.evicted:
            if self._unwound < _UNWINDINGS:
                close_passed_coroutines()  # else they are awaited all the same
            self.unwind(f"the run was dropped from memory while its code asked for {what}")
            return
        raise NotDurableError(
            f"the run had ended when its code asked for {what}: await background tasks in time"
        )

    def unwind(self, why: str) -> None:
        """Raise `RunEvicted` in the code of a run that is on its way out, unless it has swallowed too many.

        Code that swallows each one and asks again would never return. So in the end it gets what it asks for,
        but dead: a future that is never done, a timer that never fires. There it comes to rest.
        """
        self._unwound += 1
        if self._unwound <= _UNWINDINGS:
            raise RunEvicted(why)

    def _not_now(self) -> asyncio.Handle:
        """Deal with a callback that arrives when the loop cannot take it."""
        if self.evicted:
            return DEAD_HANDLE
        if self._over:
            self._raise_over("a callback")
        raise NotDurableError(
            "something outside of a workflow handler woke it (a step that set its Event, or another run that "
            "shares an asyncio.Lock, Semaphore, Event or Queue with it), which replay could not repeat: "
            "return the value from the step, or send a signal; make such objects inside of the handler"
        )

    def _refuse_task(self, coro: Any) -> Any:
        close = getattr(coro, "close", None)
        if close is not None:
            close()  # or "was never awaited" is printed
        if get_ident() != self._thread:
            self._wrong_thread("create_task")
        self._raise_over("a task")
        return RunFuture[Any](loop=self)


def _asyncgen_collected(generator: Any) -> None:
    """Called by the collector for a generator that never ended: the loop held it, so its run is over."""


def keep_threads_out() -> None:
    """From now on a handler that starts a thread, or gives one work, gets `NotDurableError` instead."""
    guard_threads(_refuse_thread)


def _refuse_thread(loop: asyncio.AbstractEventLoop, what: str) -> None:
    if isinstance(loop, RunLoop):
        refuse(what)
