"""What handlers and steps write, and readers get, on each store."""

import asyncio
import threading
from typing import Any

import pytest

from duramen import (
    CodecSerializer,
    Context,
    JsonSerializer,
    Retry,
    Runtime,
    StreamItem,
    step_context,
    workflow,
)
from duramen.errors import (
    InvalidArgument,
    InvalidId,
    NotADurableContext,
    RunFailed,
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
        assert await runtime.delete("r")
        with pytest.raises(UnknownRun):
            await everything(runtime, "r", "log")


async def fails_once(words: list[str]) -> None:
    stream = step_context().stream("answer")
    for word in words[: step_context().attempt]:
        await stream.write(word)
    if step_context().attempt == 1:
        raise ConnectionError("once more")


@workflow
async def tries_again(ctx: Context) -> None:
    await ctx.step("say", fails_once, ["a", "b"], retry=Retry(attempts=2, base=0.01))


async def test_a_repeated_attempt_says_what_it_repeats(any_url: str) -> None:
    async with Runtime(any_url, workflows=[tries_again]) as runtime:
        run = await runtime.start(tries_again, run_id="r")
        await run.result(timeout=10)
        items = await everything(runtime, "r", "answer")
        assert [(item.value, item.index, item.attempt) for item in items] == [
            ("a", 0, 1),
            ("a", 0, 2),
            ("b", 1, 2),
        ]
        assert alive(items) == ["a", "b"]


BROKEN = {"r": True}


async def breaks() -> None:
    if BROKEN["r"]:
        raise ConnectionError("not yet")


@workflow
async def reports(ctx: Context) -> None:
    log = ctx.stream("log")
    await log.write("one")
    try:
        await ctx.step("breaks", breaks)
    except StepFailed:
        await log.write("broken")
        raise
    await log.write("two")


async def test_a_reopened_run_says_what_it_takes_back(any_url: str) -> None:
    BROKEN["r"] = True
    async with Runtime(any_url, workflows=[reports]) as runtime:
        run = await runtime.start(reports, run_id="r")
        with pytest.raises(Exception, match="not yet"):
            await run.result(timeout=10)
        assert values(await everything(runtime, "r", "log")) == ["one", "broken"]
        BROKEN["r"] = False
        await runtime.retry("r")
        await run.result(timeout=10)
        items = await everything(runtime, "r", "log")
        assert values(items) == ["one", "broken", "two"]
        assert alive(items) == ["one", "two"]


async def many(count: int, keep: int | None) -> None:
    stream = step_context().stream("numbers", int, keep=keep)
    for number in range(count):
        await stream.write(number)


@workflow
async def counts(ctx: Context, count: int) -> None:
    await ctx.step("many", many, count, 10)
    short = ctx.stream("short", keep=2)
    for number in range(5):
        await short.write(number)


async def test_a_stream_keeps_its_last_items_alone(any_url: str) -> None:
    async with Runtime(any_url, workflows=[counts]) as runtime:
        await runtime.run(counts, 3000, run_id="r")
        items = await everything(runtime, "r", "numbers", type=int)
        assert values(items) == [*range(2990, 3000)]
        assert [item.seq for item in items] == [*range(2991, 3001)]
        assert values(await everything(runtime, "r", "numbers", from_seq=2995)) == [*range(2994, 3000)]
        with pytest.raises(StreamTruncated, match="from_seq=2991") as caught:
            await everything(runtime, "r", "numbers", from_seq=2990)
        assert caught.value.first == 2991
        assert values(await everything(runtime, "r", "short")) == [3, 4]


LATE: dict[str, Any] = {}


@workflow
async def misuses(ctx: Context) -> list[str]:
    found: list[str] = []
    for wrong, options in (("", {}), ("a\0", {}), ("a", {"keep": 0}), ("a", {"keep": -1})):
        try:
            ctx.stream(wrong, **options)
        except (InvalidId, InvalidArgument) as error:
            found.append(type(error).__name__)
    try:
        await ctx.stream("log").write(object())
    except SerializationError as error:
        found.append(type(error).__name__)

    async def in_a_step() -> None:
        LATE["stream"] = step_context().stream("late")
        await ctx.stream("log").write(1)

    try:
        await ctx.step("in a step", in_a_step)
    except StepFailed as error:
        found.append(str(error))
    return found


async def test_what_cannot_work_is_refused(memory_url: str) -> None:
    async with Runtime(memory_url, workflows=[misuses]) as runtime:
        found = await runtime.run(misuses, run_id="r")
        assert found.output is not None
        *names, refusal = found.output
        assert names == ["InvalidId", "InvalidId", "InvalidArgument", "InvalidArgument", "SerializationError"]
        assert "NotADurableContext: ctx.stream" in refusal
        with pytest.raises(NotADurableContext, match="was over"):
            LATE["stream"].write(1)
        assert await everything(runtime, "r", "log") == []
        for wrong in ("", "a\0"):
            with pytest.raises(InvalidId):
                await everything(runtime, "r", wrong)
        with pytest.raises(InvalidArgument):
            await everything(runtime, "r", "log", from_seq=-1)
        with pytest.raises(UnknownRun):
            await everything(runtime, "nobody", "log")


async def test_a_reader_is_told_as_soon_as_it_is_there_and_may_stop(any_url: str) -> None:
    told = asyncio.Event()

    async def waits() -> None:
        await step_context().stream("live").write("now")
        await told.wait()

    @workflow
    async def live(ctx: Context) -> None:
        await ctx.stream("live").write("before")
        await ctx.step("waits", waits)

    async with Runtime(any_url, workflows=[live]) as runtime:
        run = await runtime.start(live, run_id="r")
        seen: list[Any] = []
        async for item in runtime.stream("r", "live"):
            seen.append(item.value)
            if item.value == "now":
                assert not told.is_set()
                assert values(await everything(runtime, "r", "live", follow=False)) == seen
                told.set()
        assert seen == ["before", "now"]
        await run.result(timeout=10)


async def test_a_transaction_writes_to_no_stream(sqlite_url: str) -> None:
    async def moves(_: Any) -> None:
        await step_context().stream("log").write(1)

    @workflow
    async def transacts(ctx: Context) -> str:
        try:
            await ctx.transaction("moves", moves)
        except StepFailed as error:
            return str(error)
        return "written"

    async with Runtime(sqlite_url, workflows=[transacts]) as runtime:
        done = await runtime.run(transacts, run_id="r")
        assert done.output is not None
        assert "nobody could read it before" in done.output


async def test_a_thread_that_was_left_behind_writes_nothing_into_the_next_attempt(any_url: str) -> None:
    may_go_on, found = threading.Event(), list[str]()
    tried = threading.Event()

    def slow() -> int:
        stream = step_context().stream("words", str)
        attempt = step_context().attempt
        stream.write(f"attempt {attempt}")
        if attempt == 1:
            may_go_on.wait(20)
            try:
                stream.write("late")
            except NotADurableContext:
                found.append("refused")
            tried.set()
        else:
            may_go_on.set()
            tried.wait(20)
        return attempt

    @workflow
    async def leaves(ctx: Context) -> int:
        return await ctx.step("slow", slow, timeout=0.2, retry=Retry(attempts=2, base=0.01))

    async with Runtime(any_url, workflows=[leaves]) as runtime:
        run = await runtime.start(leaves, run_id="r")
        # The second attempt may run into its time, too, on a machine that is busy: then it has failed.
        try:
            await run.result(timeout=30)
        except RunFailed:
            pass
        assert await asyncio.to_thread(tried.wait, 20)
        assert found == ["refused"]
        assert values(await everything(runtime, "r", "words")) == ["attempt 1", "attempt 2"]


async def test_a_write_that_is_not_awaited_again_and_again_is_refused_at_last(memory_url: str) -> None:
    async def floods() -> int:
        stream = step_context().stream("flood", int)
        for number in range(100_000):
            try:
                stream.write(number)
            except InvalidArgument:
                return number
        return 0

    @workflow
    async def flooding(ctx: Context) -> int:
        return await ctx.step("floods", floods)

    async with Runtime(memory_url, workflows=[flooding]) as runtime:
        done = await runtime.run(flooding, run_id="r")
        count = done.output
        assert count is not None
        assert 1_000 < count < 100_000
        assert len(await everything(runtime, "r", "flood")) == count


async def test_what_a_handler_writes_without_end_is_one_commit(any_url: str) -> None:
    @workflow
    async def much(ctx: Context) -> None:
        stream = ctx.stream("much", int)
        for number in range(12_000):
            await stream.write(number)

    async with Runtime(any_url, workflows=[much]) as runtime:
        await runtime.run(much, run_id="r")
        assert len(await everything(runtime, "r", "much")) == 12_000


async def test_a_codec_that_is_out_is_waited_for(memory_url: str) -> None:
    class Flaky:
        """Cannot encode at its first tries."""

        def __init__(self) -> None:
            self.tries = 0

        def encode(self, data: bytes) -> bytes:
            if b"item" in data:
                self.tries += 1
                if self.tries in {1, 2, 4}:
                    raise ConnectionError("no key")
            return data[::-1]

        def decode(self, data: bytes) -> bytes:
            return data[::-1]

    async def says() -> None:
        await step_context().stream("log").write("item of a step")

    @workflow
    async def coded(ctx: Context) -> None:
        await ctx.stream("log").write("item of a handler")
        await ctx.step("says", says)

    codec = Flaky()
    serializer = CodecSerializer(JsonSerializer(), codec)
    async with Runtime(memory_url, workflows=[coded], serializer=serializer) as runtime:
        await runtime.run(coded, run_id="r")
        found = values(await everything(runtime, "r", "log"))
        assert found == ["item of a handler", "item of a step"]
        assert codec.tries == 5


def test_the_blocking_reader(any_url: str) -> None:
    with Runtime(any_url, workflows=[talks]).sync as runtime:
        runtime.start(talks, run_id="r").result(timeout=20)
        assert [item.value for item in runtime.stream("r", "answer", type=str)] == ["a", "b", "c", "d", "e"]
        assert [item.seq for item in runtime.stream("r", "log", from_seq=2)] == [2, 3]
