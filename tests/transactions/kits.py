"""One kit for each driver: how a test uses it, so that a test can be written once.

The user's own data is a table of words. A kit writes them in the way of its driver, and reads them in a way
that has nothing to do with it.
"""

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from inspect import isawaitable
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg

from duramen import Runtime, sqlite

DRIVERS = [
    "sqlite-async",
    "sqlite-sync",
    "psycopg-async",
    "psycopg-sync",
    "asyncpg-async",
    "sqlalchemy-async",
    "sqlalchemy-sync",
]


class Gate:
    """Lets a function wait for the test, on the event loop or in a thread."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    async def pass_through(self) -> None:
        self.reached.set()
        while not self.opened.is_set():  # noqa: ASYNC110 - threads wait for it, too
            await asyncio.sleep(0.002)

    def pass_in_thread(self) -> None:
        self.reached.set()
        assert self.opened.wait(20)

    async def wait(self) -> None:
        while not self.reached.is_set():  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(0.002)


class Kit:
    """See the module's head."""

    table = "words"
    placeholder = "?"

    def __init__(self, driver: str, url: str) -> None:
        self.driver = driver
        self.url = url
        self.is_async = driver.endswith("-async")

    @property
    def options(self) -> dict[str, Any]:
        """What the runtime is told beside its URL."""
        return {}

    def runtime(self, *workflows: Any, **options: Any) -> Runtime:
        return Runtime(self.url, workflows=workflows, **{**self.options, **options})

    def create(self) -> None:
        """Make the table of words; the store is there already."""
        raise NotImplementedError

    def words(self) -> list[str]:
        """What is committed, in order."""
        raise NotImplementedError

    def execute(self, connection: Any, statement: str, *values: Any) -> Any:
        """Execute one statement by the driver; an awaitable if it is async."""
        raise NotImplementedError

    def insert(self, connection: Any, word: str) -> Any:
        return self.execute(connection, f"INSERT INTO {self.table} VALUES ({self.placeholder})", word)

    def write(self, body: Callable[[], object] | None = None, gate: Gate | None = None) -> Callable[..., Any]:
        """A function for `ctx.transaction`: it inserts a word, and then does what the test wants."""

        async def write_async(connection: Any, word: str) -> str:
            await _maybe(self.insert(connection, word))
            if gate is not None:
                await gate.pass_through()
            if body is not None:
                body()
            return word.upper()

        def write(connection: Any, word: str) -> str:
            self.insert(connection, word)
            if gate is not None:
                gate.pass_in_thread()
            if body is not None:
                body()
            return word.upper()

        return write_async if self.is_async else write

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        """The user's own transaction, for ``connection=``."""
        raise NotImplementedError
        yield

    def transaction_sync(self) -> AbstractContextManager[Any]:
        """The same with a blocking driver."""
        raise NotImplementedError

    def unusable(self) -> list[Any]:
        """Connections on which no transaction can be open (some may have to be awaited)."""
        raise NotImplementedError

    def arm(self) -> None:
        """Called before the transaction that is to be overtaken."""

    async def steal(self, gate: Gate, run_id: str) -> None:
        """Take a run over before its transaction has committed, then let its function go on."""
        raise NotImplementedError


async def _maybe(value: Any) -> Any:
    return await value if isawaitable(value) else value


class Sqlite(Kit):
    thief: sqlite.Connection | None = None

    @property
    def path(self) -> str:
        return self.url.removeprefix("sqlite:///")

    @contextmanager
    def connection(self) -> Generator[sqlite.Connection]:
        connection = sqlite.connect(self.path)
        try:
            yield connection
        finally:
            connection.close()

    def create(self) -> None:
        with self.connection() as connection:
            connection.execute("CREATE TABLE words (word TEXT NOT NULL)")

    def words(self) -> list[str]:
        with self.connection() as connection:
            return [word for (word,) in connection.execute("SELECT word FROM words ORDER BY rowid")]

    def execute(self, connection: Any, statement: str, *values: Any) -> Any:
        connection.execute(statement, values)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        with self.connection() as connection:
            async with connection:
                yield connection

    @contextmanager
    def transaction_sync(self) -> Generator[Any]:
        with self.connection() as connection, connection:
            yield connection

    def unusable(self) -> list[Any]:
        closed = sqlite.connect(self.path)
        closed.close()
        return [closed, sqlite.connect(self.path)]

    def arm(self) -> None:
        # While the function runs nobody else can write to the file. So the thief comes just before it.
        self.thief = sqlite.connect(self.path)
        self.thief.begin()

    async def steal(self, gate: Gate, run_id: str) -> None:
        while self.thief is None:  # noqa: ASYNC110 - set by a step
            await asyncio.sleep(0.002)
        await asyncio.sleep(0.05)  # the function's transaction waits for the lock
        assert not gate.reached.is_set()
        self.thief.execute("UPDATE runs SET owner = 'thief', epoch = epoch + 1 WHERE run_id = ?", (run_id,))
        self.thief.commit()
        self.thief.close()
        gate.opened.set()


