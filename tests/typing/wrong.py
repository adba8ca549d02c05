"""User code as it should not be: each line is rejected, or its comment is unnecessary: an error."""

# A rule of this repository, not of strict mode: what middleware sets is declared in the class alone.
# pyright: reportUninitializedInstanceVariable=false

from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from duramen import (
    ChildHandle,
    Context,
    MapResult,
    Next,
    Retry,
    Runtime,
    Schedule,
    StepContext,
    WorkflowDef,
    cron,
    every,
    sqlite,
    step,
    step_context,
    workflow,
)


@dataclass
class Order:
    order_id: str


@step
async def reserve(order_id: str, amount: int = 1) -> int:
    return amount


async def debit(conn: sqlite.Connection, account: str, cents: int) -> list[int]:
    return [len(account), cents]


async def plain(a: int) -> str:
    return str(a)


class Service:
    @step
    async def call(self, n: int) -> float:
        return n / 2

    async def method(self, n: int) -> float:
        return n / 2


async def slow_rule(error: Exception) -> bool:
    return bool(error.args)


@workflow
async def handler(ctx: Context, order: Order) -> int:
    await reserve(3)  # pyright: ignore[reportArgumentType]
    await reserve("a", unknown=1)  # pyright: ignore[reportCallIssue]
    await reserve()  # pyright: ignore[reportCallIssue]
    _text: str = await reserve("a")  # pyright: ignore[reportAssignmentType]
    _number: int = await ctx.step("b", plain, 3)  # pyright: ignore[reportAssignmentType]
    _left: str = await ctx.transaction("t", debit, "a", 3)  # pyright: ignore[reportAssignmentType]
    await ctx.transaction("t", debit, 3, "a")  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.transaction("t", debit)  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.step("a", plain, "text")  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.step("a", plain)  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.step("a", plain(3))  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.step(plain, 3)  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.step("a", plain, 3, checkpoint="never")  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.step("a", plain, 3, retry=5)  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.step("a", Service().call, "text")  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.step("a", Service().method, "text")  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.step("a", Service().method)  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.step("a", partial(plain, "text"))  # pyright: ignore[reportArgumentType]
    await ctx.step("a", partial(reserve, unknown=1))  # pyright: ignore[reportCallIssue, reportArgumentType]
    await Service().call("text")  # pyright: ignore[reportArgumentType]
    _half: int = await ctx.step("a", Service().call, 3)  # pyright: ignore[reportAssignmentType]
    _whole: str = await ctx.step("a", partial(reserve, "a"))  # pyright: ignore[reportAssignmentType]
    reserve("forgotten")  # pyright: ignore[reportUnusedCoroutine]
    ctx.sleep(1)  # pyright: ignore[reportUnusedCoroutine]
    await ctx.sleep("soon")  # pyright: ignore[reportArgumentType]
    # mypy reads any type of an event that does not fit what is wanted as Any: these are for pyright alone.
    _wrong: str = await ctx.wait_for_event("paid", Order)  # pyright: ignore[reportAssignmentType]  # not mypy
    _late: Order = await ctx.wait_for_event("paid", Order, default=None)  # pyright: ignore[reportAssignmentType]  # not mypy
    ctx.run_id = "other"  # pyright: ignore[reportAttributeAccessIssue]
    return "text"  # pyright: ignore[reportReturnType]


@workflow  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def not_async(ctx: Context) -> int:
    return 1


@workflow  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def too_many(ctx: Context, a: int, b: int) -> int:
    return a + b


# With a bare Context, which is Context[Any], mypy cannot choose and takes a workflow with a default for Any.
@workflow
async def with_default(ctx: Context[None], n: int = 3) -> int:
    return n


class ShopContext(Context[None]):
    tenant: str


class Clashing(Context[None]):
    run_id: int  # pyright: ignore[reportIncompatibleMethodOverride]


class ShopStep(StepContext):
    session: str


async def with_tenant(ctx: ShopContext, call_next: Next) -> Any:
    ctx.tenant = 3  # pyright: ignore[reportAttributeAccessIssue]
    ctx.sleep = 3  # pyright: ignore[reportAttributeAccessIssue]
    await call_next(ctx)  # pyright: ignore[reportCallIssue]


async def with_session(step: ShopStep, call_next: Next) -> Any:
    return await call_next()


def not_async_middleware(ctx: Context, call_next: Next) -> int:
    return 1


@workflow(context=ShopContext)
async def shop(ctx: ShopContext) -> None:
    _tenant: int = ctx.tenant  # pyright: ignore[reportAssignmentType]
    print(ctx.unknown)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    print(step_context().session)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownArgumentType]
    _session: int = step_context(ShopStep).session  # pyright: ignore[reportAssignmentType]
    step_context(int)  # pyright: ignore[reportArgumentType]


