"""A payload over the limit is a clear error wherever it comes from; with a higher limit it works."""

import pytest

from duramen import Context, JsonSerializer, Runtime, StepFailed, workflow
from duramen.errors import PayloadTooLarge, RunFailed
from tests.regressions.support import size, tables

pytestmark = pytest.mark.anyio

SIZE = 50_000_000
HUGE = "x" * SIZE


async def huge() -> str:
    return HUGE


async def small() -> str:
    return "small"


@workflow
async def receiving(ctx: Context, value: str) -> int:
    return len(value) + len(await ctx.wait_for_event("more", str))


@workflow
async def making(ctx: Context, end: str) -> str:
    try:
        value = await ctx.step("huge", huge)
    except StepFailed as error:
        value = f"{error.error.short_name}: {error.error.message}"
    after = await ctx.step("after", small)
    return HUGE if end == "huge" else f"{after} {len(value)} {value[:60]}"


async def test_fifty_megabytes_are_refused_everywhere_and_nothing_is_lost(url: str) -> None:
    async with Runtime(url, workflows=[receiving, making]) as runtime:
        empty = tables(url)
        for call in (runtime.start, runtime.enqueue, runtime.run):
            with pytest.raises(PayloadTooLarge, match="50,000,002 bytes and the limit is 2,097,152"):
                await call(receiving, HUGE, run_id="r")
        with pytest.raises(PayloadTooLarge):
            await runtime.enqueue_many([(receiving, "fine"), (receiving, HUGE)])
        with pytest.raises(PayloadTooLarge):
            await runtime.enqueue(receiving, "fine", memo=HUGE)
        assert tables(url) == empty
        run = await runtime.start(receiving, "fine", run_id="r")
        with pytest.raises(PayloadTooLarge):
            await run.signal("more", HUGE, signal_id="m")
        with pytest.raises(PayloadTooLarge):
            await runtime.approve("r", "well", feedback=HUGE)
        with pytest.raises(ValueError, match="at most 10,000"):
            await run.cancel(HUGE)
        await run.signal("more", "!", signal_id="m")
        assert await run.result(timeout=30) == 5

        made = await runtime.start(making, "small")
        output = await made.result(timeout=30)
        assert output.startswith("small")
        assert "PayloadTooLarge" in output
        failing = await runtime.start(making, "huge")
        with pytest.raises(RunFailed, match="50,000,002 bytes"):
            await failing.result(timeout=30)
    assert size(url) < 5_000_000


async def test_with_a_higher_limit_fifty_megabytes_go_in_through_and_out(any_url: str) -> None:
    serializer = JsonSerializer(max_bytes=60_000_000)
    async with Runtime(any_url, workflows=[receiving, making], serializer=serializer) as runtime:
        run = await runtime.start(receiving, HUGE, run_id="r")
        await run.signal("more", HUGE)
        assert await run.result(timeout=60) == 2 * SIZE
        assert len((await run.get()).input) == SIZE
        made = await runtime.start(making, "huge", run_id="made")
        assert await made.result(timeout=60) == HUGE
    if any_url != "memory://":  # and a process with the usual limit can read what is there
        async with Runtime(any_url) as reader:
            assert await reader.result("made") == HUGE
