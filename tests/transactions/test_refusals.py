"""What cannot take part in a transaction is refused with a typed error, before anything is written."""

import asyncio
import secrets
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiosqlite
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from duramen import Context, Retry, RunFailed, Runtime, sqlite, workflow
from duramen._driving import transactions
from duramen._stores.databases import is_lost_connection, is_refused_connection
from duramen.errors import TransactionsUnsupported, UnusableConnection, WrongDatabase
from tests.transactions.kits import Gate, Postgres, SqlAlchemy, Sqlite, make

pytestmark = pytest.mark.anyio


@workflow
async def hello(ctx: Context, name: str) -> str:
    return f"hello {name}"


def nothing(connection: Any) -> None:
    raise AssertionError("it must not run")


async def nothing_async(connection: Any) -> None:
    raise AssertionError("it must not run")


async def failure(runtime: Runtime, workflow: Any) -> str:
    """How a run of the workflow fails, at once: its rule would try again and again."""
    with pytest.raises(RunFailed) as caught:
        await (await runtime.start(workflow)).result(timeout=10)
    return str(caught.value)


def using(fn: Any, database: Any = None) -> Any:
    @workflow(name="using", retry=Retry(attempts=100, base=60))
    async def made(ctx: Context) -> None:
        await ctx.transaction("write", fn, database=database)

    return made


@pytest.fixture
def postgres(postgres_url: str) -> Postgres:
    kit = make("psycopg-sync", postgres_url)
    assert isinstance(kit, Postgres)
    asyncio.run(Runtime(kit.url).migrate())
    return kit


@pytest.fixture
def file_kit(sqlite_url: str) -> Sqlite:
    kit = make("sqlite-sync", sqlite_url)
    assert isinstance(kit, Sqlite)
    asyncio.run(Runtime(kit.url).migrate())
    return kit


# -- stores and drivers --------------------------------------------------------------------------------------


async def test_a_memory_store() -> None:
    program = using(nothing)
    async with Runtime("memory://", workflows=[hello, program]) as runtime:
        with pytest.raises(TransactionsUnsupported):
            await runtime.enqueue(hello, "you", connection=object())
        with pytest.raises(TransactionsUnsupported):
            await runtime.signal("r", "go", connection=object())
        assert "TransactionsUnsupported" in await failure(runtime, program)
    with pytest.raises(UnusableConnection, match="database="):
        Runtime("memory://", database=lambda: None)


async def test_another_copy_of_sqlite(file_kit: Sqlite, tmp_path: Path) -> None:
    async with file_kit.runtime(hello) as runtime:
        there = str(tmp_path / "other.db")  # to open the store's own file with them is what must not be done
        with closing(sqlite3.connect(there)) as plain:
            async with aiosqlite.connect(there) as asynchronous:
                for connection in (plain, asynchronous):
                    with pytest.raises(UnusableConnection, match="another copy of SQLite"):
                        await runtime.enqueue(hello, "you", connection=connection)
        assert await runtime.count() == 0


def test_why_another_copy_of_sqlite_is_refused(tmp_path: Path) -> None:
    """Two copies in one process do not see each other's locks. Another process does."""
    path = tmp_path / "app.db"
    path.touch()
    ours = sqlite.connect(path)
    ours.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (x)")
    ours.begin()
    program = (
        "import sqlite3, sys\n"
        "try:\n    sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')\n"
        "except sqlite3.OperationalError as error:\n    print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, check=True, text=True
    )
    assert ran.stdout == "database is locked\n"
    theirs = sqlite3.connect(path, timeout=0, isolation_level=None)
    theirs.execute("BEGIN IMMEDIATE")
    assert theirs.in_transaction
    assert ours.in_transaction  # two writers at once: if this fails one day, the refusal can go
    theirs.close()
    ours.close()


async def test_what_is_no_connection(postgres: Postgres) -> None:
    async with postgres.runtime(hello) as runtime:
        for thing in (object(), "a dsn", postgres.options["database"]):
            with pytest.raises(UnusableConnection, match="no connection of a driver that is supported"):
                await runtime.enqueue(hello, "you", connection=thing)
        engine = create_async_engine("postgresql+asyncpg://")
        with pytest.raises(UnusableConnection, match="take one from it"):
            await runtime.enqueue(hello, "you", connection=engine)
        assert await runtime.count() == 0
    with pytest.raises(UnusableConnection):
        Runtime(postgres.url, database="a dsn")


