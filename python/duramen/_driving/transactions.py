"""A runtime's part in transactions of the user's own: connections, the store's statements, who may use what.

`_transaction_calls` is about the steps that run in such transactions.
"""

# A call, its attempts and the runtime's part of them are one thing in three classes.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import contextmanager
from inspect import iscoroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from duramen._bridge import Change, StoreFailed, native_error
from duramen._handlers.step import is_async
from duramen._stores.databases import (
    driver_of,
    is_async_source,
    is_connection,
    is_unknown_table,
    session_connection,
)
from duramen.errors import DuramenError, TransactionsUnsupported, UnusableConnection, WrongDatabase

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Sequence
    from types import TracebackType

    from duramen._bridge import Detail, Row
    from duramen._runtime.port import Port
    from duramen._stores.databases import Driver
    from duramen._stores.url import Target
    from duramen.sqlite import Connection

    from .transaction_calls import Attempt

__all__ = ["GivenUp", "RolledBack", "Transactions", "apply_sqlite"]

_MUST, _ANSWER = 1, 2
"""What the rows of a script's statement mean; see `Change.script`."""


class GivenUp(BaseException):
    """Nobody waits for the attempt any more: its transaction is to be rolled back."""


class RolledBack(Exception):
    """COMMIT failed for certain, for the reason that is its cause."""


