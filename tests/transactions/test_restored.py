"""A store that is restored from a backup in its place, while a process has it open.

It is another store by the same name, and the process goes on with it.
"""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from duramen import Context, Runtime, workflow
from duramen.errors import WrongDatabase
from tests.transactions.kits import Postgres, make

pytestmark = pytest.mark.anyio


@workflow
async def hello(ctx: Context, name: str) -> str:
    return f"hello {name}"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def postgres(postgres_url: str) -> Postgres:
    kit = make("psycopg-sync", postgres_url)
    assert isinstance(kit, Postgres)
    asyncio.run(Runtime(kit.url).migrate())
    return kit


async def restore(postgres: Postgres) -> None:
    """As by `pg_restore --clean`: all tables are dropped and made again."""
    with psycopg.connect(postgres.dsn, autocommit=True) as connection:
        connection.execute(f'DROP SCHEMA "{postgres.schema}" CASCADE')
    await Runtime(postgres.url).migrate()


async def enqueue_async(runtime: Runtime, postgres: Postgres) -> None:
    async with await psycopg.AsyncConnection.connect(postgres.dsn) as connection:
        await runtime.enqueue(hello, "you", connection=connection)


async def enqueue_sync(runtime: Runtime, postgres: Postgres) -> None:
    def in_thread() -> None:
        with psycopg.connect(postgres.dsn) as connection:
            runtime.sync.enqueue(hello, "you", connection=connection)

    await asyncio.to_thread(in_thread)


@pytest.mark.parametrize("enqueue", [enqueue_async, enqueue_sync])
async def test_a_change_on_a_connection(postgres: Postgres, enqueue: Any) -> None:
    async with postgres.runtime(hello) as runtime:
        await enqueue(runtime, postgres)
        await restore(postgres)
        await enqueue(runtime, postgres)
        await enqueue(runtime, postgres)
        assert await runtime.count() == 2


async def transact_async(connection: Any) -> str:
    return "done"


@pytest.mark.parametrize("is_async", [True, False])
async def test_the_first_transaction_of_a_source(postgres: Postgres, is_async: bool) -> None:
    def source() -> Any:
        connect = psycopg.AsyncConnection.connect if is_async else psycopg.connect
        return connect(postgres.dsn)

    @workflow
    async def pay(ctx: Context) -> str:
        return await ctx.transaction(
            "write", transact_async if is_async else lambda _: "done", database=source
        )

    async with Runtime(postgres.url, workflows=[hello, pay]) as runtime:
        await enqueue_sync(runtime, postgres)  # the identity is known from here on
        await restore(postgres)
        assert await (await runtime.start(pay)).result(timeout=10) == "done"


async def test_another_database_is_refused_before_and_after(postgres: Postgres, postgres_server: str) -> None:
    async with postgres.runtime(hello) as runtime:
        other = urlsplit(postgres_server)._replace(path="/postgres").geturl()
        for _ in range(2):
            async with await psycopg.AsyncConnection.connect(other) as connection:
                with pytest.raises(WrongDatabase):
                    await runtime.enqueue(hello, "you", connection=connection)
            await restore(postgres)
            await enqueue_async(runtime, postgres)
