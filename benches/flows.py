"""The workflows that are measured. Step bodies are async no-ops that return a small JSON object."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from duramen import Context, workflow

passed: list[float] = []
"""When `replayed` was through with its recorded steps, by `time.perf_counter`."""

gate: asyncio.Event | None = None
"""What the steps of `held` wait for."""


async def noop(number: int) -> dict[str, int]:
    return {"i": number}


async def wait_for_gate(number: int) -> dict[str, int]:
    assert gate is not None
    await gate.wait()
    return {"i": number}


@workflow
async def one_step(ctx: Context[None]) -> int:
    await ctx.step("step", noop, 0)
    return 1


@workflow
async def ten_steps(ctx: Context[None]) -> int:
    for number in range(10):
        await ctx.step("step", noop, number)
    return 10


@workflow
async def sleeper(ctx: Context[None], until_ms: int) -> bool:
    from datetime import UTC, datetime

    await ctx.sleep_until(datetime.fromtimestamp(until_ms / 1000, UTC))
    return True


@workflow
async def waiter(ctx: Context[None]) -> dict[str, Any]:
    return await ctx.wait_for_event("go", dict[str, Any])


@workflow
async def replayed(ctx: Context[None], steps: int) -> int:
    for number in range(steps):
        await ctx.step("step", noop, number)
    passed.append(time.perf_counter())
    await ctx.wait_for_event("go", int)
    return steps


@workflow
async def fan_out(ctx: Context[None], width: int) -> int:
    found = await asyncio.gather(*(ctx.step("step", noop, number) for number in range(width)))
    return len(found)


@workflow
async def held(ctx: Context[None]) -> int:
    await ctx.step("step", wait_for_gate, 0)
    return 1
