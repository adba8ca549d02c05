"""What workers with nothing to do cost."""

import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.postgres.wire import wire
from tests.workers.app import quick
from tests.workers.conftest import Shop
from tests.workers.fleets import eventually

SECONDS = 4


def cpu_seconds(pid: int) -> float:
    """The processor time that the threads of a process have used so far."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text("utf-8").split()[0]) for thread in threads) / 1e9


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processor time is read from /proc")
def test_an_idle_worker_uses_less_than_one_percent_of_a_core_and_two_requests_a_second(
    postgres_shop: Shop,
) -> None:
    shop, parts = postgres_shop, urlsplit(postgres_shop.url)
    assert parts.port is not None
    with wire(parts.port) as proxy:
        through = parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{proxy.port}").geturl()
        ids = shop.enqueue(quick, 5, 0)
        # Three heartbeats in a lease come on top; a second is the tests' lease, half a minute that of others.
        fleet = shop.fleet("--processes", "2", APP_URL=through, APP_LEASE="30").ready(2)
        eventually(lambda: shop.all_are(ids, "completed"))
        time.sleep(2)  # their last polls are not yet far apart
        pids = [fleet.process.pid, *fleet.pids]
        before, requests = [cpu_seconds(pid) for pid in pids], proxy.requests
        time.sleep(SECONDS)
        used = [
            (after - start) / SECONDS for start, after in zip(before, map(cpu_seconds, pids), strict=True)
        ]
        each = (proxy.requests - requests) / SECONDS / 2
        print(f"share of a core: supervisor {used[0]:.2%}, workers {used[1]:.2%} {used[2]:.2%}")
        print(f"requests a second of each worker: {each:.2f}")
        assert 0 < max(used) < 0.01
        assert 0.2 < each <= 2
        assert fleet.end() == 0
