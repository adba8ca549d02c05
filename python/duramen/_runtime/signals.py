"""SIGTERM and SIGINT for a worker: the first ends it in order, the second in haste."""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Caught", "caught_signals"]


class Caught:
    """Which of the two signals came."""

    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.second = asyncio.Event()
        self.name = ""

    def note(self, number: int) -> None:
        """A signal came."""
        if self.first.is_set():
            self.second.set()
        else:
            self.name = signal.Signals(number).name
            self.first.set()


@contextmanager
def caught_signals(loop: asyncio.AbstractEventLoop, *, enabled: bool) -> Generator[Caught]:
    """Catch both signals meanwhile, if this is the main thread; what was set before is put back."""
    caught = Caught()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before: dict[int, Any] = {}
    by_loop = True
    for number in (signal.SIGTERM, signal.SIGINT):
        before[number] = signal.getsignal(number)
        try:
            loop.add_signal_handler(number, caught.note, number)
        except NotImplementedError:  # Windows
            by_loop = False
            signal.signal(number, lambda number, _: loop.call_soon_threadsafe(caught.note, number))
    try:
        yield caught
    finally:
        for number, handler in before.items():
            if by_loop:
                loop.remove_signal_handler(number)
            # None: whoever installed it did so outside of Python, and it cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
