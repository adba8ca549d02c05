"""Pausing runs and letting them go on, on every store."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from duramen import Context, PauseResult, ResumeResult, RunStatus, Runtime, workflow
from duramen.errors import InvalidArgument, RunCancelled, RunTerminated
from tests.runtime.support import scenarios, status_is, until

started = list[str]()
gates = dict[str, asyncio.Event]()


async def gated(name: str) -> str:
    """A step that is in flight for as long as its test wants it to be."""
    started.append(name)
    await gates.setdefault(name, asyncio.Event()).wait()
    return name


@workflow
async def two_steps(ctx: Context, name: str) -> str:
    await ctx.step("first", gated, f"{name}.1")
    return await ctx.step("second", gated, f"{name}.2")


@workflow
async def listening(ctx: Context) -> str:
    try:
        return await ctx.wait_for_event("go", str)
    except asyncio.CancelledError:
        await ctx.step("clean", gated, "clean")
        raise


@workflow
async def napping(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "slept"


async def tick() -> bool:
    """Whether to go on."""
    started.append("tick")
    await asyncio.sleep(0.01)
    return "enough" not in gates


@workflow
async def ticking(ctx: Context) -> None:
    while await ctx.step("tick", tick):
        pass


@workflow
async def beside(ctx: Context) -> str:
    slow = asyncio.ensure_future(ctx.step("slow", gated, "slow"))
    while await ctx.step("tick", tick):
        pass
    return await slow


ALL = [two_steps, beside, listening, napping, ticking]


@pytest.fixture(autouse=True)
def fresh() -> None:
    started.clear()
    gates.clear()


scenario = scenarios(ALL)


async def runs(name: str) -> None:
    """Wait until that step is in flight."""

    async def look() -> bool:
        return name in started

    await until(look)


def let(name: str) -> None:
    gates.setdefault(name, asyncio.Event()).set()


@scenario
async def test_steps_in_flight_end_and_nothing_new_starts(runtime: Runtime) -> None:
    run = await runtime.start(beside, run_id="a")
    await runs("slow")
    await runs("tick")
    assert await runtime.pause("a", "the API is down", by="ann") is PauseResult.PAUSING
    let("slow")
    await status_is(runtime, "a", "paused")
    view = await runtime.get("a")
    assert (view.note, view.finished, view.owner) == ("ann: the API is down", False, None)
    assert view.status is RunStatus.PAUSED
    assert not view.status.is_final
    completed = [event.op for event in await runtime.timeline("a") if event.kind == "step_completed"]
    assert "slow" in completed
    # What has started was recorded.
    assert len(completed) == len(started)
    with pytest.raises(TimeoutError):
        await run.result(timeout=0.05)
    assert await runtime.pause("a") is PauseResult.ALREADY_PAUSED
    let("enough")
    assert await runtime.resume("a") is ResumeResult.RESUMED
    assert await run.result(timeout=10) == "slow"
    assert started.count("slow") == 1


@scenario
async def test_a_pause_that_is_taken_back_before_it_took_place(runtime: Runtime) -> None:
    run = await runtime.start(two_steps, "a", run_id="a")
    await runs("a.1")
    assert await runtime.pause("a") is PauseResult.PAUSING
    assert await runtime.resume("a") is ResumeResult.RESUMED
    let("a.1")
    let("a.2")
    assert await run.result(timeout=10) == "a.2"


@scenario
async def test_messages_are_kept_and_time_goes_on(runtime: Runtime) -> None:
    waits = await runtime.start(listening, run_id="w")
    sleeps = await runtime.start(napping, 0.3, run_id="s")
    await status_is(runtime, "w", "waiting")
    for run_id in ("w", "s"):
        await runtime.pause(run_id)
        await status_is(runtime, run_id, "paused")
    due = (await runtime.get("s")).ready_at
    assert due is not None
    assert await runtime.signal("w", "go", "there") == "buffered"

    async def is_over() -> bool:
        return datetime.now(UTC) > due

    await until(is_over)
    for run_id in ("w", "s"):
        assert (await runtime.get(run_id)).status == "paused"
        assert await runtime.resume(run_id) is ResumeResult.RESUMED
    assert await waits.result(timeout=10) == "there"
    assert await sleeps.result(timeout=10) == "slept"


@scenario
async def test_a_cancellation_ends_the_pause_and_the_run(runtime: Runtime) -> None:
    run = await runtime.start(listening, run_id="a")
    await status_is(runtime, "a", "waiting")
    await runtime.pause("a")
    let("clean")
    assert await runtime.cancel("a", "enough") == "delivered"
    with pytest.raises(RunCancelled, match="enough"):
        await run.result(timeout=10)
    assert started == ["clean"]


@scenario
async def test_a_paused_run_can_be_terminated_and_is_not_deleted_unasked(runtime: Runtime) -> None:
    run = await runtime.start(listening, run_id="a")
    await status_is(runtime, "a", "waiting")
    await runtime.pause("a")
    with pytest.raises(InvalidArgument, match="has not ended"):
        await runtime.delete("a")
    assert await runtime.terminate("a")
    with pytest.raises(RunTerminated):
        await run.result(timeout=10)


@scenario
async def test_a_run_that_nobody_began_is_paused_without_its_handler(runtime: Runtime) -> None:
    at = datetime.now(UTC) + timedelta(days=1)
    await runtime.enqueue(listening, run_id="a", start_at=at)
    assert await runtime.pause("a") is PauseResult.PAUSED
    view = await runtime.get("a")
    assert (view.status, view.started_at, view.ready_at is not None) == ("paused", None, True)
    assert await runtime.resume("a") is ResumeResult.RESUMED
    after = await runtime.get("a")
    assert (after.status, after.ready_at) == ("queued", view.ready_at)


@scenario
async def test_what_there_is_not_to_pause_has_a_typed_answer(runtime: Runtime) -> None:
    assert await runtime.pause("nobody") is PauseResult.NOT_FOUND
    assert await runtime.resume("nobody") is ResumeResult.NOT_FOUND
    await runtime.start(napping, 0, run_id="a")
    await runtime.result("a", timeout=10)
    assert await runtime.pause("a") is PauseResult.FINISHED
    assert await runtime.resume("a") is ResumeResult.FINISHED
    await runtime.start(listening, run_id="w")
    await status_is(runtime, "w", "waiting")
    assert await runtime.resume("w") is ResumeResult.NOT_PAUSED
    for reason, by in (("x" * 10_001, None), ("", " ")):
        with pytest.raises(InvalidArgument):
            await runtime.pause("w", reason, by=by)
    with pytest.raises(InvalidArgument):
        await runtime.pause("")


@scenario
async def test_all_that_a_filter_finds(runtime: Runtime) -> None:
    for n in range(7):
        await runtime.enqueue(napping, 0, run_id=f"n{n}", tags=["night"] if n % 2 else [])
    assert await runtime.pause_many("night", tag="night") == 3
    assert await runtime.pause_many(workflow=napping) == 4
    assert await runtime.count(status="paused") == 7
    with pytest.raises(InvalidArgument, match="every run"):
        await runtime.pause_many()
    with pytest.raises(InvalidArgument, match="none of the statuses"):
        await runtime.resume_many(status="failed")
    assert await runtime.resume_many(workflow=napping, tag="night") == 3
    assert await runtime.resume_many(id_prefix="n") == 4
    assert await runtime.count(status="queued") == 7


@scenario
async def test_a_reason_of_many_lines_is_told_in_one(runtime: Runtime) -> None:
    await runtime.enqueue(listening, run_id="a")
    await runtime.pause("a", "first\nsecond\tthird")
    assert (await runtime.get("a")).note == "first second third"


def test_the_blocking_calls(memory_url: str) -> None:
    with Runtime(memory_url, workflows=ALL).sync as runtime:
        runtime.enqueue(napping, 0, run_id="a")
        assert runtime.pause("a") is PauseResult.PAUSED
        assert runtime.pause_many(workflow=napping) == 0
        assert runtime.resume_many(workflow=napping) == 1
        assert runtime.resume("nobody") is ResumeResult.NOT_FOUND


def test_a_pause_reaches_the_process_that_drives_the_run(url: str) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=ALL) as one, Runtime(url, workflows=ALL) as other:
            run = await one.start(ticking, run_id="a")
            await runs("tick")
            assert await other.pause("a") is PauseResult.PAUSING
            await status_is(other, "a", "paused")
            ticks = len(started)
            assert (await other.get("a")).journal_len == 1 + ticks
            assert await other.resume("a", drive=False) is ResumeResult.RESUMED

            async def goes_on() -> bool:
                return len(started) > ticks

            await until(goes_on)
            await other.cancel("a")
            with pytest.raises(RunCancelled):
                await run.result(timeout=10)

    asyncio.run(main())
