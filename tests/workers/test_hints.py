"""Wake-up hints between processes: what they make quicker, and that all goes well without them."""

import asyncio

from duramen import Context, Runtime, workflow
from tests.regressions.support import until_waiting

PAUSE = 2.0
"""Seconds from a worker's first look to its second; each further pause is twice as long as the last."""


@workflow
async def answer(ctx: Context) -> str:
    """Waits for a word."""
    return await ctx.wait_for_event("word", str)


async def through_another_runtime(url: str, *, poll_min: float, poll_max: float, quiet: float) -> None:
    """What others enqueue and send is taken up by a worker that was idle for `quiet` seconds each time.

    Raises:
        TimeoutError: it took more than four seconds.
    """
    await Runtime(url).migrate()
    async with Runtime(url, workflows=[answer]) as here, Runtime(url, workflows=[answer]) as there:
        worker = asyncio.create_task(here.work(poll_min=poll_min, poll_max=poll_max, handle_signals=False))
        await asyncio.sleep(quiet)
        async with asyncio.timeout(4):
            await there.enqueue(answer, run_id="answer")
            await until_waiting(there, "answer", "event:word")
        await asyncio.sleep(quiet)
        async with asyncio.timeout(4):
            await there.signal("answer", "word", "yes")
            assert await there.result("answer") == "yes"
        worker.cancel()
        await asyncio.wait([worker])


def test_hints_wake_a_worker_that_would_sleep_for_long(postgres_url: str) -> None:
    # It looks after 0, 2, 6 and 14 seconds: what comes after the seventh is seen by a hint, or too late.
    asyncio.run(through_another_runtime(postgres_url, poll_min=PAUSE, poll_max=3600, quiet=3.5 * PAUSE))


def test_without_hints_polls_find_everything(postgres_url: str) -> None:
    silent = f"{postgres_url}{'&' if '?' in postgres_url else '?'}notify=off"
    asyncio.run(through_another_runtime(silent, poll_min=0.02, poll_max=0.5, quiet=1.5))
