"""Threads for steps that are plain functions."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StepThreads"]


class StepThreads:
    """Threads that are started when none is free, and kept.

    Unlike those of a `ThreadPoolExecutor` they are not waited for at the interpreter's end: a step that never
    returns, and whose run has gone on elsewhere, would keep the process for ever.

    >>> done: SimpleQueue[str] = SimpleQueue()
    >>> threads = StepThreads("worker")
    >>> threads.submit(lambda: done.put("done"))
    >>> done.get()
    'done'
    >>> threads.close()
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self._free = Semaphore(0)
        """How many threads wait for a call that has not been put into the queue yet."""
        self._count = 0

    def submit(self, call: Callable[[], object]) -> None:
        """Have a call made, which must not raise, in a thread that does nothing else meanwhile.

        Raises:
            RuntimeError: no thread is free and none can be started; the call will not be made.
        """
        if not self._free.acquire(blocking=False):
            thread = Thread(target=self._work, name=f"{self._name}_{self._count}", daemon=True)
            thread.start()
            self._count += 1
        self._calls.put(call)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            del call  # or it would be kept until the next one comes
            self._free.release()

    def close(self) -> None:
        """Let each thread end when its call has returned."""
        for _ in range(self._count):
            self._calls.put(None)
