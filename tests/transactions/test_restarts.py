"""Connections that the server ends, at each point of a transaction: that costs time, not an attempt.

Each pool has several connections when it happens, and gives out the dead ones afterwards.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from duramen import Context, Retry, Runtime, workflow
from tests.postgres.server import Server, server
from tests.transactions.kits import Postgres, make

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(110)]

SIZE = 4
OURS = "user's own"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def own_server() -> Iterator[Server]:
    with server() as pg:
        yield pg


@asynccontextmanager
async def psycopg_async(dsn: str) -> AsyncGenerator[Any]:
    from psycopg_pool import AsyncConnectionPool

    async with AsyncConnectionPool(dsn, min_size=SIZE, max_size=SIZE, open=False) as pool:
        await pool.wait()
        yield pool


@asynccontextmanager
async def psycopg_sync(dsn: str) -> AsyncGenerator[Any]:
    from psycopg_pool import ConnectionPool

    with ConnectionPool(dsn, min_size=SIZE, max_size=SIZE, open=True) as pool:
        await asyncio.to_thread(pool.wait)
        yield pool


@asynccontextmanager
async def asyncpg_async(dsn: str) -> AsyncGenerator[Any]:
    import asyncpg

    async with asyncpg.create_pool(dsn, min_size=SIZE, max_size=SIZE) as pool:
        yield pool


@asynccontextmanager
async def sqlalchemy_async(dsn: str) -> AsyncGenerator[Any]:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    url = dsn.replace("://", "+asyncpg://", 1)
    engine = create_async_engine(
        url.partition("?")[0], pool_size=SIZE, connect_args={"server_settings": {"application_name": OURS}}
    )
    taken = [await engine.connect() for _ in range(SIZE)]
    for each in taken:
        await each.execute(text("SELECT 1"))
        await each.close()
    yield engine
    await engine.dispose()


@asynccontextmanager
async def sqlalchemy_sync(dsn: str) -> AsyncGenerator[Any]:
    from sqlalchemy import create_engine, text

    engine = create_engine(dsn.replace("://", "+psycopg://", 1), pool_size=SIZE)
    taken = [engine.connect() for _ in range(SIZE)]
    for each in taken:
        each.execute(text("SELECT 1"))
        each.close()
    yield engine
    engine.dispose()


SOURCES = {
    "psycopg-async": psycopg_async,
    "psycopg-sync": psycopg_sync,
    "asyncpg-async": asyncpg_async,
    "sqlalchemy-async": sqlalchemy_async,
    "sqlalchemy-sync": sqlalchemy_sync,
}

DIES_IN_COMMIT = """
CREATE SEQUENCE {0}.deaths;
CREATE FUNCTION {0}.die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('{0}.deaths') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60);
    END IF; RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER dies AFTER INSERT ON {0}.words DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION {0}.die();
"""


class Events:
    """What happens to the server, or to the user's connections."""

    def __init__(self, own_server: Server) -> None:
        self.server = own_server

    def terminate(self) -> None:
        found = self.server.sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s", OURS
        )
        assert found

    def restart(self) -> None:
        self.server.restart("immediate")


@pytest.mark.parametrize(
    ("event", "point"),
    [
        *(("terminate", point) for point in ("before", "first", "last", "in COMMIT", "swallowed")),
        # What the others are about is the connection itself.
        *(("restart", point) for point in ("before", "first", "last")),
    ],
)
@pytest.mark.parametrize("driver", list(SOURCES))
async def test_connections_that_the_server_ends_cost_no_attempt(
    own_server: Server, driver: str, event: str, point: str
) -> None:
    url = own_server.new_database()
    kit = make(driver, f"{url}?schema=duramen")
    assert isinstance(kit, Postgres)
    await Runtime(kit.url, workflows=()).migrate()
    kit.create()
    if point == "in COMMIT":
        with psycopg.connect(url) as connection:
            connection.execute(DIES_IN_COMMIT.format(kit.schema))
    happens = getattr(Events(own_server), event)
    calls: list[int] = []

    def at(here: str) -> None:
        if here == point and len(calls) == 1:
            happens()

    async def write_async(connection: Any, word: str) -> str:
        calls.append(1)
        await asyncio.to_thread(at, "first")
        await kit.insert(connection, word)
        await asyncio.to_thread(at, "last")
        if point == "swallowed" and len(calls) == 1:
            await asyncio.to_thread(happens)
            try:
                await kit.execute(connection, "SELECT 1")
            except Exception:  # noqa: BLE001 - the function goes on as if nothing had been
                pass
        return word.upper()

    def write(connection: Any, word: str) -> str:
        calls.append(1)
        at("first")
        kit.insert(connection, word)
        at("last")
        if point == "swallowed" and len(calls) == 1:
            happens()
            try:
                kit.execute(connection, "SELECT 1")
            except Exception:  # noqa: BLE001 - as above
                pass
        return word.upper()

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        fn = write_async if kit.is_async else write
        return await ctx.transaction("write", fn, word, retry=Retry(attempts=1))

    async with (
        SOURCES[driver](f"{url}?application_name={OURS.replace(' ', '%20')}") as source,
        Runtime(kit.url, workflows=[pay], database=source) as runtime,
    ):
        if point == "before":
            await asyncio.to_thread(happens)
        run = await runtime.start(pay, "one", run_id="r")
        assert await run.result(timeout=60) == "ONE"
        kinds = [entry.kind for entry in await runtime.timeline("r")]
    assert kinds == ["run_created", "step_completed", "run_finished"]
    assert kit.words() == ["one"]
    assert len(calls) == (1 if point == "before" else 2)
