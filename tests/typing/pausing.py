"""What pauses, polls and undoes keeps the types of the functions that it is given."""

from datetime import timedelta
from typing import Any, assert_type

from duramen import Context, PauseResult, ResumeResult, Retry, Runtime, step, workflow


async def look(job: int) -> str | None:
    return None


def look_in_thread() -> list[int]:
    return []


def undo(name: str, number: int) -> None: ...


@step(on_exhausted="pause")
async def charge(name: str) -> int:
    return 1


@workflow(on_exhausted="pause")
async def working(ctx: Context) -> None:
    assert_type(await charge("a"), int)
    assert_type(await ctx.step("a", charge, "a", on_exhausted="fail"), int)
    assert_type(await ctx.poll("a", look, 3, every=1), str | None)
    assert_type(
        await ctx.poll("a", look_in_thread, every=timedelta(1), until=len, backoff=2, cap=3), list[int]
    )
    ctx.compensate("a", undo, "x", 3, retry=Retry(), timeout=1)
    ctx.compensate("a", charge, "x")
    await ctx.poll("a", look, every=1)  # pyright: ignore[reportArgumentType, reportCallIssue]
    await ctx.poll("a", look, 3)  # pyright: ignore[reportCallIssue]
    ctx.compensate("a", undo, "x")  # pyright: ignore[reportArgumentType]
    await ctx.step("a", charge, "a", on_exhausted="stop")  # pyright: ignore[reportArgumentType, reportCallIssue]


async def steering(runtime: Runtime) -> None:
    assert_type(await runtime.pause("a", "why", by="me"), PauseResult)
    assert_type(await runtime.resume("a"), ResumeResult)
    assert_type(await runtime.pause_many(workflow=working), int)
    await runtime.skip("a", {"any": [1]}, operation="b", drive=False)
    value: Any = runtime.sync.skip("a")
    assert value is None
