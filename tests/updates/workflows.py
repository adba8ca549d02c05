"""Workflows that the tests of updates, queries and tokens share."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from duramen import Context, Query, Update, register_exception, workflow


@dataclass
class Deposit:
    amount: int
    note: str = ""


@register_exception
class Overdrawn(Exception):
    """What a withdrawal raises that cannot be."""


DEPOSIT = Update("deposit", Deposit, int)
WITHDRAW = Update("withdraw", int, int)
BALANCE = Query("balance", int)


@workflow
async def account(ctx: Context) -> int:
    balance = 0

    def positive(deposit: Deposit) -> None:
        if deposit.amount <= 0:
            raise ValueError("a deposit is more than 0")

    async def deposit(what: Deposit) -> int:
        nonlocal balance
        await ctx.step("book", int, what.amount)
        balance += what.amount
        return balance

    def withdraw(amount: int) -> int:
        nonlocal balance
        if amount > balance:
            raise Overdrawn(f"there are only {balance}")
        balance -= amount
        return balance

    async def later() -> int:
        return await ctx.wait_for_event("told", int)

    def add(first: int, second: int = 0) -> int:
        return balance + first + second

    async def at_once() -> int:
        return balance

    async def asleep() -> None:
        await asyncio.sleep(1)

    ctx.on_update(DEPOSIT, deposit, validate=positive)
    ctx.on_update(WITHDRAW, withdraw)
    ctx.on_update("later", later)
    ctx.on_query(BALANCE, lambda: balance)
    ctx.on_query("add", add)
    ctx.on_query("at once", at_once)
    ctx.on_query("asleep", asleep)
    ctx.on_query("steps", lambda: ctx.step("no", int))
    ctx.on_query("raises", lambda: 1 / 0)
    await ctx.wait_for_event("close")
    return balance


@workflow
async def door(ctx: Context) -> str:
    """Waits for nothing but an update."""
    closed = asyncio.Event()

    def close() -> str:
        closed.set()
        return "closed"

    ctx.on_update("close", close)
    await closed.wait()
    return "done"


@workflow
async def late(ctx: Context) -> int:
    """Takes its update only after an event."""
    await ctx.wait_for_event("go")
    done = asyncio.Event()

    def take(number: int) -> int:
        done.set()
        return number + 1

    ctx.on_update("take", take)
    await done.wait()
    return 1


TEXTS: dict[str, str] = {}
"""The texts of the tokens that the runs have made, by run."""


async def give_away(run_id: str, text: str) -> None:
    TEXTS[run_id] = text


@workflow
async def asking(ctx: Context, timeout: float | None) -> str:
    token = ctx.token(Deposit, timeout=timeout)
    await ctx.step("give away", give_away, ctx.run_id, token.text)
    found = await token.result()
    return f"{found.amount} {found.note}"


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30):
        while not await look():  # noqa: ASYNC110 - it is in the store, which tells nobody
            await asyncio.sleep(0.01)


ALL = [account, door, late, asking]
