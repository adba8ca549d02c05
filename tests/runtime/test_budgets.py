"""A budget belongs to the sweep that was given it, and to the runs which that one took up."""

import asyncio
from typing import Any

import pytest

from duramen import Runtime, RunView
from tests.runtime.workflows import ALL, many, working

pytestmark = pytest.mark.anyio
STEPS = 10


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def in_one_go(runtime: Runtime, run_id: str) -> RunView:
    """A run that was claimed once kept to no budget: one that must yield is claimed again."""
    assert await runtime.result(run_id, 10) == STEPS
    view = await runtime.get(run_id)
    assert view.epoch == 1, f"it was let go of {view.epoch - 1} times"
    return view


async def under_way(runtime: Runtime, run_id: str) -> None:
    for _ in range(1000):
        if (await runtime.get(run_id)).status == "running":
            return
        await asyncio.sleep(0.005)
    raise AssertionError(await runtime.get(run_id))


async def swept(runtime: Runtime, **options: Any) -> dict[str, str]:
    return {run.run_id: run.kind for run in (await runtime.sweep(**options)).driven}


@pytest.mark.parametrize("first_to_end", ["long", "short"])
async def test_overlapping_sweeps_leave_no_budget_behind(any_url: str, first_to_end: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        # The first sweep waits for its run: the second one begins and ends, or only begins, meanwhile.
        await runtime.enqueue(working, 0.3 if first_to_end == "short" else 1.0, run_id="of the first")
        first = asyncio.create_task(swept(runtime, max_duration=60))
        await under_way(runtime, "of the first")
        await runtime.enqueue(working, 0.6, run_id="of the second")
        second = asyncio.create_task(swept(runtime, max_duration=0.8, min_remaining=0.5))
        await asyncio.gather(first, second)
        assert await runtime.result("of the second", 10) == "done"
        await asyncio.sleep(0.6)  # any deadline of the second has passed
        await runtime.start(many, STEPS, run_id="later")
        await in_one_go(runtime, "later")


async def test_runs_of_others_do_not_keep_to_a_sweeps_budget(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.enqueue(many, 50, run_id="swept")
        sweep = asyncio.create_task(swept(runtime, max_duration=1.2, min_remaining=1))
        await under_way(runtime, "swept")
        await runtime.start(many, STEPS, run_id="started")
        await runtime.enqueue(many, STEPS, run_id="swept without a budget")
        assert await swept(runtime) == {"swept without a budget": "completed"}
        assert await sweep == {"swept": "paused"}
        for run_id in ("started", "swept without a budget"):
            await in_one_go(runtime, run_id)


async def test_a_run_that_is_taken_up_again_has_the_budget_of_whatever_took_it(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.enqueue(many, 50, run_id="r")
        for claims in (1, 2):
            assert await swept(runtime, max_duration=1.2, min_remaining=1) == {"r": "paused"}
            view = await runtime.get("r")
            assert (view.status, view.epoch) == ("waiting", claims)
        assert await swept(runtime) == {"r": "completed"}
        assert (await runtime.get("r")).epoch == 3


async def test_a_sweep_that_nobody_waits_for_keeps_its_budget(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.enqueue(many, 50, run_id="r")
        sweep = asyncio.create_task(swept(runtime, max_duration=0.8, min_remaining=0.5))
        await under_way(runtime, "r")
        sweep.cancel()
        budgets = runtime._services.lifecycle.driver.sweep_budgets  # pyright: ignore[reportPrivateUsage]
        for _ in range(1000):
            if (await runtime.get("r")).status == "waiting" and not budgets:
                break
            await asyncio.sleep(0.01)
        view = await runtime.get("r")
        assert (view.status, view.epoch) == ("waiting", 1)
        assert not budgets
