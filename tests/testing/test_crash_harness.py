"""The crash and suspend harnesses find what they are made for: each rule has a fault planted against it."""

import asyncio
import itertools
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, workflow
from duramen.errors import RunStuck
from duramen.testing import (
    CrashFailed,
    Environment,
    SuspendFailed,
    crash_everywhere,
    suspend_matrix,
)
from duramen.testing._crash_store import CrashingStore

CALLS: list[str] = []


async def work(what: str) -> str:
    CALLS.append(what)
    return what


@workflow
async def two(ctx: Context) -> list[str]:
    first = await ctx.step("first", work, "first")
    await ctx.sleep(timedelta(days=1))
    return [first, await ctx.step("second", work, "second")]


async def play(env: Environment) -> Any:
    return await env.result(await env.runtime.start(two, run_id="r"))


def crash(scenario: Any = play, workflows: Any = (two,), **options: Any) -> Any:
    return asyncio.run(crash_everywhere(scenario, workflows, **options))


def test_every_change_is_a_crash_point_on_both_sides_with_both_workers() -> None:
    CALLS.clear()
    report = crash()
    assert [change.method for change in report.changes] == [
        "create", "commit", "claim", "commit", "commit",
    ]  # fmt: skip
    assert report.crashes == 4 * len(report.changes)
    assert report.outcome == ["first", "second"]
    assert "change 2 (commit: r (step_completed first, wait_opened sleep-1, waiting))" in str(report)
    # Steps begin at least once: again only where the outcome had not been recorded.
    assert 2 * (1 + report.crashes) < len(CALLS) < 4 * (1 + report.crashes)


def test_one_kind_of_worker_can_be_chosen() -> None:
    report = crash(workers=("same",))
    assert report.crashes == 2 * len(report.changes)


# -- planted faults ------------------------------------------------------------------------------------------


def test_an_effect_that_happens_twice_shows_in_the_outcome() -> None:
    charged: list[str] = []

    async def charge() -> None:
        charged.append("42")

    @workflow
    async def careless(ctx: Context) -> None:
        await ctx.step("charge", charge)
        await ctx.step("then", work, "then")

    async def scenario(env: Environment) -> Any:
        if not await env.runtime.count():
            charged.clear()
        await env.result(await env.runtime.start(careless, run_id="r"))
        return len(charged)

    with pytest.raises(CrashFailed, match="the outcome is 2, without a crash 1") as failed:
        crash(scenario, [careless])
    assert (failed.value.side, failed.value.worker) == ("before", "another")
    assert "step_completed charge" in failed.value.change.what


def test_a_handler_that_remembers_something_outside_of_the_journal_is_found() -> None:
    seen: set[str] = set()

    @workflow
    async def forgetful(ctx: Context) -> str:
        again = ctx.run_id in seen
        seen.add(ctx.run_id)
        await ctx.step("again" if again else "first", work, "x")
        await ctx.step("second", work, "x")
        return "done"

    async def scenario(env: Environment) -> Any:
        if not await env.runtime.count():
            seen.clear()
        return await env.result(await env.runtime.start(forgetful, run_id="r"))

    with pytest.raises(CrashFailed, match="RunStuck") as failed:
        crash(scenario, [forgetful], replay=False)
    assert isinstance(failed.value.__cause__, RunStuck)


class Forgetting(CrashingStore):
    """A store whose claims bring journals without their last outcome: what was recorded is gone."""

    async def call(self, method: str, *args: Any) -> Any:
        answer = await super().call(method, *args)
        if method == "claim":
            for run in answer["runs"]:
                if run["journal"] and run["journal"][-1]["kind"] == "step_completed":
                    run["journal"].pop()
                    run["row"]["journal_len"] -= 1
        return answer


def test_a_step_that_begins_again_after_its_outcome_was_recorded_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("duramen.testing._crashes.CrashingStore", Forgetting)

    @workflow
    async def pair(ctx: Context) -> None:
        await ctx.step("first", work, "first")
        await ctx.step("second", work, "second")

    async def scenario(env: Environment) -> Any:
        run = await env.runtime.start(pair, run_id="r")
        for _ in range(5):  # the commits of such a run are fenced off, so it does not end
            await env.advance(minutes=1)
        return (await env.runtime.get(run.run_id)).run_id

    with pytest.raises(CrashFailed, match=r"began again although its outcome was recorded: step 'first'"):
        crash(scenario, [pair], workers=("another",), replay=False)


