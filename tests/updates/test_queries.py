"""Queries: answered from a copy that is built by replay, wherever the run is driven; nothing is written."""

import pytest

from duramen import Context, Runtime, workflow
from duramen.errors import QueryFailed, ReplayDiverged, UnknownQuery, UnknownRun, UnknownWorkflow
from tests.updates.workflows import ALL, BALANCE, DEPOSIT, Deposit, account, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_query_is_answered_from_what_is_recorded_also_after_the_end(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.enqueue(account, run_id="a")
        assert await runtime.query("a", BALANCE) == 0  # nobody has driven it
        assert (await runtime.get("a")).status == "queued"
        await runtime.update("a", DEPOSIT, Deposit(5), drive=True, timeout=30)
        before = await runtime.timeline("a")
        assert await runtime.query("a", BALANCE) == 5
        assert await runtime.query("a", "add", 1, 2) == 8
        assert await runtime.query("a", "at once") == 5
        assert await runtime.timeline("a") == before
        await runtime.signal("a", "close", drive=True)
        assert await runtime.query("a", BALANCE) == 5
        await runtime.enqueue(account, run_id="b")
        await runtime.update("b", DEPOSIT, Deposit(7), drive=True, timeout=30)
        await runtime.terminate("b")
        assert await runtime.query("b", BALANCE) == 7


async def test_another_process_answers_while_one_drives(url: str) -> None:
    async with Runtime(url, workflows=ALL) as drives, Runtime(url, workflows=ALL) as asks:
        await drives.start(account, run_id="a")
        for total in range(1, 6):
            await drives.update("a", DEPOSIT, Deposit(1), timeout=30)
            assert await asks.query("a", BALANCE) == total
        async with Runtime(url) as stranger:
            with pytest.raises(UnknownWorkflow):
                await stranger.query("a", BALANCE)


async def test_what_a_query_must_not_do_is_a_typed_error(memory_url: str) -> None:
    async with Runtime(memory_url, workflows=ALL) as runtime:
        await runtime.start(account, run_id="a")
        for _ in range(2):
            with pytest.raises(QueryFailed, match="durable call"):
                await runtime.query("a", "steps")
            with pytest.raises(QueryFailed, match="waits for something"):
                await runtime.query("a", "asleep")
            with pytest.raises(QueryFailed, match="ZeroDivisionError") as failed:
                await runtime.query("a", "raises")
            assert isinstance(failed.value.__cause__, ZeroDivisionError)
            with pytest.raises(QueryFailed, match="TypeError"):
                await runtime.query("a", "add")
            with pytest.raises(UnknownQuery, match="it answers add, asleep, at once, balance"):
                await runtime.query("a", "nothing")
            await runtime.signal("a", "close")  # and the same after the end
            await runtime.result("a", timeout=30)
        with pytest.raises(UnknownRun):
            await runtime.query("nobody", BALANCE)


async def test_code_that_does_not_fit_says_so(sqlite_url: str) -> None:
    @workflow(name="account")
    async def other(ctx: Context) -> None:
        await ctx.wait_for_event("close")

    async with Runtime(sqlite_url, workflows=ALL) as runtime:
        await runtime.start(account, run_id="a")
        await runtime.update("a", DEPOSIT, Deposit(1), timeout=30)
    async with Runtime(sqlite_url, workflows=[other]) as runtime:
        with pytest.raises(ReplayDiverged, match="takes no updates"):
            await runtime.query("a", BALANCE)
        assert (await runtime.get("a")).status == "waiting"


async def test_the_copy_does_nothing_and_says_nothing(
    memory_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[str] = []

    @workflow
    async def loud(ctx: Context) -> str:
        ctx.on_query("heard", lambda: list(done))
        await ctx.step("step", done.append, "step")
        ctx.log.warning("after the step")
        ctx.emit("after")
        ctx.now()
        await ctx.step("next", done.append, "next")
        await ctx.wait_for_event("never")
        return "x"

    async with Runtime(memory_url, workflows=[loud]) as runtime:

        async def rests() -> bool:
            return (await runtime.get("a")).status == "waiting"

        await runtime.start(loud, run_id="a")
        await until(rests)
        said = caplog.messages.count("after the step")
        for _ in range(3):
            assert await runtime.query("a", "heard") == ["step", "next"]
        assert caplog.messages.count("after the step") == said == 1


async def test_a_long_journal_is_read_in_pages(memory_url: str) -> None:
    @workflow
    async def counting(ctx: Context) -> int:
        count = 0
        ctx.on_query("count", lambda: count)
        for _ in range(2_500):
            count += await ctx.step("one", int, 1, checkpoint="lazy")
        return count

    async with Runtime(memory_url, workflows=[counting]) as runtime:
        await (await runtime.start(counting, run_id="a")).result(timeout=60)
        assert await runtime.query("a", "count") == 2_500
