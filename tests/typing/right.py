"""User code as it should be: accepted in strict mode, with the exact types."""

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, assert_type

from duramen import (
    Approval,
    Context,
    History,
    OperationDiff,
    Retry,
    RunDiff,
    RunHandle,
    Runtime,
    StepDef,
    WorkflowDef,
    sqlite,
    step,
    step_context,
    workflow,
)
from duramen.testing import Replayed, replay


@dataclass
class Order:
    order_id: str


@dataclass
class Progress:
    done: int = 0


@step
async def bare(order_id: str) -> int:
    return len(order_id)


@step(retry=Retry(attempts=5, base=timedelta(seconds=1), non_retryable=(ValueError,)), timeout=30)
async def reserve(order_id: str, amount: int = 1, *, note: str = "") -> list[str]:
    return [step_context().idempotency_key, order_id, str(amount), note]


async def debit(conn: sqlite.Connection, account: str, cents: int) -> list[int]:
    return [row[0] for row in conn.execute("SELECT ?, ?", (account, cents))]


def credit(conn: object, account: str) -> float:
    return len(account) / 2


@step(timeout=timedelta(minutes=1))
def in_a_thread(n: int) -> bytes:
    return bytes(n)


class Service:
    @step
    async def call(self, n: int) -> float:
        return n / 2

    async def method(self, n: int) -> float:
        return n / 2

    def in_a_thread(self, n: int) -> float:
        return n / 2

    @step
    @staticmethod
    async def static(n: int) -> float:
        return n / 2

    @workflow
    @staticmethod
    async def flow(ctx: Context, n: int) -> float:
        return n / 2

    async def handler(self, ctx: Context, n: int) -> float:
        return n / 2


async def plain(a: int, b: str = "") -> dict[str, int]:
    return {b: a}


def sync_plain(a: int) -> str:
    return str(a)


@workflow
async def no_input(ctx: Context) -> int:
    return 1


@workflow(
    name="fulfillment", version="2", previous=[no_input], timeout=timedelta(days=30), events={"paid": Order}
)
async def fulfillment(ctx: Context, order: Order) -> dict[str, int]:
    assert_type(await bare(order.order_id), int)
    assert_type(await reserve(order.order_id, 2, note="x"), list[str])
    assert_type(await in_a_thread(1), bytes)
    assert_type(await Service().call(4), float)
    assert_type(await ctx.step("a", reserve, order.order_id), list[str])
    assert_type(await ctx.step("a", reserve, order.order_id, 3), list[str])
    assert_type(await ctx.step("b", in_a_thread, 3, retry=Retry()), bytes)
    assert_type(await ctx.transaction("t", debit, order.order_id, 3, timeout=5), list[int])
    assert_type(await ctx.transaction("u", credit, order.order_id, database=object()), float)
    assert_type(await ctx.step("c", plain, 3, "x", timeout=1.5), dict[str, int])
    assert_type(await ctx.step("d", sync_plain, 3, checkpoint="lazy"), str)
    assert_type(await ctx.step("e", partial(plain, 3, b="x")), dict[str, int])
    assert_type(await ctx.step("f", Service().call, 3), float)
    assert_type(await ctx.step("f", Service().method, 3), float)
    assert_type(await ctx.step("f", Service().in_a_thread, 3), float)
    assert_type(await ctx.step("f", Service.static, 3), float)
    assert_type(await Service.static(3), float)
    assert_type(await ctx.step("f", partial(reserve, order.order_id, note="x")), list[str])
    assert_type(await ctx.step("f", partial(in_a_thread, 3)), bytes)
    assert_type(await ctx.step("f", partial(Service().call, 3)), float)
    assert_type(await ctx.step("f", partial(Service().method, 3)), float)
    assert_type(await ctx.step("f", partial(sync_plain, a=3)), str)
    assert_type(await ctx.step("f", lambda: plain(3)), dict[str, int])
    assert_type(await ctx.transaction("f", partial(debit, account="a", cents=3)), list[int])
    assert_type(await ctx.wait_for_event("paid", Order), Order)
    assert_type(await ctx.wait_for_event("paid", Order, timeout=3, default=None), Order | None)
    assert_type(await ctx.wait_for_event("any"), Any)
    assert_type(await ctx.approve("Ship?", assignees=["ann"]), Approval)
    assert_type(await asyncio.gather(bare("a"), ctx.step("g", sync_plain, 3)), tuple[int, str])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bare("x"))
    assert_type(task.result(), int)
    await ctx.sleep(timedelta(days=1))
    return {}


@workflow
async def with_default(ctx: Context[None], n: int = 3) -> str:
    return str(n)


@workflow(name="with default too")
async def with_default_too(ctx: Context[Progress], n: int = 3, /) -> str:
    return str(n)


@workflow(state=Progress)
async def with_state(ctx: Context[Progress]) -> None:
    assert_type(ctx.state, Progress)
    ctx.state.done += 1
    await helper(ctx)


async def helper(ctx: Context) -> None:
    """A helper may leave the type of the state open."""
    await ctx.sleep(1)


def definitions(ctx: Context) -> None:
    assert_type(fulfillment, WorkflowDef[Order, dict[str, int]])
    assert_type(no_input, WorkflowDef[None, int])
    assert_type(with_state, WorkflowDef[None, None])
    _ = assert_type(fulfillment(ctx, Order("1")), Coroutine[Any, Any, dict[str, int]])
    _ = assert_type(no_input(ctx), Coroutine[Any, Any, int])
    checked: StepDef[[str], int] = bare
    coroutine: Coroutine[Any, Any, int] = checked("a")
    coroutine.close()
    assert_type(workflow(Service().handler), WorkflowDef[int, float])
    assert_type(Service.flow, WorkflowDef[int, float])


@workflow
async def without_end(ctx: Context, order: Order) -> int:
    if order.order_id == "any":
        ctx.continue_as_new(Order("last"))
    if order.order_id != "last":
        ctx.continue_as_new(order, version=fulfillment)
    return 1


async def fork_and_compare(runtime: Runtime) -> None:
    assert_type(await runtime.fork("a", overrides={"step": 1}), RunHandle[Any])
    found = assert_type(await runtime.diff("a", "b"), RunDiff)
    assert_type(found.differences, tuple[OperationDiff, ...])


async def start(runtime: Runtime) -> None:
    assert_type(await (await runtime.start(no_input)).result(), int)
    assert_type(await (await runtime.start(fulfillment, Order("1"))).result(), dict[str, int])
    assert_type(await (await runtime.start(with_default)).result(), str)
    assert_type(await (await runtime.start(with_default, 4)).result(), str)
    assert_type(await (await runtime.enqueue(with_default_too)).result(), str)
    assert_type((await runtime.run(with_default_too, 4)).output, str | None)


def rules() -> None:
    Retry(non_retryable=ValueError)
    Retry(non_retryable=[ValueError, KeyError], retry_if=lambda error: not error.args)


async def keep_a_history(runtime: Runtime) -> None:
    history = await runtime.export("order:42")
    assert_type(history, History)
    assert_type(history["run"]["run_id"], str)
    assert_type(history["journal"][0]["at"], int)
    assert_type(replay(fulfillment, history), Replayed)
    replay(fulfillment, Path("history.json"), compare_output=False)
    replay(fulfillment, "{}")
