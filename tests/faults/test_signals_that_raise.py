"""A signal handler of the program's that raises while the product's own code runs: no run is left to nobody.

Such handlers are how some libraries limit the time of a call. Python calls them between two instructions of
the main thread, whatever that does at the moment.
"""

import asyncio
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from duramen import Context, Retry, RunRequest, Runtime, workflow

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Late(Exception):
    pass


@contextmanager
def raising_once(module: str, function: str) -> Iterator[list[int]]:
    """Raise at the beginning of that function, once.

    A profile function is called there, as a signal's handler may be, and what it raises goes the same way. A
    signal would have to be sent very often to meet just this function.
    """
    hits: list[int] = []

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_name == function and code.co_filename.endswith(f"duramen/{module}"):
            hits.append(frame.f_lineno)
            sys.setprofile(None)
            raise Late

    sys.setprofile(profile)
    try:
        yield hits
    finally:
        sys.setprofile(None)


async def on_the_loop(n: int) -> int:
    await asyncio.sleep(0)
    return n


def in_a_thread(n: int) -> int:
    return n


@workflow(retry=Retry(attempts=2, base=0))
async def busy(ctx: Context, n: int) -> int:
    total = 0
    for _ in range(5):
        total += await ctx.step("loop", on_the_loop, n) + await ctx.step("thread", in_a_thread, n)
        await ctx.sleep(0.001)
    return total


PLACES = [
    ("_runtime/driver.py", "on_events"),
    ("_runtime/driver.py", "_on_event"),
    ("_runtime/driver.py", "_advance"),
    ("_runtime/driver.py", "_drive"),
    ("_runtime/driver.py", "_host_of"),
    ("_runtime/driver.py", "_activate"),
    ("_runtime/driver.py", "_safely"),
    ("_runtime/port.py", "collect"),
    ("_runtime/port.py", "_sort"),
    ("_driving/host.py", "start"),
    ("_driving/host.py", "advance"),
    ("_driving/host.py", "_act"),
    ("_driving/host.py", "_deliver"),
    ("_driving/host.py", "step_ok"),
    ("_driving/waits.py", "start"),
    ("_driving/waits.py", "done"),
    ("_driving/waits.py", "_take"),
    ("_driving/stepper.py", "submit"),
    ("_driving/stepper.py", "_settle"),
    ("_driving/stepper.py", "_take"),
]


@pytest.mark.parametrize(("module", "function"), PLACES, ids=map(":".join, PLACES))
async def test_what_a_signal_handler_raises_leaves_no_run_to_nobody(
    sqlite_url: str, caplog: pytest.LogCaptureFixture, module: str, function: str
) -> None:
    caplog.set_level(logging.CRITICAL, "duramen")
    caplog.set_level(logging.CRITICAL, "asyncio")
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    count = 0
    async with Runtime(sqlite_url, workflows=[busy], lease=1, watchdog=0) as runtime:
        worker = asyncio.create_task(runtime.work(handle_signals=False))
        driver: Any = runtime._services.lifecycle.driver  # pyright: ignore[reportPrivateUsage]
        with raising_once(module, function) as hits:
            while not hits and count < 400:
                await runtime.enqueue_many([RunRequest(busy, n) for n in range(20)])
                count += 20
                while not hits and await runtime.count(status=["queued", "running", "waiting"]) > 20:  # noqa: ASYNC110
                    await asyncio.sleep(0)
        assert hits, "that function was never called"
        async with asyncio.timeout(60):
            while await runtime.count(status=["queued", "running", "waiting"]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        # The one that was hit is parked with the reason, or has gone on.
        assert await runtime.count(status="completed") >= count - 1
        async with asyncio.timeout(10):
            await driver.idle.wait()
        worker.cancel()
        await asyncio.wait([worker])
