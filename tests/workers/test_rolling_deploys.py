"""Deploys under load: runs are started all along, old workers end one by one, some of them without a word."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, RunRequest, Runtime, WorkflowDef, workflow
from tests.workers.conftest import Shop
from tests.workers.fleets import Fleet, eventually

COMMON = """
import os
from duramen import Context, Runtime, workflow
from tests.workers.app import note

def mark(run_id: str, name: str) -> str:
    note(f"{run_id} {name}")
    return name

def make() -> Runtime:
    return Runtime(os.environ["APP_URL"], workflows=WORKFLOWS, lease=1)
"""

V1 = """
@workflow(name="order", version="1")
async def order_v1(ctx: Context) -> list[str]:
    done = [await ctx.step(name, mark, ctx.run_id, name) for name in ("a1", "a2")]
    await ctx.sleep(0.2)
    return [*done, *[await ctx.step(name, mark, ctx.run_id, name) for name in ("a3", "a4")]]
"""

V2 = """
@workflow(name="order", version="2", previous=PREVIOUS)
async def order(ctx: Context) -> list[str]:
    done = [await ctx.step("b1", mark, ctx.run_id, "b1")]
    await ctx.sleep(0.2)
    return [*done, *[await ctx.step(name, mark, ctx.run_id, name) for name in ("b2", "b3", "b4")]]

WORKFLOWS = [order]
"""

# The same version with a change inside that runs under way do without.
PATCHED = """
@workflow(name="order", version="1")
async def order_v1(ctx: Context) -> list[str]:
    done = [await ctx.step(name, mark, ctx.run_id, name) for name in ("a1", "a2")]
    if ctx.patched("check"):
        done.append(await ctx.step("a2-check", mark, ctx.run_id, "a2-check"))
    await ctx.sleep(0.2)
    return [*done, *[await ctx.step(name, mark, ctx.run_id, name) for name in ("a3", "a4")]]
