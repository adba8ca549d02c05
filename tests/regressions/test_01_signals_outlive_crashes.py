"""Elsewhere a crash between the acceptance of a signal and the drive of its run lost the payload."""

import os

import pytest

from duramen import Context, Runtime, SignalResult, workflow
from tests.regressions.support import (
    DIED,
    DyingStore,
    finish,
    hang,
    ran,
    run_child,
    start_there,
    wait_until,
)

pytestmark = pytest.mark.anyio


@workflow
async def paying(ctx: Context, ledger: str) -> list[object]:
    await ctx.step("prepare", hang, ledger, "prepare")
    return [await ctx.wait_for_event("paid"), await ctx.wait_for_event("paid")]


@workflow
async def listening(ctx: Context) -> object:
    return await ctx.wait_for_event("paid")


async def accept_and_die(url: str, run_id: str) -> None:
    async with Runtime(url, workflows=[listening]) as runtime:
        assert await runtime.signal(run_id, "paid", {"amount": 7}) is SignalResult.DELIVERED
        os._exit(DIED)


async def signal_through(url: str, ledger: str, side: str, run_id: str) -> None:
    """Send one signal; the process dies before or after the store took it."""
    async with Runtime(DyingStore(url, ledger, side, 1), workflows=[listening], migrate=True) as runtime:
        await runtime.signal(run_id, "paid", {"amount": 8}, signal_id="invoice-1")


async def test_a_signal_that_was_accepted_reaches_its_run_though_the_accepting_process_died(url: str) -> None:
    async with Runtime(url, workflows=[listening]) as runtime:
        await runtime.enqueue(listening, run_id="r")
        await runtime.sweep()
        assert (await runtime.get("r")).waiting_events == ("paid",)
    assert run_child(accept_and_die, url, "r") == DIED
    async with Runtime(url, workflows=[listening]) as runtime:
        swept = await runtime.sweep()
        assert [run.run_id for run in swept.timers] == ["r"]
        assert await runtime.result("r", timeout=10) == {"amount": 7}


@pytest.mark.parametrize(
    ("side", "first"), [("before", SignalResult.DELIVERED), ("after", SignalResult.DUPLICATE)]
)
async def test_a_signal_whose_sender_died_unanswered_may_be_sent_again_and_counts_once(
    url: str, ledger: str, side: str, first: SignalResult
) -> None:
    async with Runtime(url, workflows=[listening]) as runtime:
        await runtime.enqueue(listening, run_id="r")
        await runtime.sweep()
        assert run_child(signal_through, url, ledger, side, "r") == DIED
        assert await runtime.signal("r", "paid", {"amount": 8}, signal_id="invoice-1") is first
        assert (
            await runtime.signal("r", "paid", {"amount": 9}, signal_id="invoice-1") is SignalResult.DUPLICATE
        )
        assert (await finish(runtime, "r")).output == {"amount": 8}


async def test_signals_to_a_run_whose_driver_is_killed_reach_the_next_driver_in_order(
    url: str, ledger: str
) -> None:
    with start_there(url, paying, ledger, "r") as driver:
        wait_until(lambda: ran(ledger, "prepare"))
        async with Runtime(url, workflows=[paying]) as runtime:
            assert await runtime.signal("r", "paid", 1) is SignalResult.BUFFERED
            assert await runtime.signal("r", "paid", 2) is SignalResult.BUFFERED
            driver.kill()
            view = await finish(runtime, "r")
    assert (view.status, view.output) == ("completed", [1, 2])
