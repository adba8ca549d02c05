"""The application of both builds: `duramen worker tests.versions.app:make`."""

import asyncio
import os
from pathlib import Path

from duramen import Context, Runtime, workflow
from duramen._bridge import ENCODING
from tests.workers.app import note

BUILD = {1: "older", 2: "newer"}[ENCODING]


def mark(run_id: str, name: str) -> str:
    """A step that says who did it."""
    note(f"{BUILD} {run_id}/{name}")
    return BUILD


async def held(run_id: str, name: str) -> str:
    """The same, which ends when the test opens its gate."""
    mark(run_id, name)
    gate = Path(os.environ["APP_GATE"])
    while not await asyncio.to_thread(gate.exists):  # noqa: ASYNC110 - it is opened by another process
        await asyncio.sleep(0.02)
    return BUILD


@workflow
async def valued(ctx: Context) -> list[str]:
    """Records values, in three parts."""
    did = list[str]()
    for part in ("one", "two", "three"):
        ctx.now()
        did.append(await ctx.step(part, mark, ctx.run_id, part))
        if part != "three":
            await ctx.wait_for_event(f"after-{part}")
    ctx.uuid()
    did.append(await ctx.step("held", held, ctx.run_id, "held"))
    return did


@workflow
async def plain(ctx: Context) -> list[str]:
    """Records no value."""
    return [
        await ctx.step("one", mark, ctx.run_id, "one"),
        await ctx.step("held", held, ctx.run_id, "held"),
        await ctx.step("last", mark, ctx.run_id, "last"),
    ]


WORKFLOWS = [valued, plain]


def make() -> Runtime:
    """The runtime of a worker."""
    return Runtime(os.environ["APP_URL"], workflows=WORKFLOWS, lease=2)
