"""Elsewhere the deadline of a wait was stored and never fired."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import story

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


@workflow
async def with_default(ctx: Context) -> object:
    return await ctx.wait_for_event("never", timeout=HOUR, default="gave up")


@workflow
async def raising(ctx: Context) -> str:
    try:
        await ctx.wait_for_event("never", timeout=HOUR)
    except TimeoutError:
        return "gave up"
    return "?"


@workflow
async def asking(ctx: Context) -> str:
    try:
        await ctx.approve("May I?", timeout=HOUR)
    except TimeoutError:
        return "gave up"
    return "?"


@workflow
async def with_asyncio(ctx: Context) -> str:
    try:
        async with asyncio.timeout(HOUR.total_seconds()):
            await ctx.wait_for_event("never")
    except TimeoutError:
        return "gave up"
    return "?"


@workflow(timeout=HOUR)
async def whole_run(ctx: Context) -> str:
    try:
        await ctx.wait_for_event("never")
    except asyncio.CancelledError:
        return "gave up"
    return "?"


@pytest.mark.parametrize(
    "definition", [with_default, raising, asking, with_asyncio, whole_run], ids=lambda d: d.name
)
async def test_the_deadline_of_a_wait_fires_in_a_process_that_did_not_open_it(
    url: str, definition: Any
) -> None:
    async with Runtime(url, workflows=[definition]) as runtime:
        run = await runtime.enqueue(definition, run_id="r")
        await runtime.sweep()
        deadline = (await run.get()).ready_at
        assert deadline is not None
    async with Runtime(url, workflows=[definition]) as runtime:
        assert (await runtime.sweep(now=deadline - timedelta(milliseconds=1))).driven == ()
        assert [each.kind for each in (await runtime.sweep(now=deadline)).timers] == ["completed"]
        assert await runtime.result("r", timeout=10) == "gave up"


async def test_an_event_that_comes_before_the_deadline_wins_and_the_deadline_is_gone(url: str) -> None:
    async with Runtime(url, workflows=[raising]) as runtime:
        await runtime.enqueue(raising, run_id="r")
        await runtime.sweep()
        deadline = (await runtime.get("r")).ready_at
        await runtime.signal("r", "never", 1)
        await runtime.sweep()
        assert await runtime.result("r", timeout=10) == "?"
        assert (await runtime.sweep(now=deadline)).driven == ()
        assert "event_received event-1" in await story(runtime, "r")
