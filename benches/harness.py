"""What the workloads share: arguments, JSON lines, stores, percentiles, waiting.

A figure is one JSON line on stdout, ``{peer, store, workload, metric, value, n, note}``; ``run.py`` collects
them. A workload is a program of its own, so that nothing of one warms up, or slows down, the next.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

POSTGRES = "DURAMEN_BENCH_POSTGRES_URL"
"""Where run.py says which server is measured."""

PGBENCH = "DURAMEN_BENCH_PGBENCH"
"""The load generator of that server."""

PEER = "ours"
BARE = "baseline"
"""Whose lines the bare limits are: the machine's, not ours."""


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` percent of the others are.

    >>> percentile([3.0, 1.0, 2.0], 50)
    2.0
    """
    ordered = sorted(values)
    place = round(share / 100 * (len(ordered) - 1))
    return ordered[min(len(ordered) - 1, max(0, place))]


def median(values: list[float]) -> float:
    return percentile(values, 50)


def emit(
    store: str, workload: str, metric: str, value: float | None, n: int, note: str = "", peer: str = PEER
) -> None:
    """Print one figure. `None` says that it was tried and failed."""
    if isinstance(value, float):
        value = float(f"{value:.6g}")
    line = {
        "peer": peer,
        "store": store,
        "workload": workload,
        "metric": metric,
        "value": value,
        "n": n,
        "note": note,
    }
    print(json.dumps(line), flush=True)


@dataclass(slots=True)
class Bench:
    """One workload's run: where its store is, how much to do, where its figures go."""

    workload: str
    store: str
    folder: Path
    quick: bool
    extra: list[str]

    def emit(self, metric: str, value: float | None, n: int, note: str = "") -> None:
        emit(self.store, self.workload, metric, value, n, note)

    def count(self, normal: int, quick: int) -> int:
        """How often to do something."""
        return quick if self.quick else normal

    def path(self, name: str = "bench.db") -> Path:
        return self.folder / name

    def schema(self, name: str = "bench.db") -> str:
        """The Postgres schema for a store of that name."""
        return "b_" + hashlib.sha256(str(self.path(name)).encode()).hexdigest()[:16]

    def url(self, name: str = "bench.db") -> str:
        """A store of that name; the same name is the same store."""
        if self.store == "postgres":
            server = os.environ[POSTGRES]
            return f"{server}{'&' if '?' in server else '?'}schema={self.schema(name)}"
        return f"memory://{name}" if self.store == "memory" else f"sqlite:///{self.path(name)}"

    def runtime(self, *workflows: Any, name: str = "bench.db", **options: Any) -> Any:
        from duramen import Runtime

        return Runtime(self.url(name), workflows=workflows, migrate=True, **options)

    def wal(self) -> int:
        """Bytes of the write-ahead log so far; 0 where there is none to ask for."""
        if self.store != "postgres":
            return 0
        import psycopg

        with psycopg.connect(os.environ[POSTGRES], autocommit=True) as connection:
            found = connection.execute(
                "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')"
            ).fetchone()
        return int(found[0]) if found else 0

    def emit_costs(
        self, tag: str, before: dict[str, int], after: dict[str, int], wal: int, count: int
    ) -> None:
        """What each of `count` runs cost the store, by its own counters."""
        for name in ("commits", "batches", "statements", "round_trips"):
            if name in after:
                metric = {"statements": "sql_statements"}.get(name, name)
                self.emit(f"{metric}_per_run_{tag}", (after[name] - before[name]) / count, count)
        if self.store == "postgres":
            self.emit(
                f"wal_bytes_per_run_{tag}", (self.wal() - wal) / count, count, "all that the server wrote"
            )


def parse(workload: str, arguments: list[str] | None = None) -> Bench:
    parser = argparse.ArgumentParser(description=f"Workload {workload}; usually started by run.py.")
    parser.add_argument("--store", choices=("sqlite", "postgres", "memory"), default="sqlite")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for the store's files")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("extra", nargs="*", help="for a workload's own further processes")
    given = parser.parse_args(arguments)
    return Bench(workload, given.store, given.folder, given.quick, given.extra)


def run(workload: str, main: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    """The whole of a workload's program."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    bench = parse(workload)
    gc.collect()
    asyncio.run(main(bench))


async def in_parallel(count: int, width: int, call: Callable[[int], Awaitable[Any]]) -> float:
    """Make `count` calls, `width` at a time, the next as soon as one is over. Seconds taken."""
    numbers = iter(range(count))

    async def caller() -> None:
        for number in numbers:
            await call(number)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(width)))
    return time.perf_counter() - began


async def until_count(
    runtime: Any, expected: int, *, within: float, pause: float = 0.02, **wanted: Any
) -> None:
    """Wait until so many runs fit the filter.

    Raises:
        TimeoutError: not in time; the text says how far it came.
    """
    end = time.monotonic() + within
    while (found := await runtime.count(**wanted)) < expected:
        if time.monotonic() > end:
            raise TimeoutError(f"{found} of {expected} runs are {wanted} after {within:g} s")
        await asyncio.sleep(pause)


async def last_end(runtime: Any) -> float:
    """When the last of all runs ended: seconds since the epoch, to the millisecond, by the store's clock."""
    latest = 0.0
    cursor = None
    while True:
        page = await runtime.list(status="completed", limit=1000, cursor=cursor)
        latest = max([latest, *(run.finished_at.timestamp() for run in page.items)])
        cursor = page.cursor
        if cursor is None:
            return latest


class Working:
    """A worker in this process for the length of an `async with`."""

    def __init__(self, runtime: Any, **options: Any) -> None:
        self.runtime = runtime
        self.options = options
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self.task = asyncio.create_task(self.runtime.work(handle_signals=False, **self.options))
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled() and (error := self.task.exception()) is not None:
            raise error
