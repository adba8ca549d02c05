"""Workflows that the tests of the runtime share, also in processes of their own."""

import asyncio
import time

from pydantic import BaseModel

from duramen import Context, Retry, step, workflow


class Order(BaseModel):
    order_id: str
    amount: int = 1


class Card(BaseModel):
    number: int


@step
async def add(a: int, b: int) -> int:
    return a + b


@workflow
async def adding(ctx: Context, number: int) -> int:
    return await add(number, 1)


@workflow
async def nothing(ctx: Context) -> None:
    return None


@workflow
async def ordering(ctx: Context, order: Order) -> Order:
    return Order(order_id=order.order_id, amount=order.amount + 1)


@workflow(events={"card": Card})
async def paying(ctx: Context, order: Order) -> int:
    card = await ctx.wait_for_event("card", Card)
    return card.number


@workflow
async def waiting(ctx: Context, name: str) -> str:
    return await ctx.wait_for_event(name, str)


@workflow
async def approving(ctx: Context) -> str:
    decision = await ctx.approve("May I?")
    return f"{decision.approved} {decision.feedback} {decision.by}"


@workflow
async def sleeping(ctx: Context, seconds: float) -> str:
    await ctx.sleep(seconds)
    return "slept"


@workflow
async def failing(ctx: Context, message: str) -> None:
    raise ValueError(message)


@workflow
async def emitting(ctx: Context, count: int) -> int:
    for number in range(count):
        await ctx.step(f"s{number}", add, number, 1)
        ctx.emit("progress", number)
    return count


async def _pause(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@workflow
async def working(ctx: Context, seconds: float) -> str:
    return await ctx.step("long", _pause, seconds)


@workflow
async def many(ctx: Context, count: int) -> int:
    for number in range(count):
        await ctx.step(f"s{number}", _pause, 0.02)
    return count


@workflow
async def blocking(ctx: Context, seconds: float) -> str:
    time.sleep(seconds)  # noqa: ASYNC251 - what the watchdog is for
    return "blocked"


flag = {"fail": True}


async def _flaky() -> str:
    if flag["fail"]:
        raise RuntimeError("not yet")
    return "fine"


@workflow(retry=Retry(attempts=1))
async def fixable(ctx: Context) -> str:
    before = await ctx.step("before", add, 1, 2)
    return f"{before} {await ctx.step('flaky', _flaky)}"


ALL = [
    adding, nothing, ordering, paying, waiting, approving, sleeping, failing, emitting, working, many,
    blocking, fixable,
]  # fmt: skip
