"""Polls: one operation however often it looks."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from duramen import Context, Retry, Runtime, workflow
from duramen.errors import InvalidArgument, RunFailed
from duramen.testing import Environment
from tests.runtime.support import scenarios, status_is

looks = list[int]()
found = list[Iterator[Any]]()


async def look() -> int:
    looks.append(1)
    result = next(found[0])
    if isinstance(result, BaseException):
        raise result
    return result


def look_in_thread() -> int:
    looks.append(1)
    return next(found[0])


@workflow
async def polling(ctx: Context, every: float) -> int:
    return await ctx.poll("ready", look, every=every)


@workflow
async def threaded(ctx: Context) -> int:
    return await ctx.poll("ready", look_in_thread, every=0.01, until=lambda number: number > 2)


@workflow
async def patient(ctx: Context) -> str:
    try:
        await ctx.poll("ready", look, every=60, backoff=2, cap=timedelta(minutes=5), timeout=1800)
    except TimeoutError:
        return "too late"
    return "in time"


@workflow
async def retrying(ctx: Context) -> int:
    return await ctx.poll("ready", look, every=1, retry=Retry(attempts=2, base=0))


@workflow
async def picky(ctx: Context) -> int:
    def condition(number: int) -> bool:
        raise LookupError("what is it?")

    return await ctx.poll("ready", look, every=1, until=condition)


@workflow
async def careless(ctx: Context) -> None:
    async def later(number: int) -> bool:
        return True

    for options in (
        {"every": 0},
        {"every": -1},
        {"every": 1, "backoff": 0.5},
        {"every": 2, "cap": 1},
        {"every": 1, "until": later},
        {"every": 1, "until": 3},
        {"every": 1, "on_exhausted": "stop"},
    ):
        with pytest.raises(InvalidArgument):
            await ctx.poll("ready", look, **options)  # type: ignore[call-overload]


ALL = [polling, threaded, patient, retrying, picky, careless]


@pytest.fixture(autouse=True)
def fresh() -> None:
    looks.clear()
    finds()


def finds(*results: Any) -> None:
    found[:] = [iter(results)]


scenario = scenarios(ALL)


@scenario
async def test_the_journal_has_one_entry_however_often_it_looks(runtime: Runtime) -> None:
    finds(*[0] * 20, 7)
    run = await runtime.start(polling, 0.001, run_id="a")
    assert await run.result(timeout=10) == 7
    assert len(looks) == 21
    kinds = [event.kind for event in await runtime.timeline("a")]
    assert kinds == ["run_created", "step_completed", "run_finished"]


@scenario
async def test_a_function_in_a_thread_and_a_condition_of_its_own(runtime: Runtime) -> None:
    finds(1, 2, 3)
    assert await (await runtime.start(threaded)).result(timeout=10) == 3


@scenario
async def test_a_long_pause_holds_no_worker(runtime: Runtime) -> None:
    finds(0)
    await runtime.start(polling, 3600, run_id="a")
    await status_is(runtime, "a", "waiting")
    view = await runtime.get("a")
    assert (view.waits, view.owner, view.journal_len) == (("poll:ready",), None, 1)
    assert view.ready_at is not None
    assert view.ready_at - view.created_at >= timedelta(minutes=59)


@scenario
async def test_what_a_look_raises_follows_the_retry_rule(runtime: Runtime) -> None:
    finds(LookupError("once"), 5)
    assert await (await runtime.start(retrying)).result(timeout=10) == 5
    finds(LookupError("once"), LookupError("twice"))
    with pytest.raises(RunFailed, match="twice"):
        await (await runtime.start(retrying)).result(timeout=10)


@scenario
async def test_a_condition_that_raises_fails_the_poll(runtime: Runtime) -> None:
    finds(1)
    with pytest.raises(RunFailed, match="what is it"):
        await (await runtime.start(picky)).result(timeout=10)


@scenario
async def test_bad_options_are_refused(runtime: Runtime) -> None:
    await (await runtime.start(careless)).result(timeout=10)


def test_it_gives_up_after_its_time_with_a_last_look() -> None:
    async def main() -> None:
        for results, expected in (([0] * 9, "too late"), ([0] * 8 + [1], "in time")):
            looks.clear()
            finds(*results)
            async with Environment([patient]) as env:
                run = await env.runtime.start(patient)
                await env.advance(minutes=29)
                # 0, 1, 3, 7, 12, 17, 22, 27 minutes.
                assert len(looks) == 8
                await env.advance(minutes=2)
                assert await env.result(run.run_id) == expected
                assert len(looks) == 9

    asyncio.run(main())
