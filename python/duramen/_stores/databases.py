"""The user's database drivers: recognised without being imported, and each used in its own way.

A driver knows five things: whether it is async, whether a connection can take part (`check`), how to execute
one statement of the store's (`fetch`), how a transaction is begun and ended (`transaction`), and what the
connection says of itself without asking the server (`state`). The statements come from the store with ``$1``,
``$2`` … for their values.

A transaction of ours is only ever the outermost one: it begins on an idle connection (`check_idle`), the
server's number for it says at its end whether it is still the same (`WHICH`), and after COMMIT the
connection is idle again.
"""

from __future__ import annotations

import re
import sys
from contextlib import asynccontextmanager, contextmanager, nullcontext
from enum import Enum
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Protocol

from duramen.errors import UnusableConnection

from .second_sqlite import SECOND_SQLITE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

__all__ = [
    "BEGUN",
    "ECHO",
    "ECHOES",
    "FATE",
    "WHICH",
    "Driver",
    "State",
    "connecting",
    "connecting_sync",
    "driver_of",
    "is_aborted",
    "is_async_source",
    "is_lost_connection",
    "is_refused_connection",
    "is_rolled_back",
    "is_unknown_table",
]

_ECHOED = "$1::text, $2::text, $3::int8, $4::bytea"
ECHOES = f"SELECT {_ECHOED}"
"""Gives back what it was given: `ECHO`."""

BEGUN = f"SELECT pg_current_xact_id()::text, {_ECHOED}"
"""The server's number for the transaction that is open (no other ever gets the same), and `ECHO`."""

ECHO: tuple[Any, ...] = ("", "a", 1 << 40, b"\0\xff")
"""One value of each kind that the store's statements have. A connection on which the user's own converters
change these on their way would write something else than the store says."""

WHICH = f"SELECT pg_current_xact_id_if_assigned()::text, {_ECHOED}"
"""The same, of a transaction that has one."""

FATE = "SELECT pg_xact_status($1::text::xid8)"
"""What became of the transaction with that number: ``committed``, ``aborted``, or ``in progress``."""

Row = tuple[Any, ...]

_SUPPORTED = (
    "psycopg 3 (connections, and the pools of psycopg_pool), asyncpg and SQLAlchemy 2 on Postgres; "
    "duramen.sqlite on SQLite"
)


class State(Enum):
    """What a connection knows of itself, from the server's last answer."""

    IDLE = "no transaction is open"
    OPEN = "a transaction is open"
    FAILED = "a transaction has failed"
    BUSY = "a statement, a COPY or a pipeline is under way"
    CLOSED = "nothing can be done any more: it is closed"


class Driver(Protocol):
    """See the module's head. For a driver that is not async no method gives an awaitable."""

    is_async: bool

    finds_out: bool
    """Its pools learn of dead connections from failing statements alone."""

    def check(self, connection: Any, /) -> None:
        """Refuse a connection on which no transaction of the user's is open, or can be open."""
        ...

    def fetch(self, connection: Any, sql: str, values: Sequence[Any], /) -> Any:
        """Execute a statement; its first row, or None."""
        ...

    def transaction(self, connection: Any, /) -> Any:
        """A context manager: a transaction, committed at its end, rolled back when something is raised."""
        ...

    def state(self, connection: Any, /) -> State:
        """What the connection knows of itself."""
        ...

    def has_commit_hooks(self, connection: Any, /) -> bool:
        """Whether code of the user's runs between the last statement and COMMIT."""
        ...

    def cut(self, connection: Any, /) -> None:
        """End a connection whose transaction could not be ended, without asking the server. Never waits."""
        ...

    def check_idle(self, connection: Any, /) -> None:
        """Refuse a connection on which the next transaction would not be the outermost one."""
        ...


_GIVEN_CLOSED = (
    "the connection that database= gave is closed, and a single connection is not made anew: give a pool, "
    "an engine "
    "or a function that connects"
)
_GIVEN_OPEN = (
    "the connection that database= gave has a transaction open already, so the one of ctx.transaction "
    "would be a part "
    "of it and not durable by itself: commit before you hand the connection over (a statement that was "
    "executed "
    "without autocommit, `SET` or `SELECT` too, has begun one), or open it in autocommit mode"
)


