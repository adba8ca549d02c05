"""A SQLite file has one write lock: what a transaction may do with it, and that others go on."""

import asyncio
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from duramen import Context, Retry, RunFailed, Runtime, StepFailed, sqlite, workflow
from tests.transactions.kits import Gate, Kit, Sqlite

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite-async", "sqlite-sync"])
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def test_a_commit_waits_for_no_thread_of_the_loop_s(kit: Kit) -> None:
    """All threads of the loop's executor are busy, with what waits for the lock that the transaction has."""
    loop = asyncio.get_running_loop()
    executor = ThreadPoolExecutor(1)
    loop.set_default_executor(executor)
    release = threading.Event()
    busy = [loop.run_in_executor(None, release.wait, 60) for _ in range(3)]

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        return await ctx.transaction("write", kit.write(), word)

    try:
        async with kit.runtime(pay, lease=2) as runtime:
            assert await (await runtime.start(pay, "one")).result(timeout=20) == "ONE"
            assert isinstance(kit, Sqlite)
            async with kit.transaction() as connection:  # the user's own
                connection.execute("INSERT INTO words VALUES ('two')")
            assert not any(future.done() for future in busy)
    finally:
        release.set()
        await asyncio.gather(*busy)
    assert kit.words() == ["one", "two"]


async def test_a_transaction_longer_than_a_lease_lets_nobody_s_step_begin_twice(kit: Kit) -> None:
    """Two runtimes on one file: no lease of either is lost while the function of one holds the lock."""
    gate, other_gate = Gate(), Gate()
    steps: list[str] = []
    attempts: list[int] = []

    @workflow
    async def long(ctx: Context, word: str) -> str:
        try:
            return await ctx.transaction(
                "write", kit.write(lambda: attempts.append(1), gate), word, retry=Retry(attempts=1)
            )
        except StepFailed as error:
            return f"{error.error}"

    @workflow
    async def other(ctx: Context, name: str) -> str:
        return await ctx.step("wait", wait, name)

    async def wait(name: str) -> str:
        steps.append(name)
        await other_gate.pass_through()
        return name

    async with kit.runtime(long, other, lease=1) as one, Runtime(kit.url, workflows=[other], lease=1) as two:
        work = asyncio.create_task(two.work())
        mine = await one.start(other, "mine", run_id="mine")
        theirs = await two.start(other, "theirs", run_id="theirs")
        while len(steps) < 2:  # noqa: ASYNC110 - two steps of two runtimes
            await asyncio.sleep(0.01)
        epochs = [(await one._services.queries.detail(run)).row.epoch for run in ("mine", "theirs")]
        run = await one.start(long, "one", run_id="long")
        await gate.wait()
        # Whoever writes gets the lock before the lease of anybody ends, and more than one lease goes by.
        far = datetime.now(UTC) + timedelta(days=1)
        for n in range(3):
            await two.enqueue(other, "later", run_id=f"later:{n}", start_at=far)
            await asyncio.sleep(0.5)
        assert [(await one._services.queries.detail(run)).row.epoch for run in ("mine", "theirs")] == epochs
        gate.opened.set()
        assert "has held the file's only write lock for" in await run.result(timeout=20)
        other_gate.opened.set()
        assert [await each.result(timeout=20) for each in (mine, theirs)] == ["mine", "theirs"]
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    assert sorted(steps) == ["mine", "theirs"]
    assert kit.words() == []


async def test_a_function_that_waits_for_a_write_of_others_is_let_go(kit: Kit) -> None:
    """It holds the lock and waits for a run to be created: neither would ever come to an end."""
    calls: list[int] = []

    @workflow
    async def hello(ctx: Context, name: str) -> str:
        return f"hello {name}"

    async def waits(connection: Any, name: str) -> str:
        calls.append(1)
        connection.execute("INSERT INTO words VALUES (?)", (name,))
        return await (await runtime.start(hello, name, run_id=name)).result(timeout=20)

    def waits_sync(connection: Any, name: str) -> str:
        return asyncio.run_coroutine_threadsafe(waits(connection, name), loop).result(30)

    @workflow
    async def pay(ctx: Context, name: str) -> str:
        try:
            return await ctx.transaction("write", waits if kit.is_async else waits_sync, name)
        except StepFailed as error:
            return f"{error.error}"

    loop = asyncio.get_running_loop()
    runtime = kit.runtime(pay, hello, lease=2)
    async with runtime:
        result = await (await runtime.start(pay, "you")).result(timeout=25)
        assert "has held the file's only write lock for 1 s" in result
        assert await runtime.result("you", 20) == "hello you"
    assert (kit.words(), calls) == ([], [1])


