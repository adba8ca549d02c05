"""What workers with nothing to do cost."""

import sys
import time
from pathlib import Path

import pytest

from tests.workers.app import quick
from tests.workers.conftest import Shop
from tests.workers.fleets import eventually

SECONDS = 5


def cpu_seconds(pid: int) -> float:
    """The processor time that the threads of a process have used so far."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text("utf-8").split()[0]) for thread in threads) / 1e9


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processor time is read from /proc")
def test_idle_workers_and_their_supervisor_use_less_than_one_percent_of_a_core(postgres_shop: Shop) -> None:
    ids = postgres_shop.enqueue(quick, 5, 0)
    fleet = postgres_shop.fleet("--processes", "2").ready(2)
    eventually(lambda: postgres_shop.all_are(ids, "completed"))
    time.sleep(1.5)  # their last polls are not yet far apart
    pids = [fleet.process.pid, *fleet.pids]
    before = [cpu_seconds(pid) for pid in pids]
    time.sleep(SECONDS)
    used = [(after - start) / SECONDS for start, after in zip(before, map(cpu_seconds, pids), strict=True)]
    print(f"share of a core: supervisor {used[0]:.2%}, workers {used[1]:.2%} {used[2]:.2%}")
    assert 0 < max(used) < 0.01
    assert fleet.end() == 0
