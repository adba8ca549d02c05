"""A thread that is there before the handler runs, which must not start one."""

import queue
import threading
from collections.abc import Callable
from typing import Any, Self


class Elsewhere:
    """Runs functions in a thread of its own, for the time of a ``with`` block."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._work.put(None)
        self._thread.join(20)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()

    def do(self, work: Callable[[], Any]) -> None:
        """Run it there and wait until it has returned."""
        done = threading.Event()

        def there() -> None:
            try:
                work()
            finally:
                done.set()

        self._work.put(there)
        assert done.wait(20)
