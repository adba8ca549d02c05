"""No handler gets into a thread or onto another loop: it is refused before anything happens there."""

import _thread
import asyncio
import concurrent.futures
import functools
import importlib
import logging
import logging.handlers
import multiprocessing
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from duramen import Context, Runtime, StepFailed, workflow
from tests.regressions.support import finish, until_status

pytestmark = pytest.mark.anyio

effects: list[str] = []
given: dict[str, Any] = {}


def effect() -> None:
    effects.append("happened")


def effect_in(file: str) -> None:
    Path(file).touch()


async def effect_on_a_loop() -> None:
    effects.append("happened on a loop")


def start_a_thread() -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def work() -> None:
        effect()
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work).start()


async def in_a_new_pool() -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        await asyncio.wrap_future(pool.submit(effect))


async def in_a_new_pool_of_processes(executor: str, method: str) -> None:
    context = multiprocessing.get_context(method)
    if executor == "concurrent":
        with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
            await asyncio.wrap_future(pool.submit(effect))
    else:
        with context.Pool(1) as pool:
            pool.apply(effect)


def submitted(pool: concurrent.futures.Executor) -> None:
    pool.submit(effect_in, given["file"])


async def through_a_portal() -> None:
    with anyio.from_thread.start_blocking_portal() as portal:
        portal.call(effect)


async def nested() -> None:
    coroutine = effect_on_a_loop()
    try:
        asyncio.run(coroutine)
    finally:
        coroutine.close()


async def nested_by_hand() -> None:
    loop = asyncio.new_event_loop()
    coroutine = effect_on_a_loop()
    try:
        loop.run_until_complete(coroutine)
    finally:
        coroutine.close()
        loop.close()


async def on_the_programs_loop() -> None:
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(effect_on_a_loop(), given["loop"]))


WAYS: dict[str, Callable[[], Any]] = {
    "asyncio.to_thread": lambda: asyncio.to_thread(effect),
    "anyio.to_thread": lambda: anyio.to_thread.run_sync(effect),
    "anyio.to_thread, to be left": lambda: anyio.to_thread.run_sync(effect, abandon_on_cancel=True),
    "the loop's executor": lambda: asyncio.get_running_loop().run_in_executor(None, effect),
    "an executor of one's own": lambda: asyncio.get_running_loop().run_in_executor(given["pool"], effect),
    "a pool that is there": lambda: asyncio.wrap_future(given["pool"].submit(effect)),
    "a pool made for it": in_a_new_pool,
    "a thread": start_a_thread,
    "a thread, the low way": lambda: _thread.start_new_thread(effect, ()),
    "a pool of processes": lambda: given["processes"].submit(effect_in, given["file"]).result(),
    "a pool of processes, to be left": lambda: (
        str(given["processes"].submit(effect_in, given["file"])) and None
    ),
    "a pool of multiprocessing": lambda: given["pool of processes"].apply(effect_in, (given["file"],)),
    "a pool of multiprocessing, mapped": lambda: given["pool of processes"].map(effect_in, [given["file"]]),
    **{
        f"a new pool of processes, {executor}, {method}": functools.partial(
            in_a_new_pool_of_processes, executor, method
        )
        for executor in ("concurrent", "multiprocessing")
        for method in multiprocessing.get_all_start_methods()
    },
    "a process": lambda: multiprocessing.get_context("spawn").Process(target=effect).start(),
    "a timer": lambda: threading.Timer(0, effect).start(),
    "anyio's portal": through_a_portal,
    "anyio.from_thread": lambda: anyio.from_thread.run_sync(effect),
    "the program's loop": on_the_programs_loop,
    "asyncio.run": nested,
    "run_until_complete": nested_by_hand,
    "anyio.run": lambda: anyio.run(effect_on_a_loop),
    "a subprocess": lambda: asyncio.create_subprocess_exec("true"),
    "a shell": lambda: asyncio.create_subprocess_shell("true"),
    "anyio's subprocess": lambda: anyio.run_process(["true"]),
    "a connection": lambda: asyncio.open_connection("127.0.0.1", 9),
    "a server": lambda: asyncio.start_server(lambda *_: effect(), port=0),
    "a reader": lambda: asyncio.get_running_loop().add_reader(0, effect),
    "a signal handler": lambda: asyncio.get_running_loop().add_signal_handler(10, effect),
}


