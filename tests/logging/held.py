"""A process that starts a run, and is killed in its step."""

import asyncio
import os
import sys
from pathlib import Path

from duramen import Context, Runtime, workflow


@workflow
async def held(ctx: Context[None], ready: str) -> bool:
    """Say that the step has begun, and wait for the end of the process; a second attempt returns at once."""

    async def hold() -> bool:
        if os.path.exists(ready):  # noqa: ASYNC240, PTH110
            return True
        Path(ready).touch()  # noqa: ASYNC240
        await asyncio.sleep(60)
        return False

    return await ctx.step("hold", hold)


async def main(url: str, run_id: str, ready: str) -> None:
    """Start the run and wait."""
    async with Runtime(url, workflows=[held], lease=1) as runtime:
        await runtime.start(held, ready, run_id=run_id)
        await runtime.result(run_id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
