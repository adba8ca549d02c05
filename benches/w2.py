"""W2: a run of ten steps, one after the other."""

import time

import flows
from harness import Bench, in_parallel, median, run

STEPS = 10


async def main(bench: Bench) -> None:
    async with bench.runtime(flows.ten_steps) as runtime:

        async def one(_: int) -> None:
            handle = await runtime.start(flows.ten_steps)
            await handle.result()

        await in_parallel(bench.count(20, 5), 1, one)
        times: list[float] = []
        count = bench.count(400, 10)
        for number in range(count):
            began = time.perf_counter()
            await one(number)
            times.append(1e3 * (time.perf_counter() - began))
        bench.emit("ms_per_step_c1", median(times) / STEPS, count, "median run / 10")
        await in_parallel(bench.count(300, 64), 64, one)
        before, wal = runtime.stats(), bench.wal()
        cpu = time.process_time()
        count = bench.count(4000, 64)
        taken = await in_parallel(count, 64, one)
        cpu = time.process_time() - cpu
        after = runtime.stats()
        bench.emit("steps_per_s_c64", STEPS * count / taken, STEPS * count)
        bench.emit(
            "cpu_us_per_step_c64", 1e6 * cpu / count / STEPS, STEPS * count, "whole process, all threads"
        )
        bench.emit_costs("c64", before, after, wal, count)


if __name__ == "__main__":
    run("W2", main)
