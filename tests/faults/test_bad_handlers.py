"""Handlers that misbehave harm their own run at most, and are warned of with the place."""

import asyncio
import concurrent.futures
import logging
import threading
import time
from typing import Any

import pytest

from duramen import Context, Runtime, StepFailed, workflow
from tests.driving.elsewhere import Elsewhere
from tests.regressions.support import finish, ran, story, until, until_status, work_on

pytestmark = pytest.mark.anyio


@workflow
async def neighbour(ctx: Context, ledger: str) -> str:
    await ctx.step("one", work_on, ledger, "one")
    await ctx.sleep(0.01)
    return await ctx.step("two", work_on, ledger, "two")


@workflow
async def catching_everything(ctx: Context, ledger: str) -> list[str]:
    caught: list[str] = []
    while len(caught) < 3:
        try:
            await ctx.wait_for_event("never")
        except BaseException as error:  # noqa: BLE001
            caught.append(type(error).__name__)
            await ctx.step("after", work_on, ledger, f"after{len(caught)}")
    return caught


async def test_a_handler_that_catches_its_cancellations_may_go_on_and_each_reaches_it_once(
    url: str, ledger: str
) -> None:
    async with Runtime(url, workflows=[catching_everything]) as runtime:
        await runtime.enqueue(catching_everything, ledger, run_id="r")
        for n in range(3):
            await runtime.sweep()
            assert (await runtime.get("r")).waiting_events == ("never",)
            await runtime.cancel("r", f"reason {n}")
        view = await finish(runtime, "r")
        assert view.output == ["CancelledError"] * 3
    assert [ran(ledger, f"after{n}") for n in (1, 2, 3)] == [1, 1, 1]


@workflow
async def blocking(ctx: Context, seconds: float) -> str:
    time.sleep(seconds)  # noqa: ASYNC251 - that is what it is about
    return "blocked"


@workflow
async def spinning(ctx: Context) -> str:
    while True:  # noqa: ASYNC110 - that is what it is about
        await asyncio.sleep(0)


@workflow
async def polling_without_yield(ctx: Context, until: float) -> str:
    while time.monotonic() < until:
        pass
    return "span"


@pytest.mark.parametrize("definition", [blocking, polling_without_yield], ids=lambda each: each.name)
async def test_a_handler_that_blocks_the_loop_is_warned_of_with_its_line_and_the_others_go_on_after(
    definition: Any, ledger: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "duramen")
    argument = 0.4 if definition is blocking else time.monotonic() + 0.4
    async with Runtime("memory://", workflows=[definition, neighbour], watchdog=0.05) as runtime:
        bad = await runtime.start(definition, argument)
        good = await runtime.start(neighbour, ledger)
        assert await good.result(timeout=20) == "two"
        assert await bad.result(timeout=20) in {"blocked", "span"}
    assert definition.handler.__name__ in caplog.text
    assert "test_bad_handlers.py:" in caplog.text


async def test_a_handler_that_spins_for_ever_lets_the_others_work_and_can_be_terminated(
    url: str, ledger: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "duramen")
    async with Runtime(url, workflows=[spinning, neighbour], watchdog=0) as runtime:
        bad = await runtime.start(spinning, run_id="bad")
        goods = [await runtime.start(neighbour, ledger) for _ in range(5)]
        for good in goods:
            assert await good.result(timeout=30) == "two"

        async def warned() -> bool:
            return "runs on and on" in caplog.text and "'bad'" in caplog.text

        await until(warned)
        await bad.terminate("it spins")
        await until_status(runtime, "bad", "terminated")


@workflow
async def leaking(ctx: Context, ledger: str) -> str:
    async def forgotten(n: int) -> None:
        await ctx.sleep(0.02)
        await ctx.step(f"leak{n}", work_on, ledger, f"leak{n}")

    keep = [asyncio.create_task(forgotten(n), name=f"forgotten-{n}") for n in range(3)]
    await ctx.step("real", work_on, ledger, "real")
    return f"{len(keep)} left behind"


async def test_tasks_that_a_handler_leaves_behind_end_with_it_and_are_named(
    url: str, ledger: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "duramen")
    async with Runtime(url, workflows=[leaking, neighbour]) as runtime:
        run = await runtime.start(leaking, ledger, run_id="r")
        assert await run.result(timeout=20) == "3 left behind"
        told = await story(runtime, "r")
        assert told == ["run_created", "step_completed real", "run_finished"]
        # Others on the same loop, after it, come to no harm.
        assert await (await runtime.start(neighbour, ledger)).result(timeout=20) == "two"
        assert await story(runtime, "r") == told
    assert "forgotten-1" in caplog.text
    assert not any(ran(ledger, f"leak{n}") for n in range(3))


foreign: dict[str, Any] = {}


