"""Runs under load while something breaks, and an account of what happened outside of the store.

Each attempt of a step begins with a row in a ledger, an SQLite file that no crash of Postgres touches, and
returns that row's number. Of the attempts of one step the journal keeps one; none may have begun after it.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from duramen import Context, RunRequest, Runtime, RunView, step_context, workflow
from duramen.errors import StoreError
from tests.regressions.support import Child

STEPS = 4


@contextmanager
def ledger(path: str | Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def new_ledger(path: str | Path) -> None:
    with ledger(path) as book:
        book.execute("PRAGMA journal_mode = WAL")
        book.execute("CREATE TABLE attempts (number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL)")


def attempts(path: str | Path) -> dict[str, list[int]]:
    """The numbers of the attempts of each step, by its idempotency key."""
    found: dict[str, list[int]] = {}
    with ledger(path) as book:
        for number, key in book.execute("SELECT number, key FROM attempts ORDER BY number"):
            found.setdefault(key, []).append(number)
    return found


def begin(path: str) -> int:
    with ledger(path) as book:
        book.execute(
            "PRAGMA synchronous = OFF"
        )  # the machine does not fail here, only processes and Postgres
        key = step_context().idempotency_key
        number = book.execute("INSERT INTO attempts (key) VALUES (?) RETURNING number", (key,)).fetchone()[0]
        return int(number)


async def attempt(path: str) -> int:
    number = begin(path)
    await asyncio.sleep(0.005)
    return number


@workflow
async def order(ctx: Context, path: str) -> list[int]:
    """Steps one after another and at once, a timer, and a message."""
    done = [await ctx.step("one", attempt, path)]
    await ctx.sleep(0.05)
    done += await asyncio.gather(ctx.step("two", attempt, path), ctx.step("three", attempt, path))
    await ctx.wait_for_event("go")
    return [*done, await ctx.step("four", attempt, path)]


async def work(url: str, lease: float, options: dict[str, Any]) -> None:
    """A worker process: works until it is killed, whatever the store does meanwhile."""
    logging.disable(logging.CRITICAL)
    async with Runtime(url, workflows=[order], lease=lease, **options) as runtime:
        await runtime.work(poll_min=0.02, poll_max=0.2)


def worker(url: str, *, lease: float = 2, **options: Any) -> Child:
    return Child(work, url, lease, options)


async def insist(call: Callable[[], Any], seconds: float = 30) -> Any:
    """Call until the store answers, as a caller does whose request may have been lost."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await call()
            except StoreError:
                await asyncio.sleep(0.05)


async def submit(runtime: Runtime, path: str, count: int) -> list[str]:
    """Enqueue runs: the first half gets its message now, the others wait for `release`."""
    ids = [f"order:{number}" for number in range(count)]
    requests = [RunRequest(order, path, run_id=run_id) for run_id in ids]
    await insist(lambda: runtime.enqueue_many(requests))
    await insist(lambda: runtime.signal_many([(run_id, "go", None, "go") for run_id in ids[: count // 2]]))
    return ids


async def release(runtime: Runtime, ids: list[str]) -> None:
    await insist(lambda: runtime.signal_many([(run_id, "go", None, "go") for run_id in ids]))


async def in_progress(runtime: Runtime) -> int:
    """How many runs have begun and not ended."""
    return int(await insist(lambda: runtime.count(status=["running", "waiting"])))


async def all_end(runtime: Runtime, ids: list[str], seconds: float = 60) -> None:
    """Wait for the end of all; says which did not end."""

    async def open_runs() -> list[RunView]:
        views = [await runtime.get(run_id) for run_id in ids]
        return [view for view in views if not view.finished]

    left: list[RunView] = []
    try:
        async with asyncio.timeout(seconds):
            while left := await insist(open_runs):  # noqa: ASYNC110 - other processes drive them
                await asyncio.sleep(0.2)
    except TimeoutError:
        told = [(view.run_id, str(view.status), view.note, view.ready_at) for view in left]
        raise AssertionError(f"{len(left)} of {len(ids)} runs did not end: {told[:5]}") from None


async def check(runtime: Runtime, ids: list[str], path: str) -> int:
    """Nothing lost, nothing stuck, no step begun again after its result was kept. Gives the repetitions."""
    begun = attempts(path)
    keys = {f"{run_id}/{op}" for run_id in ids for op in ("one", "two", "three", "four")}
    assert begun.keys() == keys, "a step is missing, or was begun under another key"
    for run_id in ids:
        view = await runtime.get(run_id)
        assert view.status == "completed", (run_id, view.status, view.note, view.error)
        kept = {
            event.op: event.data for event in await runtime.timeline(run_id) if event.kind == "step_completed"
        }
        assert len(kept) == STEPS
        for op, number in kept.items():
            last = begun[f"{run_id}/{op}"][-1]
            assert last == number, f"{run_id}/{op} began again ({last}) after its result ({number}) was kept"
        assert view.output == [kept[op] for op in ("one", "two", "three", "four")]
    return sum(len(numbers) - 1 for numbers in begun.values())
