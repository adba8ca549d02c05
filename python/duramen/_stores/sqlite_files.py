"""A connection of the extension to a SQLite file: what `duramen.sqlite` and `ctx.transaction` are made of."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from duramen._bridge import SqlFailed, SqliteConnection, StoreFailed, native_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from duramen._bridge import Change

__all__ = ["SqliteFile", "is_locked"]

_PAUSES = (0.0005, 0.001, 0.002, 0.004, 0.008)
"""Seconds between two looks whether the write lock is free, on an event loop."""

_BUSY = 5
"""SQLite's code for a lock that another connection holds."""

Value = None | int | float | str | bytes


_LASTS = re.compile(r"\b(pragma|temp|temporary|attach)\b", re.IGNORECASE)
"""What statements say whose effect may outlast a transaction, and even its rollback."""


class SqliteFile:
    """A connection, with the exceptions of `sqlite3`. It may be used from any thread, by one at a time.

    A *managed* transaction can be ended by none but whoever began it as such: SQLite refuses COMMIT,
    ROLLBACK and BEGIN as statements.
    """

    def __init__(self, native: SqliteConnection, path: str, busy_timeout: float) -> None:
        self._native: SqliteConnection | None = native
        self._thread: ThreadPoolExecutor | None = None
        self.path = path
        self.busy_timeout = busy_timeout
        """In seconds."""
        self.is_changed = False
        """It may have settings or temporary tables by now that the next user would not expect."""

    @classmethod
    def open(cls, path: str, synchronous: str, busy_timeout: float) -> SqliteFile:
        """Open a file that exists.

        Raises:
            StoreUnavailable: it is not there, or cannot be opened.
        """
        try:
            native = SqliteConnection(path, synchronous, round(busy_timeout * 1000))
        except StoreFailed as error:
            raise native_error(error.args) from None
        return cls(native, path, busy_timeout)

    @property
    def native(self) -> SqliteConnection:
        """The extension's connection.

        Raises:
            sqlite3.ProgrammingError: it was given back.
        """
        if self._native is None:
            raise sqlite3.ProgrammingError("the connection belongs to a ctx.transaction that is over")
        return self._native

    def lend(self) -> SqliteFile:
        """The same connection for somebody who may use it until he is made to `give_back`."""
        return SqliteFile(self.native, self.path, self.busy_timeout)

    def give_back(self) -> None:
        """From now on it is refused to whoever still has this object."""
        self._native = None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._native is not None and self._native.in_transaction

    @property
    def closed(self) -> bool:
        """Whether it cannot be used any more."""
        return self._native is None or self._native.closed

    def execute(
        self, sql: str, values: Sequence[Value] | Mapping[str, Value]
    ) -> tuple[list[str], list[tuple[Any, ...]], int, int]:
        """Execute a statement: its columns and rows, how many rows it changed, the last row id."""
        self._note(sql)
        try:
            return self.native.execute(sql, values)
        except SqlFailed as error:
            raise _exception(error) from None

    def execute_script(self, sql: str) -> None:
        """Execute many statements without values."""
        self._note(sql)
        try:
            self.native.execute_script(sql)
        except SqlFailed as error:
            raise _exception(error) from None

    def _note(self, sql: str) -> None:
        self.is_changed = self.is_changed or _LASTS.search(sql) is not None

    def apply(self, change: Change) -> tuple[Any, ...] | None:
        """Carry a change of the store's out in the open transaction; None: refused."""
        try:
            return self.native.apply(change)
        except StoreFailed as error:
            raise native_error(error.args) from None

    def begin(self, *, wait: bool = True, managed: bool = False) -> bool:
        """Begin a transaction that can write. False, without waiting: another has the write lock."""
        try:
            return self.native.begin(wait, managed)
        except SqlFailed as error:
            raise _exception(error) from None

    async def begin_on_loop(self, *, managed: bool = False) -> None:
        """Begin, and wait for the lock without holding up the event loop.

        Not in a thread either: whoever has the lock may need this event loop to go on.
        """
        until = monotonic() + self.busy_timeout
        pauses = iter(_PAUSES)
        while not self.begin(wait=False, managed=managed):
            if monotonic() > until:
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = _BUSY
                raise error
            await asyncio.sleep(next(pauses, _PAUSES[-1]))

    def end(self, *, commit: bool, managed: bool = False) -> bool:
        """End the transaction. False if a managed one was over before."""
        try:
            return self.native.end(commit, managed)
        except SqlFailed as error:
            raise _exception(error) from None

    async def commit_on_loop(self, *, managed: bool = False) -> bool:
        """Commit beside the event loop, since that waits for the disk.

        In a thread of its own: those of the loop's executor may all be busy, with what waits for this very
        lock. It is waited for in any case: half a COMMIT is none.
        """
        try:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="duramen-commit")
            ended = self._thread.submit(self.end, commit=True, managed=managed)
        except RuntimeError:  # no thread can be started, or the interpreter ends
            return self.end(commit=True, managed=managed)
        waiter = asyncio.wrap_future(ended)
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            while not waiter.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([waiter])
            waiter.exception()
            raise

    def abort(self) -> None:
        """Roll a managed transaction back from any thread, also in the middle of a statement."""
        self.native.abort()

    def close(self) -> None:
        """Close it; a transaction that is open is rolled back."""
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        if self._native is not None:
            self._native.close()


def is_locked(error: BaseException) -> bool:
    """Whether another connection's write lock was waited for in vain."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == _BUSY


_CLASSES: Mapping[int, type[sqlite3.Error]] = {
    2: sqlite3.InternalError,
    11: sqlite3.DatabaseError,
    18: sqlite3.DataError,
    19: sqlite3.IntegrityError,
    20: sqlite3.IntegrityError,
    21: sqlite3.InterfaceError,
    25: sqlite3.ProgrammingError,
    26: sqlite3.DatabaseError,
}


def _exception(error: SqlFailed) -> sqlite3.Error:
    """The exception that `sqlite3` has for a result code; without a code the connection was misused."""
    code, message = error.args
    if code is None:
        return sqlite3.ProgrammingError(message)
    found = _CLASSES.get(code & 0xFF, sqlite3.OperationalError)(message)
    found.sqlite_errorcode = code
    return found
