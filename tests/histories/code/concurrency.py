"""Concurrency in handlers. Frozen: see steps.py."""

import asyncio

import anyio

from duramen import Context, StepFailed, workflow
from tests.histories.case import play_to_the_end


async def after(seconds: float, text: str) -> str:
    await asyncio.sleep(seconds)
    return text


async def broken() -> None:
    await asyncio.sleep(0.01)
    raise ConnectionError("no line")


@workflow
async def gather(ctx: Context) -> list[str]:
    return await asyncio.gather(
        ctx.step("slow", after, 0.03, "slow"),
        ctx.step("fast", after, 0.0, "fast"),
        ctx.step("middle", after, 0.01, "middle"),
    )


play_to_the_end(gather)


@workflow
async def gather_with_failure(ctx: Context) -> list[str]:
    found = await asyncio.gather(
        ctx.step("slow", after, 0.03, "slow"),
        ctx.step("broken", broken),
        ctx.sleep(0.02),
        return_exceptions=True,
    )
    return [type(each).__name__ for each in found]


play_to_the_end(gather_with_failure)


@workflow
async def task_group(ctx: Context) -> list[str]:
    async def branch(name: str, seconds: float) -> str:
        first = await ctx.step(f"{name}-1", after, seconds, f"{name}1")
        return first + await ctx.step(f"{name}-2", after, seconds, f"{name}2")

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(branch(name, 0.005 * place)) for place, name in enumerate("abc")]
    return [task.result() for task in tasks]


play_to_the_end(task_group)


@workflow
async def task_group_with_failure(ctx: Context) -> list[str]:
    told: list[str] = []

    async def stays() -> None:
        try:
            await ctx.sleep(3600)
        except asyncio.CancelledError:
            told.append(await ctx.step("tidy", after, 0.0, "tidied up"))
            raise

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(stays())
            group.create_task(ctx.step("broken", broken))
    except* StepFailed as errors:
        told.append(str(len(errors.exceptions)))
    return told


play_to_the_end(task_group_with_failure)


@workflow
async def race(ctx: Context) -> str:
    tasks = [
        asyncio.ensure_future(ctx.step("slow", after, 0.2, "slow")),
        asyncio.ensure_future(ctx.step("fast", after, 0.01, "fast")),
        asyncio.ensure_future(ctx.sleep(3600)),
    ]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    (winner,) = done
    return await ctx.step("after", after, 0.0, f"{winner.result()} of {len(done) + len(pending)}")


play_to_the_end(race)


@workflow
async def as_completed(ctx: Context) -> list[str]:
    steps = [ctx.step(f"s{place}", after, 0.02 - 0.01 * place, f"s{place}") for place in range(3)]
    return [await each for each in asyncio.as_completed(steps)]


play_to_the_end(as_completed)


@workflow
async def shield(ctx: Context) -> list[str]:
    inner = asyncio.ensure_future(ctx.step("slow", after, 0.05, "slow"))
    told: list[str] = []
    try:
        async with asyncio.timeout(0.01):
            await asyncio.shield(inner)
    except TimeoutError:
        told.append("timeout")
    told.append(await inner)
    return told


play_to_the_end(shield)


@workflow
async def queues(ctx: Context) -> list[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    found: list[int] = []
    lock = asyncio.Lock()

    async def producer(start: int) -> None:
        for number in range(start, start + 3):
            await ctx.step(f"make-{start}", after, 0.0, "made")
            await queue.put(number)

    async def consumer() -> None:
        while True:
            number = await queue.get()
            async with lock:
                await ctx.step("take", after, 0.001, "taken")
                found.append(number)
            queue.task_done()

    consumers = [asyncio.ensure_future(consumer()) for _ in range(2)]
    await asyncio.gather(producer(0), producer(10))
    await queue.join()
    for task in consumers:
        task.cancel()
    return sorted(found)


play_to_the_end(queues)


@workflow
async def anyio_scopes(ctx: Context) -> list[str]:
    told: list[str] = []
    with anyio.move_on_after(0.02) as scope:
        await ctx.sleep(3600)
    told.append(f"cancelled {scope.cancelled_caught}")

    async def branch(name: str) -> None:
        told.append(await ctx.step(name, after, 0.0, name))

    async with anyio.create_task_group() as group:
        group.start_soon(branch, "a")
        group.start_soon(branch, "b")
    return sorted(told)


play_to_the_end(anyio_scopes)
