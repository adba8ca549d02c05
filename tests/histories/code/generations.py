"""Generations: journals that begin in the middle of a run. Frozen: see steps.py."""

from duramen import Context, Runtime, workflow
from tests.histories.case import case, until


async def look(number: int) -> str:
    return f"look {number}"


@workflow
async def watching(ctx: Context, number: int) -> list[str]:
    found = [await ctx.step("look", look, number), f"{ctx.generation} {ctx.uuid()}"]
    await ctx.sleep(0.02)
    if number < 2:
        ctx.continue_as_new(number + 1)
    answer = await ctx.approve("Enough?", id="enough")
    return [*found, answer.approval_id, await ctx.wait_for_event("word", str)]


@case(watching)
async def generation_ended(runtime: Runtime, run_id: str) -> None:
    handle = await runtime.start(watching, 0, run_id=run_id)
    await handle.signal("word", "early", signal_id="w1")
    await until(runtime, run_id, waiting_approvals=("enough@2",))
    await runtime.approve(run_id, "enough@2", True)
    await handle.result(timeout=20)


@case(watching)
async def generation_awaited(runtime: Runtime, run_id: str) -> None:
    await runtime.start(watching, 1, run_id=run_id)
    await until(runtime, run_id, waiting_approvals=("enough@1",))