async def test_function_and_driver_of_different_kinds(postgres: Postgres) -> None:
    sync_engine = create_engine(postgres.dsn.replace("://", "+psycopg://", 1))
    for program in (
        using(nothing_async, sync_engine),
        using(nothing, create_async_engine(postgres.dsn.replace("://", "+asyncpg://", 1))),
        using(nothing, lambda: psycopg.AsyncConnection.connect(postgres.dsn)),
        using(nothing, None),
        using(nothing, "a dsn"),
    ):
        async with Runtime(postgres.url, workflows=[program]) as runtime:
            assert "UnusableConnection" in await failure(runtime, program)
    sync_engine.dispose()


@pytest.mark.parametrize("fn", [nothing, nothing_async])
async def test_what_a_function_that_connects_may_give(postgres: Postgres, fn: Any) -> None:
    """Anything but a connection of the function's own kind is refused, and ended if that can be done."""
    other = make("psycopg-sync" if fn is nothing_async else "psycopg-async", postgres.url)
    engine = create_engine(postgres.dsn.replace("://", "+psycopg://", 1))
    kept = psycopg.connect(postgres.dsn)
    for gives in (
        lambda: None,
        lambda: "a dsn",
        lambda: psycopg.Connection,
        kept.cursor,
        lambda: asyncio.sleep(0),
        lambda: engine,
        engine.raw_connection,
        lambda: Session(engine),
        other.options["database"],
    ):
        program = using(fn, gives)
        async with Runtime(postgres.url, workflows=[program]) as runtime:
            assert "UnusableConnection" in await failure(runtime, program)
    kept.close()
    engine.dispose()


# -- other databases -----------------------------------------------------------------------------------------


async def test_another_sqlite_file(file_kit: Sqlite, tmp_path: Path) -> None:
    other, link = tmp_path / "other.db", tmp_path / "link.db"
    link.symlink_to(file_kit.path)
    async with Runtime(f"sqlite:///{other}"), file_kit.runtime(hello) as runtime:
        connection = sqlite.connect(other)
        with pytest.raises(WrongDatabase), connection:
            await runtime.enqueue(hello, "you", connection=connection)
        connection.close()
        # Another name of the same file is no other file.
        linked = sqlite.connect(link)
        with linked:
            await runtime.enqueue(hello, "you", connection=linked)
        linked.close()
        assert await runtime.count() == 1


async def test_another_database_and_another_schema(postgres: Postgres, postgres_server: str) -> None:
    """A database without the schema, and one that has the same schema: a store of its own."""
    name = f"other_{postgres.schema}"
    there = urlsplit(postgres.dsn)._replace(path=f"/{name}").geturl()
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            async with postgres.runtime(hello) as runtime:
                await refuses(runtime, there)
                await Runtime(f"{there}?schema={postgres.schema}").migrate()
                await refuses(runtime, there)
                assert await runtime.count() == 0
            program = using(nothing, lambda: psycopg.connect(there))
            async with Runtime(postgres.url, workflows=[program]) as runtime:
                assert "WrongDatabase" in await failure(runtime, program)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_copy_that_looks_like_the_store_is_refused_by_the_fence(
    postgres: Postgres, postgres_server: str
) -> None:
    """A database that cannot be told from the store's has no run of this process."""
    name = f"copy_{postgres.schema}"
    there = urlsplit(postgres.dsn)._replace(path=f"/{name}").geturl()
    calls: list[int] = []

    @workflow
    async def pay(ctx: Context) -> None:
        await ctx.transaction("write", lambda _: calls.append(1), retry=Retry(attempts=100, base=60))

    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        try:
            await Runtime(f"{there}?schema={postgres.schema}").migrate()
            async with Runtime(
                postgres.url, workflows=[pay], database=lambda: psycopg.connect(there)
            ) as runtime:
                runtime._services.transactions._verified = True
                assert "WrongDatabase" in await failure(runtime, pay)
        finally:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert len(calls) == 1


async def test_the_rights_that_a_connection_needs(postgres: Postgres, postgres_server: str) -> None:
    postgres.create()
    role, schema = f"user_{postgres.schema}", postgres.schema
    parts = urlsplit(postgres.dsn)
    host = parts.netloc.rpartition("@")[2]
    dsn = parts._replace(netloc=f"{role}:secret@{host}").geturl()
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        try:
            admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
            admin.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {schema} TO {role}")
            admin.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}")

            @workflow
            async def pay(ctx: Context) -> str:
                await ctx.wait_for_event("go")
                return await ctx.transaction("write", postgres.write(), "one")

            async with Runtime(
                postgres.url, workflows=[pay], database=lambda: psycopg.connect(dsn)
            ) as runtime:

                def in_thread() -> None:
                    with psycopg.connect(dsn) as connection:
                        runtime.sync.enqueue(pay, run_id="r", memo=1, connection=connection)
                        runtime.sync.signal("r", "go", connection=connection)

                await asyncio.to_thread(in_thread)
                await runtime.sweep()
                assert await runtime.result("r", 10) == "ONE"
        finally:
            admin.execute(f"DROP OWNED BY {role}")
            admin.execute(f"DROP ROLE {role}")


