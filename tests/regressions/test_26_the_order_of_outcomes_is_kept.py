"""Elsewhere `gather` and races saw another order on replay, took another branch, and looped for ever."""

import asyncio
import random

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import finish, note, notes, story

pytestmark = pytest.mark.anyio


async def take(ledger: str, n: int, turns: int) -> int:
    for _ in range(turns):
        await asyncio.sleep(0)
    note(ledger, f"ran {n} {n}")
    return n


@workflow
async def racing(ctx: Context, ledger: str) -> list[object]:
    """What it does next depends on who was first, several times over."""
    chance = random.Random(len(notes(ledger)))  # other speeds whenever a step really runs
    found: list[object] = []

    async def branch(n: int) -> None:
        await ctx.step(f"b{n}", take, ledger, n, chance.randrange(20))
        found.append(n)
        await ctx.step(f"then-{len(found)}", take, ledger, n, chance.randrange(20))  # named by the order
        found.append(-n)

    await asyncio.gather(*(branch(n) for n in range(1, 6)))
    await ctx.wait_for_event("go1")
    tasks = {
        asyncio.create_task(ctx.step(f"r{n}", take, ledger, n, chance.randrange(20))): n for n in range(4)
    }
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    found.append(sorted(tasks[task] for task in done))
    for task in pending:
        task.cancel()
    await ctx.wait_for_event("go2")
    for each in asyncio.as_completed(
        [ctx.step(f"c{n}", take, ledger, n, chance.randrange(20)) for n in range(4)]
    ):
        found.append(await each)  # noqa: PERF401
    await ctx.wait_for_event("go3")
    return found


async def test_a_handler_that_branches_on_who_was_first_sees_the_same_order_on_every_replay(
    url: str, ledger: str
) -> None:
    seen: list[list[str]] = []
    async with Runtime(url, workflows=[racing]) as runtime:
        for n in range(10):
            await runtime.enqueue(racing, ledger, run_id=f"r{n}")
        await runtime.sweep()
    for event in ("go1", "go2", "go3"):
        async with Runtime(url, workflows=[racing], warm=0) as runtime:
            for n in range(10):
                assert (await runtime.get(f"r{n}")).waiting_events == (event,)
                await runtime.signal(f"r{n}", event)
            await runtime.sweep()
    async with Runtime(url, workflows=[racing]) as runtime:
        for n in range(10):
            view = await finish(runtime, f"r{n}")
            assert view.status == "completed", view.note
            told = await story(runtime, f"r{n}")
            assert len(told) == len(set(told))
            seen.append(told)
    assert len({tuple(told) for told in seen}) > 1  # the runs did differ
