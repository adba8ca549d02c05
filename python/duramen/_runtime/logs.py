"""Events of the engine and the stores, as records of `logging`.

They happen on threads of the engine, which never wait for Python: it queues them and writes to a pipe. One
thread of this process reads the pipe and tells them, so a handler that is slow, or takes a lock, or calls a
runtime, holds up nothing but the log. The thread waits in the kernel and costs nothing while nothing
happens; it is a daemon that never waits inside of the extension, so the interpreter may end at any moment.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from typing import TYPE_CHECKING

from duramen._bridge import set_log_levels, take_logs, wake_logs

if TYPE_CHECKING:
    from duramen._bridge import LogEvent

__all__ = ["listen", "tell"]

_LOGGERS = {
    name: logging.getLogger(name)
    for name in ("duramen.engine", "duramen.store", "duramen.store.sqlite", "duramen.store.postgres")
}
_LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
_NOTHING = 100
"""Above all levels of the engine."""

_PATIENCE = 1.0
"""Seconds that the end of the process waits for a handler to take the last records."""

_NAMES = {"run": "duramen_run_id"}
"""Facts of an event whose attribute of a record has another name than ``duramen_`` and theirs."""


class _Listener:
    """The thread that tells what happens, and its pipe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ends: tuple[int, int] | None = None
        self._closing = False

    def listen(self) -> None:
        """Have events told from now on. Cheap if they are already."""
        _look_at_levels()
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is not None or self._closing:
                return
            if self._ends is None:
                self._ends = os.pipe()
                os.set_blocking(self._ends[1], False)
                wake_logs(self._ends[1])
            thread = threading.Thread(target=_run, args=(self._ends[0],), name="duramen-logs", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # no thread is to be had; the next runtime tries it again
            self._thread = thread

    def close(self) -> None:
        """Tell what is there; nothing is told from now on."""
        with self._lock:
            self._closing = True
            thread, ends = self._thread, self._ends
        if thread is not None and ends is not None and thread is not threading.current_thread():
            os.write(ends[1], b"x")
            thread.join(_PATIENCE)
        tell()

    def forked(self) -> None:
        """Forget what belongs to the parent. The child gets its own with its first runtime."""
        ends = self._ends
        self.__init__()
        if ends is not None:
            for end in ends:
                os.close(end)


def _run(end: int) -> None:
    stop = False
    while not stop:
        woken = os.read(end, 4096)
        stop = not woken or b"x" in woken
        tell()


def tell() -> None:
    """Tell what has happened so far."""
    events, lost = take_logs()
    for event in events:
        _tell(event)
    if lost:
        _LOGGERS["duramen.engine"].warning("%d events of the engine were lost: they came too fast", lost)
    if events:
        _look_at_levels()


def _tell(event: LogEvent) -> None:
    logger = _LOGGERS[event.logger]
    if not logger.isEnabledFor(event.level):
        return
    facts = {_NAMES.get(name, f"duramen_{name}"): value for name, value in event.fields}
    try:
        record = logger.makeRecord(
            logger.name, event.level, f"<{logger.name}>", 0, event.message, (), None, None, facts
        )
        record.created = event.at
        record.msecs = int(event.at * 1000) % 1000 + 0.0
        logger.handle(record)
    except BaseException:  # noqa: BLE001, S110 - a filter of the application's; the next event is told all the same
        pass


def _look_at_levels() -> None:
    """Say to the engine what is wanted: it puts nothing else into words."""
    set_log_levels(
        {
            name: next((level for level in _LEVELS if logger.isEnabledFor(level)), _NOTHING)
            for name, logger in _LOGGERS.items()
        }
    )


_listener = _Listener()
listen = _listener.listen
# After `logging` has registered the end of its handlers, so before they end.
atexit.register(_listener.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_listener.forked)
