"""A program whose steps count and tell of it, for tests that kill it: ``progress_app.py URL RUN_ID``."""

import asyncio
import os
import sys
import time
from pathlib import Path

from duramen import Context, Runtime, step, step_context, workflow


def count_on(ledger: str, until: int) -> list[int]:
    """Count where the last attempt has ended; each beginning is a line with the process."""
    here = step_context()
    begun = here.progress or 0
    with Path(ledger).open("a") as file:
        file.write(f"{begun} {os.getpid()}\n")
    n = begun
    while n < until or not begun:
        n += 1
        here.heartbeat(n)
        time.sleep(0.005)
    return [begun, n]


@step(name="count")
def in_a_thread(ledger: str, until: int) -> list[int]:
    return count_on(ledger, until)


@step(name="count", where="process")
def in_a_process(ledger: str, until: int) -> list[int]:
    return count_on(ledger, until)


@workflow
async def threads(ctx: Context, ledger: str) -> list[int]:
    return await in_a_thread(ledger, 3)


@workflow
async def processes(ctx: Context, ledger: str) -> list[int]:
    return await in_a_process(ledger, 3)


async def main(url: str, workflow: str, ledger: str) -> None:
    async with Runtime(url, workflows=[threads, processes], lease=1) as runtime:
        await runtime.start(workflow, ledger, run_id="r")
        await runtime.result("r")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