class Postgres(Kit):
    """The words are in the schema of the store."""

    placeholder = "%s"

    def __init__(self, driver: str, url: str) -> None:
        super().__init__(driver, url)
        self.dsn, self.schema = split(url)
        self.own_dsn = self.dsn
        """For what the test does itself, when the function's connections go elsewhere."""
        self.table = f"{self.schema}.words"

    def create(self) -> None:
        with psycopg.connect(self.own_dsn) as connection:
            connection.execute(f"CREATE TABLE {self.table} (n serial, word text NOT NULL)")

    def words(self) -> list[str]:
        with psycopg.connect(self.own_dsn) as connection:
            found = connection.execute(f"SELECT word FROM {self.table} ORDER BY n")
            return [word for (word,) in found]

    def insert(self, connection: Any, word: str) -> Any:
        return self.execute(connection, f"INSERT INTO {self.table} (word) VALUES ({self.placeholder})", word)

    async def steal(self, gate: Gate, run_id: str) -> None:
        await gate.wait()
        with psycopg.connect(self.own_dsn) as connection:
            connection.execute(
                f"UPDATE {self.schema}.runs SET owner = 'thief', epoch = epoch + 1 WHERE run_id = %s",
                (run_id,),
            )
        gate.opened.set()


class Psycopg(Postgres):
    @property
    def options(self) -> dict[str, Any]:
        connect: Any = psycopg.AsyncConnection.connect if self.is_async else psycopg.connect
        return {"database": partial(connect, self.dsn)}

    def execute(self, connection: Any, statement: str, *values: Any) -> Any:
        return connection.execute(statement, values)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        if self.is_async:
            async with await psycopg.AsyncConnection.connect(self.dsn) as connection:
                yield connection
        else:
            with self.transaction_sync() as connection:
                yield connection

    def transaction_sync(self) -> AbstractContextManager[Any]:
        return psycopg.connect(self.dsn)

    def unusable(self) -> list[Any]:
        if self.is_async:
            return [psycopg.AsyncConnection.connect(self.dsn, autocommit=True)]
        closed = psycopg.connect(self.dsn)
        closed.close()
        failed = psycopg.connect(self.dsn)
        with suppress(psycopg.Error):
            failed.execute("SELECT 1 / 0")
        return [closed, failed, psycopg.connect(self.dsn, autocommit=True)]


class Asyncpg(Postgres):
    placeholder = "$1"

    @property
    def options(self) -> dict[str, Any]:
        import asyncpg  # drivers are imported where they are used: child processes begin sooner

        return {"database": partial(asyncpg.connect, self.dsn)}

    def execute(self, connection: Any, statement: str, *values: Any) -> Any:
        return connection.execute(statement, *values)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        connection = await self.options["database"]()
        try:
            async with connection.transaction():
                yield connection
        finally:
            await connection.close()

    def unusable(self) -> list[Any]:
        return [self.options["database"]()]


class SqlAlchemy(Postgres):
    placeholder = ":word"

    @property
    def engine(self) -> Any:
        from sqlalchemy import NullPool, create_engine
        from sqlalchemy.ext.asyncio import create_async_engine

        if self.is_async:
            return create_async_engine(self.dsn.replace("://", "+asyncpg://", 1), poolclass=NullPool)
        return create_engine(self.dsn.replace("://", "+psycopg://", 1), poolclass=NullPool)

    @property
    def options(self) -> dict[str, Any]:
        return {"database": self.engine}

    def execute(self, connection: Any, statement: str, *values: Any) -> Any:
        from sqlalchemy import text

        return connection.execute(text(statement), {"word": values[0]} if values else {})

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        if self.is_async:
            async with self.engine.begin() as connection:
                yield connection
        else:
            with self.engine.begin() as connection:
                yield connection

    def transaction_sync(self) -> AbstractContextManager[Any]:
        return self.engine.begin()

    def unusable(self) -> list[Any]:
        engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        return [_entered(engine.connect()) if self.is_async else engine.connect()]


async def _entered(connection: Any) -> Any:
    return await connection.start()


def split(url: str) -> tuple[str, str]:
    """A store's URL as one for drivers, which do not know our parameters, and its schema."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    schema = query.pop("schema")
    return urlunsplit(parts._replace(query=urlencode(query))), schema


KITS: dict[str, type[Kit]] = {
    "sqlite": Sqlite,
    "psycopg": Psycopg,
    "asyncpg": Asyncpg,
    "sqlalchemy": SqlAlchemy,
}


def make(driver: str, url: str) -> Kit:
    """The kit of a driver, on a store."""
    return KITS[driver.partition("-")[0]](driver, url)
