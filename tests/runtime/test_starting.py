"""To start an id again is how a program goes on after a crash."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from duramen import RunRequest, Runtime
from duramen.errors import StoreLocked
from duramen.testing import open_store
from duramen.testing._wrapped_store import WrappedStore
from tests.runtime.workflows import ALL, adding, nothing, sleeping, waiting
from tests.workers.fleets import eventually

pytestmark = pytest.mark.anyio
HELLO = Path(__file__).parents[2] / "examples" / "hello.py"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_hello_ended_in_its_sleep_goes_on_when_it_is_started_again(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, HELLO], cwd=tmp_path, stderr=subprocess.PIPE)
    try:
        eventually(lambda: entries(tmp_path / "app.db") >= 2)
        first.send_signal(signal.SIGINT)  # Ctrl-C
        _, said = first.communicate(timeout=30)
    finally:
        first.kill()
        first.wait()
    assert b"KeyboardInterrupt" in said
    assert entries(tmp_path / "app.db") < 4, "it was not ended in its sleep"
    again = subprocess.run([sys.executable, HELLO], cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert again.stdout.split() == [b"Hello,", b"world!"]


def entries(file: Path) -> int:
    """How long the journal is: created, the step, the sleep, fired, finished."""
    if not file.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute("SELECT count(*) FROM journal").fetchone()[0]
        except sqlite3.OperationalError:
            return 0  # its tables are being made


async def test_a_run_that_waits_is_gone_on_with_by_who_starts_it_again(url: str) -> None:
    async with Runtime(url, workflows=ALL) as first, Runtime(url, workflows=ALL) as second:
        await first.enqueue(sleeping, 1.5, run_id="r")
        await first.sweep()  # nobody goes on with what a sweep drove
        run = await second.start(sleeping, 1.5, run_id="r")
        assert not run.created
        assert await run.result(timeout=10) == "slept"


@pytest.mark.parametrize("later", [False, True])
async def test_a_queued_run_is_driven_by_who_starts_it_again(any_url: str, later: bool) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.enqueue(adding, 1, run_id="r")
        at = datetime.now(UTC) + timedelta(days=1) if later else None  # it keeps the start that it has
        run = await runtime.start(adding, 1, run_id="r", start_at=at)
        assert not run.created
        assert await run.result(timeout=10) == 2


async def test_a_run_that_has_ended_stays_as_it_is(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.run(adding, 1, run_id="r")
        again = await runtime.start(adding, 5, run_id="r")
        assert not again.created
        assert await again.result(timeout=10) == 2
        assert (await again.get()).epoch == 1


class Held(WrappedStore):
    """A store in which a transaction of somebody else's is about to create some runs."""

    async def call(self, method: str, *args: Any) -> Any:
        if method != "create":
            return await super().call(method, *args)
        return [
            {"kind": "blocked"} if run["run_id"].startswith("held") else (await self.inner.create([run]))[0]
            for run in args[0]
        ]


async def test_an_id_that_others_are_about_to_create_is_refused_with_advice() -> None:
    async with Runtime(Held(open_store("memory://")), workflows=ALL, lease=1, migrate=True) as runtime:
        advice = "about to create run 'held'.*end that transaction"
        with pytest.raises(StoreLocked, match=advice):
            await runtime.enqueue(nothing, run_id="held")
        with pytest.raises(StoreLocked):
            await runtime.start(nothing, run_id="held")
        with pytest.raises(StoreLocked, match=advice):
            await runtime.enqueue_many([RunRequest(nothing, run_id=run_id) for run_id in ("a", "held", "b")])
        assert {run.run_id for run in await runtime.list()} == {"a", "b"}


async def test_who_drives_runs_can_be_read(url: str) -> None:
    async with Runtime(url, workflows=ALL) as runtime:
        assert await runtime.workers() == []  # it holds nothing yet
        async with Runtime(url, workflows=[waiting, adding], owner="shop") as other:
            await other.run(waiting, "go", run_id="w")
            (worker,) = await runtime.workers()
            assert worker.owner == other.owner
            assert worker.owner.startswith("shop")
            assert worker.label is not None
            assert worker.label.endswith(f":{os.getpid()}")
            assert worker.serves == ("adding 1", "waiting 1")
            assert (worker.alive, worker.ended_at, worker.runs) == (True, None, 0)
            assert worker.started_at <= worker.seen_at < worker.lease_until
            task = asyncio.create_task(runtime.run("working", 1.0, run_id="busy"))
            for _ in range(500):
                newest = (await other.workers())[0]
                if newest.owner == runtime.owner and newest.runs:
                    break
                await asyncio.sleep(0.01)
            assert (newest.owner, newest.runs) == (runtime.owner, 1)
            assert (await task).kind == "completed"
        alive, gone = await runtime.workers()
        assert (alive.owner, alive.alive) == (runtime.owner, True)
        assert (gone.owner, gone.alive, gone.ended_at is not None) == (worker.owner, False, True)
