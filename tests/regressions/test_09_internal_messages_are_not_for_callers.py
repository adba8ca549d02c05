"""Elsewhere callers could deliver the signals by which timers are fired inside."""

from datetime import timedelta

import pytest

from duramen import Context, Runtime, workflow
from duramen.errors import DuramenError, SignalRefused
from tests.regressions.support import story

pytestmark = pytest.mark.anyio


@workflow
async def sleeping(ctx: Context) -> str:
    await ctx.sleep(timedelta(hours=2))
    return "woke"


@pytest.mark.parametrize("name", ["__timer", "__cancel", "__", "__approval:a", "__duramen"])
async def test_names_that_begin_with_two_underscores_are_refused_to_the_sender(url: str, name: str) -> None:
    async with Runtime(url, workflows=[sleeping]) as runtime:
        await runtime.enqueue(sleeping, run_id="r")
        with pytest.raises(SignalRefused, match="reserved"):
            await runtime.signal("r", name, 1)
        with pytest.raises(SignalRefused, match="reserved"):
            await runtime.signal_many([("r", "fine", 1), ("r", name, 1)])
        assert (await runtime.get("r")).unread == 0


@pytest.mark.parametrize(
    "name", ["timer", "sleep-1", "event:sleep-1", "retry:sleep-1", "cancel", "timer_fired"]
)
async def test_no_event_fires_a_timer_or_cancels_a_run(url: str, name: str) -> None:
    async with Runtime(url, workflows=[sleeping]) as runtime:
        await runtime.enqueue(sleeping, run_id="r")
        await runtime.sweep()
        before = (await runtime.get("r")).ready_at
        await runtime.signal("r", name, None, drive=True)
        await runtime.sweep()
        view = await runtime.get("r")
        assert (view.status, view.waits, view.ready_at) == ("waiting", ("timer",), before)
        assert "timer_fired sleep-1" not in await story(runtime, "r")


@workflow
async def asking(ctx: Context) -> bool:
    return (await ctx.approve("May I?", id="may-i")).approved


async def test_an_event_is_no_decision_and_a_decision_is_no_event(url: str) -> None:
    async with Runtime(url, workflows=[asking]) as runtime:
        await runtime.enqueue(asking, run_id="r")
        await runtime.sweep()
        (approval_id,) = (await runtime.get("r")).waiting_approvals
        for name in (approval_id, f"approval:{approval_id}", "may-i"):
            try:
                await runtime.signal("r", name, {"approved": True, "feedback": None, "by": None, "at": 0})
            except DuramenError:
                continue  # refused is as good
        await runtime.sweep()
        assert (await runtime.get("r")).waiting_approvals == (approval_id,)
        # Nor can a signal take the place of the decision by carrying its message id first.
        with pytest.raises(SignalRefused, match="decisions"):
            await runtime.signal("r", "other", None, signal_id=f"approval:{approval_id}")
        await runtime.approve("r", approval_id, approved=False)
        await runtime.sweep()
        assert await runtime.result("r", timeout=10) is False
