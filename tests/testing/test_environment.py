"""The environment: time moves when it is told to, and things happen in its order, the same each time."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvloop

from duramen import Context, Retry, step_context, workflow
from duramen.errors import (
    InvalidArgument,
    ReplayDiverged,
    RunFailed,
    RuntimeClosed,
    RunTimedOut,
    RuntimeNotOpen,
    StepTimeout,
    UpdateFailed,
    UpdateTimeout,
)
from duramen.testing import Environment, open_store

NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


def run(main: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(main())


async def echo(value: Any) -> Any:
    return value


@workflow
async def monthly(ctx: Context, months: int) -> list[str]:
    told: list[str] = []
    for _ in range(months):
        await ctx.sleep(timedelta(days=30))
        told.append(f"{ctx.now():%Y-%m-%d %H:%M:%S.%f}")
    return told


@workflow
async def waits(ctx: Context) -> Any:
    return await ctx.wait_for_event("go")


# -- time ----------------------------------------------------------------------------------------------------


def test_ten_years_pass_and_every_sleep_ends_at_its_instant() -> None:
    async def main() -> None:
        async with Environment([monthly]) as env:
            began = time.monotonic()
            handle = await env.runtime.start(monthly, 120)
            await env.advance(days=3600)
            assert time.monotonic() - began < 20  # it is some milliseconds
            told = await handle.result()
            assert told[:2] == ["2030-01-31 00:00:00.000000", "2030-03-02 00:00:00.000000"]
            assert env.now == NEW_YEAR + timedelta(days=3600)

    run(main)


def test_nothing_happens_before_its_time() -> None:
    async def main() -> None:
        async with Environment([monthly]) as env:
            handle = await env.runtime.start(monthly, 1)
            await env.advance(days=29, hours=23, minutes=59, seconds=59.999)
            assert (await env.runtime.get(handle.run_id)).status == "waiting"
            await env.advance(seconds=0.001)
            assert (await env.runtime.get(handle.run_id)).status == "completed"

    run(main)


def test_what_becomes_due_happens_in_the_order_of_time_over_all_runs() -> None:
    seen: list[str] = []

    async def note(what: str) -> None:
        seen.append(what)

    @workflow
    async def late(ctx: Context, hours: int) -> None:
        await ctx.sleep(timedelta(hours=hours))
        await ctx.step("note", note, f"{hours} {ctx.now():%H:%M}")

    async def main() -> None:
        async with Environment([late]) as env:
            for hours in (5, 2, 9, 1, 7):
                await env.runtime.start(late, hours)
            await env.runtime.enqueue(late, 3, start_at=env.now + timedelta(hours=1))
            await env.advance(hours=10)
        assert seen == ["1 01:00", "2 02:00", "3 04:00", "5 05:00", "7 07:00", "9 09:00"]

    run(main)


def test_the_result_of_a_run_comes_at_the_earliest_instant() -> None:
    async def main() -> None:
        async with Environment([monthly]) as env:
            await env.result(await env.runtime.start(monthly, 2))
            assert env.now == NEW_YEAR + timedelta(days=60)

    run(main)


def test_back_offs_and_deadlines_follow_the_clock() -> None:
    attempts: list[int] = []

    async def fails() -> None:
        attempts.append(step_context().attempt)
        raise ConnectionError("no")

    @workflow(timeout=timedelta(days=3), retry=Retry(attempts=100, base=3600, cap=3600, jitter=False))
    async def hopeless(ctx: Context) -> None:
        await ctx.step("fails", fails)

    async def main() -> None:
        async with Environment([hopeless]) as env:
            handle = await env.runtime.start(hopeless)
            await env.advance(hours=10, minutes=30)
            assert attempts == [*range(1, 12)]
            with pytest.raises(RunFailed, match="its workflow's timeout"):
                await env.result(handle)
            assert env.now == NEW_YEAR + timedelta(days=3)

    run(main)


@pytest.mark.parametrize("kind", ["async", "thread"])
def test_the_timeout_of_a_step_follows_the_clock(kind: str) -> None:
    async def main() -> None:
        free = asyncio.Event()

        async def hang() -> None:
            await asyncio.Event().wait()

        def hang_in_thread() -> None:
            while not free.is_set():
                time.sleep(0.005)

        @workflow
        async def patient(ctx: Context) -> str:
            try:
                await ctx.step(
                    "hang", hang if kind == "async" else hang_in_thread, timeout=timedelta(hours=1)
                )
            except StepTimeout:
                return f"gave up at {ctx.now():%H:%M}"
            raise AssertionError("it came to an end")

        async with Environment([patient], patience=0.05) as env:
            handle = await env.runtime.start(patient)
            await env.advance(minutes=59)
            assert (await env.runtime.get(handle.run_id)).status == "running"
            assert await env.result(handle) == "gave up at 01:00"
            free.set()

    run(main)


def test_a_lease_that_nobody_renews_ends_by_the_clock() -> None:
    began: list[str] = []

    async def main() -> None:
        async def hang() -> str:
            began.append("step")
            if len(began) == 1:
                await asyncio.Event().wait()
            return "done"

        @workflow
        async def interrupted(ctx: Context) -> str:
            return await ctx.step("hang", hang)

        first = Environment([interrupted], patience=0.05)
        async with first:
            await first.runtime.start(interrupted, run_id="r")
            await first.advance(days=1)  # it is renewed as long as the process lives
            assert len(began) == 1
            first.kill()
        async with Environment([interrupted], world=first.world) as second:
            await second.advance(seconds=15)
            assert len(began) == 1
            await second.advance(seconds=16)
            assert await second.runtime.result("r") == "done"

    run(main)


def test_the_clock_does_not_go_back() -> None:
    async def main() -> None:
        async with Environment([waits]) as env:
            with pytest.raises(InvalidArgument, match="does not go back"):
                await env.advance(days=-1)
            with pytest.raises(InvalidArgument, match="does not go back"):
                await env.advance_to(NEW_YEAR - timedelta(seconds=1))
            await env.advance_to(NEW_YEAR + timedelta(days=1))
            assert env.now == NEW_YEAR + timedelta(days=1)
        with pytest.raises(InvalidArgument):
            Environment([waits], now=datetime(2030, 1, 1))  # noqa: DTZ001 - refused for that

    run(main)


# -- rest ----------------------------------------------------------------------------------------------------


def test_steps_in_threads_and_on_the_loop_are_waited_for() -> None:
    async def slow() -> str:
        await asyncio.sleep(0.05)
        return "loop"

    def slow_in_thread() -> str:
        time.sleep(0.05)
        return "thread"

    @workflow
    async def both(ctx: Context) -> list[str]:
        parts = await asyncio.gather(ctx.step("a", slow), ctx.step("b", slow_in_thread))
        return [*parts, f"{ctx.now():%H:%M:%S}"]

    async def main() -> None:
        async with Environment([both]) as env:
            handle = await env.runtime.start(both)
            await env.advance(hours=1)
            assert await handle.result() == ["loop", "thread", "00:00:00"]  # they took no time

    run(main)


def test_runs_that_never_rest_are_an_error_not_a_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duramen.testing._env._LIMIT", 0.2)

    @workflow
    async def restless(ctx: Context) -> None:
        while True:
            await ctx.step("again", echo, 1)

    async def main() -> None:
        async with Environment([restless]) as env:
            await env.runtime.start(restless)
            with pytest.raises(TimeoutError, match="do not come to rest"):
                await env.advance(seconds=1)
            env.kill()

    run(main)


def test_waiting_for_a_result_while_the_clock_stands_still_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("duramen.testing._surroundings._STALLED", 0.1)

    async def main() -> None:
        async with Environment([monthly]) as env:
            handle = await env.runtime.start(monthly, 1)
            with pytest.raises(RunTimedOut, match=r"env\.advance"):
                await handle.result()

    run(main)


def test_a_result_that_no_time_brings_is_an_error() -> None:
    async def main() -> None:
        async with Environment([waits, monthly]) as env:
            handle = await env.runtime.start(waits)
            with pytest.raises(RunTimedOut, match="waits for event:go, and nothing else is ever due"):
                await env.result(handle)
            with pytest.raises(RunTimedOut, match="nothing is due before"):
                await env.result(await env.runtime.start(monthly, 5), within=timedelta(days=10))

    run(main)


def test_without_a_worker_only_sweeps_take_up_what_was_enqueued() -> None:
    async def main() -> None:
        async with Environment([monthly], worker=False) as env:
            handle = await env.runtime.enqueue(monthly, 1)
            await env.advance(days=365)
            assert (await env.runtime.get(handle.run_id)).status == "queued"
            swept = await env.runtime.sweep()
            assert [each.kind for each in swept.queued] == ["paused"]
            await env.advance(days=365)
            assert (await env.runtime.get(handle.run_id)).status == "waiting"
            swept = await env.runtime.sweep()
            assert [each.kind for each in swept.timers] == ["completed"]

    run(main)


# -- the same each time --------------------------------------------------------------------------------------


@workflow
async def dice(ctx: Context) -> list[Any]:
    return [str(ctx.uuid()), ctx.random(), await ctx.step("echo", echo, 1), str(ctx.uuid())]


def test_a_test_takes_the_same_course_each_time() -> None:
    async def play(seed: int) -> Any:
        async with Environment([dice, waits], seed=seed) as env:
            await env.runtime.start(dice)
            await env.runtime.start(waits, run_id="w")
            await env.runtime.signal("w", "go", 1)
            await env.runtime.cancel("w")
            await env.advance(days=1)
            return await env.journals()

    one, again, other = (asyncio.run(play(seed)) for seed in (7, 7, 8))
    assert one == again
    assert one != other


def test_another_store_and_another_loop_change_nothing(sqlite_url: str, postgres_url: str) -> None:
    async def play(store: Any) -> Any:
        async with Environment([monthly, dice], store=store) as env:
            await env.runtime.start(monthly, 3)
            await env.runtime.start(dice)
            await env.advance(days=100)
            return await env.journals()

    expected = asyncio.run(play(None))
    assert asyncio.run(play(sqlite_url)) == expected
    assert asyncio.run(play(postgres_url)) == expected
    assert asyncio.run(play(open_store("memory://"))) == expected
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(play(None)) == expected


# -- what a handler must not do ------------------------------------------------------------------------------


@workflow
async def looks_at_the_wall_clock(_: Context) -> float:
    return time.time()


@workflow
async def draws_unrecorded_numbers(ctx: Context) -> Any:
    return await ctx.step(f"step-{random.random()}", echo, 1)


LINES: list[str] = []


@workflow
async def depends_on_what_happened_elsewhere(ctx: Context) -> int:
    LINES.append("called")
    if len(LINES) == 1:
        await ctx.step("first", echo, 1)
    return await ctx.wait_for_event("go")


@pytest.mark.parametrize(
    "bad", [looks_at_the_wall_clock, draws_unrecorded_numbers, depends_on_what_happened_elsewhere]
)
def test_a_handler_that_uses_what_is_not_recorded_is_found_out(bad: Any) -> None:
    async def main(replay: bool) -> None:
        LINES.clear()
        async with Environment([bad], replay=replay) as env:
            await env.runtime.start(bad)
            await env.advance(days=1)

    with pytest.raises(ReplayDiverged):
        asyncio.run(main(True))
    asyncio.run(main(False))


def test_outcomes_of_steps_are_let_in_one_at_a_time_on_request() -> None:
    @workflow
    async def wide(ctx: Context) -> list[int]:
        return await asyncio.gather(*(ctx.step(f"s{n}", echo, n) for n in range(20)))

    async def commits(driving: Any) -> int:
        async with Environment([wide], driving=driving) as env:
            assert await env.result(await env.runtime.start(wide)) == list(range(20))
            return env.runtime.stats()["commits"]

    assert asyncio.run(commits("warm")) < 5
    assert asyncio.run(commits("one-by-one")) >= 20


def test_an_error_in_the_block_is_not_hidden_by_a_replay_that_fails() -> None:
    async def main() -> None:
        async with Environment([looks_at_the_wall_clock]) as env:
            await env.runtime.start(looks_at_the_wall_clock)
            await env.settle()
            raise KeyError("the test's own")

    with pytest.raises(KeyError, match="the test's own"):
        asyncio.run(main())


def test_an_environment_that_was_not_entered_or_is_over_says_so() -> None:
    async def main() -> None:
        env = Environment([waits])
        with pytest.raises(RuntimeNotOpen):
            await env.advance(days=1)
        async with env:
            pass
        with pytest.raises(RuntimeClosed):
            await env.advance(days=1)

    run(main)


def test_ways_of_driving_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="'cold'"):
        Environment([waits], driving="cold")


def test_an_update_moves_the_clock_until_it_is_answered() -> None:
    @workflow
    async def slow(ctx: Context) -> int:
        seen = 0

        async def add(number: int) -> int:
            nonlocal seen
            await ctx.sleep(3600)
            seen += number
            return seen

        def at_once(number: int) -> int:
            if number < 0:
                raise ValueError("negative")
            return number

        ctx.on_update("add", add)
        ctx.on_update("at once", at_once)
        ctx.on_query("sum", lambda: seen)
        await ctx.wait_for_event("close")
        return seen

    async def main() -> None:
        async with Environment([slow]) as env:
            handle = await env.runtime.start(slow)
            begun = env.now
            assert await env.update(handle, "at once", 3) == 3
            assert env.now - begun < timedelta(seconds=1)
            assert await env.runtime.update(handle.run_id, "at once", 4) == 4
            assert await env.update(handle, "add", 2, update_id="u") == 2
            assert timedelta(hours=1) <= env.now - begun < timedelta(hours=1, seconds=1)
            assert await env.update(handle, "add", 2, update_id="u") == 2
            with pytest.raises(UpdateFailed, match="negative"):
                await env.update(handle, "at once", -1)
            with pytest.raises(UpdateTimeout):
                await env.update(handle, "nothing", within=timedelta(days=1))
            assert await env.runtime.query(handle.run_id, "sum") == 2

    run(main)
