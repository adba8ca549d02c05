"""One transaction of a `ctx.transaction`, on Postgres or in a SQLite file.

Only a COMMIT that is proven to be the outermost one, of the transaction that the function's work is in,
counts. What a function may do to its transaction, and what a connection may be in the midst of, is judged
here.

What is asked of Postgres is written once, as generators that yield a statement and get its first row;
`play` and `play_sync` execute them with a driver that is async, and with one that is not.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from duramen._stores.databases import (
    BEGUN,
    ECHO,
    ECHOES,
    FATE,
    WHICH,
    State,
    driver_of,
    is_connection,
    is_lost_connection,
    is_unknown_table,
)
from duramen._stores.sqlite_files import is_locked
from duramen.errors import UnusableConnection, WrongDatabase
from duramen.sqlite import Connection

from .write_locks import Hold

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Generator, Sequence
    from contextlib import AsyncExitStack, ExitStack
    from types import TracebackType

    from duramen._bridge import Change
    from duramen._stores.databases import Driver
    from duramen._stores.sqlite_files import SqliteFile

    from .transactions import Transactions
    from .write_locks import LockWatch

__all__ = [
    "NotProven",
    "PostgresUnit",
    "RolledBack",
    "SqliteUnit",
    "change_script",
    "echo_script",
    "play",
    "play_sync",
]

T = TypeVar("T")
Row = tuple[Any, ...]
if TYPE_CHECKING:
    Script = Generator[tuple[str, Sequence[Any]], Row | None, T]

_MUST, _ANSWER = 1, 2
"""What the rows of a script's statement mean; see `Change.script`."""


class RolledBack(Exception):
    """COMMIT failed for certain, for the reason that is its cause."""


class NotProven(Exception):
    """After COMMIT the connection does not look as it has to."""


# -- scripts -------------------------------------------------------------------------------------------------


async def play(driver: Driver, connection: Any, script: Script[T]) -> T:
    """Execute a script's statements; gives what it returns."""
    try:
        statement = next(script)
        while True:
            failure: Exception | None = None
            row: Row | None = None
            try:
                row = await driver.fetch(connection, *statement)
            except Exception as error:  # noqa: BLE001 - the script's to judge
                failure = error
            # Not where the error is handled: thrown there, it would be a part of its own context.
            statement = script.send(row) if failure is None else script.throw(failure)
    except StopIteration as stop:
        return stop.value


def play_sync(driver: Driver, connection: Any, script: Script[T]) -> T:
    """The same for drivers that are not async."""
    try:
        statement = next(script)
        while True:
            failure: Exception | None = None
            row: Row | None = None
            try:
                row = driver.fetch(connection, *statement)
            except Exception as error:  # noqa: BLE001 - the script's to judge
                failure = error
            # Not where the error is handled: thrown there, it would be a part of its own context.
            statement = script.send(row) if failure is None else script.throw(failure)
    except StopIteration as stop:
        return stop.value


def change_script(statements: Sequence[tuple[str, list[Any], int]]) -> Script[Row | None]:
    """A change of the store's: its answer (empty for a commit), or None if it was refused."""
    for sql, values, expect in statements:
        row = yield sql, values
        if expect == _MUST and row is None:
            return None
        if expect == _ANSWER and row is not None:
            return row
    return ()


def identity_script(
    statements: Sequence[tuple[str, list[Any], int]], identity: str | None, store: str
) -> Script[None]:
    """Refuse a database that is not the store's."""
    try:
        row = yield from change_script(statements)
    except Exception as error:
        if is_unknown_table(error):
            raise WrongDatabase(store) from error
        raise
    if identity is None or not row or row[0] != identity:
        raise WrongDatabase(store)


# -- Postgres ------------------------------------------------------------------------------------------------

