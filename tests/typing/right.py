"""User code as it should be: accepted in strict mode, with the exact types."""

# A rule of this repository, not of strict mode: what middleware sets is declared in the class alone.
# pyright: reportUninitializedInstanceVariable=false

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, assert_type

from duramen import (
    Approval,
    ChildCancelled,
    ChildConflict,
    ChildFailed,
    ChildHandle,
    ChildTerminated,
    Context,
    History,
    MapFailed,
    MapResult,
    Middleware,
    Next,
    OperationDiff,
    Outcome,
    Page,
    RecordedError,
    Retry,
    RunDiff,
    RunHandle,
    RunRequest,
    Runtime,
    Schedule,
    ScheduleView,
    StepContext,
    StepDef,
    StepFailed,
    StreamItem,
    WorkflowDef,
    cron,
    every,
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


@step(where="process", heartbeat_timeout=timedelta(seconds=5))
def in_a_process(n: int, *, note: str = "") -> float:
    here = step_context()
    here.heartbeat({"done": n})
    if here.cancelled or here.wait_cancelled(timedelta(seconds=1)):
        here.raise_if_cancelled()
    assert_type(here.progress, Any)
    return n / 2


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
    assert_type(await in_a_process(1, note="x"), float)
    assert_type(await ctx.step("p", in_a_process, 3), float)
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


class ShopContext(Context[Progress]):
    tenant: str

    async def reserve(self, order_id: str) -> list[str]:
        return await self.step("reserve", reserve, order_id)


class ShopStep(StepContext):
    session: list[str]


async def with_log(ctx: Context, call_next: Next) -> Any:
    ctx.log.info("begun")
    return await call_next()


async def with_tenant(ctx: ShopContext, call_next: Next) -> Any:
    ctx.tenant = ctx.run_id.partition(":")[0]
    return await call_next()


async def with_session(step: ShopStep, call_next: Next) -> Any:
    step.session = [step.idempotency_key]
    return await call_next()


async def with_span(step: StepContext, call_next: Next) -> Any:
    return await call_next()


class Tracing:
    async def __call__(self, ctx: Context, call_next: Next) -> Any:
        return await call_next()


@step
async def in_a_session(name: str) -> int:
    assert_type(step_context(ShopStep), ShopStep)
    assert_type(step_context(ShopStep).session, list[str])
    assert_type(step_context(), StepContext)
    return len(name)


@workflow(
    context=ShopContext,
    middleware=[with_log, with_tenant, Tracing()],
    step_context=ShopStep,
    step_middleware=[with_span, with_session],
    state=Progress,
)
async def shop(ctx: ShopContext, order: Order) -> str:
    assert_type(ctx.tenant, str)
    assert_type(ctx.state, Progress)
    assert_type(await ctx.reserve("a"), list[str])
    assert_type(await in_a_session("a"), int)
    await helper(ctx)
    return ctx.tenant


@workflow(context=ShopContext, middleware=[with_log])
async def shop_without_input(ctx: ShopContext) -> int:
    return len(ctx.tenant)


@workflow(context=ShopContext)
async def shop_with_default(ctx: ShopContext, n: int = 3) -> int:
    return n


@workflow(context=ShopContext, middleware=[with_tenant])
async def asks_for_less(ctx: Context[Progress], n: int) -> int:
    return n


@workflow(middleware=[with_log], step_context=ShopStep, step_middleware=[with_session])
async def plain_context(ctx: Context, n: int) -> int:
    return n


around: Middleware[Context[Any]] = with_log


def extended(runtime: Runtime) -> None:
    assert_type(shop, WorkflowDef[Order, str])
    assert_type(shop_without_input, WorkflowDef[None, int])
    assert_type(shop_with_default, WorkflowDef[int | None, int])
    assert_type(asks_for_less, WorkflowDef[int, int])
    assert_type(plain_context, WorkflowDef[int, int])
    Runtime("memory://", middleware=[with_log, Tracing()], step_middleware=[with_span])


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
    assert_type(await runtime.handle("order:42").result(), Any)
    assert_type(await runtime.handle("order:42", fulfillment).result(timeout=3), dict[str, int])
    assert_type(await runtime.handle("order:42", "fulfillment").result(), Any)
    assert_type(await runtime.enqueue_many([(fulfillment, Order("1"))]), list[RunHandle[dict[str, int]]])
    assert_type(await runtime.enqueue_many([("any", 3), (no_input, None)]), list[RunHandle[Any]])
    assert_type(await runtime.enqueue_many([RunRequest(no_input)]), list[RunHandle[Any]])
    async with asyncio.TaskGroup() as group:
        both = [group.create_task(run.result()) for run in [await runtime.start(no_input)]]
    assert_type([task.result() for task in both], list[int])


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


def key_of(at: datetime) -> Order:
    return Order(order_id=f"{at:%Y}")


async def fetched(at: datetime) -> Order:
    return Order(order_id=f"{at:%Y}")


assert_type(Schedule("a", fulfillment, cron("0 9 * * MON"), input=Order(order_id="a")), Schedule[Order])
assert_type(Schedule("b", fulfillment, every.hours(1), input=key_of, overlap="buffer_one"), Schedule[Order])
assert_type(Schedule("c", fulfillment, every.hours(1), input=fetched, catch_up="none"), Schedule[Order])
assert_type(Schedule("d", no_input, every.days(1), catch_up=timedelta(days=1), jitter=3), Schedule[None])
Schedule("e", with_default, every.minutes(5))
Schedule("f", with_default, every.minutes(5), input=3)
assert_type(Schedule("g", "by-name", cron("* * * * *", tz="UTC"), input={"any": 1}), Schedule[Any])
scheduled = Runtime("memory://", workflows=[fulfillment], schedules=[Schedule("d", no_input, every.days(1))])


async def look(runtime: Runtime, ctx: Context) -> None:
    view = await runtime.schedules.upsert(Schedule("d", no_input, every.days(1)))
    assert_type(view, ScheduleView)
    assert_type(await runtime.schedules.list(limit=3), Page[ScheduleView])
    assert_type(await runtime.schedules.preview("d", 3), list[datetime])
    assert_type(await (await runtime.schedules.trigger("d")).result(), Any)
    if ctx.schedule is not None:
        assert_type(ctx.schedule.fire_time, datetime)
        assert_type(ctx.schedule.previous, datetime | None)


async def tokens(prompt: str) -> str:
    stream = step_context().stream("answer", str, keep=100)
    await stream.write(prompt)
    await step_context().stream("notes").write({"any": 1})
    return prompt


def tokens_in_a_thread(prompt: str) -> None:
    step_context().stream("answer", str).write(prompt)


@workflow
async def streaming(ctx: Context, order: Order) -> None:
    orders = ctx.stream("orders", Order)
    await orders.write(order)
    await ctx.stream("numbers", list[int]).write([1])
    await ctx.stream("any", keep=10).write(None)
    await ctx.step("tokens", tokens, "x")


async def readers(runtime: Runtime) -> None:
    async for item in runtime.stream("run", "orders", type=Order, from_seq=3):
        assert_type(item, StreamItem[Order])
        assert_type(item.value.order_id, str)
        assert_type((item.seq, item.index, item.op, item.attempt), tuple[int, int, str | None, int | None])
    async for anything in runtime.stream("run", "any", follow=False):
        assert_type(anything, StreamItem[Any])
    for blocking in runtime.sync.stream("run", "orders", type=Order):
        assert_type(blocking, StreamItem[Order])
    for _ in runtime.sync.stream("run", "any"):
        pass


@workflow
async def telling(ctx: Context, outcome: Outcome) -> str:
    assert_type(outcome.error, RecordedError | None)
    return outcome.status


@workflow(on_completed=telling, on_failed="telling", on_stuck=telling)
async def family(ctx: Context, order: Order) -> None:
    assert_type(await ctx.child(hooked, order), list[int])
    assert_type(await ctx.child(without_input), str)
    assert_type(await ctx.child("by_name", 3), Any)
    handle = await ctx.start_child(
        hooked, order, id="one", run_id="r", detached=True, tags=["t"], memo={"a": 1}
    )
    assert_type(handle, ChildHandle[list[int]])
    assert_type(handle.run_id, str)
    assert_type(await handle.result(), list[int])
    await handle.cancel("enough")
    await handle.signal("go", order)
    await ctx.signal("other", "name", order)
    try:
        await handle.result()
    except (ChildCancelled, ChildConflict, ChildTerminated) as stopped:
        assert_type(stopped.reason, str)
    except ChildFailed as failed:
        assert_type(failed.error, RecordedError)


@workflow(on_failed=telling)
async def hooked(ctx: Context, order: Order) -> list[int]:
    return [len(order.order_id)]


@workflow
async def without_input(ctx: Context) -> str:
    return ctx.run_id


@step
async def shipped(order: Order) -> int:
    return len(order.order_id)


def priced(order: Order) -> float:
    return 1.0


@workflow
async def many(ctx: Context, orders: list[Order]) -> list[int]:
    result = await ctx.map(shipped, orders, id="ship", concurrency=5, tolerate=0.1, min_success=3)
    assert_type(result, MapResult[int])
    assert_type(result.successes, dict[int, int])
    assert_type(result.failures, dict[int, StepFailed | ChildFailed])
    assert_type(await ctx.map(priced, orders), MapResult[float])
    assert_type(await ctx.map(hooked, iter(orders)), MapResult[list[int]])
    assert_type(await ctx.map("by_name", range(3)), MapResult[Any])
    try:
        return result.values()
    except MapFailed as failed:
        assert_type(failed.result, MapResult[Any])
        return []
