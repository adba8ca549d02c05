"""Elsewhere a crash between the pause and the writing of its timer left a run asleep for ever."""

from datetime import timedelta

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import DIED, DyingStore, finish, rows, run_child, until_waiting

pytestmark = pytest.mark.anyio


@workflow
async def sleeping(ctx: Context) -> str:
    await ctx.sleep(timedelta(minutes=10))
    return "woke"


async def drive_and_die(url: str, ledger: str, side: str, nth: int) -> None:
    async with Runtime(DyingStore(url, ledger, side, nth), workflows=[sleeping], migrate=True) as runtime:
        await runtime.start(sleeping, run_id="r")
        # Or the sweeps of an hour ahead would find it running, with a lease that has ended by then.
        await until_waiting(runtime, "r")
        await finish(runtime, "r")


# The changes: created, paused, claimed when the time has come (a change only once it has happened), finished.
CHANGES = [
    ("before", 1),
    ("before", 2),
    ("before", 3),
    ("after", 1),
    ("after", 2),
    ("after", 3),
    ("after", 4),
]


@pytest.mark.parametrize(("side", "nth"), CHANGES)
async def test_whatever_change_a_process_dies_at_its_run_stays_due_and_wakes(
    url: str, ledger: str, side: str, nth: int
) -> None:
    assert run_child(drive_and_die, url, ledger, side, nth) == DIED
    async with Runtime(url, workflows=[sleeping]) as runtime:
        if (side, nth) == ("before", 1):
            assert await runtime.count() == 0
            return
        if (side, nth) != ("after", 4):
            # A run that is driven has no time of its own: it is due when the lease of its owner has ended.
            ((due_at,),) = rows(
                url,
                "SELECT coalesce(ready_at, lease_until) FROM runs LEFT JOIN owners "
                "ON owners.owner = runs.owner WHERE run_id = 'r'",
            )
            assert due_at is not None
        assert (await finish(runtime, "r")).output == "woke"


async def test_a_paused_run_is_woken_by_a_process_that_knows_only_the_file(url: str) -> None:
    async with Runtime(url, workflows=[sleeping]) as runtime:
        await runtime.enqueue(sleeping, run_id="r")
        await runtime.sweep()
        paused = await runtime.get("r")
        assert (paused.status, paused.waits) == ("waiting", ("timer",))
        assert paused.ready_at is not None
    async with Runtime(url, workflows=[sleeping]) as runtime:
        assert (await runtime.sweep(now=paused.ready_at - timedelta(seconds=1))).driven == ()
        assert [run.kind for run in (await runtime.sweep(now=paused.ready_at)).timers] == ["completed"]
