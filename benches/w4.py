"""W4: runs that wait for an event each; all events are sent at once."""

import time

import flows
from harness import Bench, Working, in_parallel, last_end, run, until_count

from duramen import RunRequest


async def signals(bench: Bench, *, bulk: bool) -> None:
    count = bench.count(2000, 100)
    tag = "_bulk" if bulk else ""
    async with bench.runtime(flows.waiter, name=f"w4{tag}.db") as runtime, Working(runtime, concurrency=1000):
        ids = [f"run-{number}" for number in range(count)]
        await runtime.enqueue_many(RunRequest(flows.waiter, run_id=run_id) for run_id in ids)
        await until_count(runtime, count, within=30, status="waiting")
        began = time.time()
        if bulk:
            await runtime.signal_many((run_id, "go", {"i": 1}) for run_id in ids)
        else:
            await in_parallel(count, 64, lambda number: runtime.signal(ids[number], "go", {"i": number}))
        sent = time.time() - began
        await until_count(runtime, count, within=30, pause=0.01, status="completed")
        taken = await last_end(runtime) - began
    how = "signal_many" if bulk else "signal, 64 at a time"
    note = f"sending took {sent:.2f} s of {taken:.2f} s; {how}; a worker in the same process"
    bench.emit(f"events_per_s{tag}", count / taken, count, note)


async def main(bench: Bench) -> None:
    await signals(bench, bulk=False)
    await signals(bench, bulk=True)


if __name__ == "__main__":
    run("W4", main)
