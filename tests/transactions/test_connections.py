"""`enqueue` and `signal` on a connection of the user's: they take place if its transaction does, or not."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

import pytest

from duramen import Context, Runtime, SignalResult, workflow
from duramen.errors import InvalidArgument, InvalidId, RunIdConflict, SerializationError, UnusableConnection
from tests.transactions.kits import DRIVERS, Kit, Postgres, Sqlite
from tests.transactions.states import ENTRIES, Driven, walk, walk_sync

pytestmark = pytest.mark.anyio


@workflow
async def hello(ctx: Context, name: str) -> str:
    return f"hello {name}"


@workflow
async def waiting(ctx: Context) -> str:
    return await ctx.wait_for_event("go", str)


class Undone(Exception):
    """Rolls the user's transaction back."""


async def use(kit: Kit, runtime: Runtime, work: Callable[[Any, Any], Any]) -> list[Any]:
    """Call `work(calls, connection)` for each of its calls, and write a word beside them.

    With an async driver the calls are the runtime's, with a blocking one `runtime.sync`'s, in a thread.
    """
    if kit.is_async:
        async with kit.transaction() as connection:
            value = kit.insert(connection, "beside")
            if isawaitable(value):
                await value
            return [await each for each in work(runtime, connection)]

    def in_thread() -> list[Any]:
        with kit.transaction_sync() as connection:
            kit.insert(connection, "beside")
            return list(work(runtime.sync, connection))

    return await asyncio.to_thread(in_thread)


async def test_a_run_is_created_if_the_transaction_commits(kit: Kit) -> None:
    async with kit.runtime(hello) as runtime:

        def work(calls: Any, connection: Any) -> Any:
            for _ in range(2):
                yield calls.enqueue(
                    hello, "you", run_id="r", tags=["a", "b"], memo={"x": 1}, connection=connection
                )

        first, again = await use(kit, runtime, work)
        assert (first.created, again.created) == (True, False)
        view = await runtime.get("r")
        assert (view.status, view.input, view.tags, view.memo) == ("queued", "you", ("a", "b"), {"x": 1})
        assert len((await runtime.sweep()).queued) == 1
        assert await runtime.result("r", 10) == "hello you"
    assert kit.words() == ["beside"]


async def test_nothing_is_created_or_sent_if_it_rolls_back(kit: Kit) -> None:
    async with kit.runtime(hello, waiting) as runtime:
        await runtime.run(waiting, run_id="w")

        def work(calls: Any, connection: Any) -> Any:
            yield calls.enqueue(hello, "you", run_id="r", connection=connection)
            yield calls.signal("w", "go", "on", signal_id="s", connection=connection)
            raise Undone

        with pytest.raises(Undone):
            await use(kit, runtime, work)
        assert await runtime.get_many(["r"]) == [None]
        assert not (await runtime.sweep()).timers
        # Not even its id was kept: sent again it is no duplicate.
        assert await runtime.signal("w", "go", "now", signal_id="s") is SignalResult.DELIVERED
        assert await runtime.result("w", 10) == "now"
    assert kit.words() == []


async def test_an_event_is_sent_if_it_commits_with_the_answers_of_an_ordinary_signal(kit: Kit) -> None:
    async with kit.runtime(hello, waiting) as runtime:
        await runtime.run(waiting, run_id="w")
        await runtime.run(hello, "you", run_id="over")
        await runtime.enqueue(waiting, run_id="later")

        def work(calls: Any, connection: Any) -> Any:
            for run_id in ("w", "w", "over", "none", "later"):
                yield calls.signal(run_id, "go", run_id, signal_id="s", connection=connection)

        assert await use(kit, runtime, work) == [
            SignalResult.DELIVERED,
            SignalResult.DUPLICATE,
            SignalResult.FINISHED,
            SignalResult.NOT_FOUND,
            SignalResult.BUFFERED,
        ]
        assert await runtime.signal("w", "go", "again", signal_id="s") is SignalResult.DUPLICATE
        await runtime.sweep()
        assert [await runtime.result(run_id, 10) for run_id in ("w", "later")] == ["w", "later"]


@pytest.mark.parametrize("driver", [driver for driver in DRIVERS if driver.endswith("-async")])
async def test_changes_at_once_on_one_connection_are_made_one_after_the_other(kit: Kit) -> None:
    """asyncpg refuses a statement while another one is under way."""
    async with kit.runtime(hello, waiting) as runtime:
        async with kit.transaction() as connection:
            await asyncio.gather(
                *(runtime.enqueue(hello, f"{n}", run_id=f"{n}", connection=connection) for n in range(9)),
                *(runtime.signal(f"{n}", "go", connection=connection) for n in range(9)),
            )
        assert await runtime.count() == 9


