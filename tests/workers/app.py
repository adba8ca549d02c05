"""The application of the fleets' tests: `duramen worker tests.workers.app:make`."""

import asyncio
import os
import time
from pathlib import Path

from duramen import Context, Runtime, workflow


def note(line: str) -> None:
    """Add a line to the ledger, whole, whoever else writes."""
    ledger = os.open(os.environ["APP_LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(ledger, f"{line}\n".encode())
    finally:
        os.close(ledger)


def noted(line: str) -> bool:
    """Whether the ledger has that line."""
    return line in Path(os.environ["APP_LEDGER"]).read_text("utf-8").split("\n")


async def pause(run_id: str, name: str, seconds: float) -> str:
    """A step that takes its time."""
    note(f"begins {run_id}/{name}")
    await asyncio.sleep(seconds)
    note(f"ends {run_id}/{name}")
    return name


@workflow
async def quick(ctx: Context, seconds: float) -> list[str]:
    """Three steps."""
    return [await ctx.step(name, pause, ctx.run_id, name, seconds) for name in "abc"]


async def pause_once(run_id: str) -> None:
    """A step that takes half a minute the first time, and no time after that."""
    line = f"begins {run_id}/once"
    again = noted(line)
    note(line)
    await asyncio.sleep(0 if again else 30)
    note(f"ends {run_id}/once")


@workflow
async def slow_once(ctx: Context) -> None:
    """Takes long, until it is taken over."""
    await ctx.step("once", pause_once, ctx.run_id)


def end_the_process(run_id: str) -> None:
    """What no exception handler sees."""
    note(f"kills {run_id}")
    os._exit(9)


@workflow
async def poison(ctx: Context) -> None:
    """Ends the process that drives it, each time."""
    await ctx.step("kill", end_the_process, ctx.run_id)


def use_up_the_memory(run_id: str) -> None:
    """As the kernel does with a process that has used it up: killed in the midst of a step."""
    note(f"kills {run_id}")
    hoard = [bytes(1 << 20) for _ in range(8)]
    os.kill(os.getpid(), 9)
    time.sleep(60)
    del hoard


@workflow
async def hungry(ctx: Context) -> None:
    """Is killed for its memory, each time."""
    await ctx.step("eat", use_up_the_memory, ctx.run_id)


def block(seconds: float) -> None:
    """A step in a thread that no cancellation reaches."""
    time.sleep(seconds)


@workflow
async def blocking(ctx: Context, seconds: float) -> None:
    """Keeps a thread busy."""
    note(f"begins {ctx.run_id}/block")
    await ctx.step("block", block, seconds)


WORKFLOWS = [quick, slow_once, poison, hungry, blocking]


def make() -> Runtime:
    """The runtime of a worker."""
    Path(os.environ["APP_LEDGER"]).touch()
    return Runtime(os.environ["APP_URL"], workflows=WORKFLOWS, lease=float(os.environ.get("APP_LEASE", "1")))
