"""Wake-up hints between processes: what they make quicker, and that all goes well without them."""

import asyncio
import time

from duramen import Context, Runtime, workflow


@workflow
async def answer(ctx: Context) -> str:
    """Waits for a word."""
    return await ctx.wait_for_event("word", str)


async def through_another_runtime(url: str, poll_max: float) -> list[float]:
    """How long a worker needs to notice what others enqueue and send, in seconds."""
    await Runtime(url).migrate()
    took = list[float]()
    async with Runtime(url, workflows=[answer]) as here, Runtime(url, workflows=[answer]) as there:
        worker = asyncio.create_task(here.work(poll_max=poll_max, handle_signals=False))
        for n in range(4):
            # Long enough for its polls to be as far apart as they get.
            await asyncio.sleep(1.5 if n == 0 else 0.3)
            begun = time.monotonic()
            await there.enqueue(answer, run_id=f"answer:{n}")
            while not (await there.get(f"answer:{n}")).waits:  # noqa: ASYNC110 - the store is asked
                await asyncio.sleep(0.005)
            took.append(time.monotonic() - begun)
            begun = time.monotonic()
            await there.signal(f"answer:{n}", "word", "yes")
            assert await there.result(f"answer:{n}", timeout=60) == "yes"
            took.append(time.monotonic() - begun)
        worker.cancel()
        await asyncio.wait([worker])
    return took


def test_hints_wake_a_worker_that_would_sleep_for_long(postgres_url: str) -> None:
    took = asyncio.run(through_another_runtime(postgres_url, poll_max=60))
    print("seconds:", [round(one, 3) for one in took])
    # A client that waits for a result polls as well, twice a second at the least.
    assert max(took) < 5


def test_without_hints_polls_find_everything(postgres_url: str) -> None:
    silent = f"{postgres_url}{'&' if '?' in postgres_url else '?'}notify=off"
    took = asyncio.run(through_another_runtime(silent, poll_max=0.5))
    assert max(took) < 10
