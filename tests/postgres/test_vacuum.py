"""A transaction that stays open (a long dump, a forgotten session) keeps vacuum from clearing old rows.

Whoever looks for due runs from the beginning then passes over the index entries of all that was done since:
one entry and less than half a look at a page for each run that was processed, and nothing any more after the
next vacuum. The store's own claims do so once in several seconds; the others begin where nothing was left.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from duramen.testing import open_store
from duramen.testing._contract.support import claim, commit, entry, live, new_run
from tests.postgres.schemas import connected

pytestmark = pytest.mark.slow
CLAIMS = 20
BATCH = 200
HOLDER = "holder"

# Of all tables and indexes of the schema: entries that index scans returned, pages of both looked at.
READS = """
SELECT (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = current_schema()),
       sum(heap_blks_read + heap_blks_hit), sum(idx_blks_read + idx_blks_hit)
FROM pg_statio_user_tables WHERE schemaname = current_schema()
"""


@dataclass
class Cost:
    """What one claim that finds nothing reads, on average."""

    entries: float
    heap_pages: float
    index_pages: float


def reads(watcher: psycopg.Connection[Any]) -> list[float]:
    """Totals so far. A session tells its own at the latest when it ends, so all others must have ended."""
    others = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> %s"
    )
    end = time.monotonic() + 20
    while watcher.execute(others, (HOLDER,)).fetchone() != (0,):
        assert time.monotonic() < end, "a session of the store does not end"
        time.sleep(0.02)
    ((*totals,),) = watcher.execute(READS).fetchall()
    return [float(total) for total in totals]


async def cost(url: str, watcher: psycopg.Connection[Any], *, whole: bool = True) -> Cost:
    """With `whole`, each claim begins at the beginning, as one for an instant that is given does."""
    before = reads(watcher)
    store = open_store(url)
    await live(store, "idle")
    for _ in range(CLAIMS):
        asked = claim("idle", limit=10)
        if not whole:
            asked["now"] = None
        assert not (await store.claim(asked))["runs"]
    await store.close()
    after = reads(watcher)
    return Cost(*((b - a) / CLAIMS for a, b in zip(before, after, strict=True)))


async def process(url: str, name: str, count: int) -> None:
    """Create runs, claim them, and end them."""
    store = open_store(url)
    await live(store, "w")
    for start in range(0, count, BATCH):
        await store.create([new_run(f"{name}{number}") for number in range(start, start + BATCH)])
    done = 0
    while claimed := (await store.claim(claim("w", limit=BATCH)))["runs"]:
        ends = [
            commit(
                run["row"]["run_id"], "w", run["row"]["epoch"], length=1, entries=[entry("s")],
                next={"kind": "finished", "status": "completed"},
            )
            for run in claimed
        ]  # fmt: skip
        assert {outcome["kind"] for outcome in await store.commit(ends)} == {"applied"}
        done += len(claimed)
    assert done == count
    await store.close()


@pytest.mark.timeout(110)
def test_what_a_claim_reads_while_vacuum_is_blocked(own_database: str) -> None:
    async def main() -> None:
        with connected(own_database) as watcher:
            with connected(own_database, autocommit=False, application_name=HOLDER) as holder:
                holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                holder.execute("SELECT pg_current_xact_id(), count(*) FROM runs")
                empty = await cost(own_database, watcher)
                # Owners are looked at, and nothing of a run.
                assert (empty.entries <= 10, empty.heap_pages <= 5) == (True, True)
                processed = 0
                for count in (1000, 2000):
                    await process(own_database, f"n{count}-", count)
                    processed += count
                    watcher.execute("VACUUM runs")
                    found = await cost(own_database, watcher)
                    print(f"{processed} runs processed under an open transaction: {found}")
                    # If this held nothing back, the test would show nothing.
                    assert found.entries > processed / 2
                    # Each has left an entry where due runs stand and one where those of owners do.
                    assert found.entries <= 2.2 * processed
                    assert found.heap_pages <= 0.5 * processed
                    assert found.index_pages <= 60 + 0.02 * processed
                    # The first of these begins at the beginning, and perhaps one more.
                    usual = await cost(own_database, watcher, whole=False)
                    print(f"a store's own claims: {usual}")
                    assert 0 < usual.entries <= 2 * 2.2 * processed / CLAIMS + 5
            watcher.execute("VACUUM runs")
            afterwards = await cost(own_database, watcher)
            print(f"after the next vacuum: {afterwards}")
            assert (afterwards.entries <= 10, afterwards.heap_pages <= 5) == (True, True)

    asyncio.run(main())
