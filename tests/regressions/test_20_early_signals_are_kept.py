"""Elsewhere a signal that came before its run waited for it was dropped."""

import pytest

from duramen import Context, Runtime, SignalResult, workflow
from tests.regressions.support import finish, in_future, work_on

pytestmark = pytest.mark.anyio


@workflow
async def late(ctx: Context, ledger: str) -> list[object]:
    found: list[object] = [await ctx.wait_for_event("first")]
    await ctx.step("work", work_on, ledger, "work")
    await ctx.sleep(1800)
    found += [await ctx.wait_for_event("early") for _ in range(3)]
    decision = await ctx.approve("Well?", id="well")
    return [*found, decision.approved]


async def test_signals_sent_before_the_run_was_driven_or_waited_are_taken_in_their_order(
    url: str, ledger: str
) -> None:
    async with Runtime(url, workflows=[late]) as runtime:
        await runtime.enqueue(late, ledger, run_id="r")
        assert await runtime.signal("r", "early", 1) is SignalResult.BUFFERED
        await runtime.sweep()
        assert await runtime.signal("r", "early", 2) is SignalResult.BUFFERED
        assert await runtime.signal("r", "first", "go") is SignalResult.DELIVERED
    async with Runtime(url, workflows=[late]) as runtime:
        await runtime.sweep()
        assert (await runtime.get("r")).waits == ("timer",)
        assert await runtime.signal("r", "early", 3, signal_id="third") is SignalResult.BUFFERED
        assert await runtime.signal("r", "early", 3, signal_id="third") is SignalResult.DUPLICATE
    async with Runtime(url, workflows=[late]) as runtime:
        await runtime.sweep(now=in_future())
        (approval_id,) = (await runtime.get("r")).waiting_approvals
        await runtime.approve("r", approval_id)
        assert (await finish(runtime, "r")).output == ["go", 1, 2, 3, True]


async def test_a_decision_made_before_it_was_asked_for_is_kept(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[late]) as runtime:
        await runtime.enqueue(late, ledger, run_id="known")
        for name, value in (("first", 0), *(("early", n) for n in range(3))):
            await runtime.signal("known", name, value)
        await runtime.sweep()
        await runtime.sweep(now=in_future())
        (approval_id,) = (await runtime.get("known")).waiting_approvals
        # Derived from the run and the operation, so a second run's can be known in advance.
        early = approval_id.replace("known", "early")
        await runtime.enqueue(late, ledger, run_id="early")
        assert await runtime.approve("early", early, approved=False) is SignalResult.BUFFERED
        for name, value in (("first", 0), *(("early", n) for n in range(3))):
            await runtime.signal("early", name, value)
        assert (await finish(runtime, "early")).output == [0, 0, 1, 2, False]


async def test_a_signal_to_no_run_or_an_ended_one_is_answered_so(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[late]) as runtime:
        assert await runtime.signal("nobody", "early", 1) is SignalResult.NOT_FOUND
        await runtime.enqueue(late, ledger, run_id="r")
        await runtime.terminate("r")
        assert await runtime.signal("r", "early", 1) is SignalResult.FINISHED
