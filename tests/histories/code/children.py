"""Children and messages to other runs. Frozen: see steps.py."""

import asyncio

from pydantic import BaseModel

from duramen import ChildFailed, Context, Outcome, Runtime, workflow
from tests.histories.case import case, until
from tests.histories.code.endings import Made


class Part(BaseModel):
    number: int


@workflow(name="frozen_child")
async def child(ctx: Context, part: Part) -> Part:
    if part.number == 7:
        raise ValueError("unlucky")
    return Part(number=part.number + 1)


@workflow(name="frozen_waiter")
async def waiter(ctx: Context) -> str:
    return await ctx.wait_for_event("go", str)


@workflow(name="frozen_parent")
async def parent(ctx: Context) -> list[int]:
    handles = [await ctx.start_child(child, Part(number=n)) for n in range(3)]
    parts = [await handle.result() for handle in handles]
    try:
        await ctx.child("frozen_child", Part(number=7), id="bad", run_id="a-name-of-its-own")
    except ChildFailed as failure:
        parts.append(Part(number=len(str(failure.__cause__))))
    return [part.number for part in parts]


@case(parent, child)
async def children(runtime: Runtime, run_id: str) -> None:
    await (await runtime.start(parent, run_id=run_id)).result(timeout=20)


@workflow(name="frozen_canceller")
async def canceller(ctx: Context) -> str:
    try:
        async with asyncio.timeout(0.01):
            return await ctx.child(waiter, id="slow")
    except TimeoutError:
        return "too slow"


@case(canceller, waiter)
async def child_cancelled(runtime: Runtime, run_id: str) -> None:
    await (await runtime.start(canceller, run_id=run_id)).result(timeout=20)


@workflow(name="frozen_teller")
async def teller(ctx: Context) -> None:
    waiting = await ctx.start_child(waiter, detached=True)
    await waiting.signal("go", "now")
    await ctx.signal("nobody", "news", {"n": 1})
    await waiting.result()


@case(teller, waiter)
async def messages_to_others(runtime: Runtime, run_id: str) -> None:
    await (await runtime.start(teller, run_id=run_id)).result(timeout=20)


@workflow(name="frozen_hook")
async def hook(ctx: Context, outcome: Outcome) -> str:
    return outcome.status


@workflow(name="frozen_parked", on_stuck=hook)
async def fits(ctx: Context) -> str:
    await ctx.sleep(0)
    return await ctx.wait_for_event("go", str)


@workflow(name="frozen_parked", on_stuck=hook)
async def does_not_fit(ctx: Context) -> str:
    return await ctx.wait_for_event("go", str)


@case(fits, hook)
async def parked_with_a_hook(runtime: Runtime, run_id: str) -> None:
    async with Runtime("memory://parked", workflows=[fits, hook]) as first:
        await first.start(fits, run_id=run_id)
        await until(first, run_id, waits=("event:go",))
        async with Runtime("memory://parked", workflows=[does_not_fit, hook], warm=0) as second:
            await second.signal(run_id, "go", "on")
            await second.sweep()
            await until(second, run_id, status="stuck")
        await first.retry(run_id)
        await until(first, run_id, status="completed")
        exported = dict(await first.export(run_id))
    raise Made(exported)
