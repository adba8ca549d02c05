"""A process is killed while it applies an update; another one goes on with it, and answers."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from duramen import Context, Runtime, Update, workflow
from duramen.errors import UpdateTimeout
from tests.updates.workflows import until

BOOK = Update("book", int, str)
LEASE = 1.0

PROGRAM = """
import asyncio, sys
from tests.updates.test_kills import slow
from duramen import Runtime

async def main():
    async with Runtime(sys.argv[1], workflows=[slow], lease=1) as runtime:
        await runtime.start(slow, run_id="r")
        await runtime.work()

asyncio.run(main())
"""


async def book(amount: int) -> str:
    if amount > 1:
        print("booking", flush=True)
        await asyncio.sleep(3600 if "-c" in sys.argv[0] else 0)
    return f"booked {amount}"


@workflow
async def slow(ctx: Context) -> list[str]:
    booked: list[str] = []

    async def apply(amount: int) -> str:
        booked.append(await ctx.step(f"book {amount}", book, amount))
        return booked[-1]

    ctx.on_update(BOOK, apply)
    await ctx.wait_for_event("close")
    return booked


@pytest.fixture
def driver(url: str) -> Iterator[subprocess.Popen[str]]:
    """The process that drives the run."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.slow
async def test_an_update_outlives_the_process_that_applies_it(
    url: str, driver: subprocess.Popen[str]
) -> None:
    async with Runtime(url) as asks:

        async def begun() -> bool:
            return await asks.get_many(["r"]) != [None]

        await until(begun)
        assert await asks.update("r", BOOK, 1, timeout=60) == "booked 1"
        with pytest.raises(UpdateTimeout):
            await asks.update("r", BOOK, 2, update_id="u", timeout=0)
        assert driver.stdout is not None
        assert await asyncio.to_thread(driver.stdout.readline) == "booking\n"
        driver.kill()
        async with Runtime(url, workflows=[slow], lease=LEASE, work=True):
            assert await asks.update("r", BOOK, 2, update_id="u", timeout=60) == "booked 2"
            await asks.signal("r", "close")
            assert await asks.result("r", timeout=60) == ["booked 1", "booked 2"]
        kinds = [event.kind for event in await asks.timeline("r")]
        assert (kinds.count("update_accepted"), kinds.count("update_finished")) == (2, 2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


pytestmark = pytest.mark.anyio
