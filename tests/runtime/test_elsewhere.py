"""Calls from other event loops and threads than the one on which the runtime was opened."""

import asyncio
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import pytest

from duramen import Context, Runtime, SignalResult, sqlite, step, workflow
from duramen.errors import NotDurableError, RunFailed, RuntimeClosed, RunTimedOut, RuntimeNotOpen, UnknownRun
from tests.runtime.workflows import ALL, adding, approving, failing, waiting


@contextmanager
def opened(url: str, **options: Any) -> Iterator[Runtime]:
    """A runtime that is open on the loop of another thread."""
    runtime = Runtime(url, workflows=ALL, **options)
    ready: Future[asyncio.AbstractEventLoop] = Future()
    enough = asyncio.Event()

    async def main() -> None:
        async with runtime:
            ready.set_result(asyncio.get_running_loop())
            await enough.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    loop = ready.result(10)
    try:
        yield runtime
    finally:
        loop.call_soon_threadsafe(enough.set)
        thread.join(20)


async def count(runtime: Runtime) -> None:
    await runtime.count()


def here(runtime: Runtime, body: Callable[[Runtime], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(body(runtime), 30))


def test_every_call_is_answered_on_the_loop_of_its_caller(any_url: str) -> None:
    async def body(runtime: Runtime) -> None:
        run = await runtime.start(adding, 1, run_id="a")
        assert await run.result(10) == 2
        assert await runtime.result("a", 10) == 2
        assert (await run.get()).output == 2
        assert [each.kind for each in await run.timeline()][-1] == "run_finished"
        assert (await runtime.run(adding, 4)).output == 5
        assert await runtime.count(workflow=adding) == 2
        assert len(await runtime.list(workflow=adding, limit=10)) == 2
        assert len(await runtime.enqueue_many(pair for pair in [(adding, 1), (adding, 2)])) == 2
        assert len((await runtime.sweep()).queued) == 2
        await runtime.start(waiting, "go", run_id="w")
        assert await runtime.signal_many(each for each in [("w", "go", "on")]) != []
        assert [each.kind async for each in runtime.events("w")][-1] == "run_finished"
        await runtime.run(approving, run_id="p")
        (approval,) = (await runtime.get("p")).waiting_approvals
        assert await runtime.approve("p", approval, True, drive=True) is SignalResult.DELIVERED
        run = await runtime.start(failing, "no", run_id="f")
        with pytest.raises(RunFailed, match="no"):
            await run.result(10)
        await runtime.retry("f", drive=False)
        assert await runtime.terminate("f")
        assert await runtime.delete("f")
        assert [each is None for each in await runtime.get_many(iter(["a", "f"]))] == [False, True]
        assert (await runtime.export("a"))["run"]["run_id"] == "a"
        assert len(await runtime.workers()) == 1
        assert (await runtime.schema()).current
        with pytest.raises(UnknownRun):
            await runtime.get("no")

    with opened(any_url) as runtime:
        here(runtime, body)


def test_whoever_stops_waiting_stops_the_call() -> None:
    async def body(runtime: Runtime) -> None:
        await runtime.start(waiting, "go", run_id="w")
        with pytest.raises(RunTimedOut):
            await runtime.result("w", 0.1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(runtime.result("w"), 0.1)
        listening = runtime._services.lifecycle.driver._waiters  # for whoever still waits over there
        async with asyncio.timeout(10):
            while listening:  # noqa: ASYNC110 - another thread
                await asyncio.sleep(0.01)

    with opened("memory://") as runtime:
        here(runtime, body)


def test_a_connection_is_used_on_the_loop_that_it_belongs_to(sqlite_url: str, file: Any) -> None:
    async def body(runtime: Runtime) -> None:
        with sqlite.connect(file) as connection:
            run = await runtime.enqueue(adding, 1, run_id="a", connection=connection)
            assert run.created
        await runtime.start(waiting, "go", run_id="w")
        with sqlite.connect(file) as connection:
            assert await runtime.signal("w", "go", "on", connection=connection) in {"delivered", "buffered"}
        assert (await runtime.get("a")).status == "queued"

    with opened(sqlite_url) as runtime:
        here(runtime, body)


def test_it_may_be_closed_from_elsewhere() -> None:
    with opened("memory://") as runtime:
        here(runtime, lambda runtime: runtime.close())
        with pytest.raises(RuntimeClosed):
            here(runtime, count)


def test_another_loop_of_the_same_thread_is_refused_with_advice() -> None:
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    runtime = Runtime("memory://", workflows=ALL)
    try:
        first.run_until_complete(runtime.open())
        # It would wait for a loop that cannot run before this one stops.
        with pytest.raises(RuntimeNotOpen, match="cannot run while this code does"):
            second.run_until_complete(runtime.count())
        first.run_until_complete(runtime.close())
    finally:
        first.close()
        second.close()


def test_a_loop_that_stands_still_is_noticed() -> None:
    loop = asyncio.new_event_loop()
    runtime = Runtime("memory://", workflows=ALL)
    try:
        loop.run_until_complete(runtime.open())

        def elsewhere() -> None:
            with pytest.raises(RuntimeClosed, match="stands still"):
                here(runtime, count)
            with pytest.raises(RuntimeClosed, match="stands still"):
                runtime.sync.count()

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        loop.run_until_complete(runtime.close())
    finally:
        loop.close()


def test_a_handler_on_another_thread_is_still_a_handler() -> None:
    with opened("memory://") as outer:

        @workflow
        async def calling(ctx: Context) -> str:
            try:
                await outer.count()
            except NotDurableError as error:
                return str(error)
            return "no error"

        @workflow
        async def by_a_step(ctx: Context) -> int:
            return await counted()

        @step
        async def counted() -> int:
            return await outer.count()

        async def main() -> None:
            async with Runtime("memory://", workflows=[calling, by_a_step]) as runtime:
                assert "step" in await (await runtime.start(calling)).result(5)
                assert await (await runtime.start(by_a_step)).result(5) == 0

        asyncio.run(main())


# -- the façade's own thread ---------------------------------------------------------------------------------


def broken_off(runtime: Runtime) -> None:
    """Let the façade's loop end by an interrupt that nobody expects."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    port = runtime._services.lifecycle.port
    assert port is not None
    port.loop.call_soon_threadsafe(interrupt)


def test_a_call_whose_loop_has_ended_says_so_and_the_next_opens_another(sqlite_url: str) -> None:
    runtime = Runtime(sqlite_url, workflows=ALL)
    try:
        run = runtime.sync.start(waiting, "go", run_id="w")
        waits: Future[str] = Future()

        def wait() -> None:
            try:
                waits.set_result(run.result())
            except RuntimeClosed as error:
                waits.set_exception(error)

        thread = threading.Thread(target=wait)
        thread.start()
        broken_off(runtime)
        with pytest.raises(RuntimeClosed):
            waits.result(20)
        thread.join()
        assert runtime.sync.signal("w", "go", "on", drive=True) in {"delivered", "buffered"}
        assert runtime.sync.result("w", 10) == "on"
    finally:
        runtime.sync.close()


def test_closing_after_the_loop_has_ended_is_no_error(sqlite_url: str) -> None:
    runtime = Runtime(sqlite_url, workflows=ALL)
    runtime.sync.start(waiting, "go", run_id="w")
    broken_off(runtime)
    runtime.sync.close()
    assert [each.name for each in threading.enumerate() if each.name == "duramen-sync"] == []
    with runtime.sync as sync:
        assert sync.get("w").status == "waiting"


# -- signals -------------------------------------------------------------------------------------------------


@contextmanager
def handled(number: int, handler: Any) -> Iterator[None]:
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


async def until_it_works(runtime: Runtime, number: int) -> None:
    """Until `work` has begun: what is due then runs."""
    await runtime.enqueue(adding, number, run_id=f"n{number}")
    assert await runtime.result(f"n{number}", 10) == number + 1


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_somebody_handles_is_left_to_them(number: int) -> None:
    came: list[int] = []

    async def main() -> None:
        async with Runtime("memory://", workflows=ALL) as runtime:
            work = asyncio.create_task(runtime.work())
            await until_it_works(runtime, 1)
            signal.raise_signal(number)
            await until_it_works(runtime, 2)
            assert came == [number]
            assert not work.done()
            work.cancel()
            await asyncio.wait([work])

    with handled(number, lambda number, _: came.append(number)):
        asyncio.run(main())
        assert came == [number]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("told", [None, True])
def test_a_signal_ends_all_workers_of_a_process(number: int, told: bool | None) -> None:
    async def main() -> None:
        async with Runtime("memory://", workflows=ALL) as one, Runtime("memory://", workflows=ALL) as two:
            works = [asyncio.create_task(each.work(handle_signals=told)) for each in (one, two)]
            for runtime in (one, two):
                await until_it_works(runtime, 1)
            signal.raise_signal(number)
            await asyncio.wait_for(asyncio.gather(*works), 20)

    # The test's own process would end by it if nobody took it.
    with handled(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler):
        asyncio.run(main())
        assert signal.getsignal(number) in {signal.SIG_DFL, signal.default_int_handler}


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_a_worker_that_owns_its_process_takes_a_signal_from_others() -> None:
    async def main() -> None:
        async with Runtime("memory://", workflows=ALL) as runtime:
            work = asyncio.create_task(runtime.work(handle_signals=True))
            await until_it_works(runtime, 1)
            signal.raise_signal(signal.SIGTERM)
            await asyncio.wait_for(work, 20)

    def never(number: int, _: Any) -> None:
        raise AssertionError(number)

    with handled(signal.SIGTERM, never):
        asyncio.run(main())
        assert signal.getsignal(signal.SIGTERM) is never


# -- working from the opening on -----------------------------------------------------------------------------


def test_a_runtime_that_works_takes_up_what_is_due_and_lets_go_at_its_end(sqlite_url: str) -> None:
    async def main() -> None:
        async with Runtime(sqlite_url, workflows=ALL) as other:
            async with Runtime(sqlite_url, workflows=ALL, work={"drain": 5, "poll_max": 0.1}) as runtime:
                before = signal.getsignal(signal.SIGTERM)
                await until_it_works(other, 1)
                assert signal.getsignal(signal.SIGTERM) is before
                await other.enqueue("working", 0.5, run_id="long")
                async with asyncio.timeout(10):
                    while (await other.get("long")).status != "running":  # noqa: ASYNC110 - of another
                        await asyncio.sleep(0.01)
                # It may also be told to work as a command line does, and then works as it is told.
                work = asyncio.create_task(runtime.work(handle_signals=False, drain=5))
                await asyncio.sleep(0)
                work.cancel()
                await asyncio.wait([work])
            # The step in flight was recorded, and the run is whole.
            view = await other.get("long")
            assert view.status in {"completed", "waiting"}
            assert view.journal_len >= 2

    asyncio.run(main())


@pytest.mark.parametrize("work", [{"concurency": 3}, {"concurrency": 0}, {"poll_min": 3, "poll_max": 1}, 3])
def test_how_a_runtime_works_is_checked_when_it_is_made(work: Any) -> None:
    with pytest.raises(ValueError, match=r"work is|concurrency|poll_min"):
        Runtime("memory://", work=work)
