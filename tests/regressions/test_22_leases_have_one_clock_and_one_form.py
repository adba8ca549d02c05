"""Elsewhere the end of a lock was compared as text, or between the clocks of two hosts."""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import Child, columns, hang, ran, rows, run_child, wait_until

pytestmark = pytest.mark.anyio


@workflow
async def hanging(ctx: Context, ledger: str) -> str:
    return await ctx.step("hang", hang, ledger, "hang")


async def drive(url: str, ledger: str, zone: str) -> None:
    os.environ["TZ"] = zone
    time.tzset()
    async with Runtime(url, workflows=[hanging], lease=600) as runtime:
        await runtime.start(hanging, ledger, run_id="r")
        await asyncio.Event().wait()


async def sweep_in(url: str, zone: str, driven: int) -> None:
    os.environ["TZ"] = zone
    time.tzset()
    async with Runtime(url, workflows=[hanging]) as runtime:
        assert len((await runtime.sweep()).driven) == driven


@pytest.mark.parametrize(
    ("here", "there"), [("Pacific/Kiritimati", "Etc/GMT+12"), ("Etc/GMT+12", "Pacific/Kiritimati")]
)
async def test_a_lease_holds_between_processes_of_different_time_zones(
    url: str, ledger: str, here: str, there: str
) -> None:
    with Child(drive, url, ledger, here) as driver:
        wait_until(lambda: ran(ledger, "hang"))
        assert run_child(sweep_in, url, there, 0) == 0
        assert run_child(sweep_in, url, here, 0) == 0
        driver.kill()
    assert run_child(sweep_in, url, there, 0) == 0  # dead, but the lease is what counts
    ((lease_until,),) = rows(url, "SELECT lease_until FROM owners WHERE owner IN (SELECT owner FROM runs)")
    assert isinstance(lease_until, int)
    end = datetime.fromtimestamp(lease_until / 1000, UTC)
    async with Runtime(url, workflows=[hanging]) as runtime:
        # The same instant as two people write it; only the instant counts.
        east, west = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
        early = end - timedelta(milliseconds=1)
        for zone in (east, west, UTC):
            assert (await runtime.sweep(now=early.astimezone(zone))).driven == ()
        assert [run.kind for run in (await runtime.sweep(now=end.astimezone(west))).recovered] == [
            "completed"
        ]


async def test_every_instant_in_the_store_is_a_number_of_milliseconds(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[hanging]) as runtime:
        await runtime.enqueue(hanging, ledger, run_id="r", start_at=datetime.now(UTC) + timedelta(hours=1))
        await runtime.signal("r", "x", 1)
        others = {"at", "deadline", "lease_until"}
        instants = [each for each in columns(url) if each[1].endswith("_at") or each[1] in others]
        instants = [each for each in instants if each[1] != "lost_at"]  # a length, at which drivers were lost
        assert len(instants) > 5
        for table, column, form in instants:
            assert form in {"INTEGER", "bigint"}, (table, column)
            for (value,) in rows(url, f'SELECT "{column}" FROM "{table}" WHERE "{column}" IS NOT NULL'):
                assert abs(value / 1000 - time.time()) < 7200, (table, column)