@workflow()  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def not_said(ctx: ShopContext) -> None: ...


workflow(middleware=[with_tenant])  # pyright: ignore[reportArgumentType]
workflow(middleware=[not_async_middleware])  # pyright: ignore[reportArgumentType]
workflow(step_middleware=[with_session])  # pyright: ignore[reportArgumentType]
workflow(context=int)  # pyright: ignore[reportArgumentType]
Runtime("memory://", middleware=[with_tenant])  # pyright: ignore[reportArgumentType]
Runtime("memory://", step_middleware=[with_session])  # pyright: ignore[reportArgumentType]


step(where="thread")  # pyright: ignore[reportArgumentType]
step(heartbeat_timeout="soon")  # pyright: ignore[reportArgumentType]
Runtime("memory://", processes="two")  # pyright: ignore[reportArgumentType]


def listens() -> None:
    step_context().cancelled = True  # pyright: ignore[reportAttributeAccessIssue]
    step_context().wait_cancelled()  # pyright: ignore[reportCallIssue]


async def generations(ctx: Context) -> None:
    ctx.continue_as_new("a", version=handler)  # pyright: ignore[reportCallIssue, reportArgumentType]


async def start(runtime: Runtime) -> None:
    _text: str = await runtime.handle("a", handler).result()  # pyright: ignore[reportAssignmentType]
    runtime.handle(handler, "a")  # pyright: ignore[reportArgumentType, reportCallIssue]
    runtime.handle("a", 3)  # pyright: ignore[reportArgumentType, reportCallIssue]
    await runtime.start(handler)  # pyright: ignore[reportCallIssue, reportArgumentType]
    await runtime.start(handler, "a")  # pyright: ignore[reportCallIssue, reportArgumentType]
    await runtime.start(with_default, "a")  # pyright: ignore[reportCallIssue, reportArgumentType]


Retry(backoff="wild")  # pyright: ignore[reportArgumentType]
Retry(retry_if=slow_rule)  # pyright: ignore[reportArgumentType]
Retry(non_retryable=(3,))  # pyright: ignore[reportArgumentType]
workflow(previous=[plain])  # pyright: ignore[reportArgumentType]
other: WorkflowDef[str, int] = handler  # pyright: ignore[reportAssignmentType]


def wrong_input(at: datetime) -> int:
    return at.year


Schedule("a", handler, every.hours(1))  # pyright: ignore[reportCallIssue, reportArgumentType]
Schedule("b", handler, every.hours(1), input=3)  # pyright: ignore[reportCallIssue, reportArgumentType]
Schedule("c", handler, every.hours(1), input=wrong_input)  # pyright: ignore[reportCallIssue, reportArgumentType]
Schedule("d", handler, "* * * * *", input="x")  # pyright: ignore[reportCallIssue, reportArgumentType]
Schedule("e", "name", every.hours(1), overlap="queue")  # pyright: ignore[reportCallIssue, reportArgumentType]
cron("* * * * *", zone="UTC")  # pyright: ignore[reportCallIssue]
every.seconds("3")  # pyright: ignore[reportArgumentType]


@workflow
async def streams(ctx: Context) -> None:
    await ctx.stream("numbers", int).write("one")  # pyright: ignore[reportArgumentType]
    ctx.stream("numbers", int).write(1)  # pyright: ignore[reportUnusedCoroutine]
    ctx.stream("numbers", keep="all")  # pyright: ignore[reportArgumentType]
    await step_context().stream("numbers", int).write(None)  # pyright: ignore[reportArgumentType]


@workflow
async def parent(ctx: Context) -> int:
    await ctx.child(handler)  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.child(handler, "a")  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.start_child(handler, Order("a"), detached="yes")  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.start_child(handler, Order("a"), timeout=3)  # pyright: ignore[reportCallIssue]
    text: ChildHandle[str] = await ctx.start_child(handler, Order("a"))  # pyright: ignore[reportAssignmentType]
    await ctx.signal("other")  # pyright: ignore[reportCallIssue]
    await ctx.map(handler, ["a"])  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.map(plain, ["a"])  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.map(plain, 3)  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.map(plain, [3], concurrency="many")  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.map(plain, [3], retry=Retry())  # pyright: ignore[reportCallIssue]
    _numbers: MapResult[int] = await ctx.map(plain, [3])  # pyright: ignore[reportAssignmentType]
    return await text.result()  # pyright: ignore[reportReturnType]


workflow(on_failed=handler)  # pyright: ignore[reportArgumentType]
