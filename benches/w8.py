"""W8: starts that nobody waits for: one at a time, 64 at a time, in bulk."""

import time

import flows
from harness import Bench, in_parallel, run


async def main(bench: Bench) -> None:
    async with bench.runtime(flows.one_step) as runtime:

        async def one(_: int) -> None:
            await runtime.enqueue(flows.one_step)

        await in_parallel(bench.count(200, 64), 64, one)
        count = bench.count(2000, 50)
        taken = await in_parallel(count, 1, one)
        bench.emit("starts_per_s_c1", count / taken, count, "enqueue, one at a time")
        count = bench.count(20_000, 200)
        taken = await in_parallel(count, 64, one)
        bench.emit("starts_per_s_c64", count / taken, count, "enqueue, 64 at a time")
        count = bench.count(50_000, 1000)
        requests = [(flows.one_step, None)] * count
        began = time.perf_counter()
        await runtime.enqueue_many(requests)
        taken = time.perf_counter() - began
        bench.emit("starts_per_s_bulk", count / taken, count, "one enqueue_many")


if __name__ == "__main__":
    run("W8", main)
