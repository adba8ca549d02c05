"""A process may die before or after any change of the store: others finish its work, and nothing is lost."""

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import Context, Retry, Runtime, step_context, workflow
from tests.regressions.support import (
    DIED,
    DyingStore,
    assert_no_recorded_step_ran_again,
    note,
    notes,
    run_child,
    story,
    work_on,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class Payment(BaseModel):
    amount: int


class Progress(BaseModel):
    done: list[str] = []


async def flaky(ledger: str, what: str) -> str:
    context = step_context()
    note(ledger, f"ran {what} {context.idempotency_key}")
    if context.attempt < 3:
        raise ConnectionError("try again")
    return what


async def write_down(ledger: str, token: str) -> None:
    """An effect that depends on a recorded value: that value must be durable before."""
    note(ledger, f"token {token}")
    note(ledger, f"ran token {step_context().idempotency_key}")


@workflow(retry=Retry(attempts=3, base=0.001, jitter=False), state=Progress, events={"paid": Payment})
async def fulfil(ctx: Context[Progress], ledger: str) -> dict[str, Any]:
    reserved = await ctx.step("reserve", flaky, ledger, "reserve")
    ctx.state.done.append("reserved")
    token = str(ctx.uuid())
    await ctx.step("token", write_down, ledger, token)
    await ctx.sleep(0.01)
    await ctx.sleep(timedelta(minutes=10))
    payment = await ctx.wait_for_event("paid", Payment)
    ctx.state.done.append("paid")
    decision = await ctx.approve("Ship it?")
    label, mail, late, _ = await asyncio.gather(
        ctx.step("label", work_on, ledger, "label"),
        ctx.step("mail", flaky, ledger, "mail"),
        ctx.wait_for_event("never", timeout=60, default="nobody came"),
        ctx.step("quick", work_on, ledger, "quick", checkpoint="lazy"),
    )
    ctx.state.done.append("shipped")
    return {
        "token": token, "parts": [reserved, label, mail, late], "amount": payment.amount,
        "yes": decision.approved,
    }  # fmt: skip


STEPS = ["reserve", "token", "label", "mail", "quick"]


async def fulfil_all(url: str, ledger: str, side: str, nth: int, warm: int) -> None:
    """What each of the processes does: everything that is still to do."""
    store = DyingStore(url, ledger, side, nth)
    async with Runtime(store, workflows=[fulfil], migrate=True, warm=warm) as runtime:
        await runtime.enqueue(fulfil, ledger, run_id="r")
        await runtime.signal("r", "paid", {"amount": 7}, signal_id="payment")
        instant = datetime.now(UTC)
        view = await runtime.get("r")
        for _ in range(40):
            view = await runtime.get("r")
            if view.finished:
                return
            for approval_id in view.waiting_approvals:
                await runtime.approve("r", approval_id)
            instant += timedelta(hours=1)
            await runtime.sweep(now=instant)
        raise AssertionError(f"the run makes no progress: {view}")


async def check(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[fulfil]) as runtime:
        view = await runtime.get("r")
        assert view.status == "completed", (view.status, view.note, view.error)
        tokens = {line for line in notes(ledger) if line.startswith("token ")}
        assert tokens == {f"token {view.output['token']}"}
        assert view.output["parts"] == ["reserve", "label", "mail", "nobody came"]
        assert (view.output["amount"], view.output["yes"]) == (7, True)
        assert view.state == Progress(done=["reserved", "paid", "shipped"])
        told = await story(runtime, "r")
        ends = [line for line in told if not line.startswith("step_attempt_failed")]
        assert len(ends) == len(set(ends)), "something is in the journal twice"
        assert told.count("step_attempt_failed reserve") == told.count("step_attempt_failed mail") == 2
        assert view.unread == 0
        assert view.refused == ()
    assert_no_recorded_step_ran_again(ledger)
    keys = {line.split()[-1] for line in notes(ledger) if line.startswith("ran ")}
    assert keys == {f"r/{step}" for step in STEPS}  # each effect takes hold once, under its key


@pytest.mark.timeout(120)
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("warm", [0, 100], ids=["cold", "warm"])
async def test_a_process_may_die_at_any_change_and_another_one_finishes(
    new_url: Callable[[], str], tmp_path: Path, side: str, warm: int
) -> None:
    for nth in itertools.count(1):
        url, ledger = new_url(), f"{tmp_path}/{nth}.txt"
        died = run_child(fulfil_all, url, ledger, side, nth, warm)
        assert died in {0, DIED}
        if died:
            assert run_child(fulfil_all, url, ledger, "never", 0, warm) == 0
        await check(url, ledger)
        if not died:
            assert nth > 12  # so many changes there are at least
            return


@pytest.mark.timeout(120)
@pytest.mark.parametrize("nth", [2, 3, 5])
async def test_a_run_gets_on_though_every_process_dies_after_a_few_changes(
    url: str, ledger: str, nth: int
) -> None:
    for deaths in itertools.count():
        assert deaths < 60
        died = run_child(fulfil_all, url, ledger, "after", nth, 100)
        assert died in {0, DIED}
        if not died:
            assert deaths > 1
            break
    await check(url, ledger)
