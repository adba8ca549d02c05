"""Runs steps on the host's event loop, without a task for each.

Making an `asyncio.Task` costs more than most of what stands around a step. So a few long-lived *runner* tasks
take jobs from a queue and step their coroutines by hand. A step that never suspends is over after one `send`.
One that does suspends its runner with it: the runner passes on what the coroutine yields and what comes back,
so that `asyncio.current_task()`, `asyncio.timeout`, task groups and cancellation behave inside a step as they
do in a task of its own; meanwhile another runner takes the rest of the queue.

Each step runs in a copy of the context it is given, so a context variable set in one step is never seen by
another. Functions that are not async run in threads of a pool.

However a job ends, `done` hears of it, once:

- what the function returned or raised is its outcome, `SystemExit` too: a step that calls ``sys.exit`` (as
  `argparse` does) has failed, and the process goes on;
- a job whose runner was cancelled by anybody but `StepJob.cancel` (the program cancels all its tasks, as
  `asyncio.run` does at its end) has no outcome: `done` gets `NoOutcome`;
- `KeyboardInterrupt` means the process: `done` gets it, then it is raised to whoever runs the loop;
- if `done` itself raises, it hears `NoOutcome` in a second call;
- a thread that cannot be started is tried again later, with the job in its place in the line.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from time import monotonic
from types import CoroutineType
from typing import Any, cast

from typing_extensions import override

from duramen._handlers.callables import is_async_callable
from duramen._logging import logger
from duramen._loop.insides import forget_quietly, is_about_to_be_cancelled
from duramen.errors import RuntimeClosed

from .processes import Processes
from .threads import StepThreads

__all__ = ["NoOutcome", "StepJob", "Stepper"]

_log = logger("duramen")

Done = Callable[[Any, BaseException | None], object]

_NEW, _QUEUED, _RUNNING, _IN_THREAD, _DONE = range(5)

_SLICE_SECONDS = 0.005
"""How long a runner may take jobs that do not suspend before it lets the host's loop do something else."""

_SLICE_CHECK = 8
"""The clock is read once in so many jobs."""

_MAX_IDLE = 32
"""How many runners without work are kept."""

_DOUBT = 0.05
"""Seconds after which a job is asked again that may not start yet, or that found no thread."""

_STALE = 0.005
"""Seconds between the submission of a job and its start after which it is asked whether it still may: the
process may have been stopped in between, for longer than its leases last."""


class NoOutcome(BaseException):
    """What `done` gets of a job that ended without an outcome: it says nothing about what the step did."""