@workflow
async def trying(ctx: Context, way: str) -> str:
    found = WAYS[way]()
    return str(await found if found is not None else found)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[None]:
    given["file"] = str(tmp_path / "effect")
    spawn = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ThreadPoolExecutor(1) as given["pool"],
        concurrent.futures.ProcessPoolExecutor(1, spawn) as given["processes"],
        spawn.Pool(1) as given["pool of processes"],
    ):
        given["pool"].submit(int).result()
        given["processes"].submit(int).result()
        given["pool of processes"].apply(int)
        yield


async def test_every_way_into_a_thread_or_onto_another_loop_is_refused_before_its_effect(
    url: str, pool: None
) -> None:
    effects.clear()
    given["loop"] = asyncio.get_running_loop()
    async with Runtime(url, workflows=[trying], watchdog=0) as runtime:
        threads, processes = threading.active_count(), set(multiprocessing.active_children())
        for way in WAYS:
            await runtime.enqueue(trying, way, run_id=way)
        found = {run.run_id: run.kind for run in (await runtime.sweep(max_queued=100)).queued}
        assert found == dict.fromkeys(WAYS, "failed")
        for way in WAYS:
            error = (await runtime.get(way)).error
            assert error is not None
            assert error.short_name in {"NotDurableError", "RuntimeError", "NoEventLoopError"}, (way, error)
        await asyncio.sleep(0)
        assert threading.active_count() == threads
        assert set(multiprocessing.active_children()) == processes
    assert effects == []
    given["processes"].submit(int).result()  # what had been given to it before was done by now
    assert not Path(given["file"]).exists()  # noqa: ASYNC240


PROGRAM = """
import anyio, anyio.to_thread, asyncio, concurrent.futures, sys
from duramen import Context, Runtime, workflow

@workflow
async def w(ctx: Context) -> None:
    if sys.argv[1] == "thread":
        await anyio.to_thread.run_sync(print, "effect")
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        pool.submit(print, "effect")

async def main():
    async with Runtime("memory://", workflows=[w]) as runtime:
        run = await runtime.start(w)
        try:
            await run.result(timeout=20)
        except Exception as error:
            print(type(error).__name__)

asyncio.run(main())
"""


@pytest.mark.parametrize("wanted", ["thread", "process"])
def test_a_process_whose_handler_wanted_a_thread_ends(wanted: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, wanted], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "RunFailed\n"


@workflow
async def telling(ctx: Context) -> str:
    logging.getLogger("tests.telling").warning("hello")
    given["module"] = importlib.import_module("module_with_a_thread")
    return "told"