async def refuses(runtime: Runtime, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        with pytest.raises(WrongDatabase):
            await runtime.enqueue(hello, "you", connection=connection)


async def test_a_connection_that_cannot_be_made_is_a_failed_attempt(postgres: Postgres) -> None:
    calls: list[int] = []

    def connect() -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise ConnectionRefusedError
        return psycopg.connect(postgres.dsn)

    @workflow
    async def pay(ctx: Context) -> str:
        return await ctx.transaction("write", lambda _: "done", retry=Retry(attempts=2, base=0.01))

    async with Runtime(postgres.url, workflows=[pay], database=connect) as runtime:
        assert await (await runtime.start(pay)).result(timeout=10) == "done"
    assert len(calls) == 2


async def test_a_role_that_has_all_its_connections_is_not_refused(
    postgres: Postgres, postgres_server: str
) -> None:
    """It will have one again, as after a restart: that is waited for longer than for another password."""
    role, word = f"r_{secrets.token_hex(4)}", "some-word"
    parts = urlsplit(postgres.dsn)
    errors: list[psycopg.Error] = []
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{word}' CONNECTION LIMIT 0")
        for password in (word, "another"):
            netloc = f"{role}:{password}@{parts.netloc.rpartition('@')[2]}"
            with pytest.raises(psycopg.OperationalError) as caught:
                psycopg.connect(parts._replace(netloc=netloc).geturl())
            errors.append(caught.value)
        connection.execute(f"DROP ROLE {role}")
    assert [is_refused_connection(error) for error in errors] == [False, True]
    assert all(is_lost_connection(error) for error in errors)


# -- what a function does to its transaction -----------------------------------------------------------------


async def test_a_function_that_ends_its_transaction_by_itself(file_kit: Sqlite) -> None:
    file_kit.create()

    def commits(connection: sqlite.Connection) -> None:
        connection.execute("INSERT INTO words VALUES ('early')")
        connection.execute("ROLLBACK")

    def begins_anew(connection: sqlite.Connection) -> None:
        connection.executescript("ROLLBACK; BEGIN; INSERT INTO words VALUES ('late')")

    for fn, error in ((commits, "ProgrammingError"), (begins_anew, "UnusableConnection")):
        program = using(fn)

        async with Runtime(file_kit.url, workflows=[program]) as runtime:
            run = await runtime.start(program, run_id=error)
            for _ in range(200):
                entries = await runtime.timeline(run.run_id)
                if len(entries) > 1:
                    break
                await asyncio.sleep(0.01)
            assert error in str(entries[1])
            await runtime.terminate(run.run_id)
    assert file_kit.words() == []


async def test_psycopg_s_own_way_to_roll_back_is_a_failed_attempt(postgres: Postgres) -> None:
    """`psycopg.Rollback` leaves the transaction's block without an error; nothing was committed."""
    postgres.create()

    def rolls_back(connection: psycopg.Connection) -> None:
        postgres.insert(connection, "undone")
        raise psycopg.Rollback

    @workflow
    async def pay(ctx: Context) -> None:
        await ctx.transaction("write", rolls_back)

    async with postgres.runtime(pay) as runtime:
        assert "Rollback" in await failure(runtime, pay)
    assert postgres.words() == []


async def test_a_commit_that_the_database_refuses_is_a_failed_attempt(
    file_kit: Sqlite, postgres: Postgres
) -> None:
    """A constraint that is looked at no sooner than in COMMIT."""
    file_kit.create()
    create = (
        "CREATE TABLE {0}parent (id INTEGER PRIMARY KEY);"
        "CREATE TABLE {0}child (id INTEGER REFERENCES {0}parent (id) DEFERRABLE INITIALLY DEFERRED);"
    )
    with file_kit.connection() as connection:
        connection.executescript(create.format(""))
    with psycopg.connect(postgres.dsn) as raw:
        raw.execute(create.format(f"{postgres.schema}."))
    for kit, table, error in (
        (file_kit, "child", "IntegrityError"),
        (postgres, f"{postgres.schema}.child", "ForeignKeyViolation"),
    ):

        def orphan(connection: Any, table: str = table) -> None:
            connection.execute(f"INSERT INTO {table} VALUES (7)")

        @workflow
        async def pay(ctx: Context) -> None:
            await ctx.transaction("write", orphan, retry=Retry(attempts=2, base=0.01))

        async with kit.runtime(pay) as runtime:
            assert error in await failure(runtime, pay)
            (run,) = (await runtime.list()).items
            kinds = [entry.kind for entry in await runtime.timeline(run.run_id)]
            assert kinds == ["run_created", "step_attempt_failed", "step_failed", "run_failed"]


# -- sessions, pools, single connections ---------------------------------------------------------------------


async def test_sessions_of_sqlalchemy(postgres_url: str) -> None:
    kit = make("sqlalchemy-async", postgres_url)
    assert isinstance(kit, SqlAlchemy)
    await Runtime(kit.url).migrate()
    async with kit.runtime(hello) as runtime:
        async with AsyncSession(kit.engine) as session, session.begin():
            await runtime.enqueue(hello, "a", run_id="a", connection=session)
        blocking = SqlAlchemy("sqlalchemy-sync", postgres_url)

        def in_thread() -> None:
            with Session(blocking.engine) as session, session.begin():
                runtime.sync.enqueue(hello, "b", run_id="b", connection=session)
            with Session(blocking.engine) as session:
                runtime.sync.enqueue(hello, "c", run_id="c", connection=session)  # never committed

        await asyncio.to_thread(in_thread)
        assert [view is not None for view in await runtime.get_many(["a", "b", "c"])] == [True, True, False]


async def test_pools_and_single_connections(postgres: Postgres) -> None:
    import asyncpg
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

    postgres.create()
    asynchronous = {
        "psycopg": make("psycopg-async", postgres.url),
        "asyncpg": make("asyncpg-async", postgres.url),
    }

    async def play(kit: Any, database: Any, name: str) -> None:
        @workflow(name="pay")
        async def pay(ctx: Context) -> list[str]:
            both = (ctx.transaction(f"{n}", kit.write(), f"{name} {n}", database=database) for n in (1, 2))
            return list(await asyncio.gather(*both))

        async with Runtime(postgres.url, workflows=[pay]) as runtime:
            assert len(await (await runtime.start(pay)).result(timeout=10)) == 2

    async with AsyncConnectionPool(postgres.dsn, min_size=1, max_size=2, open=False) as pool:
        await play(asynchronous["psycopg"], pool, "pool")
    with ConnectionPool(postgres.dsn, min_size=1, max_size=2, open=True) as blocking:
        await play(postgres, blocking, "blocking pool")
    async with asyncpg.create_pool(postgres.dsn, min_size=1, max_size=2) as other:
        await play(asynchronous["asyncpg"], other, "other pool")
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as single:
        await play(asynchronous["psycopg"], single, "single")
    with psycopg.connect(postgres.dsn) as single_blocking:
        await play(postgres, single_blocking, "blocking single")
    alone = await asyncpg.connect(postgres.dsn)
    await play(asynchronous["asyncpg"], alone, "other single")
    await alone.close()
    async with asyncpg.create_pool(postgres.dsn, min_size=1, max_size=2) as other:
        async with other.acquire() as lent:
            await play(asynchronous["asyncpg"], lent, "lent")
        async with Runtime(postgres.url, workflows=[hello]) as runtime:
            with pytest.raises(UnusableConnection, match="closed"):
                await runtime.enqueue(hello, "you", connection=lent)
    assert len(postgres.words()) == 14


async def test_who_waits_for_a_single_connection_waits_no_longer_than_a_minute(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function waits for a run whose own function waits for the connection."""
    monkeypatch.setattr(transactions, "_PATIENCE", 0.3)
    kit = make("psycopg-async", postgres.url)
    kit.create()
    once = Retry(attempts=1)

    @workflow
    async def inner(ctx: Context) -> str:
        return await ctx.transaction("write", kit.write(), "inner", retry=once)

    async def write(connection: Any) -> str:
        return await (await runtime.start(inner)).result(timeout=20)

    @workflow
    async def outer(ctx: Context) -> str:
        return await ctx.transaction("write", write, retry=once)

    async with (
        await psycopg.AsyncConnection.connect(postgres.dsn) as single,
        Runtime(postgres.url, workflows=[inner, outer], database=single) as runtime,
    ):
        with pytest.raises(RunFailed, match="another transaction has had the connection"):
            await (await runtime.start(outer)).result(timeout=20)
        assert await (await runtime.start(inner)).result(timeout=20) == "INNER"
    assert kit.words() == ["inner"]


async def test_a_slow_transaction_of_one_run_holds_no_other_run_up_on_postgres(postgres: Postgres) -> None:
    postgres.create()
    gate = Gate()

    @workflow
    async def pay(ctx: Context) -> str:
        return await ctx.transaction("write", postgres.write(gate=gate), "slow")

    async with postgres.runtime(pay, hello) as runtime:
        slow = await runtime.start(pay)
        await gate.wait()
        for n in range(5):
            assert await (await runtime.start(hello, f"{n}")).result(timeout=5) == f"hello {n}"
        gate.opened.set()
        assert await slow.result(timeout=10) == "SLOW"
