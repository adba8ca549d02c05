"""The application under chaos: every attempt of a step leaves its trace in a file that no store knows of.

A step's result is a token of that attempt alone, and is given to the steps behind it. So the files say which
attempt's result each later attempt was given, and with that whether a run ever had two histories.
"""

import asyncio
import os
import random
import secrets
import time
from pathlib import Path

from duramen import Context, Runtime, workflow

STAGES = {"first": 0, "left": 1, "right": 1, "last": 2, "end": 3}
"""A step of a later stage begins when the results of all earlier ones are durable."""

_file: tuple[int, int] | None = None


def note(*words: str) -> None:
    """Add a line to this process's own part of the ledger: the kernel has it when this returns."""
    global _file  # noqa: PLW0603 - one file for each process
    if _file is None or _file[0] != os.getpid():
        path = Path(os.environ["CHAOS_LEDGER"]) / str(os.getpid())
        _file = os.getpid(), os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    # The clock is the machine's: the lines of all processes have one order.
    os.write(_file[1], " ".join([str(time.monotonic_ns()), *words]).encode() + b"\n")


async def effect(run_id: str, name: str, given: str) -> str:
    """Something that happens in the world."""
    token = secrets.token_hex(6)
    note("begin", run_id, name, token, given)
    await asyncio.sleep(random.random() * float(os.environ["CHAOS_STEP"]))
    note("end", run_id, name, token, given)
    return token


@workflow
async def order(ctx: Context, number: int) -> list[str]:
    """Steps one after the other and side by side, a timer, and an event."""
    first = await ctx.step("first", effect, ctx.run_id, "first", "-")
    left, right = await asyncio.gather(
        ctx.step("left", effect, ctx.run_id, "left", first),
        ctx.step("right", effect, ctx.run_id, "right", first),
    )
    await ctx.sleep(0.05 * (number % 8))
    word = await ctx.wait_for_event("go", str)
    last = await ctx.step("last", effect, ctx.run_id, "last", f"{left}+{right}+{word}")
    end = await ctx.step("end", effect, ctx.run_id, "end", last)
    return [first, left, right, word, last, end]


def make() -> Runtime:
    """The runtime of a worker."""
    return Runtime(os.environ["CHAOS_URL"], workflows=[order], lease=float(os.environ["CHAOS_LEASE"]))
