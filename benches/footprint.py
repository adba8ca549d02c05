"""What it costs to have it around: memory of runs in flight and asleep, an idle worker, the import."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import flows
from harness import Bench, Working, median, run, until_count

IMPORT = """
import sys, time
import pydantic
pydantic.BaseModel, pydantic.TypeAdapter(int), pydantic.ValidationError
import asyncio
began = time.perf_counter()
import duramen
print(time.perf_counter() - began)
"""


def resident_mb() -> float:
    """This process's resident memory, MB (10^6 bytes)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def main(bench: Bench) -> None:
    phases = {"flight": in_flight, "idle": idle, "asleep": asleep}
    if bench.extra:
        await phases[bench.extra[0]](bench)
        return
    imports = [float(output([sys.executable, "-c", IMPORT])) for _ in range(bench.count(7, 2))]
    bench.emit("import_ms", 1e3 * median(imports), len(imports), "on top of pydantic and asyncio; median")
    for phase in phases:
        if phase == "asleep" and bench.store == "memory":
            continue
        command = [sys.executable, __file__, "--store", bench.store, "--folder", str(bench.folder), phase]
        if bench.quick:
            command.append("--quick")
        print(await asyncio.to_thread(output, command), end="", flush=True)


def output(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=90, check=True).stdout


async def in_flight(bench: Bench) -> None:
    """Runs that each wait for a step of theirs, which waits for something outside."""
    count = bench.count(10_000, 200)
    flows.gate = asyncio.Event()
    async with (
        bench.runtime(flows.held, flows.one_step, name="flight.db") as runtime,
        Working(runtime, concurrency=2 * count),
    ):
        await runtime.enqueue_many([(flows.one_step, None)] * 200)
        await until_count(runtime, 200, within=30, status="completed")
        before = resident_mb()
        await runtime.enqueue_many([(flows.held, None)] * count)
        await until_count(runtime, count, within=60, pause=0.1, status="running")
        await asyncio.sleep(0.5)
        assert runtime.stats()["claimed"] >= count
        note = f"MB over the idle worker's {before:.0f}; {count} runs that wait for their steps"
        bench.emit(
            "rss_mb_in_flight" + ("_10000" if count == 10_000 else ""), resident_mb() - before, count, note
        )
        flows.gate.set()
        await until_count(runtime, count, within=60, pause=0.1, status="completed")


async def asleep(bench: Bench) -> None:
    """Runs that sleep beyond what a worker keeps warm."""
    count = bench.count(10_000, 200)
    async with bench.runtime(flows.sleeper, name="asleep.db", warm=0) as runtime, Working(runtime):
        until = int(time.time() * 1000) + 86_400_000
        await runtime.enqueue_many([(flows.sleeper, until)] * 500)
        await until_count(runtime, 500, within=30, status="waiting")
        before = resident_mb()
        await runtime.enqueue_many([(flows.sleeper, until)] * count)
        await until_count(runtime, count + 500, within=60, pause=0.1, status="waiting")
        kib = (resident_mb() - before) * 1e6 / 1024 / count
        bench.emit("rss_kib_per_sleeping_run", kib, count, "warm=0, after the first 500")


async def idle(bench: Bench) -> None:
    seconds = 1.0 if bench.quick else 5.0
    async with bench.runtime(flows.sleeper, name="idle.db") as runtime, Working(runtime):
        until = int(time.time() * 1000) + 86_400_000
        await runtime.enqueue_many([(flows.sleeper, until)] * 100)
        await until_count(runtime, 100, within=30, status="waiting")
        await asyncio.sleep(2)  # until it polls as seldom as it may
        stats = runtime.stats()
        wall, cpu = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        after = runtime.stats()
        bench.emit("idle_cpu_percent", 100 * cpu / wall, round(wall), "of one core, all threads, nothing due")
        if "statements" in after:
            asked = (after["statements"] - stats["statements"]) / wall
            bench.emit("idle_statements_per_s", asked, round(wall), "sent to the server while nothing is due")
        claims = (after["claims"] - stats["claims"]) / wall
        bench.emit("idle_claims_per_s", claims, round(wall), "looks into the store while nothing is due")


if __name__ == "__main__":
    run("footprint", main)
