"""Elsewhere tables grew for ever: with every poll, every replay, every ended run."""

import asyncio
from datetime import timedelta

import pytest

from duramen import Context, Retry, Runtime, StepFailed, workflow
from tests.regressions.support import finish, in_future, tables

pytestmark = pytest.mark.anyio


@workflow
async def busy(ctx: Context, number: int) -> int:
    await ctx.wait_for_event("go")
    await ctx.approve("Well?", id="well", timeout=60)
    return number


async def wobble() -> None:
    raise ConnectionError("not yet")


@workflow
async def failing(ctx: Context) -> str:
    try:
        await ctx.step("wobble", wobble, retry=Retry(attempts=5, base=0, jitter=False))
    except StepFailed as error:
        return f"{error.attempts}"
    return "?"


async def test_a_deleted_run_leaves_no_row_in_any_table(url: str) -> None:
    async with Runtime(url, workflows=[busy]) as runtime:
        empty = tables(url)
        for n in range(20):
            await runtime.enqueue(busy, n, run_id=f"r{n}", tags=["a", "b"], memo={"n": n})
            await runtime.signal(f"r{n}", "go")
            await runtime.signal(f"r{n}", "nobody-waits-for-this")
        await runtime.sweep()
        for n in range(20):
            if n % 2:
                await runtime.terminate(f"r{n}")
                assert await runtime.delete(f"r{n}")
            else:
                assert await runtime.delete(f"r{n}", force=True)
            assert not await runtime.delete(f"r{n}")
        assert tables(url) == empty | {"owners": 1}


async def test_replays_sweeps_polls_and_heartbeats_add_no_rows(url: str) -> None:
    async with Runtime(url, workflows=[busy]) as runtime:
        await runtime.enqueue(busy, 1, run_id="r")
        await runtime.sweep()
        before = tables(url)
    for _ in range(5):
        async with Runtime(url, workflows=[busy], warm=0, lease=1) as runtime:
            await runtime.sweep()
            await runtime.sweep(now=in_future())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await runtime.work(handle_signals=False, poll_min=0.001, poll_max=0.005)
    # One row for each process that was ever there, until a day after its end.
    assert tables(url) == before | {"owners": before["owners"] + 5}


async def test_a_wait_that_is_replayed_many_times_adds_nothing_but_what_happened(url: str) -> None:
    async with Runtime(url, workflows=[busy], warm=0) as runtime:
        await runtime.enqueue(busy, 1, run_id="r")
        await runtime.sweep()
        lengths: set[int] = set()
        for n in range(10):  # each of them wakes the run, and it goes on waiting
            await runtime.cancel("nobody")
            await runtime.signal("r", "other", n)
            await runtime.sweep()
            lengths.add((await runtime.get("r")).journal_len)
        assert len(lengths) == 1


async def test_the_journal_of_a_step_that_fails_has_one_entry_an_attempt(url: str) -> None:
    async with Runtime(url, workflows=[failing]) as runtime:
        await runtime.enqueue(failing, run_id="r")
        assert (await finish(runtime, "r", ahead=timedelta(minutes=5))).output == "5"
        assert (await runtime.get("r")).journal_len == 1 + 5 + 1
