"""A worker is killed while a step tells of its progress: the next process goes on from there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from duramen import Runtime
from tests.faults import progress_app
from tests.regressions.support import notes, until, until_true

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def started(*arguments: str) -> subprocess.Popen[bytes]:
    """The program, driving a run."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'python'}:{ROOT}"}
    return subprocess.Popen([sys.executable, progress_app.__file__, *arguments], env=environment)


@pytest.mark.parametrize("workflow", ["threads", "processes"])
async def test_the_next_process_goes_on_from_the_progress_of_one_that_was_killed(
    url: str, workflow: str, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    worker = started(url, workflow, str(ledger))
    try:
        async with Runtime(url, workflows=[progress_app.threads, progress_app.processes], lease=1) as runtime:

            async def has_told() -> bool:
                found = await runtime.get_many(["r"])
                if found[0] is None:
                    return False
                return any(each.kind == "step_progress" for each in await runtime.timeline("r"))

            await until(has_told)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            first = notes(ledger)[0].split()
            # Also the process of a step that was counting ends with the worker that is gone.
            await until_true(lambda: is_gone(int(first[1])))
            told = [each.data for each in await runtime.timeline("r") if each.kind == "step_progress"]
            await until(lambda: sweep_once(runtime))
            begun, counted = await runtime.result("r", timeout=60)
    finally:
        worker.kill()
        worker.wait()
    assert first[0] == "0"
    assert begun == told[-1] >= 1
    assert counted == max(3, begun)
    assert [line.split()[0] for line in notes(ledger)] == ["0", str(begun)]


async def sweep_once(runtime: Runtime) -> bool:
    """Take the run over once the lease of the one that was killed has ended."""
    return bool((await runtime.sweep()).recovered)