_ENDED = (
    "the function has ended its transaction by itself, so its result could not be recorded in it: leave "
    "COMMIT and "
    "ROLLBACK to ctx.transaction, and use savepoints for parts of it. What it has committed itself stays; "
    "it is not "
    "called again"
)
_CONVERTED = (
    "values do not come back from the connection as they were sent: its client_encoding, "
    "or converters for text, integers or bytea (adapters, codecs), change them, and with them what the store "
    "writes: give one without these"
)
_UNDONE_IN_COMMIT = (
    "code that runs in COMMIT (an event of SQLAlchemy's) has rolled the transaction back: nothing was "
    "written, and the function is not called again"
)
_UNDER_WAY = (
    "the function has returned while a statement, a COPY or a pipeline was under way on its connection: "
    "end it before. "
    "Everything was rolled back"
)


def echo_script() -> Script[None]:
    """Refuse a connection on which values change on their way.

    Raises:
        UnusableConnection: they do.
    """
    _same((yield ECHOES, ECHO))


def _same(row: Row | None) -> None:
    if row != ECHO:
        raise UnusableConnection(_CONVERTED)


def _number(row: Row | None) -> str | None:
    """The number of the transaction that is open, from an answer that has come as it was sent."""
    number, *echo = row or (None,)
    _same(tuple(echo))
    if not isinstance(number, str | None):
        raise UnusableConnection(_CONVERTED)
    return number


