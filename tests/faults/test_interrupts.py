"""`KeyboardInterrupt` is the process's: the run is given back, and no other run suffers from it."""

import asyncio
import logging
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, Retry, Runtime, workflow
from duramen.errors import RuntimeClosed
from tests.regressions.support import ran, wait_until


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "duramen")


# -- a process

PROGRAM = """
import asyncio, sys
from pathlib import Path
from duramen import Context, Runtime, workflow

url, ledger, how = sys.argv[1:]

def note(what):
    with Path(ledger).open("a") as file:
        file.write(f"ran {what} x\\n")

async def on_the_loop():
    note("interrupted")
    if first: raise KeyboardInterrupt

def in_a_thread():
    note("interrupted")
    if first: raise KeyboardInterrupt

async def in_a_task():
    note("interrupted")
    async with asyncio.TaskGroup() as group:
        group.create_task(leave())

async def leave():
    if first: sys.exit(3)

async def long(number):
    note(f"long {number}")
    if first: await asyncio.Event().wait()

@workflow
async def bad(ctx: Context) -> str:
    await ctx.step("bad", {"loop": on_the_loop, "thread": in_a_thread, "task": in_a_task}[how])
    return "done"

@workflow
async def good(ctx: Context, number: int) -> str:
    await ctx.step("long", long, number)
    return "done"

async def main():
    global first
    async with Runtime(url, workflows=[bad, good]) as runtime:
        first = await runtime.count() == 0
        if first:
            for number in range(20):
                await runtime.start(good, number, run_id=f"good-{number}")
            while Path(ledger).exists() is False or Path(ledger).read_text().count("long") < 20:
                await asyncio.sleep(0.01)
            await runtime.start(bad, run_id="bad")
            await asyncio.sleep(60)
        else:
            while not await runtime.sweep() or await runtime.count(status="completed", id_prefix="good") < 20:
                await asyncio.sleep(0.01)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["loop", "thread", "task"])
def test_a_process_that_a_step_ends_fails_no_run_and_the_next_one_finishes_all(
    url: str, tmp_path: Path, ledger: str, how: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def play() -> int:
        return subprocess.run(
            [sys.executable, str(program), url, ledger, how],
            stderr=subprocess.DEVNULL,
            timeout=100,
            check=False,
        ).returncode

    assert play() == (3 if how == "task" else -2 if sys.platform != "win32" else 1)

    async def statuses() -> set[str]:
        async with Runtime(url, workflows=[]) as runtime:
            runs = (await runtime.list(id_prefix="good", limit=100)).items
            return {str(run.status.value) for run in runs}

    assert asyncio.run(statuses()) <= {"waiting", "running"}
    assert play() == 0
    assert asyncio.run(statuses()) == {"completed"}
    assert [ran(ledger, f"long {number}") for number in range(20)] == [2] * 20


# -- under the blocking façade


def interrupt(ledger: str) -> str:
    wait_until(lambda: ran(ledger, "go"))
    with Path(ledger).open("a") as file:
        file.write("ran interrupt x\n")
    if ran(ledger, "interrupt") == 1:
        raise KeyboardInterrupt
    return "done"


async def wait_for_go(ledger: str) -> None:
    while not ran(ledger, "go"):  # noqa: ASYNC110
        await asyncio.sleep(0.005)


async def interrupt_on_the_loop(ledger: str) -> str:
    await wait_for_go(ledger)
    return interrupt(ledger)


@workflow
async def in_a_thread(ctx: Context, ledger: str) -> str:
    return await ctx.step("interrupt", interrupt, ledger)


@workflow
async def on_the_loop(ctx: Context, ledger: str) -> str:
    return await ctx.step("interrupt", interrupt_on_the_loop, ledger)


@workflow
async def in_the_handler(ctx: Context, ledger: str) -> str:
    await ctx.step("wait", wait_for_go, ledger)
    return interrupt(ledger)


@workflow
async def leaving(ctx: Context) -> str:
    await ctx.step("exit", sys.exit, 3, retry=Retry(attempts=2, base=0))
    return "?"


@pytest.mark.parametrize("definition", [in_a_thread, on_the_loop, in_the_handler], ids=lambda each: each.name)
def test_a_call_whose_loop_has_ended_says_so_and_the_next_one_opens_another(
    url: str, ledger: str, definition: Any
) -> None:
    with Runtime(url, workflows=[definition]).sync as runtime:
        run = runtime.start(definition, ledger, run_id="r")
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                run.result(60)
            except BaseException as error:  # noqa: BLE001
                raised.append(error)

        loop: Any = runtime._services.lifecycle.port.loop  # pyright: ignore[reportPrivateUsage]
        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_until(lambda: any("result" in repr(task.get_coro()) for task in asyncio.all_tasks(loop)))
        with Path(ledger).open("a") as file:
            file.write("ran go x\n")
        waiting.join(60)
        assert [type(error) for error in raised] == [RuntimeClosed]
        assert runtime.get("r").status in {"waiting", "running"}
        while runtime.get("r").status != "completed":
            runtime.sweep()
        assert runtime.get("r").output == "done"
    assert ran(ledger, "interrupt") == 2


def test_an_exit_of_a_step_ends_no_loop(url: str) -> None:
    with Runtime(url, workflows=[leaving]).sync as runtime:
        runtime.start(leaving, run_id="r")
        while runtime.get("r").status != "failed":
            pass
        error = runtime.get("r").error
        assert error is not None
        assert error.cause is not None
        assert error.cause.short_name == "SystemExit"


def test_a_call_on_a_programs_loop_that_has_ended_says_so(url: str) -> None:
    """The runtime was opened there, and never closed."""
    runtime = Runtime(url, workflows=[])
    loop = asyncio.new_event_loop()
    loop.run_until_complete(runtime.open())
    raised: list[BaseException] = []

    def call() -> None:
        try:
            runtime.sync.count()
        except BaseException as error:  # noqa: BLE001
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()  # the call waits: nothing runs that loop
    loop.close()
    thread.join(30)
    assert [type(error) for error in raised] == [RuntimeClosed]
