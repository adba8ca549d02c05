"""Connections to a SQLite file whose runs are Duramen's, for data of your own in the same file.

A file that Duramen has open must not be opened by another copy of SQLite in the same process, such as the one
behind Python's `sqlite3`: two copies do not see each other's locks, and damage the file
(https://sqlite.org/howtocorrupt.html, 2.2.1). These connections go through Duramen's own. (In *other*
processes every SQLite is welcome.)

They resemble those of `sqlite3`, and raise its exceptions. Foreign keys are enforced. Each statement is a
transaction of its own unless one was begun:

>>> import tempfile, pathlib
>>> path = pathlib.Path(tempfile.mkdtemp(), "app.db")
>>> path.touch()
>>> conn = connect(path)
>>> _ = conn.execute("CREATE TABLE account (id TEXT PRIMARY KEY, cents INTEGER NOT NULL)")
>>> with conn:  # a transaction: committed at the end, rolled back by an exception
...     _ = conn.execute("INSERT INTO account VALUES (?, ?)", ("alice", 500))
...     _ = conn.execute("UPDATE account SET cents = cents - :c WHERE id = :id", {"c": 200, "id": "alice"})
>>> conn.execute("SELECT cents FROM account").fetchone()
(300,)
>>> conn.close()

On an event loop use ``async with conn:``, which does not block the loop while it waits for the write lock and
for the disk. Keep transactions short: nobody else writes to the file meanwhile, Duramen's runs neither.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from ._bridge import SqlFailed, SqliteConnection, StoreFailed, native_error
from ._values.checks import check_choice
from ._values.durations import duration_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

__all__ = ["Connection", "Cursor", "connect"]

_PAUSES = (0.0005, 0.001, 0.002, 0.004, 0.008)
"""Seconds between two looks whether the write lock is free, on an event loop."""

Value = None | int | float | str | bytes


class Cursor:
    """What a statement brought. Its rows are in memory: nothing is left open."""

    def __init__(self, columns: list[str], rows: list[tuple[Any, ...]], changes: int, last_id: int) -> None:
        self.columns = columns
        """Names of the rows' columns; empty for a statement that gives none."""
        self.rowcount = changes if not columns or changes else -1
        """Rows that the statement changed; -1 for one that only reads."""
        self.lastrowid = last_id
        """The row id that the connection's latest INSERT gave."""
        self._rows = rows
        self._next = 0

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None."""
        rows = self._rows[self._next : self._next + 1]
        self._next += len(rows)
        return rows[0] if rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All rows that were not fetched yet."""
        rows = self._rows[self._next :]
        self._next = len(self._rows)
        return rows

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row


class Connection:
    """See `connect`. It may be used from any thread, by one at a time."""

    def __init__(self, native: SqliteConnection, path: str, busy_timeout: float) -> None:
        self._native = native
        self._busy_timeout = busy_timeout
        self.path = path
        """The file."""

    def __repr__(self) -> str:
        return f"<duramen.sqlite.Connection to {self.path!r}>"

    def execute(self, sql: str, parameters: Sequence[Value] | Mapping[str, Value] = ()) -> Cursor:
        """Execute one statement.

        Args:
            sql: with ``?`` or ``?1`` for values in order, or ``:name`` for named ones.
            parameters: the values.

        Raises:
            sqlite3.Error: one of its subclasses, as from `sqlite3`.
        """
        values = dict(parameters) if isinstance(parameters, Mapping) else parameters
        try:
            return Cursor(*self._native.execute(sql, values))
        except SqlFailed as error:
            raise _exception(error) from None

    def executemany(self, sql: str, parameters: Iterable[Sequence[Value] | Mapping[str, Value]]) -> None:
        """Execute one statement with many sets of values; see `execute`."""
        for each in parameters:
            self.execute(sql, each)

    def executescript(self, sql: str) -> None:
        """Execute statements that are separated by semicolons, without values."""
        try:
            self._native.execute_script(sql)
        except SqlFailed as error:
            raise _exception(error) from None

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._native.in_transaction

    @property
    def closed(self) -> bool:
        """Whether the connection was closed."""
        return self._native.closed

    def begin(self) -> None:
        """Begin a transaction that can write: it waits for others who write, up to the busy timeout.

        Raises:
            sqlite3.OperationalError: another connection holds the write lock.
        """
        self._begin(wait=True, managed=False)

    def commit(self) -> None:
        """End the transaction; what it did is durable when this returns. Without one nothing is done."""
        self._end(commit=True, managed=False)

    def rollback(self) -> None:
        """End the transaction and undo it. Without one nothing is done."""
        self._end(commit=False, managed=False)

    def close(self) -> None:
        """Close the connection; a transaction that is open is rolled back."""
        self._native.close()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.commit()
        else:
            self.rollback()

    async def __aenter__(self) -> Self:
        await self._begin_async(managed=False)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await asyncio.to_thread(self.commit)  # it waits for the disk
        else:
            self.rollback()

    # -- for ctx.transaction ---------------------------------------------------------------------------------

    def _begin(self, *, wait: bool, managed: bool) -> bool:
        try:
            return self._native.begin(wait, managed)
        except SqlFailed as error:
            raise _exception(error) from None

    async def _begin_async(self, *, managed: bool) -> None:
        # Not a blocking wait: whoever has the lock may need this event loop to go on.
        until = monotonic() + self._busy_timeout
        pauses = iter(_PAUSES)
        while not self._begin(wait=False, managed=managed):
            if monotonic() > until:
                raise sqlite3.OperationalError("database is locked")
            await asyncio.sleep(next(pauses, _PAUSES[-1]))

    def _end(self, *, commit: bool, managed: bool) -> bool:
        try:
            return self._native.end(commit, managed)
        except SqlFailed as error:
            raise _exception(error) from None


def connect(
    path: str | os.PathLike[str],
    *,
    synchronous: str = "full",
    busy_timeout: timedelta | float = 5,
) -> Connection:
    """Open a file that exists; see the module's head.

    Args:
        path: the file: that of ``Runtime("sqlite:///…")``, which makes it when it is first opened.
        synchronous: ``full`` (a power cut loses nothing) or ``normal`` (it may lose the last commits).
        busy_timeout: how long to wait for others who write, in seconds or as a `timedelta`.

    Raises:
        StoreUnavailable: the file is not there, or cannot be opened.
    """
    check_choice("synchronous", synchronous, ("full", "normal"))
    name = os.fspath(path)
    milliseconds = duration_ms(busy_timeout, "busy_timeout")
    try:
        return Connection(SqliteConnection(name, synchronous, milliseconds), name, milliseconds / 1000)
    except StoreFailed as error:
        raise native_error(error.args) from None


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
