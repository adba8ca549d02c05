"""The workflow of the demonstration: one order, from the shelf to the customer."""

from __future__ import annotations

import asyncio

from duramen import Context, Retry, StepFailed, step, workflow

from .models import LARGE, Order, Outcome, Payment, Receipt
from .warehouse import OutOfStock, Warehouse

__all__ = ["fulfillment", "use_warehouse"]

_warehouse: list[Warehouse] = []


def use_warehouse(warehouse: Warehouse) -> None:
    """Say where the steps of this process take effect."""
    _warehouse[:] = [warehouse]


@step(retry=Retry(attempts=5, backoff="exponential", base=0.1, non_retryable=(OutOfStock,)))
async def reserve(order: Order) -> Receipt:
    """Take the goods from the shelf; the inventory is flaky, so this is tried again."""
    return await _warehouse[0].reserve(order)


@step
async def release(order: Order) -> Receipt:
    """Put the goods back."""
    return await _warehouse[0].release(order)


@step
def label(order: Order) -> Receipt:
    """Print the label. Not async, so it runs in a thread."""
    return _warehouse[0].label(order)


@step
async def mail(order: Order) -> Receipt:
    """Tell the customer."""
    return await _warehouse[0].mail(order)


@workflow(name="fulfillment", version="1")
async def fulfillment(ctx: Context, order: Order) -> Outcome:
    """Reserve, wait for the payment, have large orders approved, ship."""
    try:
        await reserve(order)
    except StepFailed:
        return Outcome(shipped=False, why="out of stock")
    await ctx.sleep(order.packing)
    why = await objection(ctx, order)
    if why:
        await release(order)
        return Outcome(shipped=False, why=why)
    a, b = await asyncio.gather(label(order), mail(order))
    return Outcome(shipped=True, label=a.number, mail=b.number)


async def objection(ctx: Context, order: Order) -> str:
    """Why this order must not be shipped, or nothing."""
    try:
        payment = await ctx.wait_for_event("payment-received", Payment, timeout=order.pay_within)
    except TimeoutError:
        return "not paid in time"
    if payment.status == "declined":
        return "payment declined"
    if (payment.amount, payment.currency) != (order.total, order.currency):
        return "wrong amount"
    if order.total >= LARGE:
        decision = await ctx.approve("Ship a large order?", description=f"{order.customer}: {order.total}")
        if not decision.approved:
            return decision.feedback or "not approved"
    return ""