async def test_a_statement_without_end_is_interrupted(kit: Kit) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"

    async def spins(connection: Any) -> None:
        connection.execute(endless)  # the event loop does not move either

    def spins_sync(connection: Any) -> None:
        connection.execute(endless)

    @workflow
    async def pay(ctx: Context) -> str:
        try:
            await ctx.transaction("write", spins if kit.is_async else spins_sync)
        except StepFailed as error:
            return f"{error.error}"
        return "it ended"

    async with kit.runtime(pay, lease=1) as runtime:
        assert "has held the file's only write lock for 0.5 s" in await (await runtime.start(pay)).result(
            timeout=20
        )


async def test_a_thread_after_its_time_has_the_lock_no_more(kit: Kit) -> None:
    gate = Gate()

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        try:
            return await ctx.transaction("slow", kit.write(gate=gate), word, timeout=0.2)
        except StepFailed:
            return await ctx.transaction("quick", kit.write(), "quick")

    async with kit.runtime(pay, lease=60) as runtime:
        assert await (await runtime.start(pay, "one")).result(timeout=20) == "QUICK"
        gate.opened.set()
    assert kit.words() == ["quick"]


async def test_a_connection_that_a_function_keeps_is_of_no_use_to_it(kit: Kit) -> None:
    """Else it would write into the transaction of another."""
    kept: list[sqlite.Connection] = []

    def keeps(connection: sqlite.Connection) -> None:
        kept.append(connection)

    async def keeps_async(connection: sqlite.Connection) -> None:
        kept.append(connection)

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        await ctx.transaction("keeps", keeps_async if kit.is_async else keeps)
        return await ctx.transaction("write", kit.write(use), word)

    def use() -> None:
        with pytest.raises(sqlite3.ProgrammingError, match="is over"):
            kept[0].execute("INSERT INTO words VALUES ('stray')")

    async with kit.runtime(pay) as runtime:
        assert await (await runtime.start(pay, "one")).result(timeout=20) == "ONE"
        assert kept[0].closed
    assert kit.words() == ["one"]


async def test_a_lock_that_is_another_s_for_long_costs_no_attempt(kit: Kit) -> None:
    assert isinstance(kit, Sqlite)

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        await ctx.step("lock", lock, checkpoint="lazy")
        return await ctx.transaction("write", kit.write(), word, retry=Retry(attempts=1))

    holder = sqlite.connect(kit.path)

    async def lock() -> None:
        holder.begin()

    async with kit.runtime(pay, busy_timeout=0.1) as runtime:
        run = await runtime.start(pay, "one", run_id="r")
        while not holder.in_transaction:  # noqa: ASYNC110 - a step sets it
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # several times as long as it waits for the lock
        holder.commit()
        assert await run.result(timeout=20) == "ONE"
        assert "step_attempt_failed" not in [entry.kind for entry in await runtime.timeline("r")]
    holder.close()
    assert kit.words() == ["one"]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TEMP TABLE words (word TEXT)",  # would take what is meant for the table of that name
        "PRAGMA query_only = 1",
        "/* for good */ PRAGMA locking_mode = EXCLUSIVE",
    ],
)
async def test_what_a_function_leaves_on_its_connection_is_not_the_next_one_s(
    kit: Kit, statement: str
) -> None:
    assert isinstance(kit, Sqlite)
    again = Retry(attempts=1)

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        return await ctx.transaction("write", kit.write(), word, retry=again)

    @workflow
    async def change(ctx: Context) -> None:
        await ctx.transaction("change", execute_async if kit.is_async else execute, retry=again)

    def execute(connection: sqlite.Connection) -> None:
        connection.execute(statement)

    async def execute_async(connection: sqlite.Connection) -> None:
        connection.execute(statement)

    async with kit.runtime(change, pay) as runtime:
        for word in ("one", "two"):
            changed = await runtime.start(change)
            with suppress(RunFailed):  # that one it may hinder
                await changed.result(timeout=20)
            assert await (await runtime.start(pay, word)).result(timeout=20) == word.upper()
            assert kit.words()[-1] == word  # in a connection of its own
