"""Crashes and races: however many find a schedule due, and however often, a fire time starts one run."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, Runtime, Schedule, every, workflow
from duramen.testing import Environment, FaultyStore, LoseAnswer, LoseRequest, crash_everywhere, open_store
from tests.schedules.conftest import work

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)


@workflow
async def brief(ctx: Context, hour: str) -> str:
    assert ctx.schedule is not None
    return await ctx.step("work", str.upper, f"{hour} {ctx.schedule.fire_time:%H}")


@workflow
async def lasting(ctx: Context, hour: str) -> str:
    await ctx.sleep(timedelta(minutes=90))
    return hour


async def until(env: Environment, instant: datetime) -> None:
    # A recovery takes its time: the instant may have passed.
    await env.advance_to(max(instant, env.now))


async def outcome(env: Environment) -> Any:
    runs = {view.run_id[13:18]: view.status.value for view in await env.runtime.list()}
    view = await env.runtime.schedules.get("s")
    return dict(sorted(runs.items())), view.fired, view.next_fire


async def hour(at: datetime) -> str:
    return f"{at:%H}"


@pytest.mark.parametrize("how", ["declared", "upserted"])
@pytest.mark.parametrize("overlap", ["skip", "allow", "buffer_one", "cancel_previous", "terminate_previous"])
async def test_a_crash_at_any_change_alters_nothing(overlap: Any, how: str) -> None:
    def schedule(made: Any) -> Schedule[str]:
        end = START + timedelta(hours=2)
        return Schedule("s", lasting, every.hours(1), input=made, overlap=overlap, end=end)

    async def scenario(env: Environment) -> Any:
        if how == "upserted":
            await env.runtime.schedules.upsert(schedule("x"))
        await until(env, START + timedelta(hours=5))
        return await outcome(env)

    if how == "declared":
        # (A process that cannot be opened does not go on: another does.)
        report = await crash_everywhere(scenario, [lasting], workers=("another",), schedules=[schedule(hour)])
    else:
        report = await crash_everywhere(scenario, [lasting], workers=("same",))
    assert {change.method for change in report.changes} >= {"change_schedules", "create", "commit"}
    runs, fired, next_fire = report.outcome
    expected: dict[str, dict[str, str]] = {
        "skip": {"01:00": "completed"},
        "allow": {"01:00": "completed", "02:00": "completed"},
        "buffer_one": {"01:00": "completed", "02:00": "completed"},
        "cancel_previous": {"01:00": "cancelled", "02:00": "completed"},
        "terminate_previous": {"01:00": "terminated", "02:00": "completed"},
    }
    assert runs == expected[overlap]
    assert (fired, next_fire) == (len(runs), None)


async def test_a_second_crash_while_the_first_is_repaired_alters_nothing() -> None:
    async def scenario(env: Environment) -> Any:
        await until(env, START + timedelta(hours=2, minutes=30))
        return await outcome(env)

    schedule = Schedule(
        "s", brief, every.hours(1), input=hour, overlap="terminate_previous", end=START + timedelta(hours=1)
    )
    report = await crash_everywhere(scenario, [brief], workers=("another",), again=True, schedules=[schedule])
    assert report.outcome == ({"01:00": "completed"}, 1, None)


async def test_what_people_ask_for_survives_a_crash() -> None:
    async def scenario(env: Environment) -> Any:
        await until(env, START + timedelta(hours=3))
        await env.runtime.schedules.upsert(Schedule("s", brief, every.hours(1), input="x", enabled=False))
        await env.runtime.schedules.trigger("s", trigger_id="now")
        await env.runtime.schedules.backfill("s", START, START + timedelta(hours=3))
        await until(env, START + timedelta(hours=4))
        return sorted([view.run_id for view in await env.runtime.list(status="completed")])

    report = await crash_everywhere(scenario, [brief])
    assert report.outcome == sorted(["s:manual:now", *(f"s:2030-01-01T0{hour}:00:00Z" for hour in range(4))])


async def test_eight_that_look_at_once_start_a_fire_time_once(url: str) -> None:
    schedules = [
        Schedule(f"s{n}", work, every.hours(1), input="x", overlap="allow", catch_up=timedelta(days=1))
        for n in range(20)
    ]
    runtimes = [Runtime(url, workflows=[work], schedules=schedules) for _ in range(8)]
    for runtime in runtimes:
        await runtime.open()
    try:
        begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        started: Counter[str] = Counter()
        for late in (1, 3, 2, 4, 4):
            looked = await asyncio.gather(
                *(each.sweep(now=begin + timedelta(hours=late), max_queued=0) for each in runtimes)
            )
            started.update(run.run_id for result in looked for run in result.scheduled)
        # What another was about to start when a look came by is started by the other.
        assert set(started.values()) == {1}
        assert len(started) == 20 * 4
        for schedule in schedules:
            view = await runtimes[0].schedules.get(schedule.id)
            assert view.fired == 4
    finally:
        for runtime in runtimes:
            await runtime.close()


@pytest.mark.parametrize("seed", range(6))
async def test_a_store_that_loses_calls_starts_each_fire_time_once(seed: int) -> None:
    chance = random.Random(seed)

    def plan(_: object) -> Any:
        return chance.choice([LoseRequest(), LoseAnswer()]) if chance.random() < 0.15 else None

    store = FaultyStore(open_store("memory://"))
    schedule = Schedule(
        "s",
        brief,
        every.hours(1),
        input=hour,
        overlap="allow",
        catch_up=timedelta(days=9),
        end=START + timedelta(hours=12),
    )
    async with Environment([brief], store=store, schedules=[schedule]) as env:
        store.plan = plan
        await env.advance(hours=12, minutes=30)
        store.plan = None
        await env.advance(hours=2)
        found = Counter([view.run_id for view in await env.runtime.list()])
        assert found == {f"s:2030-01-01T{n:02}:00:00Z": 1 for n in range(1, 13)}
        assert store.faults


WORKER = """
import asyncio, sys
from datetime import timedelta
from duramen import Context, Runtime, Schedule, every, workflow

