"""Several runtimes may reach for one run at once: exactly one of them drives it."""

import asyncio
import random
from collections import Counter

import pytest

from duramen import Context, RunStatus, Runtime, workflow
from duramen.errors import ApprovalConflict
from tests.regressions.support import finish, in_future, note, notes, ran, story, until, work_on

pytestmark = pytest.mark.anyio


@workflow
async def working(ctx: Context, ledger: str) -> list[str]:
    found = [await ctx.step(f"s{n}", work_on, ledger, f"{ctx.run_id}-s{n}") for n in range(3)]
    found.append(str(await ctx.wait_for_event("go")))
    found += await asyncio.gather(
        *(ctx.step(f"p{n}", work_on, ledger, f"{ctx.run_id}-p{n}") for n in range(3))
    )
    return found


async def test_two_runtimes_that_start_drive_signal_and_sweep_the_same_runs_do_each_thing_once(
    url: str, ledger: str
) -> None:
    ids = [f"r{n}" for n in range(20)]
    async with Runtime(url, workflows=[working]) as one, Runtime(url, workflows=[working]) as two:
        for run_id in ids:
            handles = await asyncio.gather(
                *(each.start(working, ledger, run_id=run_id) for each in (one, two))
            )
            assert sorted(handle.created for handle in handles) == [False, True]

        async def all_wait() -> bool:
            return await one.count(waiting_for="go") == len(ids)

        await until(all_wait)
        for run_id in ids:
            results = await asyncio.gather(
                *(each.signal(run_id, "go", "on", signal_id="once") for each in (one, two, one)),
                one.sweep(), two.sweep(),
            )  # fmt: skip
            assert Counter(map(str, results[:3]))["duplicate"] == 2
        for run_id in ids:
            for runtime in (one, two):
                asyncio.ensure_future(runtime.sweep()).cancel()
                assert (await runtime.result(run_id, timeout=30))[3] == "on"
        for run_id in ids:
            told = await story(one, run_id)
            assert told == await story(two, run_id)
            assert len(told) == len(set(told))
    begun = Counter(line.split()[1] for line in notes(ledger))
    assert set(begun.values()) == {1}
    assert len(begun) == 6 * len(ids)


async def slow(ledger: str, gates: dict[str, asyncio.Event]) -> str:
    note(ledger, "ran slow x")
    await gates["slow"].wait()
    return "slow"


async def test_a_runtime_that_lost_a_run_to_another_throws_its_progress_away(url: str, ledger: str) -> None:
    gates = {"slow": asyncio.Event()}

    @workflow
    async def contested(ctx: Context, ledger: str) -> str:
        await ctx.step("slow", slow, ledger, gates)
        return await ctx.step("after", work_on, ledger, "after")

    async with Runtime(url, workflows=[contested]) as one, Runtime(url, workflows=[contested]) as two:
        run = await one.start(contested, ledger, run_id="r")
        await until(lambda: _true(ran(ledger, "slow") == 1))
        sweeping = asyncio.ensure_future(two.sweep(now=in_future()))  # as if the lease had ended
        await until(lambda: _true(ran(ledger, "slow") == 2))
        gates["slow"].set()  # both of them have a result now
        assert [each.kind for each in (await sweeping).recovered] == ["completed"]
        assert await run.result(timeout=30) == "after"
        view = await one.get("r")
        assert (view.epoch, view.status) == (2, RunStatus.COMPLETED)
        told = await story(two, "r")
        assert told == ["run_created", "step_completed slow", "step_completed after", "run_finished"]
    assert ran(ledger, "after") == 1


async def _true(value: bool) -> bool:
    return value


async def test_opposite_decisions_at_once_leave_one_that_both_sides_hear_of(url: str) -> None:
    @workflow
    async def asking(ctx: Context) -> bool:
        return (await ctx.approve("Well?", id="well")).approved

    async with Runtime(url, workflows=[asking]) as one, Runtime(url, workflows=[asking]) as two:
        for n in range(10):
            await one.enqueue(asking, run_id=f"r{n}")
            await one.sweep()
            sides = [(one, True), (two, False)]
            random.Random(n).shuffle(sides)
            answers = await asyncio.gather(
                *(side.approve(f"r{n}", "well", approved) for side, approved in sides), return_exceptions=True
            )
            refused = [isinstance(answer, ApprovalConflict) for answer in answers]
            assert sorted(refused) == [False, True]
            winner = sides[refused.index(False)][1]
            assert (await finish(two, f"r{n}")).output is winner
