"""Failed attempts, failed runs and stuck runs are told once each, and never by a replay."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from duramen import Runtime
from duramen.errors import RunFailed, RunStuck
from tests.logging.kit import CALLS, changed, changing, failing, records, short, trying

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def waits(runtime: Runtime, run_id: str) -> None:
    """Wait until a run waits for its event."""
    async with asyncio.timeout(30):
        while not (await runtime.get(run_id)).waiting_events:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("failures", "warnings"), [(0, 0), (1, 1), (2, 2)])
async def test_each_failed_attempt_is_told_once_and_a_replay_tells_nothing(
    url: str, failures: int, warnings: int
) -> None:
    run_id = f"try-{failures}"
    CALLS.pop(run_id, None)
    with records(logging.INFO) as kept:
        async with Runtime(url, workflows=[trying]) as runtime:
            await runtime.start(trying, failures, run_id=run_id)
            await waits(runtime, run_id)
        told = kept.of("duramen.run")
        assert len(told) == warnings
        for number, record in enumerate(told, 1):
            assert record.levelno == logging.WARNING
            assert (
                f"attempt {number} of 3: ValueError: no\\nanswer; it is tried again in" in record.getMessage()
            )
            facts = vars(record)
            assert facts["duramen_run_id"] == run_id
            assert facts["duramen_workflow"] == "trying"
            assert facts["duramen_step"] == "flaky"
            assert facts["duramen_attempt"] == number
            assert facts["duramen_error"] == "ValueError: no\\nanswer"
            assert record.exc_info is None, "tracebacks are for those who log at DEBUG"
        # A cold run: another runtime replays it from its journal and brings it to its end.
        async with Runtime(url, workflows=[trying]) as runtime:
            await runtime.signal(run_id, "go", 1)
            await runtime.sweep()
            assert await runtime.result(run_id, timeout=30) == failures + 1
        assert len(kept.of("duramen.run")) == warnings


async def test_the_last_attempt_says_so_and_the_failed_run_is_one_error(url: str) -> None:
    CALLS.pop("worn", None)
    with records() as kept:
        async with Runtime(url, workflows=[trying]) as runtime:
            run = await runtime.start(trying, 99, run_id="worn")
            with pytest.raises(RunFailed):
                await runtime.result(run.run_id, timeout=30)
    told = kept.of("duramen.run")
    assert [record.levelname for record in told] == ["WARNING"] * 3 + ["ERROR"]
    assert "attempt 3 of 3" in told[2].getMessage()
    assert told[2].getMessage().endswith("no attempt is left")
    assert vars(told[3])["duramen_run_id"] == "worn"
    assert "run 'worn' (trying 1) failed: " in told[3].getMessage()


@pytest.mark.parametrize("text", ["", "plain", "a\r\nb\u2028c", "%s %d %(x)s", "x" * 5000, "\x1b[2J"])
async def test_texts_of_exceptions_stay_on_one_line_and_short(sqlite_url: str, text: str) -> None:
    with records() as kept:
        async with Runtime(sqlite_url, workflows=[failing]) as runtime:
            run = await runtime.start(failing, text)
            with pytest.raises(RunFailed):
                await runtime.result(run.run_id, timeout=30)
    (record,) = kept.of("duramen.run")
    message = record.getMessage()
    assert len(message.splitlines()) == 1
    assert len(message) < 1200
    assert message.startswith(f"run {run.run_id!r} (failing 1) failed: LookupError")


async def test_tracebacks_come_with_debug(sqlite_url: str) -> None:
    with records(logging.DEBUG, "duramen.run") as kept:
        async with Runtime(sqlite_url, workflows=[failing]) as runtime:
            run = await runtime.start(failing, "x")
            with pytest.raises(RunFailed):
                await runtime.result(run.run_id, timeout=30)
    (record,) = kept.of("duramen.run")
    assert record.exc_info is not None
    assert record.exc_info[0] is LookupError


async def test_a_stuck_run_is_one_error_with_the_reason(url: str) -> None:
    with records() as kept:
        async with Runtime(url, workflows=[changing]) as runtime:
            await runtime.start(changing, run_id="old")
            await waits(runtime, "old")
        async with Runtime(url, workflows=[changed]) as runtime:
            await runtime.signal("old", "go", 1)
            await runtime.sweep()
            with pytest.raises(RunStuck):
                await runtime.result("old", timeout=30)
    (record,) = kept.of("duramen.run")
    assert record.levelno == logging.ERROR
    assert vars(record)["duramen_run_id"] == "old"
    assert "'old'" in record.getMessage()
    assert "'new'" in record.getMessage() or "new" in vars(record)["duramen_reason"]
    assert "duramen runs retry" in record.getMessage()


async def test_a_run_that_is_taken_over_is_told_once_there(url: str, tmp_path: Path) -> None:
    """Its process is killed in a step; whoever goes on with it says so."""
    ready = tmp_path / "ready"
    child = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "tests.logging.held", url, "orphan", str(ready)], cwd=ROOT, env={**os.environ}
    )
    try:
        from tests.logging.held import held
        from tests.regressions.support import wait_until

        wait_until(ready.exists)
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        with records(logging.INFO) as kept:
            async with Runtime(url, workflows=[held, short]) as runtime:
                while (await runtime.get("orphan")).status != "completed":
                    await runtime.sweep()
                    await runtime.start(short, 1)  # something goes on meanwhile; leases end by themselves
            (record,) = kept.of("duramen.engine", "'orphan'") or kept.of("duramen.engine", "orphan")
        assert vars(record)["duramen_run_id"] == "orphan"
        assert "goes on here" in record.getMessage()
    finally:
        child.kill()
        child.wait()