@workflow
async def tick(ctx: Context, at: str) -> str:
    return at

async def main() -> None:
    schedule = Schedule("s", tick, every.seconds(0.1), input=lambda at: at.isoformat(), overlap="allow",
                        catch_up=timedelta(hours=1))
    async with Runtime(sys.argv[1], workflows=[tick], schedules=[schedule], work=True, lease=1):
        print("ready", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


def test_workers_that_are_killed_start_each_fire_time_once(url: str, tmp_path: Path) -> None:
    program = tmp_path / "worker.py"
    program.write_text(WORKER)

    def start() -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [sys.executable, str(program), url], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        return worker

    def end(worker: subprocess.Popen[str]) -> None:
        worker.send_signal(signal.SIGKILL)
        worker.communicate()

    workers = [start() for _ in range(2)]
    chance = random.Random(1)
    for _ in range(6):
        time.sleep(chance.uniform(0.1, 0.6))
        killed = workers.pop(0)
        end(killed)
        workers.append(start())
    time.sleep(1.5)
    for worker in workers:
        end(worker)

    async def found() -> tuple[list[str], Any]:
        async with Runtime(url) as runtime:
            names: list[str] = []
            cursor = None
            while True:
                page = await runtime.list(limit=1000, cursor=cursor)
                names += [view.run_id for view in page]
                cursor = page.cursor
                if cursor is None:
                    return sorted(names), await runtime.schedules.get("s")

    names, view = asyncio.run(found())
    times = sorted(datetime.fromisoformat(name.removeprefix("s:")) for name in names)
    assert len(times) > 10
    # No gap and no repetition, from the first to the last.
    steps = {after - before for before, after in pairwise(times)}
    assert steps == {timedelta(milliseconds=100)}
    assert view.fired >= len(times)
