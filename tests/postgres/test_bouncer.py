"""A real PgBouncer in transaction mode: each transaction may run on another connection of the server."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from duramen import Context, Retry, RunFailed, Runtime, workflow
from duramen._driving import transactions
from duramen.errors import DuramenError
from duramen.store import Store
from duramen.testing import StoreContract, open_store
from tests.postgres import load
from tests.postgres.bouncer import bouncer, needs_pgbouncer
from tests.postgres.schemas import empty, migrate, new_schema
from tests.postgres.server import Server

pytestmark = [needs_pgbouncer, pytest.mark.slow]


@pytest.fixture(scope="module")
def pooled(own_server: Server) -> Iterator[str]:
    """The URL of a database behind PgBouncer, with the option for it."""
    own_server.new_database("pooled")
    # Two server connections for everybody: whoever relies on having one to itself is found out.
    with bouncer(own_server, default_pool_size=2) as port:
        url = own_server.url_of("pooled", port=port, statement_cache="off")
        migrate(url)
        yield url


class TestContract(StoreContract):
    @pytest.fixture(autouse=True)
    def _store(self, own_server: Server, pooled: str) -> None:
        # Emptied past the pooler, whose sessions know nothing of a search path.
        empty(own_server.url_of("pooled"))
        self.url = pooled

    async def open_store(self, place: Path) -> Store:
        return open_store(self.url)


@pytest.mark.timeout(110)
def test_workers_behind_it(pooled: str, tmp_path: Path) -> None:
    book = str(tmp_path / "ledger.db")
    load.new_ledger(book)
    url = new_schema(pooled)
    migrate(url)

    async def main(workers: ExitStack) -> None:
        async with Runtime(url, workflows=[load.order]) as runtime:
            for _ in range(3):
                workers.enter_context(load.worker(url))
            ids = await load.submit(runtime, book, 100)
            await load.release(runtime, ids)
            await load.all_end(runtime, ids)
            assert await load.check(runtime, ids, book) == 0

    with ExitStack() as workers:
        asyncio.run(main(workers))


def test_without_the_option_for_it_the_error_names_the_option(pooled: str) -> None:
    url = new_schema(pooled)
    migrate(url)

    async def main() -> None:
        named = url.replace("statement_cache=off", "statement_cache=named")
        async with (
            Runtime(named, workflows=[load.order]) as one,
            Runtime(named, workflows=[load.order]) as two,
        ):
            # Each of them meets the other's connections sooner or later.
            for _ in range(50):
                await asyncio.gather(one.enqueue(load.order, ""), two.enqueue(load.order, ""))

    with pytest.raises(DuramenError, match='set statement_cache to "off"'):
        asyncio.run(main())


@workflow
async def writing(ctx: Context) -> int:
    return await ctx.transaction("write", one, retry=Retry(attempts=1))


async def one(connection: asyncpg.Connection) -> int:
    found: int = await connection.fetchval("SELECT 1")
    return found


def test_what_it_refuses_in_its_own_code_is_told_soon(pooled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "_PATIENCE_REFUSED", 0.2)
    parts = urlsplit(pooled)
    right = parts._replace(query="").geturl()
    wrong = right.replace(f":{parts.password}@", ":nonsense@")

    async def main() -> None:
        async with Runtime(pooled, workflows=[writing], database=lambda: asyncpg.connect(right)) as runtime:
            assert await (await runtime.start(writing)).result(timeout=30) == 1
        async with Runtime(pooled, workflows=[writing], database=lambda: asyncpg.connect(wrong)) as runtime:
            with pytest.raises(RunFailed, match="authentication failed"):
                await (await runtime.start(writing)).result(timeout=30)

    asyncio.run(main())
