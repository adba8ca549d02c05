"""Several processes on one store."""

from duramen.testing import open_store
from duramen.testing._contract.support import new_run
from tests.store.helpers import check_file, hear, say, start, wait_for


def test_two_processes_claim_each_run_once(url: str) -> None:

    async def fill() -> None:
        store = open_store(url)
        await store.create([new_run(f"r{n:03}") for n in range(400)])
        await store.close()

    wait_for(fill())
    workers = [start("take", url, f"w{n}", limit) for n, limit in enumerate((3, 5))]
    for worker in workers:
        assert hear(worker) == "ready"
    for worker in workers:
        say(worker)
    lines = [worker.communicate(timeout=60)[0].splitlines() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    taken = [line.split()[1] for part in lines for line in part]
    assert sorted(taken) == [f"r{n:03}" for n in range(400)]
    assert {line.split()[2] for part in lines for line in part} == {"1"}
    assert all(lines), "both had their share"


def test_two_processes_open_a_new_store_at_once_and_create_each_id_once(url: str) -> None:
    workers = [start("create", url, part) for part in ("x", "y")]
    for worker in workers:
        assert hear(worker) == "ready"
    for worker in workers:
        say(worker)
    lines = [line for worker in workers for line in worker.communicate(timeout=60)[0].splitlines()]
    assert [worker.returncode for worker in workers] == [0, 0]
    created = [line.split()[1] for line in lines if line.startswith("created")]
    assert len(created) == len(set(created)) == 150
    assert sum(line.startswith("found") for line in lines) == 50
    check_file(url)
