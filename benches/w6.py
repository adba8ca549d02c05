"""W6: one run with 200 parallel steps."""

import time

import flows
from harness import Bench, median, run


async def main(bench: Bench) -> None:
    async with bench.runtime(flows.fan_out) as runtime:

        async def one(width: int) -> float:
            began = time.perf_counter()
            handle = await runtime.start(flows.fan_out, width)
            assert await handle.result() == width
            return 1e3 * (time.perf_counter() - began)

        for _ in range(bench.count(5, 1)):
            await one(20)
        times = [await one(200) for _ in range(bench.count(15, 3))]
    bench.emit("fanout200_ms", median(times), 200, f"asyncio.gather of 200 steps; median of {len(times)}")


if __name__ == "__main__":
    run("W6", main)
