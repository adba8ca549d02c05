"""Elsewhere a step that was renamed in the code ran a second time, silently."""

import asyncio
from typing import Any

import pytest

from duramen import Context, Runtime, WorkflowDef, workflow
from duramen.errors import RunStuck
from tests.regressions.support import finish, note, ran, story, work_on

pytestmark = pytest.mark.anyio


@workflow(name="shipping")
async def before(ctx: Context, ledger: str) -> str:
    await ctx.step("reserve", work_on, ledger, "reserve")
    await ctx.step("charge", work_on, ledger, "charge")
    await ctx.wait_for_event("go")
    return "shipped"


@workflow(name="shipping")
async def renamed(ctx: Context, ledger: str) -> str:
    await ctx.step("reserve", work_on, ledger, "reserve")
    await ctx.step("charge-card", work_on, ledger, "charge")
    await ctx.wait_for_event("go")
    return "shipped"


@workflow(name="shipping")
async def other_order(ctx: Context, ledger: str) -> str:
    await ctx.step("charge", work_on, ledger, "charge")
    await ctx.step("reserve", work_on, ledger, "reserve")
    await ctx.wait_for_event("go")
    return "shipped"


@workflow(name="shipping")
async def removed(ctx: Context, ledger: str) -> str:
    await ctx.step("reserve", work_on, ledger, "reserve")
    await ctx.wait_for_event("go")
    return "shipped"


@workflow(name="shipping")
async def other_kind(ctx: Context, ledger: str) -> str:
    await ctx.step("reserve", work_on, ledger, "reserve")
    await ctx.wait_for_event("charged", id="charge")
    return "shipped"


@workflow(name="shipping")
async def shorter(ctx: Context, ledger: str) -> str:
    await ctx.step("reserve", work_on, ledger, "reserve")
    return "shipped too early"


@workflow(name="shipping")
async def catching(ctx: Context, ledger: str) -> str:
    try:
        await renamed.handler(ctx, ledger)
    except BaseException:  # noqa: BLE001
        note(ledger, "ran clean-up")
        return "hid it"
    return "?"


@workflow(name="shipping")
async def in_parallel(ctx: Context, ledger: str) -> str:
    await asyncio.gather(*(ctx.step(f"new-{n}", work_on, ledger, "charge") for n in range(3)))
    return "?"


WRONG = [
    (renamed, "charge"), (other_order, "charge"), (removed, "charge"), (other_kind, "charge"),
    (shorter, "charge"), (catching, "charge"), (in_parallel, "reserve"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "names"), WRONG, ids=lambda value: value if isinstance(value, str) else value.handler.__name__
)
async def test_a_run_whose_code_changed_under_it_is_parked_with_a_difference_and_nothing_runs_again(
    url: str, ledger: str, changed: WorkflowDef[Any, Any], names: str
) -> None:
    async with Runtime(url, workflows=[before]) as runtime:
        await runtime.enqueue(before, ledger, run_id="r")
        await runtime.sweep()
        told = await story(runtime, "r")
    async with Runtime(url, workflows=[changed]) as runtime:
        await runtime.signal("r", "go")
        assert [run.kind for run in (await runtime.sweep()).timers] == ["stuck"]
        view = await runtime.get("r")
        assert (view.status, view.owner, view.ready_at) == ("stuck", None, None)
        assert view.note is not None
        assert names in view.note
        with pytest.raises(RunStuck, match="retry"):
            await runtime.result("r", timeout=10)
        # Not retried by itself, whatever comes in.
        await runtime.signal("r", "go")
        assert (await runtime.sweep()).driven == ()
    assert (ran(ledger, "reserve"), ran(ledger, "charge")) == (1, 1)
    async with Runtime(url, workflows=[before]) as runtime:
        await runtime.retry("r")
        assert await runtime.result("r", timeout=10) == "shipped"
        assert (await story(runtime, "r"))[: len(told)] == told
    assert (ran(ledger, "reserve"), ran(ledger, "charge")) == (1, 1)


async def test_retry_under_code_that_still_does_not_fit_parks_the_run_again(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[before]) as runtime:
        await runtime.enqueue(before, ledger, run_id="r")
        await runtime.sweep()
    async with Runtime(url, workflows=[renamed]) as runtime:
        for _ in range(3):
            await runtime.signal("r", "go")
            await runtime.sweep()
            assert (await runtime.get("r")).status == "stuck"
            await runtime.retry("r", drive=False)
            assert (await runtime.get("r")).status == "queued"
    async with Runtime(url, workflows=[before]) as runtime:
        assert (await finish(runtime, "r")).output == "shipped"
    assert ran(ledger, "charge") == 1
