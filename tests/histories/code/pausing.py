"""Steps that pause their run, polls, and undos. Frozen: see steps.py."""

from duramen import Context, Retry, Runtime, workflow
from tests.histories.case import case, play_to_the_end, until


async def note(text: str) -> str:
    return text


async def broken() -> str:
    raise ConnectionError("no line")


@workflow
async def step_exhausted(ctx: Context) -> list[str]:
    first = await ctx.step("broken", broken, retry=Retry(attempts=2, base=0), on_exhausted="pause")
    return [first, await ctx.step("note", note, "after")]


@case(step_exhausted, name="step_exhausted")
async def play_exhausted(runtime: Runtime, run_id: str) -> None:
    await runtime.start(step_exhausted, run_id=run_id)
    await until(runtime, run_id, status="paused")


@case(step_exhausted)
async def step_skipped(runtime: Runtime, run_id: str) -> None:
    await play_exhausted(runtime, run_id)
    # Attempts anew, then a result.
    await runtime.retry(run_id)
    await until(runtime, run_id, status="paused", journal_len=6)
    await runtime.skip(run_id, "given")
    await until(runtime, run_id, status="completed")


@workflow
async def polled(ctx: Context) -> list[str]:
    found = await ctx.poll("ready", note, "found", every=1)
    try:
        await ctx.poll("never", note, "", every=0.01, timeout=0.02)
    except TimeoutError:
        return [found, "too late"]
    return [found]


play_to_the_end(polled)


@workflow
async def undone(ctx: Context) -> None:
    for name in ("hotel", "flight"):
        ctx.compensate(name, note, f"cancel {name}")
        await ctx.step(name, note, name)
    await ctx.step("car", broken)


play_to_the_end(undone)


@workflow
async def undone_after_a_cancellation(ctx: Context) -> None:
    ctx.compensate("hotel", note, "cancel hotel")
    await ctx.step("hotel", note, "hotel")
    await ctx.sleep(3600)


@case(undone_after_a_cancellation, name="undone_after_a_cancellation")
async def play_cancelled(runtime: Runtime, run_id: str) -> None:
    await runtime.start(undone_after_a_cancellation, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    await runtime.cancel(run_id, "enough", drive=True)
    await until(runtime, run_id, status="cancelled")
