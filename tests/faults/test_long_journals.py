"""Work grows with the length of a journal, not with its square: shown by counting."""

from collections.abc import Callable
from typing import Any

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import WrappedStore, finish, in_future

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


class CountingStore(WrappedStore):
    """Counts what goes through it."""

    def __init__(self, url: str) -> None:
        super().__init__(url, **({"synchronous": "normal"} if url.startswith("sqlite") else {}))
        self.commits = self.written = self.claimed = self.delivered = self.read = 0

    async def commit(self, batch: Any) -> Any:
        self.commits += len(batch)
        self.written += sum(len(commit["entries"]) for commit in batch)
        self.read += sum(len(commit["read"]) for commit in batch)
        return await self.inner.commit(batch)

    async def claim(self, claim: Any) -> Any:
        found = await self.inner.claim(claim)
        self.claimed += sum(len(run["journal"] or ()) for run in found["runs"])
        self.delivered += sum(len(run["inbox"]) for run in found["runs"])
        return found

    async def inbox(self, run_id: str, behind: int) -> Any:
        page = await self.inner.inbox(run_id, behind)
        self.delivered += len(page["messages"])
        return page


async def nothing() -> int:
    return 1


@workflow
async def long(ctx: Context, count: int) -> float:
    total = 0.0
    for _ in range(count // 10):
        for _ in range(9):
            ctx.random()
        total += await ctx.step("step", nothing, checkpoint="lazy")
    await ctx.wait_for_event("go")
    return total


async def counts(url: str, length: int) -> tuple[int, int, int]:
    store = CountingStore(url)
    async with Runtime(store, workflows=[long], migrate=True) as runtime:
        await runtime.enqueue(long, length, run_id="r")
        await runtime.sweep()
        assert (await runtime.get("r")).waiting_events == ("go",)
    first = (store.commits, store.written, store.claimed)
    again = CountingStore(url)
    async with Runtime(again, workflows=[long], migrate=True) as runtime:
        await runtime.signal("r", "go")
        view = await finish(runtime, "r")
        assert view.output == length // 10
        assert view.journal_len == length + 4  # created, opened, received, finished
        assert again.claimed == length + 2  # the whole journal once
        assert again.commits == 1
    return first


@pytest.mark.timeout(120)
async def test_a_journal_of_100_000_entries_is_written_once_and_read_once(new_url: Callable[[], str]) -> None:
    small = await counts(new_url(), 10_000)
    large = await counts(new_url(), 100_000)
    assert small[1:] == (10_001, 1)
    assert large[1:] == (100_001, 1)
    assert large[0] <= 10 * small[0] + 10


@workflow
async def summing(ctx: Context, count: int) -> list[int]:
    received = [await ctx.wait_for_event("n", int) for _ in range(count)]
    return [len(received), sum(received), int(received == sorted(received))]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("paused", [True, False], ids=["while it waits", "before it began"])
async def test_10_000_signals_to_one_run_are_each_taken_once_in_their_order(url: str, paused: bool) -> None:
    count = 10_000
    store = CountingStore(url)
    async with Runtime(store, workflows=[summing], migrate=True) as runtime:
        await runtime.enqueue(summing, count, run_id="r")
        if paused:
            await runtime.sweep()
        results = await runtime.signal_many([("r", "n", n, f"s{n}") for n in range(count)])
        assert len(results) == count
        again = await runtime.signal_many([("r", "n", -1, f"s{n}") for n in range(0, count, 100)])
        assert set(again) == {"duplicate"}
        assert (await runtime.get("r")).unread == count
        await runtime.sweep(now=in_future())
        assert await runtime.result("r", timeout=60) == [count, count * (count - 1) // 2, 1]
        assert store.read == store.delivered == count
        assert store.written <= 2 * count + 3
        assert (await runtime.get("r")).unread == 0
