"""Events, approvals, recorded values. Frozen: see steps.py."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from duramen import Context, Runtime, step_context, workflow
from tests.histories.case import case, play_to_the_end, until


class Payment(BaseModel):
    payment_id: str
    cents: int


async def note(text: str) -> str:
    return text


@workflow
async def event(ctx: Context) -> str:
    payment = await ctx.wait_for_event("paid", Payment)
    return await ctx.step("note", note, f"{payment.payment_id} {payment.cents}")


PAID = {"payment_id": "p1", "cents": 1990}


@case(event)
async def event_late(runtime: Runtime, run_id: str) -> None:
    handle = await runtime.start(event, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    await handle.signal("paid", PAID, signal_id="s1")
    await handle.result(timeout=20)


@case(event)
async def event_early(runtime: Runtime, run_id: str) -> None:
    handle = await runtime.enqueue(event, run_id=run_id)
    await handle.signal("paid", PAID, signal_id="s1")
    await runtime.sweep()
    await handle.result(timeout=20)


@case(event)
async def event_awaited(runtime: Runtime, run_id: str) -> None:
    await runtime.start(event, run_id=run_id)
    await until(runtime, run_id, status="waiting")


@workflow
async def event_times_out(ctx: Context) -> str:
    try:
        await ctx.wait_for_event("paid", Payment, id="payment", timeout=0.02)
    except TimeoutError:
        pass
    found = await ctx.wait_for_event("paid", Payment, timeout=0.02, default=None)
    return await ctx.step("note", note, f"{found}")


play_to_the_end(event_times_out)


@workflow
async def events_at_once(ctx: Context) -> list[str]:
    first = asyncio.ensure_future(ctx.wait_for_event("a", str))
    second = asyncio.ensure_future(ctx.wait_for_event("b", str, timeout=timedelta(days=1)))
    third = asyncio.ensure_future(ctx.wait_for_event("a", str))
    return [*await asyncio.gather(first, second, third), await ctx.wait_for_event("b", str)]


@case(events_at_once, name="events_at_once")
async def play_events_at_once(runtime: Runtime, run_id: str) -> None:
    handle = await runtime.start(events_at_once, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    for number, name in enumerate("bbaa"):
        await handle.signal(name, f"{name}{number}", signal_id=f"s{number}")
        await asyncio.sleep(0.01)
    await handle.result(timeout=20)


@workflow
async def approval(ctx: Context) -> str:
    decision = await ctx.approve("Ship it?", description="order:1", assignees=["ann"], meta={"cents": 1990})
    return await ctx.step("note", note, f"{decision.approved} {decision.feedback} {decision.by}")


async def decide(runtime: Runtime, run_id: str, approved: bool) -> None:
    handle = await runtime.start(approval, run_id=run_id)
    await until(runtime, run_id, status="waiting")
    (approval_id,) = (await handle.get()).waiting_approvals
    await handle.approve(approval_id, approved, feedback="as you like", by="ann")
    await handle.result(timeout=20)


@case(approval)
async def approval_yes(runtime: Runtime, run_id: str) -> None:
    await decide(runtime, run_id, True)


@case(approval)
async def approval_no(runtime: Runtime, run_id: str) -> None:
    await decide(runtime, run_id, False)


@case(approval)
async def approval_awaited(runtime: Runtime, run_id: str) -> None:
    await runtime.start(approval, run_id=run_id)
    await until(runtime, run_id, status="waiting")


@workflow
async def approval_times_out(ctx: Context) -> str:
    try:
        await ctx.approve("Ship it?", id="ship", timeout=0.02)
    except TimeoutError:
        return await ctx.step("note", note, "nobody")
    return "never"


play_to_the_end(approval_times_out)


@workflow
async def values(ctx: Context) -> list[str]:
    at, key, share = ctx.now(), ctx.uuid(), ctx.random()
    await ctx.step("note", note, "between")
    later, other, rest = ctx.now(), ctx.uuid(), ctx.random()
    assert later >= at
    assert key != other
    assert isinstance(key, UUID)
    return [at.isoformat(), str(key), repr(share), later.isoformat(), str(other), repr(rest)]


play_to_the_end(values)


@workflow
async def values_alone(ctx: Context) -> list[float]:
    return [ctx.random() for _ in range(5)]


play_to_the_end(values_alone)


async def ship(address: str) -> str:
    return f"{step_context().step_id} to {address}"


@workflow
async def ids_shared_by_kinds(ctx: Context) -> list[Any]:
    """Written before an id belonged to one kind of operation: no later build lets a run begin to do this."""
    decision = await ctx.approve("Ship it?", id="ship")
    first = await ctx.step("ship", ship, "Berne")
    paid = await ctx.wait_for_event("paid", id="ship")
    return [decision.approved, first, paid, await ctx.step("ship", ship, "Basle")]


@case(ids_shared_by_kinds, name="ids_shared_by_kinds")
async def play_ids_shared_by_kinds(runtime: Runtime, run_id: str) -> None:
    handle = await runtime.start(ids_shared_by_kinds, run_id=run_id)
    await runtime.signal(run_id, "paid", 3)
    await runtime.approve(run_id, "ship", True)
    await handle.result(timeout=20)
