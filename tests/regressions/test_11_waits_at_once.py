"""Elsewhere a run had room for one wait: the second overwrote the first."""

import asyncio
import itertools
from datetime import timedelta

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import finish

pytestmark = pytest.mark.anyio


@workflow
async def waiting(ctx: Context) -> list[object]:
    async def nap(hours: float) -> str:
        await ctx.sleep(timedelta(hours=hours))
        return f"{hours} h"

    async def ask() -> bool:
        return (await ctx.approve("Well?")).approved

    return await asyncio.gather(
        ask(),
        ctx.wait_for_event("a"),
        ctx.wait_for_event("b"),
        ctx.wait_for_event("a", id="second-a"),
        ctx.wait_for_event("never", timeout=timedelta(hours=1), default="gave up"),
        nap(2),
        nap(3),
    )


@pytest.mark.parametrize("order", list(itertools.permutations(["a", "b", "approval"])))
@pytest.mark.parametrize("warm", [0, 10])
async def test_any_number_of_waits_may_be_open_and_each_gets_its_own_answer_in_any_order(
    order: tuple[str, ...], warm: int
) -> None:
    async with Runtime("memory://", workflows=[waiting], warm=warm) as runtime:
        await runtime.enqueue(waiting, run_id="r")
        await runtime.sweep()
        view = await runtime.get("r")
        assert set(view.waiting_events) == {"a", "b", "never"}
        assert len(view.waiting_approvals) == 1
        for each in order:
            if each == "approval":
                await runtime.approve("r", view.waiting_approvals[0])
            else:
                await runtime.signal("r", each, f"{each}1")
            await runtime.sweep()
        await runtime.signal("r", "a", "a2")
        found = await finish(runtime, "r")
        assert found.output == [True, "a1", "b1", "a2", "gave up", "2 h", "3 h"]


async def test_the_waits_of_a_run_outlive_the_process_that_opened_them(url: str) -> None:
    async with Runtime(url, workflows=[waiting]) as runtime:
        await runtime.enqueue(waiting, run_id="r")
        await runtime.sweep()
        before = await runtime.get("r")
    async with Runtime(url, workflows=[waiting]) as runtime:
        for name in ("b", "a", "a"):
            await runtime.signal("r", name, name)
        await runtime.sweep()
        view = await runtime.get("r")
        assert view.waiting_approvals == before.waiting_approvals
        assert view.waiting_events == ("never",)
        await runtime.approve("r", view.waiting_approvals[0], approved=False)
        assert (await finish(runtime, "r")).output == [False, "a", "b", "a", "gave up", "2 h", "3 h"]
