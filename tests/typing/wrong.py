"""User code as it should not be: each line is rejected, or its comment is unnecessary: an error."""

from dataclasses import dataclass

from duramen import Context, Retry, WorkflowDef, sqlite, step, workflow


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
    reserve("forgotten")  # pyright: ignore[reportUnusedCoroutine]
    ctx.sleep(1)  # pyright: ignore[reportUnusedCoroutine]
    await ctx.sleep("soon")  # pyright: ignore[reportArgumentType]
    _wrong: str = await ctx.wait_for_event("paid", Order)  # pyright: ignore[reportAssignmentType]
    _late: Order = await ctx.wait_for_event("paid", Order, default=None)  # pyright: ignore[reportAssignmentType]
    ctx.run_id = "other"  # pyright: ignore[reportAttributeAccessIssue]
    return "text"  # pyright: ignore[reportReturnType]


@workflow  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
def not_async(ctx: Context) -> int:
    return 1


@workflow  # pyright: ignore[reportArgumentType, reportCallIssue, reportUntypedFunctionDecorator]
async def too_many(ctx: Context, a: int, b: int) -> int:
    return a + b


Retry(backoff="wild")  # pyright: ignore[reportArgumentType]
Retry(non_retryable=(3,))  # pyright: ignore[reportArgumentType]
workflow(previous=[plain])  # pyright: ignore[reportArgumentType]
other: WorkflowDef[str, int] = handler  # pyright: ignore[reportAssignmentType]