class Transactions:
    """A runtime's part: where its store is, its default source of connections, and what it knows of both."""

    def __init__(
        self, target: Target, database: Any, *, synchronous: str, busy_timeout: float, lease: float
    ) -> None:
        self.target = target
        self.database = database
        self.lease = lease
        """Of the runtime, in seconds."""
        self._synchronous = synchronous
        self._patience = busy_timeout
        if database is not None and target.scheme != "postgres":
            raise UnusableConnection(
                f"database= is for stores in Postgres, and this one is {target}: leave it out (on SQLite "
                "ctx.transaction has connections of its own)"
            )
        if database is not None:
            is_async_source(database)
        self._port: Port | None = None
        self._identity: str | None = None
        self._verified = False
        """The default source has led to the store's database."""
        self._free: list[Connection] = []
        """SQLite connections that no attempt uses."""
        self._line: deque[Attempt] = deque()
        """Attempts on SQLite: the first one runs. A file has one writer, and whoever waits here for his turn
        takes no thread meanwhile."""
        self._locks: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()
        self._tasks: set[asyncio.Task[None]] = set()

    def attach(self, port: Port) -> None:
        """Tell it the runtime's end of the engine."""
        self._port = port

    def detach(self) -> None:
        """The runtime closes."""
        self._port = None
        self._identity = None
        self._verified = False
        free, self._free = self._free, []
        for connection in free:
            connection.close()

    @property
    def port(self) -> Port:
        """The port; the runtime is open while anybody asks."""
        if self._port is None:
            raise GivenUp
        return self._port

    # -- sources ---------------------------------------------------------------------------------------------

    def check_store(self) -> None:
        """Refuse stores that cannot be written to from outside.

        Raises:
            TransactionsUnsupported: it is such a store.
        """
        if self.target.scheme not in {"sqlite", "postgres"}:
            raise TransactionsUnsupported(str(self.target))

    def source_for(self, fn: Any, database: Any) -> Any:
        """The source of connections for a function; None stands for the SQLite store's own.

        Raises:
            UnusableConnection, TransactionsUnsupported: it cannot work.
        """
        self.check_store()
        if self.target.scheme == "sqlite":
            if database is not None:
                raise UnusableConnection(
                    f"database= was given and the store is {self.target}: leave it out, the function gets a "
                    "duramen.sqlite.Connection to that file"
                )
            return None
        database = self.database if database is None else database
        if database is None:
            raise UnusableConnection(
                "ctx.transaction does not know where to get a connection from: give Runtime(database=…), or "
                "database= to the call: a pool, an engine, or a function that connects"
            )
        source_is_async, fn_is_async = is_async_source(database), is_async(fn)
        if source_is_async is not None and source_is_async != fn_is_async:
            raise UnusableConnection(
                f"{type(database).__name__} is {'async' if source_is_async else 'blocking'} and the function "
                f"is {'`async def`' if fn_is_async else 'not async'}: both must be of one kind"
            )
        return database

    def lock_of(self, database: Any) -> asyncio.Lock | None:
        """What excludes a second transaction on a single connection."""
        return self._locks.setdefault(database, asyncio.Lock()) if is_connection(database) else None

    @contextmanager
    def sqlite(self) -> Generator[Connection]:
        """A connection to the store's file. Attempts are in line, so there is one, as a rule."""
        from duramen.sqlite import connect

        if self._free:
            connection = self._free.pop()
        else:
            connection = connect(
                self.target.location, synchronous=self._synchronous, busy_timeout=self._patience
            )
        try:
            yield connection
        finally:
            if connection.in_transaction or self._port is None:
                connection.close()
            else:
                self._free.append(connection)

    def on_sqlite(self, connection: Connection) -> _OnSqlite:
        """A transaction on it."""
        return _OnSqlite(connection)

    # -- the line --------------------------------------------------------------------------------------------

    def enter(self, attempt: Attempt) -> None:
        """Begin the attempt when it is first in the line."""
        self._line.append(attempt)
        if len(self._line) == 1:
            attempt.begin()

    def leave(self, attempt: Attempt) -> None:
        """The attempt is over, or was given up in the line."""
        if attempt not in self._line:
            return
        first = self._line[0] is attempt
        self._line.remove(attempt)
        if first and self._line:
            self._line[0].begin()

    # -- what it asks the store ------------------------------------------------------------------------------

    def later(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Let a coroutine run beside everything else."""
        task = self.port.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def row(self, run_id: str) -> Row | None:
        """A run's row as the store has it; None if it cannot be read."""
        port = self.port
        try:
            found: list[Detail | None] = await port.call(port.engine.get, [run_id])
        except DuramenError:
            return None
        return None if found[0] is None else found[0].row

    async def has_length(self, run_id: str, length: int) -> bool:
        """Whether a run's journal has that length; its row may lag behind while it is running."""
        port = self.port
        try:
            last = await port.call(port.engine.load, run_id, length - 1, 2)
        except DuramenError:
            return False
        return len(last) == 1

    # -- the store's identity --------------------------------------------------------------------------------

    async def identity(self) -> str | None:
        """The text that tells the store's database and schema from others."""
        if self._identity is None:
            port = self.port
            self._identity = await port.call(port.engine.identity)
        return self._identity

    def is_known(self, source: Any) -> bool:
        """Whether a source of connections has led to the store before."""
        return self._verified and source is self.database

    def _compare(self, source: Any, row: Sequence[Any] | None, identity: str | None) -> None:
        if identity is None or not row or row[0] != identity:
            raise WrongDatabase(str(self.target))
        if source is self.database:
            self._verified = True

    async def verify(self, driver: Driver, connection: Any, source: Any) -> None:
        """Ask a connection for the identity of its database.

        Raises:
            WrongDatabase: it is not the store's.
        """
        identity = await self.identity()
        try:
            row = await self.run(driver, connection, Change.identify())
        except Exception as error:
            raise self._wrong(error) from error
        self._compare(source, row, identity)

    def verify_sync(self, driver: Driver, connection: Any, source: Any, identity: str | None) -> None:
        """The same for blocking drivers."""
        try:
            row = self.run_sync(driver, connection, Change.identify())
        except Exception as error:
            raise self._wrong(error) from error
        self._compare(source, row, identity)

    def _wrong(self, error: Exception) -> Exception:
        return WrongDatabase(str(self.target)) if is_unknown_table(error) else error

    # -- changes in an open transaction ----------------------------------------------------------------------

    def script(self, change: Change) -> list[tuple[str, list[Any], int]]:
        """The statements of a change.

        Raises:
            StoreError: the store refuses.
        """
        try:
            return change.script(self.port.engine)
        except StoreFailed as error:
            raise native_error(error.args) from None

    def usable(self, connection: Any) -> Driver | None:
        """Check what was given as ``connection=``. None: it is a `duramen.sqlite.Connection`.

        Raises:
            UnusableConnection, WrongDatabase, TransactionsUnsupported: it cannot be used.
        """
        from duramen.sqlite import Connection

        self.check_store()
        if isinstance(connection, Connection):
            if self.target.scheme != "sqlite" or not _same_file(connection.path, self.target.location):
                raise WrongDatabase(str(self.target))
            if connection.closed:
                raise UnusableConnection("the connection is closed: give one that is open")
            if not connection.in_transaction:
                raise UnusableConnection(
                    "no transaction is open on the connection: use `with conn:` around the call"
                )
            return None
        driver = driver_of(connection)
        if self.target.scheme == "sqlite":
            raise WrongDatabase(str(self.target))
        driver.check(connection)
        return driver

    async def carry_out(self, connection: Any, change: Change) -> tuple[Any, ...]:
        """Make a change part of the user's open transaction; gives the answer."""
        connection = session_connection(connection)
        if iscoroutine(connection):  # of an async session; an AsyncConnection is awaitable, too
            connection = await connection
        driver = self.usable(connection)
        if driver is None:
            return _answered(apply_sqlite(connection, change))
        if not driver.is_async:
            raise UnusableConnection(
                f"{type(connection).__name__} is a blocking connection, which would hold up the event loop: "
                "use runtime.sync in the thread that it belongs to, or an async driver"
            )
        await self.verify(driver, connection, connection)
        return _answered(await self.run(driver, connection, change))

    def carry_out_sync(self, connection: Any, change: Change, identity: str | None) -> tuple[Any, ...]:
        """The same for blocking drivers, in the thread that the connection belongs to."""
        connection = session_connection(connection)
        driver = self.usable(connection)
        if driver is None:
            return _answered(apply_sqlite(connection, change))
        if driver.is_async:
            raise UnusableConnection(
                f"{type(connection).__name__} is an async connection: await the runtime's own call"
            )
        self.verify_sync(driver, connection, connection, identity)
        return _answered(self.run_sync(driver, connection, change))

    async def run(self, driver: Driver, connection: Any, change: Change) -> tuple[Any, ...] | None:
        """Execute a change's statements: its answer (empty for a commit), or None if it was refused."""
        for sql, values, expect in self.script(change):
            row = await driver.fetch(connection, sql, values)
            if expect == _MUST and row is None:
                return None
            if expect == _ANSWER and row is not None:
                return row
        return ()

    def run_sync(self, driver: Driver, connection: Any, change: Change) -> tuple[Any, ...] | None:
        """The same for blocking drivers."""
        for sql, values, expect in self.script(change):
            row = driver.fetch(connection, sql, values)
            if expect == _MUST and row is None:
                return None
            if expect == _ANSWER and row is not None:
                return row
        return ()


def _same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def apply_sqlite(connection: Any, change: Change) -> tuple[Any, ...] | None:
    """Carry a change out on a `duramen.sqlite.Connection`; None: refused."""
    try:
        return connection._native.apply(change)
    except StoreFailed as error:
        raise native_error(error.args) from None


def _answered(answer: tuple[Any, ...] | None) -> tuple[Any, ...]:
    if not answer:
        raise UnusableConnection("the store's statements gave no answer on this connection")
    return answer


class _OnSqlite:
    """A transaction on a `duramen.sqlite.Connection` that only `ctx.transaction` may end."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def __aenter__(self) -> None:
        await self._connection._begin_async(managed=True)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await asyncio.to_thread(self._commit)  # it waits for the disk
        else:
            self._connection._end(commit=False, managed=True)

    def __enter__(self) -> None:
        self._connection._begin(wait=True, managed=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._commit()
        else:
            self._connection._end(commit=False, managed=True)

    def _commit(self) -> None:
        try:
            ended = self._connection._end(commit=True, managed=True)
        except Exception as error:
            # SQLite's own word, in this process: what it could not commit is not in the file.
            self._connection._end(commit=False, managed=True)
            raise RolledBack from error
        if not ended:
            raise RolledBack from UnusableConnection(
                "the function has ended its transaction by itself: leave COMMIT and ROLLBACK to its caller"
            )
