"""Opening a runtime waits for its store and for nothing else."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from duramen import Runtime
from tests.runtime.workflows import ALL, nothing

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_the_programs_own_threads_may_all_be_busy(url: str) -> None:
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(1)
    loop.set_default_executor(threads)
    enough = threading.Event()
    busy = loop.run_in_executor(None, enough.wait)
    try:
        async with asyncio.timeout(20):
            await Runtime(url).migrate()
            async with Runtime(url, workflows=ALL) as runtime:
                assert await runtime.start(nothing, run_id="r")
                await runtime.result("r")
        assert not busy.done()
    finally:
        enough.set()
        await busy
