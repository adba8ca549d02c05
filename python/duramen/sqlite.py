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

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ._stores.sqlite_files import SqliteFile
from ._values.checks import check_choice
from ._values.durations import duration_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from ._stores.sqlite_files import Value

__all__ = ["Connection", "Cursor", "connect"]


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

    def __init__(self, file: SqliteFile) -> None:
        self.file = file
        """Duramen's own end of it."""
        self.path = file.path
        """The file's name."""

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
        return Cursor(*self.file.execute(sql, values))

    def executemany(self, sql: str, parameters: Iterable[Sequence[Value] | Mapping[str, Value]]) -> None:
        """Execute one statement with many sets of values; see `execute`."""
        for each in parameters:
            self.execute(sql, each)

    def executescript(self, sql: str) -> None:
        """Execute statements that are separated by semicolons, without values."""
        self.file.execute_script(sql)

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self.file.in_transaction

    @property
    def closed(self) -> bool:
        """Whether the connection was closed."""
        return self.file.closed

    def begin(self) -> None:
        """Begin a transaction that can write: it waits for others who write, up to the busy timeout.

        Raises:
            sqlite3.OperationalError: another connection holds the write lock.
        """
        self.file.begin()

    def commit(self) -> None:
        """End the transaction; what it did is durable when this returns. Without one nothing is done."""
        self.file.end(commit=True)

    def rollback(self) -> None:
        """End the transaction and undo it. Without one nothing is done."""
        self.file.end(commit=False)

    def close(self) -> None:
        """Close the connection; a transaction that is open is rolled back."""
        self.file.close()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.rollback()
            return
        try:
            self.commit()
        except BaseException:
            self.rollback()  # or it would keep the file's write lock
            raise

    async def __aenter__(self) -> Self:
        await self.file.begin_on_loop()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.rollback()
            return
        try:
            await self.file.commit_on_loop()
        except BaseException:
            self.rollback()  # or it would keep the file's write lock
            raise


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
    return Connection(SqliteFile.open(name, synchronous, milliseconds / 1000))