class StepJob:
    """One call of a step function.

    Args:
        fn: the function; async ones run on the host's loop, others in a thread.
        args: its positional arguments (use `functools.partial` for keywords).
        done: called as ``done(result, None)`` or ``done(None, error)``, exactly once, on the host's loop. It
            may run inside of a runner task, so it must not drain another loop; it should take note and
            return. The error may be a `NoOutcome`.
        timeout: seconds, or None. An async step gets what `asyncio.timeout` does and ends with
            `TimeoutError`. For one in a thread `done` gets a `TimeoutError` at the deadline, while the thread
            runs on until the function returns, whose result is dropped: a thread cannot be stopped.
        context_setup: the context to run in; a copy is used. Default: a copy of the one at `Stepper.submit`.
        heartbeat: seconds after which an attempt that shows no sign of life (`Stepper.beat`) is given up, or
            None. An async step is cancelled for it; `silent` tells.
        on_cancel: called when nobody waits for the outcome any more, while the function may go on in its
            thread.
        may_start: asked once more before a job starts that had to wait, for its turn or for a free thread;
            while it says no, the job waits on. Default: always.
    """

    __slots__ = (
        "args",
        "awaitable",
        "beaten",
        "cancel_requested",
        "context_setup",
        "deadline",
        "done",
        "fn",
        "heartbeat",
        "listener",
        "may_start",
        "on_cancel",
        "queued",
        "runner",
        "silent",
        "state",
        "stepper",
        "timeout",
        "timer",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...] = (),
        *,
        done: Done,
        timeout: float | None = None,
        heartbeat: float | None = None,
        context_setup: Context | None = None,
        may_start: Callable[[], bool] | None = None,
        on_cancel: Callable[[], object] | None = None,
    ) -> None:
        self.fn = fn
        self.args = args
        self.done = done
        self.timeout = timeout
        self.heartbeat = heartbeat
        self.context_setup = context_setup
        self.may_start = may_start
        self.on_cancel = on_cancel
        self.cancel_requested = False
        """True once `cancel` was called: tells its `CancelledError` from one the step raised by itself."""
        self.silent = False
        """True once it was given up because it showed no sign of life."""
        # The rest is the stepper's.
        self.beaten = 0.0
        self.listener: asyncio.TimerHandle | None = None
        self.state = _NEW
        self.queued = 0.0
        self.stepper: Stepper | None = None
        self.runner: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.deadline: float | None = None
        self.awaitable: Awaitable[Any] | None = None

    @property
    def finished(self) -> bool:
        """True once the outcome is settled; `done` was called or is about to be."""
        return self.state == _DONE

    def no_timeout(self) -> None:
        """Let the function that runs in a thread take what time it needs from now on."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def give_up(self) -> None:
        """Tell the function that nobody waits for it any more."""
        told, self.on_cancel = self.on_cancel, None
        if told is not None:
            told()

    def no_listener(self) -> None:
        """Wait for no more signs of life."""
        if self.listener is not None:
            self.listener.cancel()
            self.listener = None

    def cancel(self, message: str | None = None) -> bool:
        """Cancel the step, wherever it is. Call it on the host's thread.

        A job that waits for its turn never starts. An async step gets `asyncio.CancelledError` at its await,
        and what it makes of it is its outcome. The result of a function that runs in a thread is dropped.

        Returns:
            False if the job is finished already or was never submitted.
        """
        if self.stepper is None or self.state == _DONE:
            return False
        self.cancel_requested = True
        self.give_up()
        if self.state == _RUNNING and self.runner is not None:
            self.runner.cancel(message)
        else:
            self.stepper.drop(self, asyncio.CancelledError(message) if message else asyncio.CancelledError())
        return True


class _Resumed:
    """The rest of a step that suspended: a trampoline between its coroutine and the runner task.

    What the coroutine yields (the future it waits for) is yielded to the task, and what the task sends or
    throws goes to the coroutine, always inside the step's own context.
    """

    __slots__ = ("context", "coroutine", "yielded")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], context: Context, yielded: Any) -> None:
        self.coroutine = coroutine
        self.context = context
        self.yielded = yielded

    def __await__(self) -> Generator[Any, Any, Any]:
        run = self.context.run
        coroutine = self.coroutine
        yielded = self.yielded
        del self  # holds the future otherwise
        while True:
            resume: Callable[[Any], Any] = coroutine.send
            value: Any = None
            try:
                value = yield yielded
            except GeneratorExit:
                run(coroutine.close)
                raise
            except BaseException as error:  # noqa: BLE001 - all of them belong to the step
                resume, value = coroutine.throw, error
            yielded = None
            try:
                yielded = run(resume, value)
            except StopIteration as stop:
                return stop.value
            except GeneratorExit as error:
                raise _StepsOwn(error) from None
            finally:
                value = None


class _StepsOwn(BaseException):
    """Carries a `GeneratorExit` that a step raised: the runner's own means that its loop is gone."""

    def __init__(self, error: GeneratorExit) -> None:
        self.error = error


class _Runner(asyncio.Task[None]):
    """A runner, which knows whether anybody but the step that runs in it has cancelled it."""

    cancelled_from_outside = False
    has_begun = False

    @override
    def cancel(self, msg: Any | None = None) -> bool:
        if asyncio.current_task(self.get_loop()) is not self:
            self.cancelled_from_outside = True
        return super().cancel(msg)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


