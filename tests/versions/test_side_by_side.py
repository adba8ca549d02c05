"""Workers of this build and of a newer one on one store, in processes of their own.

The newer build records values with encoding 2, which this one does not read.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from duramen import Runtime
from duramen.store import NewRun, Store
from tests.versions.app import plain, valued
from tests.versions.conftest import Street
from tests.workers.fleets import Fleet, eventually

# The first of them builds the newer extension: half a minute, or twice that if it shares nothing.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SAID = "need a newer duramen"


def encodings(history: Any) -> list[int]:
    return [entry["encoding"] for entry in history["journal"]]


def start_newer(newer: Path, street: Street, run_ids: list[str]) -> None:
    """Enqueue runs of `valued` from a client of the newer build."""
    code = (
        "import asyncio, sys\n"
        "from duramen import Runtime, RunRequest\n"
        "from duramen._bridge import ENCODING\n"
        "from tests.versions.app import valued\n"
        "async def main():\n"
        "    assert ENCODING == 2\n"
        "    async with Runtime(sys.argv[1], workflows=[valued]) as runtime:\n"
        "        await runtime.enqueue_many([RunRequest(valued, run_id=each) for each in sys.argv[2:]])\n"
        "asyncio.run(main())\n"
    )
    run(newer, "-c", code, street.url, *run_ids)


def run(packages: Path | None, *arguments: str) -> str:
    """Run Python with the packages of a build; gives what it printed."""
    environment = {**os.environ, **({} if packages is None else {"PYTHONPATH": str(packages)})}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def duramen(*arguments: str) -> str:
    """The command line of this build."""
    return run(None, "-c", "from duramen.cli import main; main()", *arguments)


def test_runs_with_recorded_values_go_to_the_newer_build_and_the_others_are_shared(
    street: Street, newer: Path
) -> None:
    older = street.older_worker()
    begun_older = street.enqueue(valued, 3, prefix="begun-older")
    eventually(lambda: street.all_are(begun_older, "waiting"))
    assert {street.rows()[run_id]["format"] for run_id in begun_older} == {1}
    assert older.end() == 0

    # The newer build begins some, and goes on with those of the older one.
    first = street.newer_worker()
    begun_newer = [f"begun-newer:{n}" for n in range(3)]
    start_newer(newer, street, begun_newer)
    eventually(lambda: street.all_are(begun_newer, "waiting"))
    runs = [*begun_older, *begun_newer]
    street.signal(runs, "after-one")
    eventually(lambda: all(street.rows()[one]["waits"] == ["event:after-two"] for one in runs))
    assert {street.rows()[run_id]["format"] for run_id in runs} == {2}

    # Both at once, with more to do than either can take.
    again = street.older_worker()
    street.signal(runs, "after-two")
    shared = street.enqueue(plain, 12)
    eventually(lambda: sum(status == "running" for status in street.runs().values()) == 16)
    formats = {name: owner["format"] for name, owner in street.owners().items()}
    driven: dict[str, set[int]] = {"valued": set(), "plain": set()}
    for row in street.rows().values():
        if row["owner"] is not None:
            driven[row["workflow"]].add(formats[row["owner"]])
    assert driven["valued"] <= {2}
    assert driven["plain"] >= {1}
    street.open_gate()
    eventually(lambda: street.all_are([*runs, *shared], "completed"))
    assert again.end() == first.end() == 0

    for run_id in runs:
        told = encodings(street.history(run_id))
        # What the newer one wrote comes behind what the older one did, and nothing of that behind it.
        did = street.done_by(run_id)
        begun = "older" if run_id in begun_older else "newer"
        assert did == {"one": begun, "two": "newer", "three": "newer", "held": "newer"}
        assert max(told) == 2
    for run_id in shared:
        assert set(encodings(street.history(run_id))) == {1}
        assert street.rows()[run_id]["format"] == 1
        assert len(street.done_by(run_id)) == 3
    assert {street.done_by(run_id)["held"] for run_id in shared} == {"older", "newer"}
    # Read by the older one: what the newer one finished.
    last = ["newer"] * 3
    assert street.here(lambda runtime: runtime.result(begun_older[0])) == ["older", *last]


def test_a_run_whose_format_rises_while_the_older_build_drives_it_is_let_go(street: Street) -> None:
    older = street.older_worker()
    (run_id,) = street.enqueue(plain, 1)
    eventually(lambda: f"older {run_id}/held" in street.lines)
    owner = street.rows()[run_id]["owner"]
    assert street.send_newer(run_id) == "buffered"
    assert street.rows()[run_id]["format"] == 2
    # The step in flight is brought to its end and recorded, and nothing begins after it.
    eventually(lambda: SAID in older.errors)
    street.open_gate()
    eventually(lambda: street.rows()[run_id]["status"] != "running")
    row = street.rows()[run_id]
    assert (row["status"], row["owner"], row["format"]) == ("waiting", None, 2)
    journal = street.history(run_id)["journal"]
    assert [entry["op"] for entry in journal if entry["kind"] == "step_completed"] == ["one", "held"]
    assert owner in street.owners()
    assert street.owners()[str(owner)]["ended_at"] is None

    newer = street.newer_worker()
    eventually(lambda: street.all_are([run_id], "completed"))
    assert street.done_by(run_id) == {"one": "older", "held": "older", "last": "newer"}
    assert older.errors.count(SAID) == 1
    assert older.end() == newer.end() == 0
    assert street.here(lambda runtime: runtime.result(run_id)) == ["older", "older", "newer"]


def brought(run_id: str) -> NewRun:
    """A run that brings a journal with an entry of a kind that no build knows yet."""
    return {
        "run_id": run_id,
        "workflow": "plain",
        "version": "1",
        "queue": "default",
        "priority": 5,
        "input": b"null",
        "entries": [
            {
                "encoding": 2,
                "kind": {"unknown": 200},
                "op": "answer",
                "meta": "[3]",
                "payload": b"\xff\x00",
                "at": 1_700_000_000_000,
            }
        ],
        "started_at": None,
        "start": {"kind": "queued", "at": None},
        "tags": [],
        "memo": None,
        "timeout": None,
        "seed": [7] * 16,
        "parent": None,
        "root": None,
        "origin": "import",
        "now": None,
    }


def alone(street: Street) -> tuple[Fleet, list[str]]:
    """Runs that need the newer build, and a worker of the older one that has done what it can."""
    runs = street.enqueue(plain, 2)
    for run_id in runs:
        assert street.send_newer(run_id) in {"buffered", "delivered"}

    async def bring(store: Store) -> None:
        (created,) = await store.create([brought("brought")])
        assert created["kind"] == "created"

    street.in_store(bring)
    street.open_gate()
    older = street.older_worker()
    eventually(lambda: SAID in older.errors)
    done = street.enqueue(plain, 1, prefix="own")
    eventually(lambda: street.all_are(done, "completed"))
    assert set(street.done_by(done[0]).values()) == {"older"}
    return older, runs


def test_an_older_build_alone_leaves_them_waiting_and_does_with_them_what_it_can(street: Street) -> None:
    older, (goes_on, cancelled) = alone(street)
    rows = street.rows()
    for run_id in (goes_on, cancelled, "brought"):
        assert (rows[run_id]["status"], rows[run_id]["format"]) == ("queued", 2)
        assert (rows[run_id]["owner"], rows[run_id]["epoch"], rows[run_id]["note"]) == (None, 0, None)

    async def use(runtime: Runtime) -> None:
        assert (await runtime.get(goes_on)).status == "queued"
        listed = {run.run_id for run in await runtime.list(status="queued")}
        assert listed == {goes_on, cancelled, "brought"}
        created, unknown = await runtime.timeline("brought")
        assert (created.kind, unknown.kind, unknown.op) == ("run_created", "kind 200", "answer")
        exported = await runtime.export("brought")
        assert (exported["journal"][1]["kind"], exported["journal"][1]["encoding"]) == ("kind 200", 2)
        assert (await runtime.signal(goes_on, "go", 1)) is not None
        await runtime.cancel(cancelled, "not wanted")
        with pytest.raises(TimeoutError):
            await runtime.result(goes_on, timeout=0.2)

    street.here(use)
    shown = json.loads(duramen("runs", "show", "brought", "--store", street.url, "--json"))
    assert shown["status"] == "queued"
    assert "brought" in duramen("runs", "show", "brought", "--store", street.url)
    assert "kind 200" in duramen("runs", "timeline", "brought", "--store", street.url)
    assert "brought" in duramen("runs", "list", "--store", street.url)

    # Said once, however long they wait.
    assert older.errors.count(SAID) == 1
    newer = street.newer_worker()
    eventually(lambda: street.all_are([goes_on], "completed") and street.all_are([cancelled], "cancelled"))
    assert set(street.done_by(goes_on).values()) == {"newer"}
    # To the newer build this one is damaged: it has the encoding and no such kind.
    eventually(lambda: street.all_are(["brought"], "stuck"))
    assert older.end() == newer.end() == 0
    assert street.here(lambda runtime: runtime.result(goes_on)) == ["newer"] * 3
    assert older.errors.count(SAID) == 1
