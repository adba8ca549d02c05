"""W1: a run of one step, from the call of `start` to its result."""

import time

import flows
from harness import Bench, in_parallel, percentile, run


async def main(bench: Bench) -> None:
    async with bench.runtime(flows.one_step) as runtime:

        async def one(_: int) -> None:
            handle = await runtime.start(flows.one_step)
            await handle.result()

        await in_parallel(bench.count(50, 10), 1, one)
        times: list[float] = []
        before, wal = runtime.stats(), bench.wal()
        count = bench.count(1500, 50)
        for number in range(count):
            began = time.perf_counter()
            await one(number)
            times.append(1e3 * (time.perf_counter() - began))
        bench.emit("latency_p50_ms_c1", percentile(times, 50), count)
        bench.emit("latency_p99_ms_c1", percentile(times, 99), count)
        bench.emit_costs("c1", before, runtime.stats(), wal, count)
        await in_parallel(bench.count(500, 64), 64, one)
        before, wal = runtime.stats(), bench.wal()
        cpu = time.process_time()
        count = bench.count(15_000, 300)
        taken = await in_parallel(count, 64, one)
        cpu = time.process_time() - cpu
        after = runtime.stats()
        bench.emit("runs_per_s_c64", count / taken, count, "64 coroutines that each await start and result")
        bench.emit("cpu_us_per_run_c64", 1e6 * cpu / count, count, "whole process, all threads")
        bench.emit_costs("c64", before, after, wal, count)


if __name__ == "__main__":
    run("W1", main)