class Stepper:
    """Runs step jobs on one host loop. Everything but the threads' work happens on that loop's thread.

    Args:
        loop: the host's loop (asyncio's, uvloop's…).
        max_threads: the most functions that run in threads at once. Default: four more than there are
            processors, 32 at the most.

    >>> async def greet(name: str) -> str:
    ...     return f"hello {name}"
    >>> async def main() -> None:
    ...     stepper = Stepper(asyncio.get_running_loop())
    ...     outcome = asyncio.get_running_loop().create_future()
    ...     stepper.submit(StepJob(greet, ("you",), done=lambda result, error: outcome.set_result(result)))
    ...     print(await outcome)
    ...     await stepper.aclose()
    >>> asyncio.run(main())
    hello you
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, max_threads: int | None = None) -> None:
        self.loop = loop
        self._thread = threading.get_ident()
        self._queue: deque[StepJob] = deque()
        self._idle: list[asyncio.Future[None]] = []
        self._runners: set[_Runner] = set()
        self._awake = 0
        """Runners that will look at the queue: all but the idle ones and those suspended in a step."""
        self._live: set[StepJob] = set()
        """Jobs that are suspended, or in a thread."""
        self._closed = False

        self._max_threads = max_threads or min(32, (os.cpu_count() or 1) + 4)
        self._threads = StepThreads("duramen-step")
        self._threads_busy = 0
        self._thread_queue: deque[StepJob] = deque()
        self._doubted: deque[StepJob] = deque()
        """Jobs for the loop that may not start yet."""
        self._doubting = False
        self.processes = Processes(loop)
        """For the steps that run in one each; started when they are needed."""
        self._returned: deque[tuple[StepJob, Any, BaseException | None]] = deque()
        self._collecting = False
        self._short_of_threads = False
        """The last thread that was wanted could not be started: jobs wait until one can."""

    @property
    def in_flight(self) -> int:
        """Jobs that run or are suspended on the loop, plus busy threads (also those of dropped jobs)."""
        return len(self._runners) - len(self._idle) + self._threads_busy

    def submit(self, job: StepJob) -> None:
        """Queue a job; it starts in a later turn of the host's loop, in the order of submission.

        Raises:
            RuntimeClosed: the stepper was closed.
        """
        if self._closed:
            raise RuntimeClosed("a step was started after the runtime was closed: open a new one")
        job.stepper = self
        if job.context_setup is None:
            job.context_setup = copy_context()
        job.state = _QUEUED
        if is_async_callable(job.fn):
            job.queued = monotonic()
            self._queue.append(job)
            if not self._awake:
                self._wake_runner()
        elif self._threads_busy >= self._max_threads or self._short_of_threads:
            self._thread_queue.append(job)
        elif not self._start_thread(job):
            self._thread_queue.append(job)
            self._doubt()

    def on_loop(self, call: Callable[..., object], /, *args: Any) -> None:
        """Make a call on the host's loop: now if this is its thread, else in the order of such calls.

        What a thread asked for comes before its result. After the loop's end nothing happens.
        """
        if threading.get_ident() == self._thread:
            call(*args)
            return
        try:
            self.loop.call_soon_threadsafe(call, *args)
        except RuntimeError:
            pass  # the host's loop was closed while the thread ran: nobody listens

    def is_here(self) -> bool:
        """Whether the caller stands on the host's loop, and so must not wait in its thread."""
        return threading.get_ident() == self._thread

    async def in_thread(
        self, fn: Callable[..., Any], args: tuple[Any, ...], may_start: Callable[[], bool] | None = None
    ) -> Any:
        """Call a function in a thread, from inside of a job on the loop: what is left of that job waits.

        It takes its place in the line for threads, and sees the context variables of the caller.
        """
        outcome: asyncio.Future[tuple[Any, BaseException | None]] = self.loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if not outcome.done():
                outcome.set_result((result, error))

        job = StepJob(fn, args, done=done, context_setup=copy_context(), may_start=may_start)
        Stepper.submit(self, job)
        try:
            result, error = await outcome
        except asyncio.CancelledError:
            job.cancel()
            raise
        if error is not None:
            raise error
        return result

    # -- runners ---------------------------------------------------------------------------------------------

    def _wake_runner(self) -> None:
        self._awake += 1
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                waiter.set_result(None)
                return
        # Not loop.create_task: an eager task factory would run steps inside of submit(). The context is an
        # empty one, or every step would see what the first submitter had set.
        task = _Runner(self._run(), loop=self.loop, name="duramen-step-runner", context=Context())
        # A loop that is closed with an idle runner on it has lost nothing worth a message.
        forget_quietly(task)
        self._runners.add(task)
        task.add_done_callback(self._runner_ended)

    def _runner_ended(self, task: Any) -> None:
        self._runners.discard(task)
        if not task.has_begun:
            self._awake -= 1  # it was cancelled on its way
        if not task.cancelled():
            task.exception()  # it went to the loop already (KeyboardInterrupt): once is enough
        if self._queue and not self._awake:
            self._wake_runner()

    async def _run(self) -> None:  # noqa: C901 - every call here is paid for by each step
        """The body of a runner. The path of a step that does not suspend is written out for its speed."""
        me = cast("_Runner", asyncio.current_task())
        me.has_begun = True
        queue = self._queue
        cancelling = me.cancelling
        now = self.loop.time
        awake = True
        job: StepJob | None = None
        try:
            while True:
                until = monotonic() + _SLICE_SECONDS
                count = 0
                while queue:
                    job = queue.popleft()
                    if job.state != _QUEUED:
                        continue
                    if (
                        job.may_start is not None
                        and job.awaitable is None
                        and monotonic() - job.queued > _STALE
                        and not job.may_start()
                    ):
                        self._doubted.append(job)
                        self._doubt()
                        continue
                    job.state = _RUNNING
                    job.runner = me
                    context = job.context_setup.copy()  # pyright: ignore[reportOptionalMemberAccess]
                    started = now() if job.timeout is not None else 0.0
                    result = error = None
                    coroutine: Any = None
                    try:
                        if job.awaitable is None:
                            coroutine = context.run(job.fn, *job.args)
                        else:
                            coroutine, job.awaitable = job.awaitable, None
                        if coroutine.__class__ is not CoroutineType:
                            coroutine = _await(coroutine)
                        yielded = context.run(coroutine.send, None)
                    except StopIteration as stop:
                        result = stop.value
                    except BaseException as raised:  # noqa: BLE001 - it is the step's outcome
                        error = raised
                    else:
                        awake = False
                        self._awake -= 1
                        if queue and not self._awake:
                            self._wake_runner()
                        self._live.add(job)
                        if job.heartbeat is not None:
                            self._listen(job)
                        try:
                            result = await self._suspended(job, started, coroutine, context, yielded)
                        except GeneratorExit:
                            raise
                        except _StepsOwn as raised:
                            error = raised.error
                        except BaseException as raised:  # noqa: BLE001
                            error = raised
                        self._live.discard(job)
                        awake = True
                        self._awake += 1
                        yielded = None
                    if error is not None and me.cancelled_from_outside:
                        error = _judged(job, me, error)
                    self._settle(job, result, error)
                    job = None
                    if error is not None and issubclass(type(error), KeyboardInterrupt):
                        raise error
                    del context, coroutine, result, error
                    if cancelling() or is_about_to_be_cancelled(me):
                        # Somebody cancelled the step, or the host cancels all its tasks. A cancellation that
                        # the step did not wait for would hit the next one, and no release before 3.13 can
                        # take it back: so this runner ends here, and another takes the rest of the queue.
                        return
                    me.cancelled_from_outside = False
                    count += 1
                    if not count % _SLICE_CHECK and monotonic() > until:
                        await asyncio.sleep(0)
                        until = monotonic() + _SLICE_SECONDS
                if self._closed or len(self._idle) >= _MAX_IDLE:
                    return
                waiter = self.loop.create_future()
                self._idle.append(waiter)
                awake = False
                self._awake -= 1
                try:
                    await waiter
                finally:
                    # Cancelled by the host at its end, it may have been woken already and then counts as
                    # awake.
                    awake = waiter.done() and not waiter.cancelled()
                    if not awake and waiter in self._idle:
                        self._idle.remove(waiter)
                del waiter
        finally:
            if awake:
                self._awake -= 1
            if job is not None and job.runner is me and job.state == _RUNNING:
                # The coroutine was closed under its step: the loop is gone, or about to be.
                self._live.discard(job)
                self._settle(job, None, NoOutcome("the event loop ended while the step ran"))

    async def _suspended(
        self,
        job: StepJob,
        started: float,
        coroutine: Coroutine[Any, Any, Any],
        context: Context,
        yielded: Any,
    ) -> Any:
        """Await the rest of a step that waits for something, under its timeout."""
        if job.timeout is None:
            return await _Resumed(coroutine, context, yielded)
        deadline = job.deadline  # set already if the first part of the step ran in a thread
        async with asyncio.timeout_at(started + job.timeout if deadline is None else deadline):
            return await _Resumed(coroutine, context, yielded)

    def _done_failed(self, job: StepJob, error: BaseException) -> None:
        self.loop.call_exception_handler(
            {
                "message": f"the done callback of the step {job.fn!r} raised",
                "exception": error,
            }
        )

    # -- threads ---------------------------------------------------------------------------------------------

    def _start_thread(self, job: StepJob) -> bool:
        """Hand a job to a thread. False if there is none and none can be started: the job was left alone."""
        context = job.context_setup.copy()  # pyright: ignore[reportOptionalMemberAccess]
        self._threads_busy += 1
        job.state = _IN_THREAD
        self._live.add(job)
        if job.timeout is not None:
            job.deadline = self.loop.time() + job.timeout
            job.timer = self.loop.call_at(job.deadline, self._thread_late, job)
        if job.heartbeat is not None:
            self._listen(job)
        try:
            self._threads.submit(partial(self._in_thread, job, context))
        except RuntimeError as error:
            self._threads_busy -= 1
            self._live.discard(job)
            job.no_timeout()
            job.no_listener()
            job.deadline = None
            job.state = _QUEUED
            if not self._short_of_threads:
                self._short_of_threads = True
                _log.warning("no thread can be started for a step (%s); it is tried again", error)
            return False
        self._short_of_threads = False
        return True

    def _in_thread(self, job: StepJob, context: Context) -> None:
        result = error = None
        try:
            result = context.run(job.fn, *job.args)
        except BaseException as raised:  # noqa: BLE001 - it is the step's outcome, on the loop's thread
            error = raised
        self._returned.append((job, result, error))
        # One wake-up for all that return before the loop looks. It lowers the flag before it empties the
        # queue, so nothing is ever left behind.
        if not self._collecting:
            self._collecting = True
            try:
                self.loop.call_soon_threadsafe(self._collect)
            except RuntimeError:
                pass  # the host's loop was closed while the thread ran: nobody waits for the result
        del job, result, error

    # -- signs of life ---------------------------------------------------------------------------------------

    def beat(self, job: StepJob) -> None:
        """A job shows a sign of life."""
        job.beaten = self.loop.time()

    def _listen(self, job: StepJob) -> None:
        if job.listener is None:
            job.beaten = self.loop.time()
            job.listener = self.loop.call_later(cast("float", job.heartbeat), self._heard, job)

    def _heard(self, job: StepJob) -> None:
        """Look whether a job was heard of in time."""
        job.listener = None
        if job.state == _DONE:
            return
        due = job.beaten + cast("float", job.heartbeat)
        if self.loop.time() < due:
            job.listener = self.loop.call_at(due, self._heard, job)
        else:
            self.silence(job)

    def silence(self, job: StepJob) -> None:
        """Give up a job that shows no sign of life."""
        if job.state == _DONE:
            return
        job.silent = True
        if job.state == _RUNNING and job.runner is not None:
            job.runner.cancel("no sign of life came from the step")
        else:
            self.drop(job, asyncio.CancelledError())

    def _thread_late(self, job: StepJob) -> None:
        if job.state == _IN_THREAD:
            self.drop(job, TimeoutError())

    def _collect(self) -> None:
        """Take what came back from threads, then give the free threads their next jobs."""
        self._collecting = False
        interrupt: BaseException | None = None
        while self._returned:
            job, result, error = self._returned.popleft()
            self._threads_busy -= 1
            try:
                self._take(job, result, error)
            except BaseException as raised:  # noqa: BLE001 - the others have to be taken
                if issubclass(type(raised), KeyboardInterrupt):
                    interrupt = raised
                if job.state == _IN_THREAD:
                    self._settle(job, None, NoOutcome("what it returned was lost"))
            if issubclass(type(error), KeyboardInterrupt):
                interrupt = error
        self._next_thread()
        if interrupt is not None:
            raise interrupt

    def _take(self, job: StepJob, result: Any, error: BaseException | None) -> None:
        """Take what came back of one job: its outcome, or what has to be awaited for it."""
        self._live.discard(job)
        if job.state == _DONE:  # cancelled or late: nobody waits for it any more
            if type(result) is CoroutineType:
                result.close()
            return
        job.no_timeout()
        if error is None and _is_awaitable(result):
            job.awaitable = result
            job.state = _QUEUED
            self._queue.append(job)
            if not self._awake:
                self._wake_runner()
        else:
            self._settle(job, result, error)

    def _next_thread(self) -> None:
        for _ in range(len(self._thread_queue)):
            if self._threads_busy >= self._max_threads:
                return
            job = self._thread_queue.popleft()
            if job.state != _QUEUED:
                continue
            if job.may_start is not None and not job.may_start():
                self._thread_queue.append(job)
            elif not self._start_thread(job):
                self._thread_queue.appendleft(job)
                break
        if self._thread_queue:
            self._doubt()

    def _doubt(self) -> None:
        if not self._doubting:
            self._doubting = True
            self.loop.call_later(_DOUBT, self._ask_again)

    def _ask_again(self) -> None:
        self._doubting = False
        self._next_thread()
        self._queue += self._doubted
        self._doubted.clear()
        if self._queue and not self._awake:
            self._wake_runner()

    # -- ends ------------------------------------------------------------------------------------------------

    def drop(self, job: StepJob, error: BaseException) -> None:
        """Settle a job that is queued or in a thread with `error`; whatever still comes of it is ignored."""
        job.state = _DONE
        job.no_timeout()
        job.give_up()
        awaitable: Any = job.awaitable
        job.awaitable = None
        if type(awaitable) is CoroutineType:
            awaitable.close()
        if self.loop.is_closed():
            self._settle(job, None, error)
        else:
            self.loop.call_soon(self._settle, job, None, error)

    def _settle(self, job: StepJob, result: Any, error: BaseException | None) -> None:
        job.state = _DONE
        if job.listener is not None:
            job.no_listener()
        try:
            job.done(result, error)
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # noqa: BLE001
            self._done_failed(job, raised)
            if not issubclass(type(error), NoOutcome):
                # Whoever listens has not taken the outcome: that it is lost has to be known.
                self._settle(job, None, NoOutcome("its outcome was lost"))

    def close(self) -> None:
        """Take no more jobs, cancel those that are queued or in flight, let the runners end. Does not wait.

        Calling it again does nothing. Threads that are still busy run out by themselves.
        """
        if self._closed:
            return
        self._closed = True
        for queue in (self._queue, self._thread_queue, self._doubted):
            while queue:
                queue.popleft().cancel("the runtime is closing")
        for job in list(self._live):
            job.cancel("the runtime is closing")
        while self._idle:
            waiter = self._idle.pop()
            if not waiter.done():
                self._awake += 1
                waiter.set_result(None)
        self._threads.close()
        self.processes.close()

    async def aclose(self) -> None:
        """`close`, and wait until the runners have ended, also for a step that swallows its cancellation."""
        self.close()
        me = asyncio.current_task()
        while runners := [task for task in self._runners if task is not me]:
            await asyncio.wait(runners)


def _judged(job: StepJob, runner: _Runner, error: BaseException) -> BaseException:
    """The outcome of a step that raised after its runner had been cancelled from the outside."""
    if (
        job.cancel_requested
        or job.silent
        or not issubclass(type(error), asyncio.CancelledError)
        or not runner.cancelling()
    ):
        # Duramen wanted it so; or the step made something else of it; or a time limit or a task group of the
        # step's own cancelled it, and has taken that back.
        return error
    return NoOutcome("the program cancelled the task in which the step ran")


def _is_awaitable(result: object) -> bool:
    try:
        return inspect.isawaitable(result)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - the type is the user's, and may lie about its class in any way
        return False