def test_a_run_too_many_is_found() -> None:
    async def scenario(env: Environment) -> Any:
        return await env.result(await env.runtime.start(two))  # without an id: begun anew by each caller

    with pytest.raises(CrashFailed, match=r"the runs are .*, without a crash"):
        crash(scenario)


def test_a_scenario_that_takes_another_course_each_time_is_refused() -> None:
    plays: list[int] = []

    async def scenario(env: Environment) -> Any:
        plays.append(1)
        if len(plays) == 1:
            await env.runtime.start(two, run_id="extra")
        return await env.result(await env.runtime.start(two, run_id="r"))

    with pytest.raises(CrashFailed):
        crash(scenario)


def test_an_error_of_the_scenario_itself_is_not_dressed_up() -> None:
    async def scenario(env: Environment) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        crash(scenario)
    with pytest.raises(KeyError, match="mine"):
        asyncio.run(suspend_matrix(scenario, [two]))


def test_a_step_whose_failure_was_taken_back_may_begin_again() -> None:
    repaired: list[bool] = []

    async def broken() -> str:
        if not repaired:
            raise ValueError("broken")
        return "repaired"

    @workflow
    async def fixable(ctx: Context) -> str:
        return await ctx.step("broken", broken)

    async def scenario(env: Environment) -> Any:
        if not await env.runtime.count():
            repaired.clear()
        await env.runtime.start(fixable, run_id="r")
        await env.settle()
        repaired.append(True)
        await env.advance(minutes=1)
        if (await env.runtime.get("r")).status == "failed":
            await env.runtime.retry("r")
        return await env.result("r")

    assert crash(scenario, [fixable]).outcome == "repaired"


def test_steps_in_threads_do_not_make_the_repetitions_differ() -> None:
    def in_a_thread(number: int) -> int:
        time.sleep(0.004 if number % 2 else 0.0)
        return number

    @workflow
    async def threads(ctx: Context) -> list[int]:
        calls = [ctx.step(f"s{number}", in_a_thread, number) for number in range(4)]
        return [await each for each in asyncio.as_completed(calls)]

    async def scenario(env: Environment) -> Any:
        return await env.result(await env.runtime.start(threads, run_id="r"))

    assert crash(scenario, [threads]).outcome == [0, 1, 2, 3]
    assert asyncio.run(suspend_matrix(scenario, [threads])).outcome == [0, 1, 2, 3]


# -- the suspend matrix --------------------------------------------------------------------------------------


def test_a_handler_that_only_works_while_it_is_kept_is_found() -> None:
    begun: list[str] = []

    @workflow
    async def warm_only(ctx: Context) -> str:
        begun.append(ctx.run_id)
        await ctx.step(f"number-{len(begun)}", work, "x")
        await ctx.step("second", work, "x")
        return "done"

    async def scenario(env: Environment) -> Any:
        begun.clear()
        return await env.result(await env.runtime.start(warm_only, run_id="r"))

    with pytest.raises(SuspendFailed, match="driven evicting: RunStuck"):
        asyncio.run(suspend_matrix(scenario, [warm_only], replay=False))


def test_an_outcome_that_depends_on_being_called_once_is_found() -> None:
    begun: list[str] = []

    @workflow
    async def counts_its_calls(ctx: Context) -> int:
        begun.append(ctx.run_id)
        await ctx.step("first", work, "x")
        await ctx.step("second", work, "x")
        return len(begun)

    async def scenario(env: Environment) -> Any:
        begun.clear()
        return await env.result(await env.runtime.start(counts_its_calls, run_id="r"))

    with pytest.raises(SuspendFailed, match="the outcome is 2, kept warm 1"):
        asyncio.run(suspend_matrix(scenario, [counts_its_calls], replay=False))


def test_journals_are_compared_to_the_byte() -> None:
    plays: list[int] = []

    async def scenario(env: Environment) -> Any:
        plays.append(1)
        if len(plays) == 3:
            await env.advance(seconds=1)
        await env.result(await env.runtime.start(two, run_id="r"))

    with pytest.raises(SuspendFailed, match="driven one-by-one: entry 0 of the journal of run 'r'"):
        asyncio.run(suspend_matrix(scenario, [two]))


def test_the_stores_of_the_repetitions_may_be_given(tmp_path: Path) -> None:
    numbers = itertools.count()

    def new_store() -> str:
        return f"sqlite:///{tmp_path}/{next(numbers)}.db"

    report = crash(new_store=new_store)
    assert next(numbers) >= report.crashes
    assert report == crash()
    found = asyncio.run(suspend_matrix(play, [two], new_store=new_store))
    assert found == asyncio.run(suspend_matrix(play, [two]))
