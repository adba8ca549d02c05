"""Beside the orders: a schedule that has the shelves counted, each by a child run, with a stream of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from pydantic import BaseModel

from duramen import Context, Schedule, every, step, workflow

__all__ = ["EVERY", "SHELVES", "Counted", "counting", "shelf", "stocktaking"]

SHELVES: Final = ("north", "east", "south")
EVERY: Final = 2
"""Seconds from one stocktaking to the next."""


class Counted(BaseModel):
    """How many places of a shelf were looked at."""

    shelf: str
    places: int


@step
async def count(shelf: str) -> int:
    """Walk along a shelf."""
    await asyncio.sleep(0.1)
    return len(shelf)


@workflow(name="shelf")
async def shelf(ctx: Context, name: str) -> Counted:
    """Count one shelf."""
    return Counted(shelf=name, places=await ctx.step("count", count, name))


@workflow(name="stocktaking")
async def stocktaking(ctx: Context) -> list[Counted]:
    """Count all shelves, one after the other, and tell of each."""
    found = ctx.stream("counted", Counted)
    counted: list[Counted] = []
    for name in SHELVES:
        each = await ctx.child(shelf, name)
        await found.write(each)
        counted.append(each)
    return counted


# Each fire time counts, also one that nobody was there for.
counting = Schedule(
    "stocktaking", stocktaking, every.seconds(EVERY), overlap="allow", catch_up=timedelta(minutes=10)
)
