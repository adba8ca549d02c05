"""Elsewhere runs that were queued by a process which then died were never taken by a sweep."""

import os
from datetime import timedelta

import pytest

from duramen import Context, RunRequest, Runtime, workflow
from tests.regressions.support import DIED, in_future, run_child

pytestmark = pytest.mark.anyio


@workflow
async def doubling(ctx: Context, number: int) -> int:
    return 2 * number


async def enqueue_and_die(url: str, count: int) -> None:
    async with Runtime(url, workflows=[doubling]) as runtime:
        await runtime.enqueue_many([RunRequest(doubling, n, run_id=f"r{n}") for n in range(count)])
        os._exit(DIED)


async def test_runs_queued_by_a_dead_process_are_swept_by_another_in_bounded_passes(url: str) -> None:
    assert run_child(enqueue_and_die, url, 60) == DIED
    async with Runtime(url, workflows=[doubling]) as runtime:
        passes = [await runtime.sweep(max_queued=25) for _ in range(3)]
        assert [len(swept.queued) for swept in passes] == [25, 25, 10]
        assert [swept.remaining_may_exist for swept in passes] == [True, True, False]
        assert [await runtime.result(f"r{n}") for n in range(60)] == [2 * n for n in range(60)]


async def test_runs_queued_for_later_are_swept_when_their_time_has_come(url: str) -> None:
    async with Runtime(url, workflows=[doubling]) as runtime:
        start_at = in_future(timedelta(hours=5))
        await runtime.enqueue(doubling, 1, run_id="r", start_at=start_at)
        assert (await runtime.sweep()).driven == ()
        assert (await runtime.sweep(now=start_at - timedelta(seconds=1))).driven == ()
        assert [run.run_id for run in (await runtime.sweep(now=start_at + timedelta(seconds=1))).queued] == [
            "r"
        ]
