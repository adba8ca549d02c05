"""Updates, queries and completion tokens keep their types; what does not fit is rejected."""

from dataclasses import dataclass
from typing import Any, assert_type

from duramen import Context, Query, Runtime, SignalResult, Token, Update, workflow


@dataclass
class Deposit:
    amount: int


DEPOSIT = Update("deposit", Deposit, float)
MANY = Update("many", list[int], dict[str, int])
CLOSE = Update("close", result=str)
BALANCE = Query("balance", float)


def named() -> None:
    assert_type(DEPOSIT, Update[Deposit, float])
    assert_type(MANY, Update[list[int], dict[str, int]])
    assert_type(BALANCE, Query[float])
    assert_type(DEPOSIT.name, str)


@workflow
async def account(ctx: Context) -> float:
    async def deposit(what: Deposit) -> float:
        return what.amount / 2

    def at_once(what: Deposit) -> float:
        return what.amount / 2

    def check(what: Deposit) -> None: ...

    async def other(what: str) -> float:
        return float(what)

    async def text(what: Deposit) -> str:
        return str(what)

    ctx.on_update(DEPOSIT, deposit, validate=check)
    ctx.on_update(DEPOSIT, at_once, validate=lambda what: what.amount)
    ctx.on_update("deposit", deposit, type=Deposit, validate=check)
    ctx.on_update("deposit", lambda: 3)
    ctx.on_query(BALANCE, lambda: 1.5)
    ctx.on_query("any", print)
    ctx.on_update(DEPOSIT, other)  # pyright: ignore[reportCallIssue, reportArgumentType]
    ctx.on_update(DEPOSIT, text)  # pyright: ignore[reportCallIssue, reportArgumentType]
    ctx.on_update(DEPOSIT, deposit, type=int)  # pyright: ignore[reportArgumentType]
    ctx.on_update("deposit", 3)  # pyright: ignore[reportCallIssue, reportArgumentType]
    ctx.on_query(BALANCE, lambda: "text")  # pyright: ignore[reportCallIssue, reportArgumentType]
    token = ctx.token(Deposit, timeout=3)
    assert_type(token, Token[Deposit])
    assert_type(token.text, str)
    assert_type(await token.result(), Deposit)
    assert_type(await ctx.token().result(), Any)
    assert_type(await ctx.token(list[int]).result(), list[int])
    ctx.token(Deposit, time=3)  # pyright: ignore[reportCallIssue]
    token.text = "x"  # pyright: ignore[reportAttributeAccessIssue]
    return 1.0


async def ask(runtime: Runtime) -> None:
    assert_type(await runtime.update("r", DEPOSIT, Deposit(1), update_id="u", timeout=3), float)
    assert_type(await runtime.update("r", MANY, [1]), dict[str, int])
    assert_type(await runtime.update("r", "deposit", 3), Any)
    assert_type(await runtime.query("r", BALANCE), float)
    assert_type(await runtime.query("r", "balance", 1, 2), Any)
    assert_type(await runtime.complete("text", Deposit(1)), SignalResult)
    assert_type(await runtime.fail("text", "why"), SignalResult)
    await runtime.update("r", DEPOSIT, 3)  # pyright: ignore[reportCallIssue, reportArgumentType]
    await runtime.update("r", DEPOSIT)  # pyright: ignore[reportArgumentType]
    await runtime.update("r", 3)  # pyright: ignore[reportArgumentType]
    await runtime.query("r", 3)  # pyright: ignore[reportCallIssue, reportArgumentType]
    await runtime.fail("text")  # pyright: ignore[reportCallIssue]


def blocked(runtime: Runtime) -> None:
    sync = runtime.sync
    assert_type(sync.update("r", DEPOSIT, Deposit(1), drive=True), float)
    assert_type(sync.update("r", "deposit"), Any)
    assert_type(sync.query("r", BALANCE), float)
    assert_type(sync.complete("text", 3), SignalResult)
    assert_type(sync.fail("text", "why"), SignalResult)
    sync.update("r", DEPOSIT, 3)  # pyright: ignore[reportCallIssue, reportArgumentType]
