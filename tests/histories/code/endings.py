"""How runs end, and how they begin again; state and versions. Frozen: see steps.py."""

import asyncio

from pydantic import BaseModel

from duramen import Context, Runtime, StepFailed, step_context, workflow
from tests.histories.case import case, play_to_the_end, until


async def note(text: str) -> str:
    return text


async def broken() -> None:
    raise ConnectionError("no line")


@workflow
async def empty(ctx: Context) -> None:
    pass


play_to_the_end(empty)


@workflow
async def run_failed(ctx: Context) -> None:
    await ctx.step("note", note, "before")
    raise LookupError("nowhere")


play_to_the_end(run_failed)


@workflow
async def run_failed_by_a_step(ctx: Context) -> None:
    await ctx.step("note", note, "before")
    await ctx.step("broken", broken)


play_to_the_end(run_failed_by_a_step)


@case(run_failed_by_a_step)
async def queued(runtime: Runtime, run_id: str) -> None:
    await runtime.enqueue(run_failed_by_a_step, run_id=run_id)


@workflow
async def cancelled(ctx: Context) -> str:
    try:
        await ctx.sleep(3600)
    finally:
        await ctx.step("tidy", note, "tidied up")
    return "never"


@case(cancelled, name="cancelled")
async def play_cancelled(runtime: Runtime, run_id: str) -> None:
    await runtime.start(cancelled, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    await runtime.cancel(run_id, "no longer wanted")
    await until(runtime, run_id, status="cancelled")


@workflow
async def cancellation_survived(ctx: Context) -> str:
    try:
        await ctx.wait_for_event("never")
    except asyncio.CancelledError as error:
        return await ctx.step("note", note, f"went on after: {error}")
    return "never"


@case(cancellation_survived, name="cancellation_survived")
async def play_cancellation_survived(runtime: Runtime, run_id: str) -> None:
    await runtime.start(cancellation_survived, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    await runtime.cancel(run_id, "please stop")
    await until(runtime, run_id, status="completed")


@workflow
async def terminated(ctx: Context) -> None:
    await ctx.step("note", note, "before")
    await ctx.sleep(3600)


@case(terminated, name="terminated")
async def play_terminated(runtime: Runtime, run_id: str) -> None:
    await runtime.start(terminated, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    await runtime.terminate(run_id, "out of the way")


@workflow(timeout=0.05)
async def timed_out(ctx: Context) -> None:
    try:
        await ctx.sleep(3600)
    finally:
        await ctx.step("tidy", note, "tidied up")


play_to_the_end(timed_out)


MENDED: set[str] = set()


async def mended_later(name: str) -> str:
    if name not in MENDED:
        raise ConnectionError("not yet")
    return str(step_context().attempt)


@workflow
async def reopened(ctx: Context) -> list[str]:
    first = await ctx.step("first", note, "first")
    beside = asyncio.ensure_future(ctx.step("beside", note, "beside"))
    mended = await ctx.step("mended", mended_later, ctx.run_id)
    return [first, mended, await beside, await ctx.step("last", note, "last")]


@case(reopened, name="reopened")
async def play_reopened(runtime: Runtime, run_id: str) -> None:
    await runtime.start(reopened, run_id=run_id)
    await until(runtime, run_id, status="failed")
    await runtime.retry(run_id)
    await until(runtime, run_id, status="failed")
    MENDED.add(run_id)
    await runtime.retry(run_id)
    await until(runtime, run_id, status="completed")


@workflow
async def reopened_after_its_end(ctx: Context) -> str:
    text = await ctx.step("note", note, "before")
    await ctx.wait_for_event("go")
    return text


@case(reopened_after_its_end, name="reopened_after_its_end")
async def play_reopened_after_its_end(runtime: Runtime, run_id: str) -> None:
    handle = await runtime.start(reopened_after_its_end, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    await handle.cancel("too early")
    await until(runtime, run_id, status="cancelled")
    await runtime.retry(run_id)
    await until(runtime, run_id, status="waiting")
    await handle.terminate("out of the way")
    await runtime.retry(run_id)
    await until(runtime, run_id, status="waiting")
    await handle.signal("go", signal_id="s1")
    await runtime.sweep()
    await handle.result(timeout=20)


class Progress(BaseModel):
    done: int = 0
    log: list[str] = []


@workflow(state=Progress)
async def state(ctx: Context[Progress]) -> int:
    for number in range(3):
        ctx.state.log.append(await ctx.step("note", note, f"part {number}"))
        ctx.state.done += 1
    try:
        await ctx.step("broken", broken)
    except StepFailed:
        ctx.state.log.append("broken")
    return ctx.state.done


play_to_the_end(state)


@workflow(name="versioned", version="1")
async def versioned_1(ctx: Context) -> str:
    await ctx.step("old", note, "old")
    return ctx.version


@workflow(name="versioned", version="2", previous=[versioned_1])
async def versioned(ctx: Context) -> str:
    await ctx.step("new", note, "new")
    return ctx.version


@case(versioned)
async def version_1(runtime: Runtime, run_id: str) -> None:
    async with Runtime("memory://versions", workflows=[versioned_1]) as before:
        await (await before.start(versioned_1, run_id=run_id)).result(timeout=20)
        exported = await before.export(run_id)
    raise Made(exported)


@case(versioned)
async def version_2(runtime: Runtime, run_id: str) -> None:
    await (await runtime.start(versioned, run_id=run_id)).result(timeout=20)


@workflow(name="stuck")
async def stuck_before(ctx: Context) -> None:
    await ctx.step("charge", note, "charged")
    await ctx.sleep(1.2)
    await ctx.step("ship", note, "shipped")


@workflow(name="stuck")
async def stuck_after(ctx: Context) -> None:
    await ctx.step("pay", note, "paid")
    await ctx.sleep(1.2)
    await ctx.step("ship", note, "shipped")


@case(stuck_before)
async def stuck(runtime: Runtime, run_id: str) -> None:
    """A run that was parked because its code changed: with the code of before it goes on."""
    async with Runtime("memory://stuck", workflows=[stuck_before]) as before:
        await before.start(stuck_before, run_id=run_id)
        await until(before, run_id, status="waiting")
        async with Runtime("memory://stuck", workflows=[stuck_after], warm=0) as after:
            await before.close()
            await asyncio.sleep(1.3)
            await after.sweep()
            await until(after, run_id, status="stuck")
            exported = await after.export(run_id)
    raise Made(exported)


class Made(Exception):
    """The history was made in another store than the one given."""

    @property
    def history(self) -> dict[str, object]:
        return self.args[0]
