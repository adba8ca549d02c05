"""SIGTERM and SIGINT for a worker: the first ends it in order, the second in haste.

A signal has one owner in a process. A worker that was not told whose they are takes those that nobody has
taken: a web server in whose process it works keeps its own.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

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


_told: dict[int, list[Caught]] = {signal.SIGTERM: [], signal.SIGINT: []}
"""Who is told of each signal that is caught here: the workers of one process end together."""


@contextmanager
def caught_signals(loop: asyncio.AbstractEventLoop, *, enabled: bool | None) -> Generator[Caught]:
    """Catch the signals meanwhile, if this is the main thread; what was set before is put back.

    Args:
        loop: the loop of this thread.
        enabled: catch both, or none; None: those that nobody else handles.
    """
    caught = Caught()
    if enabled is False or threading.current_thread() is not threading.main_thread():
        yield caught
        return
    undo: list[Callable[[], object]] = []
    for number, told in _told.items():
        if not told:
            if enabled is None and _is_handled(number):
                continue
            undo.append(_taken(loop, number))
        told.append(caught)
    try:
        yield caught
    finally:
        for told in _told.values():
            if caught in told:
                told.remove(caught)
        for put_back in undo:
            put_back()


def _is_handled(number: int) -> bool:
    """Whether somebody has taken a signal; `asyncio.run` does not count, which takes SIGINT for everybody."""
    handler: Any = signal.getsignal(number)
    if isinstance(handler, partial):
        handler = getattr(handler.func, "__self__", None)
    return handler not in {signal.SIG_DFL, signal.default_int_handler} and not isinstance(
        handler, asyncio.Runner
    )


def _taken(loop: asyncio.AbstractEventLoop, number: int) -> Callable[[], object]:
    """Take a signal; gives what puts back whoever had it."""
    before = signal.getsignal(number)

    def note() -> None:
        for caught in list(_told[number]):
            caught.note(number)

    try:
        loop.add_signal_handler(number, note)
        by_loop = True
    except NotImplementedError:  # Windows
        by_loop = False
        signal.signal(number, lambda _number, _frame: loop.call_soon_threadsafe(note))

    def put_back() -> None:
        if by_loop:
            loop.remove_signal_handler(number)
        # None: whoever installed it did so outside of Python, and it cannot be put back.
        signal.signal(number, signal.SIG_DFL if before is None else before)

    return put_back