def _check_idle(state: State) -> None:
    if state is State.CLOSED:
        raise UnusableConnection(_GIVEN_CLOSED)
    if state is State.OPEN:
        raise UnusableConnection(_GIVEN_OPEN)
    if state is not State.IDLE:
        raise UnusableConnection(
            f"on the connection that database= gave {state.value}: give one on which nothing is under way"
        )


# -- psycopg -------------------------------------------------------------------------------------------------

_NUMBERED = re.compile(r"\$(\d+)")


def _percent(sql: str, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The same statement with ``%s`` for each value in its place."""
    order: list[Any] = []

    def place(match: re.Match[str]) -> str:
        order.append(values[int(match[1]) - 1])
        return "%s"

    return _NUMBERED.sub(place, sql.replace("%", "%%")), tuple(order)


class _Psycopg:
    is_async = False
    finds_out = False

    def check(self, connection: Any) -> None:
        if connection.closed:
            raise UnusableConnection("the connection is closed: give one that is open")
        status = connection.info.transaction_status.name
        if status == "INERROR":
            raise UnusableConnection("the connection's transaction has failed: roll it back and begin anew")
        if status == "IDLE" and connection.autocommit:
            raise UnusableConnection(
                "the connection is in autocommit mode and no transaction is open: use "
                "`with conn.transaction():` around the call"
            )

    def fetch(self, connection: Any, sql: str, values: Sequence[Any]) -> Any:
        # Not connection.cursor(): its class and its rows may be of another kind.
        module = sys.modules["psycopg"]
        with module.Cursor(connection, row_factory=module.rows.tuple_row) as cursor:
            cursor.execute(*_percent(sql, values))
            return cursor.fetchone() if cursor.description is not None else None

    def transaction(self, connection: Any) -> Any:
        return connection.transaction()

    def state(self, connection: Any) -> State:
        if connection.closed:
            return State.CLOSED
        if connection.pgconn.pipeline_status:
            return State.BUSY
        return _STATES.get(connection.info.transaction_status.name, State.BUSY)

    def has_commit_hooks(self, _connection: Any) -> bool:
        return False

    def cut(self, connection: Any) -> None:
        connection.pgconn.finish()

    def check_idle(self, connection: Any) -> None:
        _check_idle(self.state(connection))


_STATES = {
    "IDLE": State.IDLE,
    "INTRANS": State.OPEN,
    "INERROR": State.FAILED,
    "UNKNOWN": State.CLOSED,
}


class _PsycopgAsync(_Psycopg):
    is_async = True

    async def fetch(self, connection: Any, sql: str, values: Sequence[Any]) -> Any:
        module = sys.modules["psycopg"]
        async with module.AsyncCursor(connection, row_factory=module.rows.tuple_row) as cursor:
            await cursor.execute(*_percent(sql, values))
            return await cursor.fetchone() if cursor.description is not None else None


# -- asyncpg -------------------------------------------------------------------------------------------------


class _Asyncpg:
    is_async = True
    finds_out = False

    def check(self, connection: Any) -> None:
        state = self.state(connection)
        if state is State.CLOSED:
            raise UnusableConnection("the connection is closed: give one that is open")
        if state is not State.OPEN:
            raise UnusableConnection(
                "no transaction is open on the connection: use `async with conn.transaction():` around it"
            )

    async def fetch(self, connection: Any, sql: str, values: Sequence[Any]) -> Any:
        row = await connection.fetchrow(sql, *values)
        return None if row is None else tuple(row)

    def transaction(self, connection: Any) -> Any:
        return connection.transaction()

    def state(self, connection: Any) -> State:
        try:
            if connection.is_closed():
                return State.CLOSED
            return State.OPEN if connection.is_in_transaction() else State.IDLE
        except sys.modules["asyncpg"].InterfaceError:  # a pool has it back
            return State.CLOSED

    def has_commit_hooks(self, _connection: Any) -> bool:
        return False

    def cut(self, connection: Any) -> None:
        connection.terminate()

    def check_idle(self, connection: Any) -> None:
        _check_idle(self.state(connection))


# -- SQLAlchemy ----------------------------------------------------------------------------------------------


class _SqlAlchemy:
    is_async = False
    finds_out = True

    def check(self, connection: Any) -> None:
        self._check_dialect(connection)
        if connection.closed:
            raise UnusableConnection("the connection is closed: give one that is open")
        self._check_autocommit(connection)

    @staticmethod
    def _check_autocommit(connection: Any) -> None:
        sync = getattr(connection, "sync_connection", connection)
        if getattr(sync.connection.dbapi_connection, "autocommit", False) is True:
            raise UnusableConnection(
                "the connection is in autocommit mode (isolation_level='AUTOCOMMIT'), in which SQLAlchemy "
                "begins "
                "no transaction: give an engine without it"
            )

    @staticmethod
    def _check_dialect(connection: Any) -> None:
        name = connection.dialect.name
        if name == "sqlite":
            raise UnusableConnection(SECOND_SQLITE)
        if name != "postgresql":
            raise UnusableConnection(
                f"SQLAlchemy's connection is one to {name!r}, and the store is in Postgres"
            )

    @staticmethod
    def _statement(connection: Any, sql: str, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        style = connection.dialect.paramstyle
        if style == "numeric_dollar":
            return sql, tuple(values)
        if style in {"pyformat", "format"}:
            return _percent(sql, values)
        raise UnusableConnection(
            f"SQLAlchemy's driver {connection.dialect.driver!r} is not supported: {_SUPPORTED}"
        )

    def fetch(self, connection: Any, sql: str, values: Sequence[Any]) -> Any:
        result = connection.exec_driver_sql(*self._statement(connection, sql, values))
        return _first(result)

    def transaction(self, connection: Any) -> Any:
        return connection.begin()

    def check_idle(self, connection: Any) -> None:
        self._check_dialect(connection)
        if connection.closed or connection.invalidated:
            raise UnusableConnection(_GIVEN_CLOSED)
        if connection.in_transaction():
            raise UnusableConnection(_GIVEN_OPEN)
        self._check_autocommit(connection)
        # What the driver has begun before SQLAlchemy knows of it (a `connect` event's `SET search_path …`) is
        # part of the transaction that SQLAlchemy commits.
        # (One that is dead has to fail at a statement, for its pool to throw the dead ones away.)
        if (state := self.state(connection)) is State.FAILED or state is State.BUSY:
            _check_idle(state)

    def state(self, connection: Any) -> State:
        if connection.closed or connection.invalidated:
            return State.CLOSED
        raw = getattr(connection, "sync_connection", connection).connection.driver_connection
        state = driver_of(raw).state(raw)
        return State.OPEN if state is State.IDLE and connection.in_transaction() else state

    def has_commit_hooks(self, connection: Any) -> bool:
        return bool(getattr(connection, "sync_connection", connection).dispatch.commit)

    def cut(self, connection: Any) -> None:
        raw = getattr(connection, "sync_connection", connection).connection.driver_connection
        driver_of(raw).cut(raw)


class _SqlAlchemyAsync(_SqlAlchemy):
    is_async = True

    async def fetch(self, connection: Any, sql: str, values: Sequence[Any]) -> Any:
        return _first(await connection.exec_driver_sql(*self._statement(connection, sql, values)))


def _first(result: Any) -> Any:
    if not result.returns_rows:
        return None
    row = result.first()
    return None if row is None else tuple(row)


# -- which is which ------------------------------------------------------------------------------------------

_DRIVERS: dict[tuple[str, str], Driver] = {
    ("psycopg", "Connection"): _Psycopg(),
    ("psycopg", "AsyncConnection"): _PsycopgAsync(),
    ("asyncpg", "Connection"): _Asyncpg(),
    ("asyncpg", "PoolConnectionProxy"): _Asyncpg(),
    ("sqlalchemy", "Connection"): _SqlAlchemy(),
    ("sqlalchemy", "AsyncConnection"): _SqlAlchemyAsync(),
}

# How a connection is had from what is no connection: the method's name, and whether it is async.
_SOURCES: dict[tuple[str, str], tuple[str, bool]] = {
    ("psycopg_pool", "ConnectionPool"): ("connection", False),
    ("psycopg_pool", "AsyncConnectionPool"): ("connection", True),
    ("asyncpg", "Pool"): ("acquire", True),
    ("sqlalchemy", "Engine"): ("connect", False),
    ("sqlalchemy", "AsyncEngine"): ("connect", True),
}

_SESSIONS = {("sqlalchemy", "Session"), ("sqlalchemy", "AsyncSession")}


def _kinds(thing: Any) -> list[tuple[str, str]]:
    """Package and name of the thing's class and of the classes it is made from."""
    return [(cls.__module__.partition(".")[0], cls.__name__) for cls in type(thing).__mro__]


def _find(thing: Any, table: dict[tuple[str, str], Any]) -> Any:
    return next((table[kind] for kind in _kinds(thing) if kind in table), None)


def driver_of(connection: Any) -> Driver:
    """The driver of a connection.

    Raises:
        UnusableConnection: it is none that is supported, or no connection at all.
    """
    driver: Driver | None = _find(connection, _DRIVERS)
    if driver is not None:
        return driver
    kinds = _kinds(connection)
    if any(package in {"sqlite3", "_sqlite3", "aiosqlite"} for package, _ in kinds):
        raise UnusableConnection(SECOND_SQLITE)
    if _find(connection, _SOURCES) is not None:
        raise UnusableConnection(
            f"{type(connection).__name__} is no connection: take one from it, begin a transaction on it, and "
            "give that connection"
        )
    raise UnusableConnection(
        f"{type(connection).__module__}.{type(connection).__name__} is no connection of a driver that is "
        f"supported: {_SUPPORTED}"
    )


def session_connection(thing: Any) -> Any:
    """The connection of a SQLAlchemy session (an awaitable one for an async session), or the thing itself."""
    if _SESSIONS.isdisjoint(_kinds(thing)):
        return thing
    return thing.connection()


def is_async_source(database: Any) -> bool | None:
    """Whether a source of connections is async; None if only its first connection will tell.

    Raises:
        UnusableConnection: it is no source of connections.
    """
    source: tuple[str, bool] | None = _find(database, _SOURCES)
    if source is not None:
        return source[1]
    driver: Driver | None = _find(database, _DRIVERS)
    if driver is not None:
        return driver.is_async
    if callable(database):
        return None
    return driver_of(database).is_async  # raises, and says why


def identity_of(connection: Any) -> Any:
    """What stands for a connection in a weak dictionary: itself, but for a proxy of asyncpg's pools.

    Raises:
        UnusableConnection: the pool has it back.
    """
    found = getattr(connection, "_con", connection)
    if found is None:
        raise UnusableConnection(_GIVEN_CLOSED)
    return found


def is_connection(database: Any) -> bool:
    """Whether it is one connection, of which only one transaction at a time can make use."""
    return _find(database, _DRIVERS) is not None


@asynccontextmanager
async def connecting(database: Any) -> AsyncGenerator[Any]:
    """A connection from a source of connections."""
    async with await _opened(database) as connection:
        if not driver_of(connection).is_async:
            raise UnusableConnection(
                f"the source of connections gives a blocking {type(connection).__name__} and the function is "
                "`async def`: both must be of one kind"
            )
        yield connection


async def _opened(database: Any) -> AbstractAsyncContextManager[Any]:
    if is_connection(database):
        return nullcontext(database)
    source: tuple[str, bool] | None = _find(database, _SOURCES)
    if source is not None:
        return getattr(database, source[0])()
    connection = database()
    if isawaitable(connection):
        connection = await connection
    return _closing(connection)


@asynccontextmanager
async def _closing(connection: Any) -> AsyncGenerator[Any]:
    try:
        yield connection
    finally:
        closed = _close(connection)
        if isawaitable(closed):
            await closed


def _close(connection: Any) -> Any:
    """Close what a function gave, which need not be a connection."""
    close = getattr(connection, "close", None)
    return close() if callable(close) and not isinstance(connection, type) else None


@contextmanager
def connecting_sync(database: Any) -> Generator[Any]:
    """The same for drivers that are not async, in the thread that uses the connection."""
    with _opened_sync(database) as connection:
        yield connection


def _opened_sync(database: Any) -> AbstractContextManager[Any]:
    if is_connection(database):
        return nullcontext(database)
    source: tuple[str, bool] | None = _find(database, _SOURCES)
    if source is not None:
        return getattr(database, source[0])()
    return _closing_sync(database())


@contextmanager
def _closing_sync(connection: Any) -> Generator[Any]:
    if isawaitable(connection):
        _close(connection)
        raise UnusableConnection(
            "the source of connections is async and the function is not: make the function `async def`, or "
            "give a source of blocking connections"
        )
    try:
        yield connection
    finally:
        _close(connection)


# -- errors --------------------------------------------------------------------------------------------------


def _sqlstate(error: BaseException | None) -> str | None:
    """The code that Postgres gave, if the error is an answer of Postgres's."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        for name in ("sqlstate", "pgcode"):
            code = getattr(error, name, None)
            if isinstance(code, str):
                return code
        error = getattr(error, "orig", None) or error.__cause__
    return None


_UNCERTAIN = ("08", "53", "57", "58", "XX", "40003")
"""Codes with which a server leaves a connection, or says that it does not know: what became of a COMMIT that
ends so cannot be concluded from it. (Connection exceptions, resources, intervention, system and internal
errors, statement completion unknown.)"""


def is_rolled_back(error: BaseException) -> bool:
    """Whether an error in COMMIT is the database's word that nothing was committed."""
    code = _sqlstate(error)
    return code is not None and not code.startswith(_UNCERTAIN)


def is_aborted(error: BaseException) -> bool:
    """Whether a statement was refused since one before it had failed."""
    return _sqlstate(error) == "25P02"


_LOST = ("08", "57P", "53300")
"""Codes of connections that the server ends or does not take: connection exceptions, shutdown and starting
up, too many clients."""


_LOST_ERRORS = {("psycopg", "OperationalError")}
"""Without a code: of a connection that was cut or could not be made."""
_GONE_ERRORS = {
    ("psycopg", "InterfaceError"),
    ("asyncpg", "InterfaceError"),
    ("sqlalchemy", "PendingRollbackError"),
}
"""Of a connection that was had: it is closed. (Else it may be a pool that its owner has closed.)"""


def is_lost_connection(error: BaseException | None, *, had: bool = False) -> bool:
    """Whether an error says that a connection was lost, or could not be had."""
    kinds = _LOST_ERRORS | _GONE_ERRORS if had else _LOST_ERRORS
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if _says_lost(error, kinds):
            return True
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return False


def _says_lost(error: BaseException, kinds: set[tuple[str, str]]) -> bool:
    code = getattr(error, "sqlstate", None)
    if isinstance(code, str):
        return code.startswith(_LOST)
    if isinstance(error, OSError) or getattr(error, "connection_invalidated", False) is True:
        return True
    found = set(_kinds(error))
    return not found.isdisjoint(kinds) and ("psycopg_pool", "PoolClosed") not in found


_REFUSED = ("28", "3D000", "42501")
"""Codes with which a server refuses whoever asks for a connection: authorization, database, right."""


_PASSES = re.compile(
    "too many|are reserved|no more conn|starting up|shutting down|recovery|terminating|closed|cannot connect"
)
_POOLER = "08P01"
_POOLER_REFUSES = re.compile("authentication failed|no such|does not exist")
"""PgBouncer has one code for all that it does not do, and its words are never translated."""


def is_refused_connection(error: BaseException | None) -> bool:
    """Whether an error in connecting is the server's word about user, password or database.

    psycopg does not tell the code. It does tell that the server wanted a password, and hardly any other comes
    so far: what ends there but will pass is told by its words (in another language it is one that refuses).
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        code = getattr(error, "sqlstate", None)
        if code == _POOLER:
            return _POOLER_REFUSES.search(str(error)) is not None
        if isinstance(code, str):
            return code.startswith(_REFUSED)
        asked = getattr(error, "pgconn", None)
        if getattr(asked, "needs_password", False) is True or getattr(asked, "used_password", False) is True:
            return _PASSES.search(str(error)) is None
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return False


def is_unknown_table(error: BaseException) -> bool:
    """Whether a statement failed because its table or schema is not there."""
    return _sqlstate(error) in {"42P01", "3F000"}
