"""A process that dies at one point of a transaction: `python crashing.py DRIVER URL POINT LOGS`."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from pathlib import Path
from typing import Any

from duramen import Context, workflow
from duramen._driving.transaction_attempts import Attempt
from duramen._driving.transaction_calls import TransactionCall
from duramen._driving.units import PostgresUnit, SqliteUnit
from tests.transactions.kits import Kit, make

POINTS = ["before the function", "in the function", "before the commit", "after the commit"]


def program(kit: Kit, logs: Path, *, die: bool = False) -> Any:
    """The workflow; each call of its function leaves a line in a log, whatever becomes of the data."""

    @workflow(name="pay")
    async def pay(ctx: Context, word: str) -> str:
        def note() -> None:
            with (logs / word).open("a") as file:
                file.write("called\n")
            if die:
                os._exit(9)

        return await ctx.transaction("write", kit.write(note), word)

    return pay


def plant(point: str) -> None:
    """Die at a point that is not the function's own."""
    if point == "before the function":
        for name in ("_function", "_function_sync"):
            setattr(Attempt, name, _dies)
    elif point == "before the commit":
        for unit in (PostgresUnit, SqliteUnit):
            for name in ("record", "record_sync"):
                setattr(unit, name, _dies_after(getattr(unit, name)))
    elif point == "after the commit":
        TransactionCall._over = _dies


def _dies(*_: Any) -> Any:
    os._exit(9)


def _dies_after(method: Callable[..., Any]) -> Callable[..., Any]:
    def dies(*args: Any) -> Any:
        done = method(*args)
        return _awaited(done) if isawaitable(done) else os._exit(9)

    return dies


async def _awaited(done: Awaitable[Any]) -> None:
    await done
    os._exit(9)


async def main(driver: str, url: str, point: str, logs: str) -> None:
    kit = make(driver, url)
    plant(point)
    pay = program(kit, Path(logs), die=point == "in the function")
    async with kit.runtime(pay, lease=1) as runtime:
        run = await runtime.start(pay, point, run_id=point)
        await run.result(timeout=20)
    raise AssertionError("it was to die")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
