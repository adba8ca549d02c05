"""The runtime's end of the engine: tokens and futures, the wake-up of the loop, who may call from where.

The engine completes calls in bulk: it wakes the loop once, and one callback takes everything that has come
in.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from duramen._bridge import Engine, Newer, Reply, StoreFailed, StoreRequest, native_error
from duramen._logging import logger
from duramen._loop.insides import get_running_loop
from duramen._loop.loop import RunLoop
from duramen._stores.second_sqlite import Watch
from duramen._stores.served import StoreServer
from duramen.errors import ForkedProcess, NotDurableError, RuntimeClosed, RuntimeNotOpen

from .logs import listen, tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from duramen._bridge import NativeStore, RunEvent
    from duramen._stores.url import Target

__all__ = ["Port"]

_log = logger("duramen")


class _Process:
    """This process's id, without asking the kernel for each call of a runtime."""

    def __init__(self) -> None:
        self.pid = 0
        self.note()
        if hasattr(os, "register_at_fork"):
            # Python code runs on in a child only if its fork went through here.
            os.register_at_fork(after_in_child=self.note)

    def note(self) -> None:
        self.pid = os.getpid()


_process = _Process()


class Port:
    """One engine, and the loop that it wakes. Made and used on that loop's thread only.

    Args:
        loop: the host's loop.
        target: the store.
        settings: keyword arguments of the engine: owner, lease, hold, warm, options.
        on_events: called with the events that are not replies to calls, in their order. It takes out those
            that it has acted on.
        opened: the store, if it has been opened already.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        target: Target,
        settings: dict[str, Any],
        on_events: Callable[[deque[RunEvent]], None],
        opened: NativeStore | None = None,
    ) -> None:
        self.loop = loop
        self.thread = threading.get_ident()
        self._pid = os.getpid()
        self._on_events = on_events
        # What has been taken from the engine and not been acted on yet.
        self._taken: deque[Any] = deque()
        self._events: deque[RunEvent] = deque()
        self._replies: deque[Reply] = deque()
        self._futures: dict[int, asyncio.Future[Any]] = {}
        self._next_token = 1
        self._closed = False
        self._watch: Watch | None = None
        self._read_fd, self._write_fd = -1, -1
        self._has_reader = False
        wake: Callable[[], None] | None = None
        if self._open_fds():
            try:
                loop.add_reader(self._read_fd, self._on_readable)
                self._has_reader = True
            except NotImplementedError:  # the Proactor loop of Windows watches no file descriptors
                self._close_fds()
        if not self._has_reader:
            wake = self._wake_from_thread
        try:
            self.engine = Engine(
                target.scheme,
                target.location,
                wake_fd=self._write_fd if self._has_reader else None,
                wake=wake,
                store=target.store if opened is None else opened,
                **settings,
            )
        except StoreFailed as error:
            self.release()
            kind, message = error.args
            raise native_error((kind, message)) from None
        except RuntimeError as error:
            self.release()
            if str(error).startswith("forked"):
                raise ForkedProcess(str(error).removeprefix("forked: ")) from None
            raise
        except BaseException:
            self.release()
            raise
        listen()
        self._watch = Watch(target.location) if target.scheme == "sqlite" else None
        self.store = StoreServer(self.engine, target.store) if target.store is not None else None
        """Serves a store written in Python."""

    # -- waking ----------------------------------------------------------------------------------------------

    def _open_fds(self) -> bool:
        if sys.platform == "linux":
            self._read_fd = self._write_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        elif sys.platform == "win32":
            return False
        else:
            self._read_fd, self._write_fd = os.pipe()
            os.set_blocking(self._read_fd, False)
            os.set_blocking(self._write_fd, False)
        return True

    def _close_fds(self) -> None:
        for fd in {self._read_fd, self._write_fd} - {-1}:
            os.close(fd)
        self._read_fd = self._write_fd = -1

    def _wake_from_thread(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self.collect)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be told

    def _on_readable(self) -> None:
        # Before the queue is taken: what comes in meanwhile wakes the loop again.
        try:
            os.read(self._read_fd, 65536)
        except (BlockingIOError, InterruptedError):
            pass
        try:
            self.collect()
        except BaseException:
            # The engine does not wake the loop again for what lies there already.
            if not self._closed:
                self.loop.call_soon(self.collect)
            raise

    def collect(self) -> int:
        """Take what the engine has and pass it on; gives how much that was."""
        if self._closed:
            return 0
        taken, others, replies = self._taken, self._events, self._replies
        taken.extend(self.engine.drain())
        count = len(taken)
        try:
            self._sort()
            # Runs first: whoever waits for a reply then finds the run that it speaks of.
            if others:
                self._on_events(others)
        finally:
            self._reply()
            if (taken or others or replies) and not self._closed:  # something was raised on the way
                self.loop.call_soon(self.collect)
        return count

    def _sort(self) -> None:
        taken, others, replies = self._taken, self._events, self._replies
        while taken:
            event = taken.popleft()
            if type(event) is Reply:
                replies.append(event)
            elif type(event) is StoreRequest:
                assert self.store is not None  # noqa: S101 - only such stores are asked
                self.store.serve(event)
            elif type(event) is Newer:
                _log.warning(
                    "runs of workflows that are registered here need a newer duramen, which wrote to them or "
                    "sent them messages (this one reads format %d): they wait for a worker that has it",
                    event.reads,
                )
            else:
                others.append(event)

    def _reply(self) -> None:
        while self._replies:
            reply = self._replies.popleft()
            future = self._futures.pop(reply.token, None)
            if future is None or future.done():
                continue  # the caller was cancelled meanwhile
            error = reply.error
            if error is None:
                future.set_result(reply.value)
            else:
                future.set_exception(native_error(error))

    # -- calling ---------------------------------------------------------------------------------------------

    def check(self, *, anywhere: bool = False) -> None:
        """Refuse calls from a forked child, another loop, or a handler.

        Args:
            anywhere: it is no call, but a look that any thread may take.

        Raises:
            ForkedProcess: this is a child of the process that opened the runtime.
            NotDurableError: the call comes from a workflow's handler.
            RuntimeNotOpen: it comes from another event loop.
            RuntimeClosed: the runtime was closed.
        """
        if _process.pid != self._pid:
            raise ForkedProcess(
                f"the runtime was opened in process {self._pid}, and this is its child {os.getpid()}: make "
                "a new Runtime after the fork"
            )
        loop = get_running_loop()
        if loop is not self.loop:
            if isinstance(loop, RunLoop):
                raise NotDurableError(
                    "a handler called its runtime, which cannot be recorded: do it in a step (ctx.step)"
                )
            if not anywhere:
                raise RuntimeNotOpen(
                    "the runtime is open on another event loop, which cannot run while this code does: make "
                    "one Runtime for each loop of a thread, or call it from another thread (await it on the "
                    "loop there, or use runtime.sync)"
                )
        if self._closed:
            raise RuntimeClosed("the runtime was closed: open it again with `async with runtime:`")

    def is_elsewhere(self) -> bool:
        """Whether the caller stands on an event loop from which calls can be carried over to this one."""
        loop = get_running_loop()
        return (
            loop is not self.loop
            and loop is not None
            and not isinstance(loop, RunLoop)
            and threading.get_ident() != self.thread
            and _process.pid == self._pid
        )

    def call(self, method: Callable[..., None], *args: Any) -> asyncio.Future[Any]:
        """Start a call of the engine; the future has its outcome.

        Raises:
            DuramenError: see `check`.
        """
        return self.call_with_token(method, *args)[1]

    def call_with_token(self, method: Callable[..., None], *args: Any) -> tuple[int, asyncio.Future[Any]]:
        """The same, with the token by which the engine knows the call.

        Raises:
            DuramenError: see `check`.
        """
        self.check()
        token = self._next_token
        self._next_token = token + 1
        future = self._futures[token] = self.loop.create_future()
        try:
            method(token, *args)
        except BaseException:
            del self._futures[token]
            raise
        return token, future

    def forget(self, token: int) -> None:
        """Nobody waits for the reply to that call any more."""
        future = self._futures.pop(token, None)
        if future is not None:
            future.cancel()

    # -- ends ------------------------------------------------------------------------------------------------

    async def close(self, timeout: float) -> None:
        """Close the engine and let go of the loop, after `timeout` seconds at the latest."""
        if self._closed:
            return
        try:
            closing = self.call(self.engine.close)
            done, _ = await asyncio.wait([closing], timeout=timeout)
            if not done:
                _log.warning("the store was not closed within %g s; it is left to itself", timeout)
                closing.cancel()
            elif (error := closing.exception()) is not None:
                _log.warning("the store did not close cleanly: %s", error)
        finally:
            self.release()
            tell()

    def release(self) -> None:
        """Let go of the loop at once; whatever was asked is not answered any more."""
        self._closed = True
        if self._watch is not None:
            self._watch.end()
        if self._has_reader:
            self._has_reader = False
            if not self.loop.is_closed():
                self.loop.remove_reader(self._read_fd)
        self._close_fds()
        for future in self._futures.values():
            if not future.done():
                future.set_exception(RuntimeClosed("the runtime was closed before the call was answered"))
                future.exception()  # nobody has to fetch it
        self._futures.clear()
