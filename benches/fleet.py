"""Throughput of worker processes: runs that wait in the store are drained by one, two and four of them."""

import asyncio
import contextlib
import time
from typing import Any

import flows
import w3
from harness import Bench, in_parallel, last_end, run, until_count

from duramen import RunRequest

CONCURRENCY = 256


WORKFLOWS = (flows.one_step, flows.ten_steps, flows.waiter)


async def fleet(bench: Bench, processes: int) -> None:
    """One-step runs, ten-step runs, then events: each from the moment at which all are there."""
    name = f"fleet-{processes}.db"
    async with bench.runtime(*WORKFLOWS, name=name) as runtime, contextlib.AsyncExitStack() as stack:
        for _ in range(processes):
            stack.push(w3.worker(bench, name, __file__))
        await asyncio.sleep(1.5)
        await drained(
            bench, runtime, flows.one_step, bench.count(12_000, 200), f"runs_per_s_{processes}proc", 1
        )
        await drained(
            bench, runtime, flows.ten_steps, bench.count(3_000, 50), f"steps_per_s_{processes}proc", 10
        )
        await events(bench, runtime, bench.count(2_000, 100), processes)


async def drained(bench: Bench, runtime: Any, flow: Any, count: int, metric: str, each: int) -> None:
    at = time.time() + bench.count(2, 1)
    from datetime import UTC, datetime

    start = datetime.fromtimestamp(at, UTC)
    done = await runtime.count(status="completed")
    await runtime.enqueue_many([RunRequest(flow, start_at=start) for _ in range(count)])
    late = time.time() - at
    await asyncio.sleep(max(0.0, -late))
    await until_count(runtime, done + count, within=60, pause=0.05, status="completed")
    taken = await last_end(runtime) - at
    bench.emit(
        metric,
        each * count / taken,
        each * count,
        f"{count} runs due at one instant; written {-late:.1f} s before",
    )


async def events(bench: Bench, runtime: Any, count: int, processes: int) -> None:
    ids = [f"waiter-{number}" for number in range(count)]
    done = await runtime.count(status="completed")
    await runtime.enqueue_many(RunRequest(flows.waiter, run_id=run_id) for run_id in ids)
    await until_count(runtime, count, within=30, status="waiting")
    began = time.time()
    await in_parallel(count, 64, lambda number: runtime.signal(ids[number], "go", {"i": number}))
    await until_count(runtime, done + count, within=30, status="completed")
    taken = await last_end(runtime) - began
    bench.emit(
        f"events_per_s_{processes}proc", count / taken, count, "sent by a process of its own, 64 at a time"
    )


async def main(bench: Bench) -> None:
    if bench.extra:
        async with bench.runtime(*WORKFLOWS, name=bench.extra[1]) as runtime:
            await runtime.work(concurrency=CONCURRENCY)
        return
    if bench.store == "memory":
        return  # a store in memory has one process
    for processes in (1, 2, 4):
        await fleet(bench, processes)


if __name__ == "__main__":
    run("fleet", main)
