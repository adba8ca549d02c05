"""Updates: validated, recorded, applied once, answered, wherever the run is driven."""

import asyncio
from pathlib import Path

import pytest

from duramen import Context, RunFailed, RunStuck, Runtime, workflow
from duramen.errors import (
    InvalidArgument,
    InvalidId,
    RunFinished,
    SignalRefused,
    UnknownRun,
    UpdateFailed,
    UpdateRejected,
    UpdateTimeout,
    WorkflowDefinitionError,
)
from tests.updates.workflows import ALL, DEPOSIT, WITHDRAW, Deposit, Overdrawn, account, door, late, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def kinds(runtime: Runtime, run_id: str) -> list[str]:
    return [event.kind for event in await runtime.timeline(run_id)]


async def rests(runtime: Runtime, run_id: str) -> bool:
    return (await runtime.get(run_id)).status == "waiting"


async def has_accepted(runtime: Runtime, run_id: str) -> bool:
    return "update_accepted" in await kinds(runtime, run_id)


async def test_an_update_is_applied_once_and_answered_with_its_result(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.start(account, run_id="a")
        assert await runtime.update("a", DEPOSIT, Deposit(5), timeout=30) == 5
        again = [runtime.update("a", DEPOSIT, Deposit(7), update_id="u", timeout=30) for _ in range(3)]
        assert await asyncio.gather(*again) == [12, 12, 12]
        assert await runtime.update("a", "withdraw", 2, timeout=30) == 10
        assert (await runtime.get("a")).waits == (
            "event:close",
            "update:deposit",
            "update:later",
            "update:withdraw",
        )
        await runtime.signal("a", "close")
        assert await runtime.result("a", timeout=30) == 10
        # Its answer outlives the run.
        assert await runtime.update("a", DEPOSIT, Deposit(7), update_id="u", timeout=30) == 12
        accepted = [event for event in await runtime.timeline("a") if event.kind == "update_accepted"]
        assert [(event.op, event.wait, event.data) for event in accepted] == [
            ("update-1", "update:deposit", {"amount": 5, "note": ""}),
            ("update-2", "update:deposit", {"amount": 7, "note": ""}),
            ("update-3", "update:withdraw", 2),
        ]


async def test_a_refused_update_changes_nothing_and_says_why(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.start(account, run_id="a")
        with pytest.raises(UpdateRejected, match="a deposit is more than 0") as refused:
            await runtime.update("a", DEPOSIT, Deposit(0), update_id="u", timeout=30)
        assert refused.value.reason == "a deposit is more than 0"
        with pytest.raises(UpdateRejected, match="valid integer"):
            await runtime.update("a", "withdraw", "much", timeout=30)
        with pytest.raises(UpdateRejected):
            await runtime.update("a", DEPOSIT, Deposit(0), update_id="u", timeout=30)
        assert "update_accepted" not in await kinds(runtime, "a")


async def test_what_its_function_raises_is_raised_in_the_caller_and_the_run_goes_on(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.start(account, run_id="a")
        with pytest.raises(UpdateFailed, match="there are only 0") as failed:
            await runtime.update("a", WITHDRAW, 1, timeout=30)
        assert isinstance(failed.value.__cause__, Overdrawn)
        (finished,) = [event for event in await runtime.timeline("a") if event.kind == "update_finished"]
        assert finished.error is not None
        assert finished.error.message == "there are only 0"
        assert await runtime.update("a", DEPOSIT, Deposit(3), timeout=30) == 3


async def test_an_update_that_ends_at_once_costs_one_commit_that_also_ends_the_run(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.start(door, run_id="d")
        assert await runtime.update("d", "close", timeout=30) == "closed"
        assert await runtime.result("d", timeout=30) == "done"
        expected = ["run_created", "update_accepted", "update_finished", "run_finished"]
        assert await kinds(runtime, "d") == expected


async def test_an_early_update_is_kept_until_the_handler_takes_it(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.start(late, run_id="l")
        await until(lambda: rests(runtime, "l"))
        with pytest.raises(UpdateTimeout, match="at the moment the run takes no updates") as timed_out:
            await runtime.update("l", "take", 1, update_id="u", timeout=0.2)
        assert timed_out.value.update_id == "u"
        assert isinstance(timed_out.value, TimeoutError)
        await runtime.signal("l", "go")
        assert await runtime.update("l", "take", 1, update_id="u", timeout=30) == 2


async def test_whoever_waits_hears_of_the_end_of_the_run(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.start(account, run_id="a")
        accepted = asyncio.create_task(runtime.update("a", "later"))
        unknown = asyncio.create_task(runtime.update("a", "nothing"))
        await until(lambda: has_accepted(runtime, "a"))
        await runtime.signal("a", "close")
        for waiting in (accepted, unknown):
            with pytest.raises(RunFinished, match="completed"):
                await asyncio.wait_for(waiting, 30)
        with pytest.raises(RunFinished):
            await runtime.update("a", DEPOSIT, Deposit(1))
        await runtime.start(account, run_id="b")
        waiting = asyncio.create_task(runtime.update("b", "later"))
        await until(lambda: has_accepted(runtime, "b"))
        await runtime.terminate("b")
        with pytest.raises(RunFinished, match="terminated"):
            await asyncio.wait_for(waiting, 30)


async def test_another_process_drives_the_run(url: str) -> None:
    async with Runtime(url, workflows=ALL) as drives, Runtime(url) as asks:
        await drives.start(account, run_id="a")
        assert await asks.update("a", DEPOSIT, Deposit(5), timeout=30) == 5
        with pytest.raises(UpdateFailed):
            await asks.update("a", WITHDRAW, 9, timeout=30)
        with pytest.raises(UpdateRejected):
            await asks.update("a", DEPOSIT, Deposit(-1), timeout=30)


async def test_an_accepted_update_is_gone_on_with_by_the_next_process(url: str) -> None:
    async with Runtime(url, workflows=ALL) as first:
        await first.start(account, run_id="a")
        with pytest.raises(UpdateTimeout):
            await first.update("a", "later", update_id="u", timeout=1)
        assert (await first.get("a")).status == "waiting"
    async with Runtime(url, workflows=ALL) as second:
        await second.signal("a", "told", 42, drive=True)
        assert await second.update("a", "later", update_id="u", timeout=30) == 42
        count = (await kinds(second, "a")).count
        assert (count("update_accepted"), count("update_finished")) == (1, 1)


async def test_an_update_that_is_to_be_driven_here_needs_no_worker(any_url: str) -> None:
    async with Runtime(any_url, workflows=ALL) as runtime:
        await runtime.enqueue(account, run_id="a")
        assert await runtime.update("a", DEPOSIT, Deposit(4), drive=True, timeout=30) == 4


async def test_bad_calls_are_refused(memory_url: str) -> None:
    async with Runtime(memory_url, workflows=ALL) as runtime:
        with pytest.raises(UnknownRun):
            await runtime.update("nobody", "x")
        with pytest.raises(InvalidId):
            await runtime.update("a", "__x")
        with pytest.raises(InvalidId):
            await runtime.update("a", "x", update_id="u" * 241)
        await runtime.start(account, run_id="a")
        await runtime.update("a", DEPOSIT, Deposit(1), update_id="u", timeout=30)
        with pytest.raises(InvalidArgument, match="that of an update 'deposit'"):
            await runtime.update("a", "withdraw", 1, update_id="u")
        with pytest.raises(SignalRefused):
            await runtime.signal("a", "x", signal_id="update:u")


@pytest.mark.parametrize("how", ["two arguments", "async validate", "called", "reserved"])
async def test_what_cannot_apply_updates_is_refused_where_it_is_given(memory_url: str, how: str) -> None:
    async def two(one: int, other: int) -> None: ...

    async def one(number: int) -> None: ...

    @workflow
    async def wrong(ctx: Context) -> None:
        if how == "two arguments":
            ctx.on_update("x", two)
        elif how == "async validate":
            ctx.on_update("x", one, validate=one)
        elif how == "called":
            ctx.on_update("x", 3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
        else:
            ctx.on_update("__x", one)

    expected = InvalidId if how == "reserved" else WorkflowDefinitionError
    async with Runtime(memory_url, workflows=[wrong]) as runtime:
        with pytest.raises(RunFailed) as failed:
            await (await runtime.start(wrong)).result(timeout=30)
        assert failed.value.error.short_name == expected.__name__


def test_the_blocking_calls(sqlite_url: str) -> None:
    with Runtime(sqlite_url, workflows=ALL).sync as runtime:
        runtime.start(account, run_id="a")
        assert runtime.update("a", DEPOSIT, Deposit(5), timeout=30) == 5
        assert runtime.query("a", "balance") == 5
        with pytest.raises(UpdateRejected):
            runtime.update("a", DEPOSIT, Deposit(-5), timeout=30)


async def test_a_parked_run_says_so_and_keeps_the_update(file: Path) -> None:
    @workflow(name="account")
    async def other(ctx: Context) -> None:
        await ctx.wait_for_event("close")

    url = f"sqlite:///{file}"
    async with Runtime(url, workflows=ALL) as runtime:
        await runtime.start(account, run_id="a")
        await runtime.update("a", DEPOSIT, Deposit(1), timeout=30)
    async with Runtime(url, workflows=[other]) as runtime:
        await runtime.cancel("a", drive=True)
        with pytest.raises(RunStuck, match="found a handler that takes no updates"):
            await runtime.update("a", DEPOSIT, Deposit(2), update_id="u", timeout=30)
    async with Runtime(url, workflows=ALL) as runtime:
        await runtime.retry("a")
        with pytest.raises(RunFinished, match="cancelled"):
            await runtime.update("a", DEPOSIT, Deposit(2), update_id="u", timeout=30)
