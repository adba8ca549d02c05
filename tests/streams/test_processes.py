"""Writers that die, that were stopped and go on too late, and readers in other processes that come and go."""

import asyncio
import os
import random
import signal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duramen import Context, Retry, Runtime, StreamItem, step_context, workflow
from tests.regressions.support import Child, until

pytestmark = pytest.mark.anyio
LEASE = 1.0
WORDS = [f"word {n}" for n in range(40)]
HALF = len(WORDS) // 2


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def dictate(upto: int) -> int:
    """Writes words with the id of its process; in a process that is to be harmed it stays in the middle."""
    stream = step_context().stream("words", str)
    harmed = "HARMED" in os.environ
    for number, word in enumerate(WORDS[:upto]):
        await stream.write(f"{os.getpid()} {word}")
        if harmed and number == HALF - 1:
            # Time enough to be killed, or stopped, with nothing on its way.
            await asyncio.sleep(2)
    return os.getpid()


@workflow
async def dictation(ctx: Context, upto: int) -> int:
    await ctx.stream("log").write("begins")
    written = await ctx.step("dictate", dictate, upto)
    await ctx.stream("log").write("ends")
    return written


async def _drives(url: str) -> None:
    os.environ["HARMED"] = "1"
    async with Runtime(url, workflows=[dictation], lease=LEASE) as runtime:
        await runtime.start(dictation, len(WORDS), run_id="r")
        await asyncio.Event().wait()


class Reader:
    """Reads from wherever it was, in another runtime each time."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self.items: list[StreamItem[Any]] = []

    @property
    def next(self) -> int:
        return len(self.items) + 1

    async def read(self, most: int | None = None) -> None:
        async with Runtime(self.url) as runtime:
            async for item in runtime.stream("r", self.name, from_seq=self.next):
                assert item.seq == self.next
                self.items.append(item)
                if most is not None and (most := most - 1) <= 0:
                    return

    def valid(self) -> list[Any]:
        parts: list[Any] = []
        for item in self.items:
            assert item.index <= len(parts), "an item is missing"
            parts[item.index :] = [item.value]
        return parts


async def begun(url: str) -> None:
    """Until the child has written half of its words."""
    async with Runtime(url) as runtime:

        async def some() -> bool:
            try:
                return len([item async for item in runtime.stream("r", "words", follow=False)]) == HALF
            except LookupError:
                return False

        await until(some)


async def test_a_step_whose_process_dies_in_the_middle_of_its_stream_begins_it_anew(url: str) -> None:
    reader, log = Reader(url, "words"), Reader(url, "log")
    with Child(_drives, url) as child:
        await begun(url)
        await reader.read(most=3)
        child.kill()
    async with Runtime(url, workflows=[dictation], lease=LEASE, work=True) as runtime:
        follows = asyncio.create_task(reader.read())
        assert await runtime.result("r", timeout=30) == os.getpid()
        await follows
    await log.read()
    assert [item.value for item in log.items] == ["begins", "ends"]
    assert reader.valid() == [f"{os.getpid()} {word}" for word in WORDS]
    # What the first process wrote is there as well, before what took its place.
    others = [item for item in reader.items if not item.value.startswith(f"{os.getpid()} ")]
    assert len(others) == HALF
    assert reader.items[: len(others)] == others
    assert [item.index for item in others] == [*range(len(others))]


async def test_what_was_stopped_past_its_lease_writes_nothing_more(url: str) -> None:
    reader = Reader(url, "words")
    with Child(_drives, url) as child:
        await begun(url)
        child.send(signal.SIGSTOP)
        async with Runtime(url, workflows=[dictation], lease=LEASE, work=True) as runtime:
            follows = asyncio.create_task(reader.read())
            mine = f"{os.getpid()} "

            async def took_over() -> bool:
                return any(item.value.startswith(mine) for item in reader.items)

            await until(took_over)
            child.send(signal.SIGCONT)
            await runtime.result("r", timeout=30)
            await follows
            # It has had time to find out.
            await asyncio.sleep(3 * LEASE)
            late = [item async for item in runtime.stream("r", "words", from_seq=reader.next)]
    assert late == []
    assert reader.valid() == [mine + word for word in WORDS]
    writers = [item.value.split()[0] for item in reader.items]
    assert writers == sorted(writers, key=lambda pid: pid == str(os.getpid())), (
        "a late item is among the new ones"
    )


COUNT = 100_000


async def count(upto: int) -> None:
    stream = step_context().stream("numbers", int)
    for number in range(upto):
        await stream.write(number)


@workflow
async def counting(ctx: Context, upto: int) -> None:
    await ctx.step("count", count, upto)


@pytest.mark.slow
async def test_a_hundred_thousand_items_and_a_slow_reader(url: str) -> None:
    """It reads while they are written, stops and comes back, and has each exactly once in the end."""
    chance = random.Random(1)
    async with Runtime(url, workflows=[counting]) as runtime:
        run = await runtime.start(counting, COUNT, run_id="r")
        seen: list[int] = []
        while len(seen) < COUNT:
            most = chance.randrange(1, 20_000)
            async for item in runtime.stream("r", "numbers", type=int, from_seq=len(seen) + 1):
                assert (item.seq, item.index) == (len(seen) + 1, len(seen))
                seen.append(item.value)
                if chance.random() < 0.001:
                    await asyncio.sleep(0.001)
                if (most := most - 1) == 0:
                    break
        assert seen == [*range(COUNT)]
        await run.result(timeout=30)


@pytest.fixture(scope="module")
def written() -> Any:
    """A store with a stream of which a part is void; it is only read."""

    async def fails(upto: int) -> None:
        stream = step_context().stream("numbers", int)
        for number in range(upto // 2 if step_context().attempt == 1 else upto):
            await stream.write(number)
        if step_context().attempt == 1:
            raise ConnectionError("again")

    @workflow
    async def retried(ctx: Context, upto: int) -> None:
        await ctx.step("fails", fails, upto, retry=Retry(attempts=2, base=0.01))

    async def make() -> None:
        async with Runtime("memory://streams-read", workflows=[retried]) as runtime:
            await runtime.run(retried, 1500, run_id="r")

    return make, retried


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stops=st.lists(st.integers(0, 1200), max_size=6))
def test_a_reader_that_comes_back_anywhere_has_the_same_in_the_end(written: Any, stops: list[int]) -> None:
    make, retried = written

    async def play() -> None:
        async with Runtime("memory://streams-read", workflows=[retried]) as runtime:
            if not (await runtime.list(limit=1)).items:
                await make()
            parts: list[int] = []
            seq = 0
            for most in [*stops, 10_000]:
                left = most
                if left == 0:
                    continue
                async for item in runtime.stream("r", "numbers", type=int, from_seq=seq + 1):
                    assert item.seq == seq + 1
                    seq = item.seq
                    parts[item.index :] = [item.value]
                    if (left := left - 1) == 0:
                        break
            assert seq == 750 + 1500
            assert parts == [*range(1500)]

    asyncio.run(play())
