"""Elsewhere state was saved once per activation: a crash ran all steps of the activation again."""

import asyncio
from datetime import timedelta

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import (
    DIED,
    Child,
    DyingStore,
    assert_no_recorded_step_ran_again,
    die,
    finish,
    hang,
    notes,
    ran,
    run_child,
    wait_until,
    work_on,
)

pytestmark = pytest.mark.anyio


@workflow
async def long(ctx: Context, ledger: str) -> list[str]:
    found = [await ctx.step(f"s{n}", work_on, ledger, f"s{n}") for n in range(5)]
    found.append(await ctx.step("crash", die, ledger, "crash"))
    found += await asyncio.gather(
        *(ctx.step(f"p{n}", work_on, ledger, f"p{n}") for n in range(3)),
        ctx.step("hang", hang, ledger, "hang"),
    )
    return found


async def drive(url: str, ledger: str) -> None:
    async with Runtime(DyingStore(url, ledger, "never", 0), workflows=[long], migrate=True) as runtime:
        await runtime.enqueue(long, ledger, run_id="r")
        await finish(runtime, "r")


async def test_after_a_crash_only_the_step_in_flight_runs_again(url: str, ledger: str) -> None:
    assert run_child(drive, url, ledger) == DIED
    assert [ran(ledger, f"s{n}") for n in range(5)] == [1] * 5
    with Child(drive, url, ledger) as second:
        wait_until(lambda: ran(ledger, "hang"))
        wait_until(lambda: {f"recorded r/p{n}" for n in range(3)} <= set(notes(ledger)))
        second.kill()
    async with Runtime(url, workflows=[long]) as runtime:
        view = await finish(runtime, "r", ahead=timedelta(days=1))
        assert view.output == ["s0", "s1", "s2", "s3", "s4", "crash", "p0", "p1", "p2", "hang"]
    assert_no_recorded_step_ran_again(ledger)
    again = {what: ran(ledger, what) for what in view.output if ran(ledger, what) != 1}
    assert again == {"crash": 2, "hang": 2}
