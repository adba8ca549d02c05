"""The harness of a run's host on each store, and the stepper's bench on each event loop."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from tests.driving.benching import Bench, Body
from tests.driving.harness import Harness


@pytest.fixture(params=["memory", "sqlite"])
def scheme(request: Any) -> str:
    return request.param


@pytest.fixture(params=["warm", "cold"])
def warm(request: Any) -> int:
    return 1000 if request.param == "warm" else 0


@pytest.fixture
def harness(scheme: str, warm: int, tmp_path: Any) -> Harness:
    """One on each store, with paused runs kept in memory or dropped at once."""
    location = str(tmp_path / "runs.db") if scheme == "sqlite" else ""
    return Harness(scheme, location, warm)


@pytest.fixture
def memory() -> Harness:
    return Harness()


@pytest.fixture(params=["asyncio", "uvloop"])
def bench(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run(body: Body, **kwargs: Any) -> Any:
        async def main() -> Any:
            bench = Bench(**kwargs)
            try:
                async with asyncio.timeout(20):
                    return await body(bench)
            finally:
                await bench.stepper.aclose()
                assert asyncio.all_tasks() == {asyncio.current_task()}

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main())

    yield run
    gc.collect()
