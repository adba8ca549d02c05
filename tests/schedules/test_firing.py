"""Schedules fire at their times, on every kind of store."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from duramen import Context, RunStatus, Runtime, Schedule, cron, every, workflow
from duramen.testing import Environment

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@workflow
async def note(ctx: Context, day: str) -> str:
    tick = ctx.schedule
    if tick is None:
        return f"{day} by hand"
    previous = "never" if tick.previous is None else f"{tick.previous:%d}"
    return f"{day} {tick.id} at {tick.fire_time:%d} after {previous}"


def nightly(**options: Any) -> Schedule[str]:
    return Schedule("nightly", note, every.days(1), input=lambda at: f"{at:%Y-%m-%d}", **options)


async def test_a_sweep_starts_and_drives_what_is_due(any_url: str) -> None:
    async with Runtime(any_url, workflows=[note], schedules=[nightly()]) as runtime:
        assert (await runtime.sweep()).scheduled == ()
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        swept = await runtime.sweep(now=tomorrow + timedelta(seconds=1))
        (run,) = swept.scheduled
        assert run.run_id == f"nightly:{tomorrow:%Y-%m-%dT%H:%M:%SZ}"
        assert (run.kind, swept.queued, swept.summary["completed"]) == ("completed", (), 1)
        assert (await runtime.sweep(now=tomorrow + timedelta(seconds=2))).scheduled == ()
        view = await runtime.schedules.get("nightly")
        assert (view.fired, view.last_fire, view.last_run) == (1, tomorrow, run.run_id)
        assert await runtime.result(run.run_id) == f"{tomorrow:%Y-%m-%d} nightly at {tomorrow:%d} after never"


async def test_a_worker_fires_at_the_time(any_url: str) -> None:
    schedule = Schedule("fast", note, every.seconds(0.2), input="x", overlap="allow")
    async with Runtime(any_url, workflows=[note], schedules=[schedule], work=True) as runtime:
        for _ in range(200):
            page = await runtime.list(status="completed")
            if len(page) >= 3:
                break
            await asyncio.sleep(0.05)
        assert len(page) >= 3
        assert all(view.run_id.startswith("fast:") for view in page)


async def test_the_clock_of_an_environment_fires_them_as_it_passes() -> None:
    async with Environment([note], schedules=[nightly()]) as env:
        await env.advance(days=3, hours=1)
        runs = sorted([view.run_id for view in await env.runtime.list()])
        assert runs == [f"nightly:2030-01-0{day}T00:00:00Z" for day in (2, 3, 4)]
        assert [(await env.runtime.get(run_id)).output for run_id in runs] == [
            "2030-01-02 nightly at 02 after never",
            "2030-01-03 nightly at 03 after 02",
            "2030-01-04 nightly at 04 after 03",
        ]


async def test_a_year_of_working_days_passes() -> None:
    at_nine = Schedule("nine", note, cron("0 9 * * MON-FRI", tz="Europe/Zurich"), input="x")
    async with Environment([note], schedules=[at_nine]) as env:
        await env.advance(days=365)
        runs = [view async for view in _all(env.runtime)]
        assert len(runs) == 261
        assert {view.status for view in runs} == {RunStatus.COMPLETED}
        assert min(view.run_id for view in runs) == "nine:2030-01-01T08:00:00Z"
        assert "nine:2030-07-01T07:00:00Z" in {view.run_id for view in runs}


async def _all(runtime: Runtime) -> Any:
    cursor = None
    while True:
        page = await runtime.list(cursor=cursor)
        for view in page:
            yield view
        cursor = page.cursor
        if cursor is None:
            return
