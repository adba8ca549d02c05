"""W5: a run with many recorded steps is taken up by a fresh process."""

import asyncio
import json
import os
import subprocess
import sys
import time

import flows
from harness import POSTGRES, Bench, Working, run, until_count

RUN_ID = "replayed"


async def record(bench: Bench, steps: int) -> None:
    """Not what is measured, so without a sync for each commit."""
    if bench.store == "postgres":
        os.environ[POSTGRES] += "?options=-c%20synchronous_commit%3Doff"
    async with bench.runtime(flows.replayed, name=f"w5-{steps}.db", synchronous="normal") as runtime:
        began = time.perf_counter()
        await runtime.enqueue(flows.replayed, steps, run_id=RUN_ID)
        async with Working(runtime):
            await until_count(runtime, 1, within=100, status="waiting")
        print(json.dumps({"recorded": time.perf_counter() - began}))


async def replay(bench: Bench, steps: int) -> None:
    async with bench.runtime(flows.replayed, name=f"w5-{steps}.db") as runtime:
        await runtime.signal(RUN_ID, "go", 1)
        began = time.perf_counter()
        result = await runtime.sweep(max_duration=60)
        ended = time.perf_counter()
        assert [run.kind for run in result.timers] == ["completed"], result
        assert len(flows.passed) == 1
        print(json.dumps({"replayed": flows.passed[0] - began, "finished": ended - began}))


async def main(bench: Bench) -> None:
    if bench.extra:
        phase, steps = bench.extra
        await (record if phase == "record" else replay)(bench, int(steps))
        return
    if bench.store == "memory":
        return  # nothing of it is left for a fresh process
    for steps in [1000] if bench.quick else [1000, 5000, 100_000]:
        recorded = await phase_of(bench, "record", steps)
        times = [await phase_of(bench, "replay", steps)]
        bench.emit(
            f"replay_steps_per_s_{steps}",
            steps / times[0]["replayed"],
            steps,
            "from the sweep's call in a fresh process until the handler is through: claim, load, decoding",
        )
        bench.emit(
            f"resume_to_finish_ms_{steps}", 1e3 * times[0]["finished"], steps, "the sweep, to the result"
        )
        bench.emit(
            f"record_steps_per_s_{steps}",
            steps / recorded["recorded"],
            steps,
            "first execution of the same run, c=1, synchronous=normal",
        )


async def phase_of(bench: Bench, phase: str, steps: int) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--store",
        bench.store,
        "--folder",
        str(bench.folder),
        phase,
        str(steps),
    ]
    found = await asyncio.to_thread(
        subprocess.run, command, stdout=subprocess.PIPE, text=True, timeout=120, check=True
    )
    return json.loads(found.stdout.splitlines()[-1])


if __name__ == "__main__":
    run("W5", main)
