"""Hosts whose clocks are an hour wrong: the server's clock alone decides about leases and due times."""

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, Runtime, workflow
from tests.postgres import load
from tests.regressions.support import hang, note, notes, ran, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the clock of a process is shifted with LD_PRELOAD"),
]
ROOT = Path(__file__).parents[2]
HOUR = 3600

Host = Callable[..., Any]


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None, "a C compiler is needed to build Duramen"
    library = tmp_path_factory.mktemp("skew") / "skew.so"
    source = Path(__file__).with_name("skew.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source], check=True, timeout=60)
    return library


@pytest.fixture
def host(shim: Path) -> Host:
    """Runs a coroutine of this module in a process whose clock is wrong by so many seconds."""

    @contextmanager
    def run(skew: int, job: str, *args: object) -> Iterator[subprocess.Popen[str]]:
        call = f"asyncio.run({job}(*sys.argv[1:]))"
        code = f"import asyncio, sys; from tests.postgres.test_clocks import *; {call}"
        environment = {
            **os.environ, "LD_PRELOAD": str(shim), "SKEW_SECONDS": str(skew), "PYTHONPATH": str(ROOT)
        }  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    return run


async def tell_time() -> None:
    async with Runtime("memory://") as runtime:
        print(time.time(), runtime._services.lifecycle.engine.now() / 1000, flush=True)


@pytest.mark.parametrize("skew", [-HOUR, 0, HOUR])
def test_the_clock_of_such_a_process_is_wrong_in_both_languages(host: Host, skew: int) -> None:
    with host(skew, "tell_time") as process:
        python, rust = map(float, process.stdout.readline().split())
    assert abs(python - skew - time.time()) < 60
    assert abs(rust - python) < 5


async def work(url: str) -> None:
    await load.work(url, 2, {})


@pytest.mark.timeout(110)
def test_workers_with_wrong_clocks_share_runs(host: Host, postgres_url: str, tmp_path: Path) -> None:
    """Whoever went by its own clock would steal runs at once, or leave them for an hour."""
    book = str(tmp_path / "ledger.db")
    load.new_ledger(book)

    async def main() -> None:
        async with Runtime(postgres_url, workflows=[load.order]) as runtime:
            ids = await load.submit(runtime, book, 60)
            await load.release(runtime, ids)
            await load.all_end(runtime, ids)
            assert await load.check(runtime, ids, book) == 0

    with host(-HOUR, "work", postgres_url), host(HOUR, "work", postgres_url), host(0, "work", postgres_url):
        asyncio.run(main())


@workflow
async def hanging(ctx: Context, ledger: str) -> str:
    return await ctx.step("hang", hang, ledger, "hang")


async def start_hanging(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[hanging], lease=2) as runtime:
        await runtime.start(hanging, ledger, run_id="r")
        await asyncio.Event().wait()


async def sweep_on(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[hanging], lease=2) as runtime:
        note(ledger, "sweeping")
        while True:
            for run in (await runtime.sweep()).recovered:
                note(ledger, f"recovered {run.run_id} {run.kind}")
            await asyncio.sleep(0.05)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("skew", [-HOUR, HOUR], ids=["late", "early"])
def test_a_lease_lasts_as_long_as_the_server_says(
    host: Host, postgres_url: str, tmp_path: Path, skew: int
) -> None:
    ledger = str(tmp_path / "ledger.txt")
    with host(-skew, "start_hanging", postgres_url, ledger) as driver:
        wait_until(lambda: ran(ledger, "hang"))
        with host(skew, "sweep_on", postgres_url, ledger):
            wait_until(lambda: "sweeping" in notes(ledger))
            # Longer than the lease: the driver renews it.
            time.sleep(3)
            assert not [line for line in notes(ledger) if line.startswith("recovered")]
            driver.kill()
            wait_until(lambda: "recovered r completed" in notes(ledger), timeout=10)
    assert ran(ledger, "hang") == 2


@workflow
async def napping(ctx: Context) -> None:
    await ctx.sleep(2)


async def start_nap(url: str) -> None:
    async with Runtime(url, workflows=[napping]) as runtime:
        await runtime.run(napping, run_id="r", max_duration=1)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("skew", [-HOUR, HOUR], ids=["late", "early"])
def test_a_timer_that_was_set_by_a_wrong_clock_fires_in_time(
    host: Host, postgres_url: str, skew: int
) -> None:
    began = time.monotonic()
    with host(skew, "start_nap", postgres_url) as process:
        assert process.wait(30) == 0

    async def main() -> None:
        async with Runtime(postgres_url, workflows=[napping]) as runtime:
            view = await runtime.get("r")
            assert view.status == "waiting"
            worker = asyncio.ensure_future(runtime.work(handle_signals=False))
            await runtime.result("r", timeout=20)
            worker.cancel()

    asyncio.run(main())
    assert time.monotonic() - began >= 2
