"""Waiting for the ends of runs: what it costs the store, however many wait."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from duramen import RunCancelled, RunFailed, RunTerminated, Runtime
from duramen.errors import RuntimeClosed, UnknownRun
from duramen.testing import open_store
from duramen.testing._wrapped_store import WrappedStore
from tests.runtime.workflows import ALL, adding, failing, waiting

pytestmark = pytest.mark.anyio
CALLERS = 200
READS = ("get", "load", "standing", "list", "count")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Counting(WrappedStore):
    """A store whose calls are counted."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()

    async def call(self, method: str, *args: Any) -> Any:
        self.calls[method] += 1
        if method in {"get", "standing"}:
            self.asked[method] += len(args[0])
        return await super().call(method, *args)

    @property
    def reads(self) -> int:
        return sum(self.calls[method] for method in READS)


class Both(NamedTuple):
    """A runtime that drives, and one that only waits; the calls of the store of each are counted."""

    drives: Runtime
    waits: Runtime
    driving: Counting
    waiting: Counting


@asynccontextmanager
async def two() -> AsyncGenerator[Both]:
    store = open_store("memory://")
    driving, waiting = Counting(store), Counting(store)
    async with Runtime(driving, workflows=ALL) as drives, Runtime(waiting, workflows=ALL) as waits:
        yield Both(drives, waits, driving, waiting)


async def callers(
    runtime: Runtime, store: Counting, run_ids: list[str], count: int = CALLERS
) -> list[asyncio.Task[Any]]:
    """So many calls of `result`, all of which have asked how their runs stand, and wait."""
    before = store.asked["get"]
    tasks = [asyncio.create_task(runtime.result(run_ids[n % len(run_ids)])) for n in range(count)]
    async with asyncio.timeout(20):
        while store.asked["get"] < before + count:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.005)
    return tasks


@pytest.mark.parametrize("runs", [1, 50])
async def test_many_who_wait_for_runs_of_others_share_one_look(runs: int) -> None:
    async with two() as (drives, waits, _, store):
        ids = [(await drives.start(waiting, "go")).run_id for _ in range(runs)]
        tasks = await callers(waits, store, ids)
        store.calls.clear()
        begun = asyncio.get_running_loop().time()
        await asyncio.sleep(1.5)  # looks are counted over a length of time
        took = asyncio.get_running_loop().time() - begun
        # Ten looks a second at the most, and not one read of what they do not ask for.
        assert store.reads <= 10 * took + 1
        assert not store.calls["get"]
        store.calls.clear()
        await drives.signal_many([(run_id, "go", "on") for run_id in ids])
        assert await asyncio.wait_for(asyncio.gather(*tasks), 10) == ["on"] * CALLERS
        # Each reads its result once.
        assert store.asked["get"] <= 2 * CALLERS + runs


async def test_ends_of_runs_driven_here_are_told_without_any_read() -> None:
    store = Counting(open_store("memory://"))
    async with Runtime(store, workflows=ALL) as runtime:
        runs = [await runtime.start(adding, n) for n in range(CALLERS)]
        assert await asyncio.gather(*[run.result(10) for run in runs]) == [n + 1 for n in range(CALLERS)]
        # Only what had ended before it was asked for is read.
        late = store.calls["get"]
        run = await runtime.start(waiting, "go", run_id="w")
        for _ in range(1000):
            if (await run.get()).status == "waiting":
                break
            await asyncio.sleep(0.005)
        tasks = await callers(runtime, store, ["w"])
        store.calls.clear()
        await run.signal("go", "on")
        assert await asyncio.wait_for(asyncio.gather(*tasks), 10) == ["on"] * CALLERS
        assert not store.calls["get"]
        assert late <= CALLERS


@pytest.mark.parametrize("here", [True, False])
async def test_every_end_is_told(here: bool) -> None:
    async with two() as (drives, waits, driving, elsewhere):
        asked = (drives, driving) if here else (waits, elsewhere)
        for run_id, workflow, given in (
            ("fails", failing, "no"), ("cancelled", waiting, "go"),
            ("terminated", waiting, "go"), ("deleted", waiting, "go"),
        ):  # fmt: skip
            await drives.start(workflow, given, run_id=run_id)
        tasks = await callers(*asked, ["fails", "cancelled", "terminated", "deleted"], 4)
        await drives.cancel("cancelled")
        await drives.terminate("terminated")
        await drives.delete("deleted", force=True)
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert [type(each) for each in found] == [RunFailed, RunCancelled, RunTerminated, UnknownRun]


async def test_who_waits_is_told_that_the_runtime_was_closed() -> None:
    async with two() as (drives, waits, _, store):
        await drives.start(waiting, "go", run_id="w")
        (task,) = await callers(waits, store, ["w"], 1)
        await waits.close()
        with pytest.raises(RuntimeClosed):
            await asyncio.wait_for(task, 5)


async def test_nothing_is_asked_for_those_who_stopped_waiting() -> None:
    async with two() as (drives, waits, _, store):
        await drives.start(waiting, "go", run_id="w")
        tasks = await callers(waits, store, ["w"], 20)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(TimeoutError):
            await waits.result("w", timeout=0.05)
        await asyncio.sleep(0.2)  # a look that was under way
        store.calls.clear()
        await asyncio.sleep(1.2)  # time for a look that nobody asked for
        assert not store.reads