"""

APPS = {
    "old": f"{COMMON}{V1}\nWORKFLOWS = [order_v1]\n",
    "new": f"{COMMON}{V1}\nPREVIOUS = [order_v1]\n{V2}",
    "alone": f"{COMMON}\nPREVIOUS = []\n{V2}",
    "patched": f"{COMMON}{PATCHED}\nWORKFLOWS = [order_v1]\n",
}


@workflow(name="order", version="1")
async def old_order(ctx: Context) -> list[str]:
    """For those who enqueue."""
    raise NotImplementedError


@workflow(name="order", version="2")
async def new_order(ctx: Context) -> list[str]:
    """For those who enqueue."""
    raise NotImplementedError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in APPS.items():
        (tmp_path / f"app_{name}.py").write_text(code)
    return tmp_path


def worker(shop: Shop, folder: Path, app: str) -> Fleet:
    """One process with that code; `ready` says when it works."""
    return shop.fleet(app=f"app_{app}:make", PYTHONPATH=str(folder))


class Client:
    """Starts runs all along, of whichever definition it has just then."""

    def __init__(self, url: str, definition: WorkflowDef[Any, Any]) -> None:
        self.definition = definition
        self.ids: dict[str, list[str]] = defaultdict(list)
        self.end = threading.Event()
        self._url = url

    async def work(self) -> None:
        async with (
            Runtime(self._url, workflows=[old_order]) as old,
            Runtime(self._url, workflows=[new_order]) as new,
        ):
            while not self.end.is_set():
                definition = self.definition
                runtime = old if definition is old_order else new
                ids = [f"{definition.version}-{self.count() + n}" for n in range(3)]
                await runtime.enqueue_many([RunRequest(definition, run_id=run_id) for run_id in ids])
                self.ids[definition.version] += ids
                await asyncio.sleep(0.2)

    def count(self) -> int:
        """How many there are."""
        return sum(len(ids) for ids in self.ids.values())

    def more(self, number: int = 12) -> None:
        """Wait until so many more runs were started."""
        wanted = self.count() + number
        eventually(lambda: self.count() >= wanted)


@contextmanager
def client(url: str, definition: WorkflowDef[Any, Any]) -> Iterator[Client]:
    made = Client(url, definition)
    thread = threading.Thread(target=lambda: asyncio.run(made.work()))
    thread.start()
    try:
        yield made
    finally:
        made.end.set()
        thread.join(30)


def all_completed(url: str, count: int) -> None:
    """Wait until so many runs have, and no other one is left."""

    async def wait() -> None:
        async with Runtime(url) as runtime, asyncio.timeout(60):
            while await runtime.count(status="completed") < count:  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.1)
            assert await runtime.count() == count

    asyncio.run(wait())


def check(shop: Shop, ids: dict[str, list[str]], expected: dict[str, list[list[str]]]) -> None:
    """All runs completed with what one code of their version does; nothing ran again after its record."""

    async def look() -> None:
        async with Runtime(shop.url) as runtime:
            for version, run_ids in ids.items():
                for view in await runtime.get_many(run_ids):
                    assert view is not None
                    assert (view.status, view.version) == ("completed", version), view
                    assert view.output in expected[version], view
                    journal = await runtime.timeline(view.run_id)
                    done = [entry.op for entry in journal if entry.kind == "step_completed"]
                    assert done == view.output

    asyncio.run(look())
    furthest: dict[str, str] = {}
    for line in shop.lines:
        run_id, _, name = line.partition(" ")
        # The names of a run's steps are in the order of the alphabet.
        assert name >= furthest.get(run_id, ""), f"{run_id}: {name} after {furthest[run_id]}"
        furthest[run_id] = name


def test_old_and_new_versions_side_by_side(any_shop: Shop, folder: Path) -> None:
    shop = any_shop
    old = [worker(shop, folder, "old").ready(1) for _ in range(3)]
    with client(shop.url, old_order) as starting:
        starting.more()
        new = [worker(shop, folder, "new").ready(1)]
        starting.more()
        assert old[0].end() == 0
        # From now on new runs are of the new version, while old ones are under way.
        starting.definition = new_order
        starting.more()
        old[1].process.kill()
        new.append(worker(shop, folder, "new").ready(1))
        starting.more()
        # One of the new ones has no luck either.
        new[0].process.kill()
        starting.more()
        assert old[2].end() == 0
        starting.more()
    assert all(starting.ids[version] for version in ("1", "2"))
    all_completed(shop.url, starting.count())
    assert new[1].end() == 0
    expected = {"1": [["a1", "a2", "a3", "a4"]], "2": [["b1", "b2", "b3", "b4"]]}
    check(shop, starting.ids, expected)


def test_a_patch_takes_the_place_of_code_under_load(any_shop: Shop, folder: Path) -> None:
    shop = any_shop
    old = [worker(shop, folder, "old").ready(1) for _ in range(3)]
    with client(shop.url, old_order) as starting:
        starting.more()
        # Code without the question does not know what the one with it has done: it ends first.
        assert old[0].end() == 0
        old[1].process.kill()
        old[2].process.send_signal(signal.SIGKILL)
        for gone in old[1:]:
            gone.wait()
        new = [worker(shop, folder, "patched").ready(1) for _ in range(2)]
        starting.more()
        new[0].process.kill()
        starting.more()
    all_completed(shop.url, starting.count())
    assert new[1].end() == 0
    without, with_it = ["a1", "a2", "a3", "a4"], ["a1", "a2", "a2-check", "a3", "a4"]
    check(shop, starting.ids, {"1": [without, with_it]})
    did = {line.partition(" ")[2] for line in shop.lines}
    assert "a2-check" in did


def test_new_code_without_the_old_leaves_old_runs_alone(any_shop: Shop, folder: Path) -> None:
    shop = any_shop
    new = worker(shop, folder, "alone").ready(1)
    ids = shop.enqueue(old_order, 5, prefix="old")
    fresh = shop.enqueue(new_order, 5, prefix="new")
    eventually(lambda: shop.all_are(fresh, "completed"))
    assert shop.all_are(ids, "queued")
    code, found = versions(shop.url)
    assert code == 1
    assert found["1"] | {"workers": [], "oldest": None} == {
        "workflow": "order",
        "version": "1",
        "counts": {"queued": 5},
        "oldest": None,
        "queues": ["default"],
        "newer": 0,
        "registered": False,
        "current": False,
        "workers": [],
        "runs": 5,
        "served": False,
        "removable": False,
    }
    later = worker(shop, folder, "new").ready(1)
    eventually(lambda: shop.all_are(ids, "completed"))
    assert versions(shop.url) == (0, {})
    assert new.end() == later.end() == 0


def versions(url: str) -> tuple[int, dict[str, Any]]:
    """What `duramen versions` says: its exit code, and what it knows of each version."""
    command = [sys.executable, "-c", "from duramen.cli import main; main()", "versions", url, "--json"]
    ran = subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)
    return ran.returncode, {one["version"]: one for one in json.loads(ran.stdout)}