async def test_the_same_is_refused_as_without_a_connection(kit: Kit) -> None:
    async with kit.runtime(hello, waiting) as runtime:
        await runtime.enqueue(hello, "you", run_id="r")

        async def refused(error: type[Exception], work: Callable[[Any, Any], Any]) -> None:
            with pytest.raises(error):
                await use(kit, runtime, lambda calls, connection: [work(calls, connection)])

        await refused(RunIdConflict, lambda calls, c: calls.enqueue(waiting, run_id="r", connection=c))
        await refused(InvalidId, lambda calls, c: calls.enqueue(waiting, run_id="", connection=c))
        await refused(SerializationError, lambda calls, c: calls.enqueue(hello, object(), connection=c))
        await refused(SerializationError, lambda calls, c: calls.signal("r", "x", object(), connection=c))
        await refused(InvalidArgument, lambda calls, c: calls.signal("r", "x", drive=True, connection=c))
    assert kit.words() == []


async def test_a_function_in_a_transaction_may_use_its_connection_for_more(kit: Kit) -> None:
    """The outbox of a step: a run that is there if and only if the step's own data is."""
    runtime = kit.runtime()

    if kit.is_async:

        async def write(connection: Any, word: str) -> str:
            value = kit.insert(connection, word)
            if isawaitable(value):
                await value
            return (await runtime.enqueue(hello, word, run_id="next", connection=connection)).run_id
    else:

        def write(connection: Any, word: str) -> str:
            kit.insert(connection, word)
            return runtime.sync.enqueue(hello, word, run_id="next", connection=connection).run_id

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        return await ctx.transaction("write", write, word)

    runtime = kit.runtime(pay, hello)
    async with runtime:
        assert await (await runtime.start(pay, "one")).result(timeout=10) == "next"
        await runtime.sweep()
        assert await runtime.result("next", 10) == "hello one"
    assert kit.words() == ["one"]


async def test_a_connection_without_an_open_transaction_is_refused(kit: Kit) -> None:
    async with kit.runtime(hello) as runtime:
        for made in kit.unusable():
            connection = await made if isawaitable(made) else made

            async def enqueue(connection: Any = connection) -> None:
                if kit.is_async:
                    await runtime.enqueue(hello, "you", run_id="r", connection=connection)
                else:
                    await asyncio.to_thread(runtime.sync.enqueue, hello, "you", connection=connection)

            with pytest.raises(UnusableConnection):
                await enqueue()
            closed = connection.close()
            if isawaitable(closed):
                await closed
        assert await runtime.get_many(["r"]) == [None]


@pytest.mark.parametrize("driver", ["psycopg-async", "psycopg-sync", "asyncpg-async"])
async def test_converters_that_change_what_the_store_writes_are_refused(kit: Kit) -> None:
    async with kit.runtime(hello) as runtime:

        async def enqueue_after(steps: Callable[[Driven], Any]) -> None:
            async with kit.transaction() as connection:
                on = Driven(kit, connection)
                if kit.is_async:
                    await walk(steps(on))
                    await runtime.enqueue(hello, "you", connection=connection)
                else:
                    walk_sync(steps(on))
                    await asyncio.to_thread(lambda: runtime.sync.enqueue(hello, "you", connection=connection))

        for state in ENTRIES:
            if kit.driver in state.drivers and state.name in {"converters of text", "text that becomes NULL"}:
                with pytest.raises(UnusableConnection, match="come back"):
                    await enqueue_after(state.steps)
        assert await runtime.count() == 0


async def test_the_other_kind_of_connection_is_refused_with_the_way_out(kit: Kit) -> None:
    if isinstance(kit, Sqlite):
        return  # its connection is of both kinds
    assert isinstance(kit, Postgres)
    async with kit.runtime(hello) as runtime, kit.transaction() as connection:
        if kit.is_async:
            with pytest.raises(UnusableConnection, match="await the runtime's own call"):
                await asyncio.to_thread(lambda: runtime.sync.enqueue(hello, "you", connection=connection))
        else:
            with pytest.raises(UnusableConnection, match=r"runtime\.sync"):
                await runtime.enqueue(hello, "you", connection=connection)