class PostgresUnit:
    """A transaction on a connection of the user's. Each step is there for both kinds of drivers."""

    def __init__(self, transactions: Transactions, source: Any, connection: Any) -> None:
        self.connection = connection
        """What the function gets."""
        self._transactions = transactions
        self._source = source
        self._driver = driver_of(connection)
        self._number: str | None = None
        """The server's, of the transaction."""

    async def begin(self, stack: AsyncExitStack) -> None:
        """Begin; the stack ends it.

        Raises:
            UnusableConnection: it would not be the outermost one, or not in the store's database.
        """
        await stack.enter_async_context(self._opened())
        identity = None if self._is_known() else await self._transactions.identity()
        try:
            await play(self._driver, self.connection, self._begun(identity))
        except WrongDatabase as refused:
            identity = await self._transactions.identity_now(refused, identity)
            await play(self._driver, self.connection, self._begun(identity))

    def begin_sync(self, stack: ExitStack, on_loop: Callable[[Any], Any]) -> None:
        """The same; `on_loop` waits for a coroutine of the event loop's."""
        stack.enter_context(self._opened())
        identity = None if self._is_known() else on_loop(self._transactions.identity())
        try:
            play_sync(self._driver, self.connection, self._begun(identity))
        except WrongDatabase as refused:
            identity = on_loop(self._transactions.identity_now(refused, identity))
            play_sync(self._driver, self.connection, self._begun(identity))

    def _is_known(self) -> bool:
        return self._transactions.is_known(self._source)

    def _opened(self) -> Any:
        driver = self._driver
        if (
            not driver.finds_out
            and driver.state(self.connection) is State.CLOSED
            and not is_connection(self._source)
        ):
            raise ConnectionError("the source of connections gave one that is closed")
        self._driver.check_idle(self.connection)
        return self._driver.transaction(self.connection)

    def _begun(self, identity: str | None) -> Script[None]:
        self._number = _number((yield BEGUN, ECHO))
        if not self._is_known():
            yield from self._transactions.identify(identity)
            self._transactions.knows(self._source)

    async def check(self) -> None:
        """The function has returned: is what it did in the transaction that is to be committed?

        Raises:
            UnusableConnection: no.
        """
        await play(self._driver, self.connection, self._still_open())

    def check_sync(self) -> None:
        """The same."""
        play_sync(self._driver, self.connection, self._still_open())

    def _still_open(self) -> Script[None]:
        state = self._driver.state(self.connection)
        if state is State.BUSY:
            raise UnusableConnection(_UNDER_WAY)
        if state is State.IDLE:
            raise UnusableConnection(_ENDED)
        # Of one that has failed, or of a connection that is gone, the driver's own error says it.
        if _number((yield WHICH, ECHO)) != self._number:
            raise UnusableConnection(_ENDED)

    async def record(self, change: Change) -> bool:
        """Make the run's commit a part of it. False: it is refused."""
        script = change_script(self._transactions.script(change))
        return await play(self._driver, self.connection, script) is not None

    def record_sync(self, change: Change) -> bool:
        """The same."""
        script = change_script(self._transactions.script(change))
        return play_sync(self._driver, self.connection, script) is not None

    async def prove(self) -> None:
        """After COMMIT no transaction is open: else it was a savepoint's end, or none at all.

        (psycopg leaves a transaction's block without an error when the connection is closed.) Where code of
        the user's ran in between, the server is asked what became of ours.

        Raises:
            NotProven, RolledBack: it is not proven; it is certain that it did not take place.
        """
        self._prove_idle()
        if self._driver.has_commit_hooks(self.connection):
            async with self._driver.transaction(self.connection):
                fate = await self._driver.fetch(self.connection, FATE, [self._number])
            self._prove_fate(fate)

    def prove_sync(self) -> None:
        """The same."""
        self._prove_idle()
        if self._driver.has_commit_hooks(self.connection):
            with self._driver.transaction(self.connection):
                fate = self._driver.fetch(self.connection, FATE, [self._number])
            self._prove_fate(fate)

    def _prove_idle(self) -> None:
        if (state := self._driver.state(self.connection)) is not State.IDLE:
            raise NotProven(f"after COMMIT {state.value}")

    @staticmethod
    def _prove_fate(fate: Row | None) -> None:
        if fate and fate[0] == "aborted":
            raise RolledBack from UnusableConnection(_UNDONE_IN_COMMIT)
        if not fate or fate[0] != "committed":
            raise NotProven("the server does not say that it was committed")

    def cut_if_open(self) -> None:
        """Its end has failed. A connection that lasts would keep it open, and all that it has locked.

        (A pool, or whoever closes a connection after use, sees to that.)
        """
        if is_connection(self._source) and self._driver.state(self.connection) is not State.IDLE:
            with suppress(Exception):  # it is closed already
                self._driver.cut(self.connection)

    async def look_back(self) -> None:
        """The function has failed, and everything was rolled back, unless it has committed something.

        Raises:
            UnusableConnection: it has committed by itself.
        """
        fate: Row | None = None
        if self._can_look_back():
            with suppress(Exception):  # what the function raised says more
                async with self._driver.transaction(self.connection):
                    fate = await self._driver.fetch(self.connection, FATE, [self._number])
        self._judge(fate)

    def look_back_sync(self) -> None:
        """The same."""
        fate: Row | None = None
        if self._can_look_back():
            with suppress(Exception), self._driver.transaction(self.connection):
                fate = self._driver.fetch(self.connection, FATE, [self._number])
        self._judge(fate)

    def _can_look_back(self) -> bool:
        return self._number is not None and self._driver.state(self.connection) is State.IDLE

    @staticmethod
    def _judge(fate: Row | None) -> None:
        if fate and fate[0] != "aborted":
            raise UnusableConnection(_ENDED)

    def was_lost(self, error: BaseException) -> bool:
        """Whether an error before COMMIT says that the connection was lost, and with it the transaction."""
        return self._driver.state(self.connection) is State.CLOSED and is_lost_connection(error, had=True)

    def overdue(self) -> TimeoutError | None:
        """Why it was rolled back from outside, if it was."""
        return None

    def abandon(self) -> None:
        """Nobody waits for its outcome any more."""


# -- SQLite --------------------------------------------------------------------------------------------------

_UNDONE = (
    "SQLite has rolled the transaction back by itself while its function ran (OR ROLLBACK, "
    "RAISE(ROLLBACK), or no room "
    "on the disk) or it was closed, and the function went on"
)


