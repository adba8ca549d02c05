"""The bench on every host."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from tests.stepper.benching import Bench, Body


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
