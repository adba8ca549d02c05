"""What handlers and steps write, and readers get, on each store."""

import asyncio
from typing import Any

import pytest

from duramen import Context, Retry, Runtime, StreamItem, step_context, workflow
from duramen.errors import (
    InvalidArgument,
    InvalidId,
    NotADurableContext,
    SerializationError,
    StepFailed,
    StreamTruncated,
    UnknownRun,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def everything(runtime: Runtime, run_id: str, name: str, **options: Any) -> list[StreamItem[Any]]:
    return [item async for item in runtime.stream(run_id, name, **options)]


def values(items: list[StreamItem[Any]]) -> list[Any]:
    return [item.value for item in items]


def alive(items: list[StreamItem[Any]]) -> list[Any]:
    """What a reader with one list holds in the end."""
    parts: list[Any] = []
    for item in items:
        parts[item.index :] = [item.value]
    return parts


async def speak(words: list[str]) -> int:
    stream = step_context().stream("answer", str)
    for word in words:
        await stream.write(word)
    return len(words)


def speak_in_a_thread(words: list[str]) -> int:
    stream = step_context().stream("answer", str)
    for word in words:
        stream.write(word)
    return len(words)


@workflow
async def talks(ctx: Context) -> int:
    log = ctx.stream("log", str)
    await log.write("begins")
    count = await ctx.step("speak", speak, ["a", "b", "c"])
    await log.write("goes on")
    count += await ctx.step("thread", speak_in_a_thread, ["d", "e"])
    await log.write("ends")
    return count


async def test_items_come_in_order_from_handlers_and_steps(any_url: str) -> None:
    async with Runtime(any_url, workflows=[talks]) as runtime:
        run = await runtime.start(talks, run_id="r")
        log = await everything(runtime, "r", "log", type=str)
        assert await run.result(timeout=10) == 5
        assert values(log) == ["begins", "goes on", "ends"]
        assert [(item.seq, item.index, item.op, item.attempt) for item in log] == [
            (1, 0, None, None),
            (2, 1, None, None),
            (3, 2, None, None),
        ]
        answer = await everything(runtime, "r", "answer")
        assert values(answer) == ["a", "b", "c", "d", "e"]
        assert [(item.seq, item.index, item.op, item.attempt) for item in answer] == [
            (1, 0, "speak", 1),
            (2, 1, "speak", 1),
            (3, 2, "speak", 1),
            (4, 0, "thread", 1),
            (5, 1, "thread", 1),
        ]
        assert values(await everything(runtime, "r", "answer", from_seq=4)) == ["d", "e"]
        assert await everything(runtime, "r", "answer", from_seq=6) == []
        assert await everything(runtime, "r", "nothing") == []
        kinds = [event.kind for event in await runtime.timeline("r")]
        assert kinds.count("stream_written") == 3
        await run.delete() if hasattr(run, "delete") else await runtime.delete("r")
        with pytest.raises(UnknownRun):
            await everything(runtime, "r", "log")