class SqliteUnit:
    """A transaction in the store's file that only `ctx.transaction` may end."""

    def __init__(
        self, watch: LockWatch, file: SqliteFile, loop: AbstractEventLoop, freed: Callable[[], object]
    ) -> None:
        self._lent = file.lend()
        self.connection = Connection(self._lent)
        """What the function gets."""
        self._file = file
        self._watch = watch
        self._loop = loop
        self._freed = freed
        self._hold: Hold | None = None
        self.held = 0.0
        """For how long it had the write lock, in seconds."""

    @property
    def is_changed(self) -> bool:
        """Whether the next function would find traces of this one on the connection."""
        return self._lent.is_changed

    async def begin(self, stack: AsyncExitStack) -> None:
        """Begin, as soon as nobody else writes; the stack ends it."""
        await self._file.begin_on_loop(managed=True)
        self._begun()
        stack.push_async_exit(self._end)

    def begin_sync(self, stack: ExitStack, _on_loop: Callable[[Any], Any]) -> None:
        """The same."""
        self._file.begin(managed=True)
        self._begun()
        stack.push(self._end_sync)

    def _begun(self) -> None:
        self._hold = Hold(self._file, self._aborted)
        self._watch.begin(self._hold)

    def _aborted(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._freed)

    async def _end(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over()
        if error is not None:
            self._file.end(commit=False, managed=True)
            return
        try:
            ended = await self._file.commit_on_loop(managed=True)
        except Exception as failure:  # noqa: BLE001 - see `_not_committed`
            self._not_committed(failure)
        else:
            self._committed(ended)

    def _end_sync(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over()
        if error is not None:
            self._file.end(commit=False, managed=True)
            return
        try:
            ended = self._file.end(commit=True, managed=True)
        except Exception as failure:  # noqa: BLE001 - see `_not_committed`
            self._not_committed(failure)
        else:
            self._committed(ended)

    def _over(self) -> None:
        if self._hold is not None:
            self.held = self._watch.end(self._hold)
        self._lent.give_back()

    def _not_committed(self, error: Exception) -> None:
        # SQLite's own word, in this process: what it could not commit is not in the file.
        self._file.end(commit=False, managed=True)
        raise RolledBack from error

    def _committed(self, ended: bool) -> None:
        if not ended:
            raise RolledBack from UnusableConnection(_UNDONE)

    async def check(self) -> None:
        """See `PostgresUnit.check`; SQLite lets no statement end it."""
        self.check_sync()

    def check_sync(self) -> None:
        """The same."""
        if not self._file.in_transaction and self.overdue() is None:
            raise UnusableConnection(_UNDONE)

    async def record(self, change: Change) -> bool:
        """See `PostgresUnit.record`."""
        return self.record_sync(change)

    def record_sync(self, change: Change) -> bool:
        """The same."""
        return self._file.apply(change) is not None

    async def prove(self) -> None:
        """SQLite has said so itself."""

    def prove_sync(self) -> None:
        """The same."""

    def cut_if_open(self) -> None:
        """What SQLite could not commit is rolled back."""

    async def look_back(self) -> None:
        """No statement of the function's could have ended it."""

    def look_back_sync(self) -> None:
        """The same."""

    def was_lost(self, error: BaseException) -> bool:
        """Whether it never began, since others kept the write lock."""
        return self._hold is None and is_locked(error)

    def overdue(self) -> TimeoutError | None:
        """Why it was rolled back from outside, if it was."""
        if self._hold is None or not self._hold.is_aborted:
            return None
        return TimeoutError(
            f"it has held the file's only write lock for {self._watch.limit:g} s, half of a lease, and was "
            f"rolled "
            "back: nobody else can write meanwhile, and no lease can be renewed; be quick in a "
            "transaction, or give "
            "the runtime a longer lease"
        )

    def abandon(self) -> None:
        """Nobody waits for its outcome any more: a thread that cannot be stopped shall not keep the lock."""
        if self._hold is not None:
            self._watch.abort(self._hold)
