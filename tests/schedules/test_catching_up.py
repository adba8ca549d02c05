"""What becomes of fire times for which nobody was there."""

from datetime import timedelta
from typing import Any

import pytest

from duramen import Schedule, every
from duramen.errors import InvalidArgument
from duramen.testing import Environment
from tests.schedules.conftest import work

pytestmark = pytest.mark.anyio


def hourly(**options: Any) -> Schedule[str]:
    return Schedule("s", work, every.hours(1), input="x", overlap="allow", **options)


async def test_none_of_them_starts_a_run(book) -> None:
    async with book(hourly(catch_up="none")) as b:
        assert await b.at(3.5) == []
        assert await b.at(4) == [b.name(4)]


async def test_a_moment_late_is_not_missed(book) -> None:
    async with book(hourly(catch_up="none")) as b:
        assert await b.at(3 + 1 / 60) == [b.name(3)]


async def test_the_latest_starts_a_run(book) -> None:
    async with book(hourly()) as b:
        assert await b.at(3.5) == [b.name(3)]
        assert await b.at(3.6) == []


async def test_all_within_a_window_start_runs_in_their_order(book) -> None:
    async with book(hourly(catch_up=timedelta(hours=3))) as b:
        assert await b.at(5.5) == [b.name(3), b.name(4), b.name(5)]
        assert await b.at(6) == [b.name(6)]


async def test_many_that_are_caught_up_with_come_in_parts(book) -> None:
    schedule = Schedule("s", work, every.minutes(1), input="x", overlap="allow", catch_up=timedelta(days=1))
    async with book(schedule) as b:
        started: list[str] = []
        while part := (await b.runtime.sweep(now=b.hour(5), max_queued=0, limit=1)).scheduled:
            assert len(part) <= 100
            started += [run.run_id for run in part]
        assert 200 < len(started) <= 300
        assert started == sorted(set(started))
        assert started[-1] == b.name(5)


@pytest.mark.parametrize("policy", ["none", "latest", timedelta(hours=5)])
async def test_a_clock_that_jumps_starts_nothing_twice(book, policy: Any) -> None:
    async with book(hourly(catch_up=policy)) as b:
        assert await b.at(1) == [b.name(1)]
        forward = await b.at(3)
        assert b.name(3) in forward
        for n in (1, 2, 0.5, 3, 2.5):  # back and forth
            assert await b.at(n) == []
        assert await b.at(4) == [b.name(4)]


@pytest.mark.parametrize(
    ("catch_up", "caught_up_with"),
    [("none", []), ("latest", [3]), (timedelta(hours=1.6), [2, 3])],
)
async def test_what_is_due_while_it_is_paused_fires_later_only_if_that_is_asked_for(
    catch_up: Any, caught_up_with: list[int]
) -> None:
    async with Environment([work], schedules=[hourly(catch_up=timedelta(days=9))]) as env:
        await env.advance(minutes=30)
        paused = await env.runtime.schedules.pause("s", note="holidays")
        assert (paused.paused, paused.note, paused.next_fire) == (True, "holidays", None)
        await env.advance(hours=3)
        await env.runtime.schedules.resume("s", catch_up=catch_up)
        await env.settle()
        hours = sorted([int(view.run_id[13:15]) for view in await env.runtime.list()])
        assert hours == caught_up_with
        await env.advance(hours=1)
        assert await env.runtime.count() == len(caught_up_with) + 1


async def test_how_resuming_catches_up_is_one_of_three(book) -> None:
    async with book(hourly()) as b:
        with pytest.raises(InvalidArgument, match="catch_up"):
            await b.runtime.schedules.resume("s", catch_up="all")  # type: ignore[arg-type]


async def test_other_fire_times_count_from_their_change_on(book) -> None:
    async with book(hourly(catch_up=timedelta(days=9))) as b:
        assert await b.at(1) == [b.name(1)]
        half = Schedule("s", work, every.hours(1, offset=1800), input="x", overlap="allow")
        await b.runtime.schedules.upsert(half)
        assert await b.at(1.9) == ["s:" + f"{b.hour(1.5):%Y-%m-%dT%H:%M:%SZ}"]


async def test_a_start_and_an_end_bound_it(book) -> None:
    async with book() as b:
        bounded = Schedule(
            "s", work, every.hours(1), input="x", start=b.hour(2), end=b.hour(3), overlap="allow"
        )
        view = await b.runtime.schedules.upsert(bounded)
        assert view.next_fire == b.hour(2)
        assert await b.at(1) == []
        assert await b.at(2) == [b.name(2)]
        assert await b.at(3) == [b.name(3)]
        assert await b.at(5) == []
        assert (await b.runtime.schedules.get("s")).next_fire is None


async def test_jitter_delays_the_start_and_nothing_else(book) -> None:
    async with book(hourly(jitter=1800)) as b:
        assert await b.at(1) == [b.name(1)]
        view = await b.runtime.get(b.name(1))
        assert view.ready_at is not None
        assert b.hour(1) < view.ready_at <= b.hour(1.5)
        assert (await b.runtime.schedules.get("s")).last_fire == b.hour(1)
