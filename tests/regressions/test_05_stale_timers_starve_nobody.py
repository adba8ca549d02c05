"""Elsewhere a stale timer row at the head of the queue was taken by every sweep, later timers never."""

from datetime import timedelta

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import finish, in_future

pytestmark = pytest.mark.anyio


@workflow
async def sleeping(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "woke"


@workflow
async def racing(ctx: Context) -> str:
    name = await ctx.wait_for_event("go", str, timeout=60)
    await ctx.sleep(timedelta(days=300))
    return name


@workflow(version="lost")
async def unknown(ctx: Context) -> None:
    await ctx.sleep(10)


async def test_timers_of_ended_answered_and_unserved_runs_take_no_place_in_a_sweep(url: str) -> None:
    async with Runtime(url, workflows=[sleeping, racing, unknown]) as runtime:
        for n in range(10):
            await runtime.enqueue(sleeping, 30 + n, run_id=f"terminated{n}")
            await runtime.enqueue(racing, run_id=f"answered{n}")
            await runtime.enqueue(unknown, run_id=f"unserved{n}")
        await runtime.enqueue(sleeping, 100, run_id="due")
        await runtime.sweep(max_queued=100)
        for n in range(10):
            assert await runtime.terminate(f"terminated{n}")
            await runtime.signal(f"answered{n}", "go", "on")
        await runtime.sweep()
        assert await runtime.count(status="waiting") == 21
    async with Runtime(url, workflows=[sleeping, racing]) as runtime:
        # Everything that ever was due before it is past by now; one place is enough for it.
        swept = await runtime.sweep(max_timers=1, now=in_future(timedelta(minutes=3)))
        assert [(run.run_id, run.kind) for run in swept.timers] == [("due", "completed")]


async def test_due_timers_are_all_taken_by_sweeps_of_one_place_each(url: str) -> None:
    async with Runtime(url, workflows=[sleeping]) as runtime:
        for n in range(8):
            await runtime.enqueue(sleeping, 100 - n, run_id=f"r{n}")
        await runtime.sweep()
        order: list[str] = []
        for _ in range(8):
            swept = await runtime.sweep(max_timers=1, now=in_future())
            order += [run.run_id for run in swept.timers]
        assert order == [f"r{n}" for n in reversed(range(8))]  # the earliest deadline first
        assert (await finish(runtime, "r0")).output == "woke"