@workflow
async def awaiting_a_foreign_future(ctx: Context, which: str) -> object:
    await ctx.sleep(0)
    if which == "of the host's loop":
        return await foreign["future"]
    if which == "of a thread pool":
        return await asyncio.wrap_future(foreign["pool"].submit(foreign["gate"].wait))
    if which == "in an executor":
        return await asyncio.to_thread(str, 1)
    if which == "an event of the host's loop":
        return await foreign["event"].wait()
    return await asyncio.open_connection("127.0.0.1", 9)


KINDS = [
    "of the host's loop", "of a thread pool", "in an executor", "an event of the host's loop", "a connection",
]  # fmt: skip


async def test_what_a_handler_must_not_await_fails_its_run_with_advice_and_no_other(
    url: str, ledger: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "duramen")
    foreign["future"] = asyncio.get_running_loop().create_future()
    foreign["event"] = asyncio.Event()
    foreign["gate"] = threading.Event()
    foreign["pool"] = concurrent.futures.ThreadPoolExecutor(1)
    waiter = asyncio.ensure_future(foreign["event"].wait())  # binds it to this loop
    await asyncio.sleep(0)
    try:
        async with Runtime(url, workflows=[awaiting_a_foreign_future, neighbour]) as runtime:
            for kind in KINDS:
                await runtime.enqueue(awaiting_a_foreign_future, kind, run_id=kind)
            await runtime.enqueue(neighbour, ledger, run_id="good")
            found = {run.run_id: run.kind for run in (await runtime.sweep(max_queued=100)).queued}
            assert found == dict.fromkeys(KINDS, "failed") | {"good": "completed"}
            for kind in KINDS:
                view = await runtime.get(kind)
                text = view.error.message if view.error is not None else view.note
                assert text is not None
                assert any(word in text for word in ("step", "different loop", "different event loop"))
    finally:
        foreign["gate"].set()
        foreign["event"].set()
        foreign["pool"].shutdown()
        await waiter


@workflow
async def calling_from_elsewhere(ctx: Context, ledger: str) -> list[str]:
    refused: list[str] = []

    def from_a_thread() -> None:
        for call in (
            lambda: asyncio.run(ctx.step("wrong", work_on, ledger, "wrong")),
            lambda: asyncio.run(ctx.sleep(1)),
            ctx.now,
            lambda: ctx.emit("x"),
        ):
            try:
                call()
            except Exception as error:  # noqa: BLE001
                refused.append(type(error).__name__)

    foreign["elsewhere"].do(from_a_thread)

    async def from_a_step() -> None:
        await ctx.step("inner", work_on, ledger, "wrong")

    def from_a_step_in_a_thread() -> None:
        ctx.random()

    for fn in (from_a_step, from_a_step_in_a_thread):
        try:
            await ctx.step(fn.__name__, fn)
        except StepFailed as error:
            refused.append(error.error.short_name)
    return refused


async def test_durable_calls_from_threads_and_steps_are_refused_and_write_nothing(
    url: str, ledger: str
) -> None:
    with Elsewhere() as foreign["elsewhere"]:
        async with Runtime(url, workflows=[calling_from_elsewhere]) as runtime:
            run = await runtime.start(calling_from_elsewhere, ledger, run_id="r")
            assert await run.result(timeout=20) == ["NotADurableContext"] * 6
            assert await story(runtime, "r") == [
            "run_created", "step_failed from_a_step", "step_failed from_a_step_in_a_thread", "run_finished",
        ]  # fmt: skip
    assert ran(ledger, "wrong") == 0


@workflow
async def deadlocked(ctx: Context) -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    await lock.acquire()


async def test_a_handler_that_waits_for_what_cannot_come_is_parked_with_the_reason(url: str) -> None:
    async with Runtime(url, workflows=[deadlocked]) as runtime:
        await runtime.enqueue(deadlocked, run_id="r")
        assert [run.kind for run in (await runtime.sweep()).queued] == ["stuck"]
        view = await runtime.get("r")
        assert view.note is not None
        assert "can never go on" in view.note
        await runtime.terminate("r", "hopeless")


@workflow(timeout=3600)
async def swallowing(ctx: Context) -> str:
    try:
        await ctx.wait_for_event("never")
    except asyncio.CancelledError:
        return "carried on"
    return "?"


async def test_a_handler_that_swallows_its_cancellation_completes_and_is_warned_of(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "duramen")
    async with Runtime(url, workflows=[swallowing]) as runtime:
        await runtime.enqueue(swallowing, run_id="r")
        await runtime.sweep()
        await runtime.cancel("r", "please")
        view = await finish(runtime, "r")
        assert (view.status, view.output) == ("completed", "carried on")
    assert "swallowed its cancellation" in caplog.text
