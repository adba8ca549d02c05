"""What was begun in a process goes on there while its runtime is open, without a worker or a sweep."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from duramen import Context, RunHandle, Runtime, RunView, workflow

pytestmark = pytest.mark.anyio
BROKEN: set[str] = set()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def check(run_id: str) -> str:
    if run_id in BROKEN:
        raise ConnectionError("not yet")
    return "checked"


@workflow
async def flow(ctx: Context) -> str:
    text = await ctx.step("check", check, ctx.run_id)
    # Long enough for the run to be released: a nearer deadline is waited for with the lease kept.
    await ctx.sleep(1.3)
    return f"{text} {await ctx.wait_for_event('go', str)}"


async def until(run: RunHandle[Any], test: Callable[[RunView], bool]) -> None:
    for _ in range(1000):
        if test(await run.get()):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(await run.get())


def waits(view: RunView) -> bool:
    return "event:go" in view.waits


async def test_a_run_that_starts_later_goes_on_after_its_pauses() -> None:
    async with Runtime("memory://", workflows=[flow]) as runtime:
        at = datetime.now(UTC) + timedelta(seconds=0.2)
        run = await runtime.start(flow, run_id="later", start_at=at)
        await until(run, waits)
        await run.signal("go", "went")
        assert await run.result(timeout=10) == "checked went"


@pytest.mark.parametrize("driven_here", [True, False])
async def test_a_run_that_is_retried_goes_on_after_its_pauses(driven_here: bool) -> None:
    BROKEN.add("again")
    async with Runtime("memory://", workflows=[flow]) as runtime:
        run = await (runtime.start if driven_here else runtime.enqueue)(flow, run_id="again")
        await runtime.sweep()
        await until(run, lambda view: view.finished)
        BROKEN.discard("again")
        await runtime.retry("again")
        await until(run, waits)
        await run.signal("go", "went")
        assert await run.result(timeout=10) == "checked went"


async def test_a_retry_that_is_left_to_others_is_left_to_them() -> None:
    BROKEN.add("others")
    async with Runtime("memory://", workflows=[flow]) as runtime:
        run = await runtime.enqueue(flow, run_id="others")
        await runtime.sweep()
        await runtime.retry("others", drive=False)
        await asyncio.sleep(0.3)  # time for it to be taken up after all
        assert (await run.get()).status == "queued"
