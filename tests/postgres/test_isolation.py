"""Every isolation level that a store may ask for, whatever the server's own default is."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from duramen import Runtime
from duramen.errors import StoreUnavailable
from duramen.store import Store
from duramen.testing import StoreContract, open_store
from duramen.testing._contract.support import APPLIED, commit, entry, live, new_run
from tests.postgres import load
from tests.postgres.schemas import connected, empty, migrate, without_schema
from tests.postgres.server import Server
from tests.regressions.support import wait_until

pytestmark = pytest.mark.slow

# How a store comes to its isolation: its own option, or the defaults of role and database that others set.
LEVELS = ["read_committed", "repeatable_read", "serializable"]


@pytest.fixture(scope="module", params=LEVELS)
def asked(request: pytest.FixtureRequest, own_server: Server) -> str:
    """The URL of a store that asks for a level."""
    return asking(own_server, request.param)


@pytest.fixture(scope="module", params=LEVELS[1:])
def strict_store(request: pytest.FixtureRequest, own_server: Server) -> str:
    return asking(own_server, request.param)


def asking(pg: Server, level: str) -> str:
    """A store whose database has another default than what the store asks for: that from the opposite end."""
    url = pg.new_database()
    set_default(pg, url, "read committed" if level == "serializable" else "serializable")
    migrate(url)
    return f"{url}?isolation={level}"


def set_default(pg: Server, url: str, level: str) -> None:
    name = sql.Identifier(url.rpartition("/")[2])
    statement = "ALTER DATABASE {} SET default_transaction_isolation = {}"
    pg.sql(sql.SQL(statement).format(name, sql.Literal(level)))
    assert pg.sql("SHOW default_transaction_isolation", database=url.rpartition("/")[2]) == [(level,)]


class TestContract(StoreContract):
    """The whole contract under the levels that it does not run under anyway."""

    @pytest.fixture(autouse=True)
    def _store(self, strict_store: str) -> None:
        empty(strict_store)
        self.url = strict_store

    async def open_store(self, place: Path) -> Store:
        return open_store(self.url)


@pytest.mark.timeout(110)
def test_workers_that_meet_at_the_same_runs(asked: str, tmp_path: Path) -> None:
    book = str(tmp_path / "ledger.db")
    load.new_ledger(book)

    async def main(workers: ExitStack) -> None:
        async with (
            Runtime(asked, workflows=[load.order]) as one,
            Runtime(asked, workflows=[load.order]) as two,
        ):
            for _ in range(3):
                workers.enter_context(load.worker(asked))
            # Both create the same runs and send the same messages, while three processes drive them.
            ids, same = await asyncio.gather(load.submit(one, book, 60), load.submit(two, book, 60))
            assert ids == same
            await asyncio.gather(load.release(one, ids), load.release(two, ids))
            await load.all_end(one, ids)
            assert await load.check(one, ids, book) == 0

    with ExitStack() as workers:
        asyncio.run(main(workers))


# -- 40001, injected -----------------------------------------------------------------------------------------


@pytest.fixture(params=["repeatable_read", "serializable"])
def strict_url(request: pytest.FixtureRequest, postgres_url: str) -> str:
    return f"{postgres_url}&isolation={request.param}"


@pytest.fixture
def holder(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Another transaction that changes runs, for as long as a test wants."""
    with connected(postgres_url, autocommit=False) as connection:
        yield connection
        connection.rollback()


def waits_for_a_lock(url: str) -> bool:
    base, _ = without_schema(url)
    with psycopg.connect(base) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ).fetchone()
        return found != (0,)


def test_a_commit_that_meets_another_writer_is_made_once_more(
    strict_url: str, postgres_url: str, holder: psycopg.Connection[Any]
) -> None:
    async def main() -> None:
        store = open_store(strict_url)
        await live(store, "ann")
        await store.create([new_run("a", owner="ann"), new_run("b", owner="ann")])
        holder.execute("UPDATE runs SET note = note WHERE run_id = 'a'")
        both = [commit(run_id, length=1, entries=[entry("s")]) for run_id in "ab"]
        asked = asyncio.ensure_future(store.commit(both))
        # Its snapshot is older than the other's commit when it gets the lock: could not serialize access.
        await asyncio.to_thread(wait_until, lambda: waits_for_a_lock(postgres_url))
        holder.commit()
        async with asyncio.timeout(20):
            first, second = await asked
            while first == {"kind": "blocked"}:  # the lock was held for longer than anybody waits
                [first] = await store.commit(both[:1])
            assert [first, second] == [APPLIED, APPLIED]
        for run_id in "ab":
            assert [each["op"] for each in await store.load(run_id, 0, 10)] == ["", "s"]
        await store.close()

    asyncio.run(main())


TRIGGER = """
CREATE SEQUENCE refused;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('refused');
    RAISE EXCEPTION 'injected' USING ERRCODE = '40001';
END $$;
"""


def test_what_is_refused_again_and_again_is_an_error_in_the_end(strict_url: str, postgres_url: str) -> None:
    async def main() -> None:
        store = open_store(strict_url)
        await live(store, "ann")
        await store.create([new_run("a", owner="ann")])
        with connected(postgres_url) as connection:
            schema = without_schema(postgres_url)[1]
            connection.execute(TRIGGER)
            # The store's sessions need not have the schema on their search path.
            connection.execute(
                sql.SQL("ALTER FUNCTION refuse() SET search_path = {}").format(sql.Identifier(schema))
            )
            connection.execute(
                "CREATE TRIGGER refuse BEFORE INSERT ON journal FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
            with pytest.raises(StoreUnavailable, match="40001"):
                await store.commit([commit("a", length=1, entries=[entry("s")])])
            # A sequence counts in transactions that are rolled back, too.
            ((attempts,),) = connection.execute("SELECT last_value FROM refused").fetchall()
            assert 2 <= attempts <= 10
            connection.execute("DROP TRIGGER refuse ON journal")
        assert list(await store.commit([commit("a", length=1, entries=[entry("s")])])) == [APPLIED]
        await store.close()

    asyncio.run(main())


def test_an_application_that_locks_runs_in_its_own_transactions_costs_nobody_a_lease(
    strict_url: str, holder: psycopg.Connection[Any], tmp_path: Path
) -> None:
    """Somebody's transaction holds a run's row for longer than a lease; the other runs go on."""
    book = str(tmp_path / "ledger.db")
    load.new_ledger(book)

    async def main() -> None:
        async with Runtime(strict_url, workflows=[load.order], lease=1) as runtime:
            ids = await load.submit(runtime, book, 6)
            await load.release(runtime, ids)
            holder.execute("SELECT 1 FROM runs WHERE run_id = 'order:0' FOR UPDATE")
            freed = threading.Timer(2.5, holder.rollback)
            freed.start()
            worker = asyncio.ensure_future(runtime.work(handle_signals=False, poll_min=0.02, poll_max=0.1))
            await load.all_end(runtime, ids[1:], 2)
            assert (await runtime.get("order:0")).status != "completed"
            await load.all_end(runtime, ids)
            worker.cancel()
            freed.join()
            assert await load.check(runtime, ids, book) == 0

    asyncio.run(main())
