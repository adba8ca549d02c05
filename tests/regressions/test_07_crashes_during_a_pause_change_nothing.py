"""Elsewhere a crash during a pause began a relative sleep anew, or gave the approval another id."""

import asyncio
from datetime import timedelta

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import (
    finish,
    hang,
    notes,
    ran,
    start_there,
    story,
    sweep_there,
    until_waiting,
    wait_until,
)

pytestmark = pytest.mark.anyio


@workflow
async def pausing(ctx: Context, ledger: str) -> list[object]:
    nap = asyncio.create_task(ctx.sleep(timedelta(hours=2)))
    decision = asyncio.create_task(ctx.approve("Ship it?"))
    named = asyncio.create_task(ctx.approve("Really?", id="really"))
    await ctx.step("beside", hang, ledger, "beside")  # in flight while its process is killed
    await nap
    return [(await decision).approval_id, (await named).approval_id]


@workflow
async def sleeping(ctx: Context) -> str:
    await ctx.sleep(timedelta(hours=2))
    return "woke"


async def test_a_deadline_and_an_approval_id_outlive_kills_and_replays(url: str, ledger: str) -> None:
    with start_there(url, pausing, ledger, "r") as driver:
        wait_until(lambda: ran(ledger, "beside"))
        driver.kill()
    async with Runtime(url, workflows=[pausing], warm=0) as runtime:
        owner = (await runtime.get("r")).owner
        (lost,) = [worker for worker in await runtime.workers() if worker.owner == owner]
        await runtime.sweep(now=lost.lease_until)
        paused = await until_waiting(runtime, "r", "timer")
        # Not two hours from now: two hours from the moment at which the run first got there.
        assert paused.started_at is not None
        assert paused.ready_at == paused.started_at + timedelta(hours=2)
        assert len(paused.waiting_approvals) == 2
    with sweep_there(url, pausing, ledger) as driver:
        wait_until(lambda: notes(ledger)[-1] == f"swept {driver.process.pid}")
        driver.kill()
    async with Runtime(url, workflows=[pausing], warm=0) as runtime:
        again = await runtime.get("r")
        assert (again.ready_at, again.waiting_approvals) == (paused.ready_at, paused.waiting_approvals)
        for approval_id in paused.waiting_approvals:
            await runtime.approve("r", approval_id)
        view = await finish(runtime, "r")
    assert sorted(view.output) == sorted(paused.waiting_approvals)
    assert ran(ledger, "beside") == 2


async def test_a_sleep_has_one_deadline_however_often_the_run_is_replayed(url: str) -> None:
    async with Runtime(url, workflows=[sleeping]) as runtime:
        await runtime.enqueue(sleeping, run_id="r")
        await runtime.sweep()
        deadline = (await runtime.get("r")).ready_at
        assert deadline is not None
    for _ in range(3):
        async with Runtime(url, workflows=[sleeping]) as runtime:
            await runtime.signal("r", "nobody-waits-for-this", 1)
            await runtime.sweep(now=deadline - timedelta(seconds=5))
            assert (await runtime.get("r")).ready_at == deadline
    async with Runtime(url, workflows=[sleeping]) as runtime:
        assert (await runtime.sweep(now=deadline)).timers[0].kind == "completed"
        assert (await story(runtime, "r")).count("wait_opened sleep-1") == 1
