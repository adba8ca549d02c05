"""Warns when something holds a host loop up, and says where: all runs of that loop stand still meanwhile."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from duramen._logging import logger

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Watchdog"]

_log = logger("duramen")
_frames = sys._current_frames  # pyright: ignore[reportPrivateUsage] - documented, name notwithstanding
_HERE = str(Path(__file__).parent)
_STDLIB = str(Path(asyncio.__file__).parent.parent)


class Watchdog:
    """A thread that asks a loop for a sign of life while runs are driven on it.

    It looks at the stack of the loop's thread when no sign came for `limit` seconds, warns once, and tells
    how long it took when it is over. Between runs it sleeps and wakes nobody.

    Args:
        loop: the loop to watch, which runs in the calling thread.
        limit: seconds; 0 watches nothing.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float = 1.0) -> None:
        self._loop = loop
        self._limit = limit
        self._watched = threading.get_ident()
        self._armed = threading.Event()
        self._stopped = threading.Event()
        self._sign = 0.0
        self._thread: threading.Thread | None = None

    def arm(self) -> None:
        """Runs are driven from now on."""
        if self._armed.is_set() or not self._limit:
            return
        self._sign = time.monotonic()
        self._armed.set()
        if self._thread is None:
            thread = threading.Thread(target=self._watch, name="duramen-watchdog", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # there are too many: runs go on without it
                _log.warning("nothing watches the event loop: %s", error)
            else:
                self._thread = thread

    def disarm(self) -> None:
        """Nothing is driven any more."""
        self._armed.clear()

    def stop(self) -> None:
        """End the thread; it is not waited for."""
        self._stopped.set()
        self._armed.set()

    def _signal(self) -> None:
        self._sign = time.monotonic()

    def _watch(self) -> None:
        pause = self._limit / 4
        warned = False
        while True:
            self._armed.wait()
            if self._stopped.is_set():
                return
            try:
                self._loop.call_soon_threadsafe(self._signal)
            except RuntimeError:
                return  # the loop is closed
            asked = self._sign
            if self._stopped.wait(pause):
                return
            if self._sign != asked:
                if warned:
                    warned = False
                    _log.warning("the event loop goes on")
                continue
            late = time.monotonic() - asked
            if late >= self._limit and not warned and self._armed.is_set():
                warned = True
                _log.warning(
                    "the event loop has been blocked for %.1f s by %s: no run of this process can go on; put "
                    "blocking calls into a step that is a plain function (it runs in a thread)",
                    late,
                    describe(_frames().get(self._watched)),
                )


def describe(frame: FrameType | None) -> str:
    """Name the innermost place in the user's own code, and what it called, from the inside out."""
    first = frame
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith((_HERE, _STDLIB, "<frozen")) or "site-packages" in name:
            inner = "" if frame is first or first is None else f" (in {first.f_code.co_qualname})"
            return f"{frame.f_code.co_qualname} at {name}:{frame.f_lineno}{inner}"
        frame = frame.f_back
    return "unknown code" if first is None else f"{first.f_code.co_qualname} at {first.f_code.co_filename}"
