"""A server that is restarted, crashes, or fails over to its standby while workers are at work."""

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from duramen import Runtime
from tests.postgres import load
from tests.postgres.schemas import migrate
from tests.postgres.server import Server, server
from tests.regressions.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(110)]
RUNS = 200


@pytest.fixture
def book(tmp_path: Path) -> str:
    path = str(tmp_path / "ledger.db")
    load.new_ledger(path)
    return path


@pytest.mark.parametrize("mode", ["fast", "immediate"], ids=["restarts", "crashes"])
def test_runs_outlive_a_server(own_server: Server, book: str, mode: str) -> None:
    url = own_server.new_database()
    migrate(url)

    async def main(workers: ExitStack) -> None:
        async with Runtime(url, workflows=[load.order]) as runtime:
            for _ in range(2):
                workers.enter_context(load.worker(url))
            ids = await load.submit(runtime, book, RUNS)
            for _ in range(3):
                await asyncio.sleep(0.15)
                assert await load.in_progress(runtime), "the server is not stopped in the middle of anything"
                await asyncio.to_thread(own_server.restart, mode)
            await load.release(runtime, ids)
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own_server.restart, mode)
            await load.all_end(runtime, ids)
            repeated = await load.check(runtime, ids, book)
            print(f"{mode}: {len(ids)} runs, {len(ids) * load.STEPS} steps, {repeated} begun more than once")

    with ExitStack() as workers:
        asyncio.run(main(workers))


def test_runs_outlive_a_failover(book: str) -> None:
    """The standby has all that was acknowledged (it is synchronous), and is where the runs go on."""
    with server() as primary, ExitStack() as workers:
        url = primary.new_database("app")
        standby = primary.standby()
        # From here on a commit is answered when the standby has it too.
        primary.conf(synchronous_standby_names="*")
        wait_until(lambda: primary.sql("SELECT sync_state FROM pg_stat_replication") == [("sync",)])
        migrate(url)
        hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
        url = url.replace(f"127.0.0.1:{primary.port}", hosts) + "?target_session_attrs=read-write"

        async def main() -> None:
            async with Runtime(url, workflows=[load.order]) as runtime:
                for _ in range(2):
                    workers.enter_context(load.worker(url))
                ids = await load.submit(runtime, book, RUNS)
                await asyncio.sleep(0.3)
                assert await load.in_progress(runtime)
                await asyncio.to_thread(primary.stop, "immediate")
                await asyncio.to_thread(standby.promote)
                await load.release(runtime, ids)
                await load.all_end(runtime, ids)
                repeated = await load.check(runtime, ids, book)
                print(f"failover: {len(ids)} runs, {repeated} steps begun more than once")

        asyncio.run(main())


def test_the_account_of_the_load_finds_what_it_looks_for(postgres_url: str, book: str) -> None:
    async def main(workers: ExitStack) -> None:
        async with Runtime(postgres_url, workflows=[load.order]) as runtime:
            workers.enter_context(load.worker(postgres_url))
            ids = await load.submit(runtime, book, 4)
            await load.release(runtime, ids)
            await load.all_end(runtime, ids)
            assert await load.check(runtime, ids, book) == 0
            with load.ledger(book) as account:
                account.execute("INSERT INTO attempts (key) VALUES ('order:2/three')")
            with pytest.raises(AssertionError, match="order:2/three began again"):
                await load.check(runtime, ids, book)
            with pytest.raises(AssertionError, match="a step is missing"):
                await load.check(runtime, [*ids, "order:4"], book)

    with ExitStack() as workers:
        asyncio.run(main(workers))
