"""Who holds the write lock of a SQLite file in a `ctx.transaction`, and that nobody does for too long.

A file has one write lock. While it is held no lease on that file can be renewed, this process's as little
as any other's; whoever has it for longer than a lease lets all the others' runs be taken over. So a
transaction is rolled back before that, from a thread: the event loop may be what holds its function up.
"""

from __future__ import annotations

from threading import Lock, Thread
from time import monotonic, sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from duramen._stores.sqlite_files import SqliteFile

__all__ = ["Hold", "LockWatch"]

_SHARE = 0.4
"""Of a lease: how long a transaction may hold the lock. The watch is late by a tick at the most: half."""
_TICK = 0.1
"""Of a lease: between two looks."""


class Hold:
    """A transaction that holds the lock.

    Args:
        file: the connection.
        aborted: called, in any thread, when it was rolled back from outside.
    """

    def __init__(self, file: SqliteFile, aborted: Callable[[], object]) -> None:
        self.file = file
        self.since = monotonic()
        self.is_aborted = False
        self._aborted = aborted

    def abort(self) -> None:
        """Roll it back."""
        self.is_aborted = True
        self.file.abort()
        self._aborted()


class LockWatch:
    """Looks after the transactions of one runtime."""

    def __init__(self, lease: float) -> None:
        self._limit = lease * _SHARE
        self._tick = lease * _TICK
        self._holds: set[Hold] = set()
        self._lock = Lock()
        self._thread: Thread | None = None

    @property
    def limit(self) -> float:
        """How long a transaction may hold the lock, in seconds."""
        return self._limit + self._tick

    def begin(self, hold: Hold) -> None:
        """A transaction has got the lock."""
        with self._lock:
            self._holds.add(hold)
            if self._thread is None:
                self._thread = Thread(target=self._watch, name="duramen-write-lock", daemon=True)
                self._thread.start()

    def end(self, hold: Hold) -> float:
        """Its COMMIT or ROLLBACK comes now, and no abort after this: for how long it has held the lock."""
        with self._lock:
            self._holds.discard(hold)
        return monotonic() - hold.since

    def abort(self, hold: Hold) -> None:
        """Roll it back now, if it has not ended."""
        with self._lock:
            if hold in self._holds:
                self._holds.discard(hold)
                hold.abort()

    def _watch(self) -> None:
        idle = 0
        while idle < 10:
            sleep(self._tick)
            with self._lock:
                idle = 0 if self._holds else idle + 1
                if idle == 10:
                    self._thread = None  # the next transaction starts another
                for hold in list(self._holds):
                    if monotonic() - hold.since >= self._limit:
                        self._holds.discard(hold)
                        hold.abort()
