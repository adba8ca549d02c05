"""W3: runs asleep until the same instant, with one and with two workers."""

import asyncio
import contextlib
import subprocess
import sys
import time

import flows
from harness import Bench, Working, last_end, run, until_count

CONCURRENCY = 1000


async def sleepers(bench: Bench, processes: int) -> None:
    name = f"w3-{processes}.db"
    count = bench.count(2000, 100)
    lead = bench.count(4, 2)
    async with bench.runtime(flows.sleeper, name=name) as runtime, contextlib.AsyncExitStack() as stack:
        if processes == 1:
            await stack.enter_async_context(Working(runtime, concurrency=CONCURRENCY))
        else:
            for _ in range(processes):
                stack.push(worker(bench, name))
            await asyncio.sleep(1)
        at = time.time() + lead
        until = int(at * 1000)
        await runtime.enqueue_many([(flows.sleeper, until)] * count)
        await until_count(runtime, count, within=lead, status="waiting")
        slack = at - time.time()
        await asyncio.sleep(max(0.0, slack))
        await until_count(runtime, count, within=30, status="completed")
        taken = await last_end(runtime) - until / 1000
    note = f"all runs asleep {slack:.1f} s before T; finished by the store's clock, to the millisecond"
    bench.emit(f"wakes_per_s_{processes}proc", count / max(taken, 1e-3), count, note)
    bench.emit(f"drain_ms_{processes}proc", 1e3 * taken, count)


def worker(bench: Bench, name: str, script: str = __file__) -> contextlib.ExitStack:
    """Start a worker process; it ends with the stack."""
    process = subprocess.Popen(
        [sys.executable, script, "--store", bench.store, "--folder", str(bench.folder), "worker", name],
        stdin=subprocess.PIPE,
    )
    stack = contextlib.ExitStack()
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)
    return stack


async def main(bench: Bench) -> None:
    if bench.extra:
        async with bench.runtime(flows.sleeper, name=bench.extra[1]) as runtime:
            await runtime.work(concurrency=CONCURRENCY)
        return
    await sleepers(bench, 1)
    if bench.store != "memory":  # a store in memory has one process
        await sleepers(bench, 2)
    if bench.store == "postgres":
        await sleepers(bench, 4)


if __name__ == "__main__":
    run("W3", main)
