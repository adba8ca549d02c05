"""What Duramen uses of asyncio and anyio that they do not promise: all such names, in one place.

An event loop is made of hooks that asyncio keeps for loops (which loop runs, which task runs in it), of the
fields of its handles, and of a few names by which the code that calls can be told. Each name is looked up
here, once, for the release at hand; a test fails when one is gone.
"""

from __future__ import annotations

import _thread
import asyncio
import sys
import threading
from asyncio import events, futures, tasks
from concurrent.futures import ThreadPoolExecutor
from functools import cache, wraps
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

__all__ = [
    "ANYIO_CANCELS_AGAIN",
    "AS_COMPLETED",
    "ENSURE_FUTURE",
    "WRAPS_AWAITABLE",
    "WRAP_FUTURE",
    "current_frame",
    "eager_starts",
    "enter_task",
    "forget_quietly",
    "get_running_loop",
    "guard_threads",
    "handle_slot",
    "is_about_to_be_cancelled",
    "leave_task",
    "set_running_loop",
    "unblock",
    "waiter_of",
]

_events = cast("Any", events)
_tasks = cast("Any", tasks)

get_running_loop: Callable[[], asyncio.AbstractEventLoop | None] = _events._get_running_loop
"""The running loop, or None. `asyncio.get_running_loop` raises, which costs as much as a whole call."""

set_running_loop: Callable[[asyncio.AbstractEventLoop | None], None] = _events._set_running_loop
"""Makes a loop the running one of this thread."""

enter_task: Callable[[asyncio.AbstractEventLoop, asyncio.Task[Any]], None] = _tasks._enter_task
leave_task: Callable[[asyncio.AbstractEventLoop, asyncio.Task[Any]], None] = _tasks._leave_task
"""Which task `asyncio.current_task` gives for a loop."""

eager_starts: set[Any] = getattr(tasks, "_eager_tasks", set())
"""Tasks that are in an eager start at this moment (3.12 and later): code that made them is runnable too,
although no queue says so. The set is the interpreter's, so a loop of another thread can make this one look
busy; that costs a suspension and changes nothing else."""


# -- who calls: code objects by which a caller's frame is known

current_frame: Callable[[int], FrameType] = cast("Any", sys)._getframe
"""The frame so many calls up; the caller's own is 0."""


def _as_completed() -> dict[CodeType, str]:
    iterator: Any = getattr(tasks, "_AsCompletedIterator", None)
    if iterator is not None:  # 3.13 and later
        return {iterator.__init__.__code__: "aws"}
    return {asyncio.as_completed.__code__: "fs"}


AS_COMPLETED: dict[CodeType, str] = _as_completed()
"""The code that puts what `asyncio.as_completed` was given into a set, with the name of its argument."""

ENSURE_FUTURE: CodeType = getattr(tasks, "_ensure_future", asyncio.ensure_future).__code__
"""The code that asks a loop for a task on behalf of `asyncio.ensure_future`."""

WRAP_FUTURE: CodeType = futures.wrap_future.__code__
"""The code that asks a loop for the future of `asyncio.wrap_future`; its argument is called ``future``."""

WRAPS_AWAITABLE = "_wrap_awaitable"
"""The name of the coroutine that `asyncio.ensure_future` puts around an awaitable."""

ANYIO_CANCELS_AGAIN = "_deliver_cancellation"
"""The method with which a cancelled scope of anyio cancels its tasks, again and again."""


# -- tasks and futures


def forget_quietly(task: asyncio.Task[Any]) -> None:
    """Let a task that is still pending be collected without asyncio's message."""
    cast("Any", task)._log_destroy_pending = False


def is_about_to_be_cancelled(task: asyncio.Task[Any]) -> bool:
    """Whether a task gets `CancelledError` when it next runs."""
    return cast("Any", task)._must_cancel


def waiter_of(task: asyncio.Task[Any]) -> Any:
    """The future that a task awaits, or None."""
    return getattr(task, "_fut_waiter", None)


def unblock(awaited: Any) -> None:
    """Do what a task does with a future that its coroutine has yielded: it could not be awaited again."""
    if hasattr(awaited, "_asyncio_future_blocking"):
        awaited._asyncio_future_blocking = False


# -- handles


def handle_slot(name: str) -> Any:
    """A field of asyncio's handles, for a class of ours to have under a public name, and as fast."""
    cls = asyncio.TimerHandle if name in {"_when", "_scheduled"} else asyncio.Handle
    return cls.__dict__[name]


# -- threads

_NOT_THE_HANDLERS = ("logging", "logging.handlers", "importlib._bootstrap")
"""Modules in whose name a thread may be started while a handler runs: where records go and what is imported
is no part of what it does."""


def guard_threads(refuse: Callable[[asyncio.AbstractEventLoop, str], object]) -> None:
    """Ask `refuse` before a thread, a process or another loop is given work while a loop is running.

    There is no hook for it, and an audit hook would make each look at a frame ten times as slow. So some
    functions of the standard library are wrapped, once; where `refuse` lets it pass they do what they did.
    Pools of processes are among them because they have threads of their own: a pool that was refused those
    would have left processes behind, for which the interpreter waits at its end.

    Args:
        refuse: called with the loop that runs in the calling thread and a word for what is tried. It raises
            if that loop must not have threads.
    """
    for place, name, what in (
        (threading.Thread, "start", "a thread (threading.Thread or anyio.to_thread)"),
        (_thread, "start_new_thread", "a thread (_thread.start_new_thread)"),
        (ThreadPoolExecutor, "submit", "a thread (ThreadPoolExecutor.submit)"),
        (asyncio, "run_coroutine_threadsafe", "another loop (asyncio.run_coroutine_threadsafe)"),
        *_processes(),
    ):
        function = vars(place)[name]
        if not hasattr(function, "duramen_guard"):
            setattr(place, name, _guarded(function, what, refuse))


@cache
def _processes() -> tuple[tuple[Any, str, str], ...]:
    # Loaded here: `import duramen` need not wait for it.
    try:
        from concurrent.futures.process import ProcessPoolExecutor
        from multiprocessing.pool import Pool
        from multiprocessing.process import BaseProcess
    except ImportError:  # a system without processes
        return ()
    return (
        (BaseProcess, "start", "a process (multiprocessing.Process or a pool of them)"),
        (ProcessPoolExecutor, "submit", "a process (ProcessPoolExecutor.submit)"),
        (Pool, "_check_running", "a process (multiprocessing.Pool)"),  # every use of one begins with it
    )


def _guarded(
    function: Callable[..., Any], what: str, refuse: Callable[[asyncio.AbstractEventLoop, str], object]
) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        loop = get_running_loop()
        if loop is not None and not _is_of_others(current_frame(1)):
            try:
                refuse(loop, what)
            except BaseException:
                if args and iscoroutine(args[0]):
                    args[0].close()  # or "was never awaited" is printed
                raise
        return function(*args, **kwargs)

    cast("Any", guarded).duramen_guard = True
    return guarded


def _is_of_others(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") in _NOT_THE_HANDLERS:
            return True
        frame = frame.f_back
    return False
