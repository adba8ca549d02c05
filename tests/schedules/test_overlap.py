"""What becomes of a fire time while a run of the schedule has not ended."""

from datetime import timedelta
from typing import Any

import pytest

from duramen import Context, RunStatus, Runtime, Schedule, every, workflow
from tests.schedules.conftest import Book, work

pytestmark = pytest.mark.anyio


def hourly(**options: Any) -> Schedule[str]:
    return Schedule("s", work, every.hours(1), input="x", **options)


async def test_skip_passes_over_fire_times(book) -> None:
    async with book(hourly(overlap="skip")) as b:
        assert await b.at(1) == [b.name(1)]
        assert await b.at(2) == []
        assert await b.at(3) == []
        await b.end(1)
        assert await b.at(3.5) == [], "what was skipped does not come back"
        assert await b.at(4) == [b.name(4)]
        view = await b.runtime.schedules.get("s")
        assert (view.fired, view.skipped, view.last_fire) == (2, 2, b.hour(4))


async def test_allow_starts_them_side_by_side(book) -> None:
    async with book(hourly(overlap="allow")) as b:
        for n in (1, 2, 3):
            assert await b.at(n) == [b.name(n)]
        assert {await b.status(n) for n in (1, 2, 3)} == {RunStatus.WAITING}


async def test_buffer_one_keeps_the_first_that_comes_meanwhile(book) -> None:
    async with book(hourly(overlap="buffer_one")) as b:
        assert await b.at(1) == [b.name(1)]
        assert await b.at(2) == []
        assert await b.at(3) == []
        assert (await b.runtime.schedules.get("s")).waiting == (b.hour(2),)
        await b.end(1)
        assert await b.at(3.5) == [b.name(2)]
        view = await b.runtime.schedules.get("s")
        assert (view.waiting, view.skipped) == ((), 1)
        await b.end(2)
        assert await b.at(4) == [b.name(4)]


async def test_cancel_previous_waits_for_the_clean_up_and_starts_the_newest(book) -> None:
    async with book(hourly(overlap="cancel_previous")) as b:
        assert await b.at(1) == [b.name(1)]
        # The look cancels it, and the same sweep drives it to its end.
        assert await b.at(2) == []
        view = await b.runtime.get(b.name(1))
        assert view.status is RunStatus.CANCELLED
        assert view.reason == "schedule 's' starts the next run"
        assert "step_completed" in {entry.kind for entry in await b.runtime.timeline(b.name(1))}
        assert await b.at(2.1) == [b.name(2)]
        assert await b.runs() == [b.name(1), b.name(2)]


async def test_cancel_previous_while_it_is_not_driven_starts_the_newest_only(book) -> None:
    async with book(hourly(overlap="cancel_previous")) as b:
        assert await b.at(1) == [b.name(1)]
        for n in (2, 3):
            looked = await b.runtime.sweep(now=b.hour(n), max_recovered=0, max_timers=0, max_queued=0)
            assert looked.scheduled == ()
        assert (await b.runtime.schedules.get("s")).waiting == (b.hour(3),)
        assert await b.at(3.1) == []
        assert await b.status(1) is RunStatus.CANCELLED
        assert await b.at(3.2) == [b.name(3)]


async def test_terminate_previous_starts_the_next_at_once(book) -> None:
    async with book(hourly(overlap="terminate_previous")) as b:
        assert await b.at(1) == [b.name(1)]
        assert await b.at(2) == [b.name(2)]
        assert await b.status(1) is RunStatus.TERMINATED
        assert await b.status(2) is RunStatus.WAITING


async def test_several_at_once_start_in_their_order_as_far_as_the_policy_lets_them(book) -> None:
    async with book(hourly(overlap="buffer_one", catch_up=timedelta(hours=10))) as b:
        assert await b.at(4) == [b.name(1)]
        view = await b.runtime.schedules.get("s")
        assert (view.waiting, view.skipped) == ((b.hour(2),), 2)


@workflow
async def changed(ctx: Context, day: str) -> None:
    await ctx.wait_for_event("other", id="other")


async def test_a_stuck_run_keeps_nothing_waiting(url: str) -> None:
    async with Runtime(url, workflows=[work], schedules=[hourly()]) as runtime:
        b = Book(runtime)
        assert await b.at(1) == [b.name(1)]
    now = workflow(name="work")(changed.handler)
    async with Runtime(url, workflows=[now]) as runtime:
        b.runtime = runtime
        await runtime.signal(b.name(1), "end")
        await runtime.sweep()
        assert await b.status(1) is RunStatus.STUCK
        assert await b.at(2) == [b.name(2)]
