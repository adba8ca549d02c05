"""Calls from other threads, carried over to the event loop on which a runtime is open.

A loop that has ended, or stands still for good, answers nobody: whoever waits for it looks from time to time
whether it still runs, and gets an error that says so instead of waiting for ever.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from typing import TYPE_CHECKING, Any, TypeVar

from duramen.errors import RuntimeClosed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

__all__ = ["carried", "carried_items", "carried_sync", "check_interpreter"]

T = TypeVar("T")

_LOOK = 0.5
"""Seconds between two looks whether the loop still runs."""


def _begun(
    loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]]
) -> concurrent.futures.Future[T]:
    """Make a call on a loop of another thread. To cancel the future cancels the call."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def begin() -> None:
        if future.cancelled():
            return
        task = loop.create_task(make())
        task.add_done_callback(end)
        future.add_done_callback(lambda _: _cancel_soon(loop, task))

    def end(task: asyncio.Task[T]) -> None:
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            future.cancel()
        if not future.set_running_or_notify_cancel():
            return
        if error is None:
            future.set_result(task.result())
        else:
            future.set_exception(error)

    try:
        # What is made in the loop alone cannot be left behind, never awaited, if that ends before.
        loop.call_soon_threadsafe(begin)
    except RuntimeError:
        raise _gone() from None
    return future


def _cancel_soon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    if not task.done():
        try:
            loop.call_soon_threadsafe(task.cancel)
        except RuntimeError:
            pass  # the loop is closed: nothing of it goes on


def _gone() -> RuntimeClosed:
    return RuntimeClosed(
        "the event loop on which the runtime was opened has ended without closing it, or stands still: close "
        "the runtime (runtime.sync.close() if the first call opened it) and open it again; what its runs had "
        "recorded is safe"
    )


def check_interpreter() -> None:
    """Refuse what needs another thread once the interpreter ends, as in `__del__`: none of them runs then.

    Raises:
        RuntimeClosed: it does.
    """
    if sys.is_finalizing():
        raise RuntimeClosed("the interpreter is ending: make the last calls before (atexit still can)")


def carried_sync(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Make a call on another thread's loop and block until it has been answered.

    Raises:
        RuntimeClosed: that loop does not run (any more).
    """
    future = _begun(loop, make)
    try:
        while not concurrent.futures.wait([future], timeout=_LOOK).done:
            check_interpreter()
            if not loop.is_running():
                raise _gone()
        return future.result()
    finally:
        # Ctrl-C, or whatever else ended the wait: the call must not go on without anybody.
        future.cancel()


async def carried(loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Make a call on another thread's loop and wait for its answer on one's own.

    Raises:
        RuntimeClosed: that loop does not run (any more).
    """
    future = _begun(loop, make)
    answer = asyncio.wrap_future(future)
    try:
        while not (await asyncio.wait([answer], timeout=_LOOK))[0]:
            if not loop.is_running():
                raise _gone()
        return answer.result()
    finally:
        answer.cancel()


async def carried_items(loop: asyncio.AbstractEventLoop, items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Iterate over what is made on another thread's loop."""

    async def following() -> tuple[T] | None:
        try:
            return (await anext(items),)
        except StopAsyncIteration:
            return None

    try:
        while (item := await carried(loop, following)) is not None:
            yield item[0]
    finally:
        await carried(loop, items.aclose)
