"""A handler that swallows everything and asks again: it can be dropped from memory, and the process ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import asyncio, sys
from duramen import Context, Runtime, workflow

WAITS = {
    "sleep": lambda ctx: ctx.sleep(1000),
    "asyncio.sleep": lambda ctx: asyncio.sleep(1000),
    "event": lambda ctx: ctx.wait_for_event("x"),
    "approval": lambda ctx: ctx.approve("x"),
    "step": lambda ctx: ctx.step("x", asyncio.sleep, 1000),
    "future": lambda ctx: asyncio.get_running_loop().create_future(),
    "gather": lambda ctx: asyncio.gather(asyncio.sleep(1000), ctx.sleep(1000)),
    "timeout": lambda ctx: asyncio.wait_for(ctx.wait_for_event("x"), 1000),
    "values": lambda ctx: (ctx.now(), ctx.uuid(), ctx.random(), ctx.sleep(1000))[3],
}
wait = WAITS[sys.argv[1]]

@workflow
async def stubborn(ctx: Context) -> None:
    while True:
        try:
            await wait(ctx)
        except BaseException:
            pass

async def main():
    async with Runtime("memory://", workflows=[stubborn]) as runtime:
        run = await runtime.start(stubborn, run_id="r")
        while (await runtime.get(run.run_id)).status in ("queued",):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        print((await runtime.get(run.run_id)).status)

asyncio.run(main())
print("closed", flush=True)
"""


@pytest.mark.parametrize(
    "wait", ["sleep", "asyncio.sleep", "event", "approval", "step", "future", "gather", "timeout", "values"]
)
def test_a_process_ends_whatever_its_handlers_swallow(wait: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, wait], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "closed"
    assert done.stderr.count("run 'r' swallows RunEvicted") == 1
    assert "Traceback" not in done.stderr
