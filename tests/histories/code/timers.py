"""Timers. Frozen: see steps.py."""

import asyncio
from datetime import timedelta

from duramen import Context, Runtime, workflow
from tests.histories.case import case, play_to_the_end, until


async def note(text: str) -> str:
    return text


async def endless() -> None:
    await asyncio.sleep(60)


@workflow
async def sleep(ctx: Context) -> str:
    before = ctx.now()
    await ctx.sleep(0.02)
    await ctx.sleep(timedelta(milliseconds=5))
    assert ctx.now() - before >= timedelta(milliseconds=25)
    return await ctx.step("note", note, "slept")


play_to_the_end(sleep)


@workflow
async def sleep_until(ctx: Context) -> str:
    await ctx.sleep_until(ctx.now() - timedelta(days=1))
    await ctx.sleep_until(ctx.now() + timedelta(milliseconds=20))
    return await ctx.step("note", note, "awake")


play_to_the_end(sleep_until)


@workflow
async def sleep_over_a_pause(ctx: Context) -> str:
    await ctx.step("before", note, "before")
    await ctx.sleep(1.5)
    return await ctx.step("after", note, "after")


play_to_the_end(sleep_over_a_pause)


@workflow
async def sleeping(ctx: Context) -> str:
    await ctx.step("before", note, "before")
    await ctx.sleep(timedelta(days=30))
    return await ctx.step("after", note, "after")


@case(sleeping, name="sleeping")
async def play_sleeping(runtime: Runtime, run_id: str) -> None:
    await runtime.start(sleeping, run_id=run_id)
    await until(runtime, run_id, status="waiting")


@workflow
async def asyncio_sleep(ctx: Context) -> str:
    loop = asyncio.get_running_loop()
    before = loop.time()
    await asyncio.sleep(0)
    await asyncio.sleep(0.02)
    assert loop.time() - before >= 0.02
    return await ctx.step("note", note, "slept")


play_to_the_end(asyncio_sleep)


@workflow
async def asyncio_timeout(ctx: Context) -> list[str]:
    told: list[str] = []
    try:
        async with asyncio.timeout(0.02):
            await ctx.step("endless", endless)
    except TimeoutError:
        told.append("timeout")
    async with asyncio.timeout(60):
        told.append(await ctx.step("in-time", note, "in time"))
    try:
        await asyncio.wait_for(ctx.wait_for_event("never"), 0.02)
    except TimeoutError:
        told.append("wait_for")
    return told


play_to_the_end(asyncio_timeout)


@workflow
async def call_later(ctx: Context) -> list[int]:
    loop = asyncio.get_running_loop()
    order: list[int] = []
    done = asyncio.Event()
    loop.call_later(0.03, lambda: (order.append(3), done.set()))
    loop.call_later(0.01, order.append, 1)
    loop.call_later(0.02, order.append, 2)
    loop.call_later(0.015, order.append, 99).cancel()
    await done.wait()
    await ctx.step("note", note, "done")
    return order


play_to_the_end(call_later)
