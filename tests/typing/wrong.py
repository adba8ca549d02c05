"""User code as it should not be: each line is rejected, or its comment is unnecessary: an error."""

from dataclasses import dataclass
from functools import partial

from duramen import Context, Retry, Runtime, WorkflowDef, sqlite, step, workflow


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


async def generations(ctx: Context) -> None:
    ctx.continue_as_new("a", version=handler)  # pyright: ignore[reportCallIssue, reportArgumentType]


async def start(runtime: Runtime) -> None:
    await runtime.start(handler)  # pyright: ignore[reportCallIssue, reportArgumentType]
    await runtime.start(handler, "a")  # pyright: ignore[reportCallIssue, reportArgumentType]
    await runtime.start(with_default, "a")  # pyright: ignore[reportCallIssue, reportArgumentType]


Retry(backoff="wild")  # pyright: ignore[reportArgumentType]
Retry(retry_if=slow_rule)  # pyright: ignore[reportArgumentType]
Retry(non_retryable=(3,))  # pyright: ignore[reportArgumentType]
workflow(previous=[plain])  # pyright: ignore[reportArgumentType]
other: WorkflowDef[str, int] = handler  # pyright: ignore[reportAssignmentType]
