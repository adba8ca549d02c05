"""A runtime's part in transactions of the user's own: connections, the store's statements, who may use what.

`transaction_calls` is about the steps that run in such transactions.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from contextlib import contextmanager
from inspect import iscoroutine
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

from duramen._bridge import Change, StoreFailed, native_error
from duramen._handlers.step import is_async
from duramen._stores.databases import (
    driver_of,
    identity_of,
    is_async_source,
    is_connection,
    session_connection,
)
from duramen._stores.sqlite_files import SqliteFile
from duramen.errors import DuramenError, TransactionsUnsupported, UnusableConnection, WrongDatabase
from duramen.sqlite import Connection

from .units import SqliteUnit, change_script, echo_script, identity_script, play, play_sync
from .write_locks import LockWatch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from duramen._bridge import Detail, Row
    from duramen._runtime.port import Port
    from duramen._stores.databases import Driver
    from duramen._stores.url import Target

    from .transaction_attempts import Attempt
    from .units import Script

__all__ = ["GivenUp", "NoTurn", "Transactions"]

_PATIENCE = 60.0
"""Seconds for which a transaction whose connection was lost begins anew; then it is a failed attempt."""
_PATIENCE_REFUSED = 10.0
"""The same for one that the server refuses: its password is being changed, or it is wrong."""
_PAUSES = 0.01, 1.5, 1.0
"""Between two of them: the first pause, the factor, the longest. A pool may give many dead connections."""

_TURN, _GAP = 0.25, 0.02
"""After so many seconds of holding a file's write lock, transactions leave it free for so many: others
look for it every few milliseconds, heartbeats among them."""


class GivenUp(BaseException):
    """Nobody waits for the attempt any more: its transaction is to be rolled back."""


class NoTurn(TimeoutError):
    """One transaction has kept a single connection for so long that others no longer wait for it."""


class Turn:
    """Who may use a single connection: one transaction after the other."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._taken = 0

    async def take(self) -> None:
        """Wait for those before.

        Raises:
            NoTurn: nobody got on for a minute. (A function may wait for a run that wants the connection.)
        """
        while True:
            before = self._taken
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._lock.acquire()
            except TimeoutError:
                if self._taken == before:
                    raise NoTurn(
                        f"another transaction has had the connection that database= gave for more than "
                        f"{_PATIENCE:g} s: give a pool, so that none has to wait for another"
                    ) from None
            else:
                self._taken += 1
                return

    def leave(self) -> None:
        """Let the next one have it."""
        self._lock.release()


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
        self._watch = LockWatch(lease)
        self._held = 0.0
        """For how long transactions have held the file's write lock since they last left it to others."""
        self._lost: dict[tuple[str, str, int], tuple[float, float | None, int]] = {}
        """Attempts that lost their connections: since when, since when the server refuses, how often."""
        self._free: list[SqliteFile] = []
        """SQLite connections that no attempt uses."""
        self._line: deque[Attempt] = deque()
        """Attempts on SQLite: the first one runs. A file has one writer, and whoever waits here for his turn
        takes no thread meanwhile."""
        self._turns: WeakKeyDictionary[Any, Turn] = WeakKeyDictionary()
        """Of transactions on single connections."""
        self._changes: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()
        """Of changes on one connection: some drivers take no second statement while one is under way."""
        self._honest: WeakSet[Any] = WeakSet()
        """Connections on which values come back as they were sent."""
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

    def turn_on(self, database: Any) -> Turn | None:
        """What excludes a second transaction on a single connection."""
        return self._turn_of(database) if is_connection(database) else None

    def _turn_of(self, connection: Any) -> Turn:
        return self._turns.setdefault(identity_of(connection), Turn())

    @contextmanager
    def sqlite(self, freed: Callable[[], object]) -> Generator[SqliteUnit]:
        """A transaction in the store's file. Attempts are in line, so there is one at a time, as a rule.

        `freed` is called on the loop if it has to give the write lock back before its function returns.
        """
        file = self._free.pop() if self._free else None
        if file is None:
            file = SqliteFile.open(self.target.location, self._synchronous, self._patience)
        unit = SqliteUnit(self._watch, file, self.port.loop, freed)
        try:
            yield unit
        finally:
            self._held += unit.held
            if file.closed or file.in_transaction or unit.is_changed or self._port is None:
                file.close()
            else:
                self._free.append(file)

    # -- connections that were lost --------------------------------------------------------------------------

    def pause_before(self, run_id: str, op: str, attempt: int, *, refused: bool) -> float | None:
        """An attempt has lost its connection before COMMIT: seconds to wait before it begins anew.

        None if it has done so for long enough.
        """
        now, key = monotonic(), (run_id, op, attempt)
        since, refused_since, count = self._lost.get(key, (now, None, 0))
        refused_since = (now if refused_since is None else refused_since) if refused else None
        if now - since > _PATIENCE:
            return None
        if refused_since is not None and now - refused_since > _PATIENCE_REFUSED:
            return None
        if len(self._lost) > 10_000:  # of runs that went elsewhere
            self._lost = {key: found for key, found in self._lost.items() if now - found[0] < 2 * _PATIENCE}
        self._lost[key] = since, refused_since, count + 1
        first, factor, longest = _PAUSES
        return min(longest, first * factor ** min(count, 50)) * random.uniform(0.5, 1)  # noqa: S311

    def is_first_loss(self, run_id: str, op: str, attempt: int) -> bool:
        """Whether an attempt has lost no connection so far."""
        return (run_id, op, attempt) not in self._lost

    def settled(self, run_id: str, op: str, attempt: int) -> None:
        """An attempt has an outcome."""
        self._lost.pop((run_id, op, attempt), None)

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
        if not first or not self._line:
            return
        if self._held > _TURN and self._port is not None:
            self._held = 0.0
            self._port.loop.call_later(_GAP, self._begin_first)
        else:
            self._begin_first()

    def _begin_first(self) -> None:
        if self._line and not self._line[0].begun:
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

    async def identity_now(self, refused: WrongDatabase, before: str | None) -> str | None:
        """The identity asked for again: that of a store which was restored in its place is another.

        Raises:
            WrongDatabase: it is the one from before, or the refused connection's transaction has failed.
        """
        if refused.__cause__ is None:
            self._identity = None
            now = await self.identity()
            if now != before:
                return now
        raise refused

    def is_known(self, source: Any) -> bool:
        """Whether a source of connections has led to the store before."""
        return self._verified and source is self.database

    def knows(self, source: Any) -> None:
        """A source of connections has led to the store."""
        if source is self.database:
            self._verified = True

    def identify(self, identity: str | None) -> Script[None]:
        """Refuse a connection to a database that is not the store's."""
        return identity_script(self.script(Change.identify()), identity, str(self.target))

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
            return _answered(connection.file.apply(change))
        if not driver.is_async:
            raise UnusableConnection(
                f"{type(connection).__name__} is a blocking connection, which would hold up the event loop: "
                "use runtime.sync in the thread that it belongs to, or an async driver"
            )
        identity = await self.identity()
        key = identity_of(connection)
        async with self._changes.setdefault(key, asyncio.Lock()):
            if key not in self._honest:
                await play(driver, connection, echo_script())
                self._honest.add(key)
            try:
                await play(driver, connection, self.identify(identity))
            except WrongDatabase as refused:
                identity = await self.identity_now(refused, identity)
                await play(driver, connection, self.identify(identity))
            return _answered(await play(driver, connection, change_script(self.script(change))))

    def carry_out_sync(
        self,
        connection: Any,
        change: Change,
        identity: str | None,
        on_loop: Callable[[Callable[[], Coroutine[Any, Any, str | None]]], str | None],
    ) -> tuple[Any, ...]:
        """The same for blocking drivers, in the thread that the connection belongs to.

        `on_loop` waits for what a function gives on the runtime's event loop.
        """
        connection = session_connection(connection)
        driver = self.usable(connection)
        if driver is None:
            return _answered(connection.file.apply(change))
        if driver.is_async:
            raise UnusableConnection(
                f"{type(connection).__name__} is an async connection: await the runtime's own call"
            )
        if connection not in self._honest:
            play_sync(driver, connection, echo_script())
            self._honest.add(connection)
        try:
            play_sync(driver, connection, self.identify(identity))
        except WrongDatabase as error:
            refused = error
            identity = on_loop(lambda: self.identity_now(refused, identity))
            play_sync(driver, connection, self.identify(identity))
        return _answered(play_sync(driver, connection, change_script(self.script(change))))


def _same_file(one: str, other: str) -> bool:
    try:
        return Path(one).samefile(other)
    except OSError:
        return False


def _answered(answer: tuple[Any, ...] | None) -> tuple[Any, ...]:
    if not answer:
        raise UnusableConnection("the store's statements gave no answer on this connection")
    return answer