async def test_where_records_go_and_what_is_imported_may_have_threads(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that is sent by a thread which the first record starts, as error trackers do it."""
    sent: queue.SimpleQueue[str] = queue.SimpleQueue()

    class Sending(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            threading.Thread(target=sent.put, args=(record.getMessage(),)).start()

    (tmp_path / "module_with_a_thread.py").write_text(
        "import threading\nthread = threading.Thread(target=int)\nthread.start()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "module_with_a_thread", raising=False)
    handler = Sending()
    logging.getLogger("tests.telling").addHandler(handler)
    try:
        async with Runtime(url, workflows=[telling]) as runtime:
            assert await (await runtime.start(telling)).result(timeout=20) == "told"
        assert sent.get(timeout=20) == "hello"
        given["module"].thread.join(20)
    finally:
        logging.getLogger("tests.telling").removeHandler(handler)


def test_elsewhere_threads_start_as_ever() -> None:
    async def main() -> list[Any]:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            return [
                await asyncio.to_thread(int, "1"),
                await anyio.to_thread.run_sync(int, "2"),
                await asyncio.wrap_future(pool.submit(int, "3")),
            ]

    assert asyncio.run(main()) == [1, 2, 3]


# -- what asyncio binds to a loop

SHARED: dict[str, Callable[[], Any]] = {
    "lock": asyncio.Lock,
    "semaphore": lambda: asyncio.Semaphore(1),
    "queue": asyncio.Queue,
    "event": asyncio.Event,
    "condition": asyncio.Condition,
    "barrier": lambda: asyncio.Barrier(3),
    "bounded semaphore": lambda: asyncio.BoundedSemaphore(1),
}


async def use(name: str, thing: Any) -> None:
    if name == "queue":
        await thing.get()
    elif name in {"event", "barrier"}:
        await thing.wait()
    elif name == "condition":
        async with thing:
            await thing.wait()
    else:
        async with thing, thing:
            pass


@workflow
async def sharing(ctx: Context, name: str) -> None:
    async with asyncio.timeout(3600):
        await use(name, given[name])


@pytest.mark.parametrize("name", list(SHARED))
async def test_what_asyncio_binds_to_a_loop_and_runs_share_fails_with_what_to_write(
    url: str, name: str
) -> None:
    given[name] = SHARED[name]()
    async with Runtime(url, workflows=[sharing]) as runtime:
        await runtime.start(sharing, name, run_id="first")
        await until_status(runtime, "first", "waiting")
        await runtime.start(sharing, name, run_id="second")
        error = (await until_status(runtime, "second", "failed")).error
        assert error is not None
        assert error.short_name == "NotDurableError"
        assert "make it inside of the handler, or use it in a step" in error.message
        await runtime.terminate("first")


# -- context variables

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


async def who() -> str:
    found = tenant.get()
    tenant.set("the step's own")
    return found


def who_in_a_thread() -> str:
    found = tenant.get()
    tenant.set("the step's own")
    return found


@workflow
async def speaking(ctx: Context, ledger: str) -> list[str]:
    seen = [await ctx.step("before", who)]
    tenant.set("acme")
    seen += [await ctx.step("loop", who), await ctx.step("thread", who_in_a_thread)]

    async def child() -> str:
        tenant.set("child")
        return await ctx.step("child", who)

    seen += [await asyncio.create_task(child()), tenant.get()]
    await ctx.wait_for_event("go")
    tries: list[str] = []

    async def failing() -> str:
        tries.append(tenant.get())
        if len(tries) < 2:
            raise ValueError
        return ",".join(tries)

    from duramen import Retry

    seen.append(await ctx.step("after", failing, retry=Retry(attempts=2, base=0)))
    return seen


async def test_a_step_sees_the_context_variables_of_its_handler(url: str, ledger: str) -> None:
    tenant.set("the program's")
    async with Runtime(url, workflows=[speaking], warm=0) as runtime:
        await runtime.start(speaking, ledger, run_id="r")
        await until_status(runtime, "r", "waiting")
        await runtime.signal("r", "go")
        view = await finish(runtime, "r")
        assert view.output == ["nobody", "acme", "acme", "child", "acme", "acme,acme"]
    assert tenant.get() == "the program's"


@workflow
async def nesting(ctx: Context) -> str:
    async def inner() -> str:
        from duramen import step

        @step
        async def plain() -> str:
            return "plainly"

        return await plain()  # in a step it is a function like any other

    try:
        return await ctx.step("outer", inner)
    except StepFailed as error:
        return error.error.message


async def test_in_a_step_the_handlers_context_is_not_in_force(url: str) -> None:
    async with Runtime(url, workflows=[nesting]) as runtime:
        assert await (await runtime.start(nesting)).result(timeout=20) == "plainly"
