"""Steps that tell of their progress, and hear that nobody waits for them any more."""

import asyncio
import threading
from functools import partial
from typing import Any

import pytest

from duramen import (
    Context,
    Next,
    Retry,
    RunCancelled,
    Runtime,
    StepContext,
    StepTimeout,
    step,
    step_context,
    workflow,
)
from duramen._driving import telling
from duramen.errors import InvalidArgument, WorkflowDefinitionError
from duramen.testing import Environment
from tests.regressions.support import until, until_true

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def kinds(runtime: Runtime, run_id: str) -> list[str]:
    return [f"{each.kind} {each.op}".strip() for each in await runtime.timeline(run_id)]


# -- progress ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_thread", [False, True])
async def test_the_next_attempt_reads_the_progress_of_the_last_one(any_url: str, in_thread: bool) -> None:
    seen: list[Any] = []

    def work() -> str:
        here = step_context()
        seen.append(here.progress)
        for n in range(3):
            here.heartbeat({"attempt": here.attempt, "rows": n})
            assert here.progress == {"attempt": here.attempt, "rows": n}
        if here.attempt < 3:
            raise ValueError("again")
        return "done"

    async def async_work() -> str:
        return work()

    @workflow(retry=Retry(attempts=3, base=0))
    async def wf(ctx: Context) -> str:
        return await ctx.step("import", work if in_thread else async_work)

    async with Runtime(any_url, workflows=[wf]) as runtime:
        run = await runtime.start(wf)
        assert await run.result(timeout=20) == "done"
        told = [
            (each.attempt, each.data)
            for each in await runtime.timeline(run.run_id)
            if each.kind == "step_progress"
        ]
    assert seen == [None, {"attempt": 1, "rows": 2}, {"attempt": 2, "rows": 2}]
    # The first is recorded at once, the last with the failure; nothing of the attempt that ended well is due.
    assert [data for _, data in told if data["attempt"] < 3 and data["rows"] == 2] == seen[1:]


async def test_another_process_goes_on_from_the_progress(url: str) -> None:
    begun = asyncio.Event()
    release = asyncio.Event()
    seen: list[Any] = []

    async def work() -> str:
        here = step_context()
        seen.append((here.attempt, here.progress))
        here.heartbeat(len(seen))
        begun.set()
        await release.wait()
        return "done"

    @workflow
    async def wf(ctx: Context) -> str:
        return await ctx.step("work", work)

    async with Runtime(url, workflows=[wf], shutdown_timeout=0) as runtime:
        run = await runtime.start(wf, run_id="r")
        await begun.wait()
        await until(partial(is_recorded, runtime))
    async with Runtime(url, workflows=[wf], work=True, lease=1) as runtime:
        await until_true(lambda: len(seen) == 2)
        release.set()
        assert await runtime.result(run.run_id, timeout=20) == "done"
    assert seen == [(1, None), (1, 1)]


async def is_recorded(runtime: Runtime) -> bool:
    return "step_progress work" in await kinds(runtime, "r")


async def test_many_heartbeats_are_few_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "_LEAST", 0.05)

    async def work() -> None:
        for n in range(5000):
            step_context().heartbeat(n)
            if n % 1000 == 0:
                await asyncio.sleep(0.06)

    @workflow
    async def wf(ctx: Context) -> None:
        await ctx.step("work", work)

    async with Runtime("memory://", workflows=[wf]) as runtime:
        run = await runtime.start(wf)
        await run.result(timeout=20)
        told = [each.data for each in await runtime.timeline(run.run_id) if each.kind == "step_progress"]
    assert 2 <= len(told) <= 10
    assert told == sorted(told)


async def test_a_progress_that_cannot_be_stored_is_refused_at_the_call() -> None:
    found: list[str] = []

    def work() -> Any:
        for bad in (float("nan"), object(), {1, object()}):
            try:
                step_context().heartbeat(bad)
            except ValueError as error:
                found.append(type(error).__name__)
        return step_context().progress

    @workflow
    async def wf(ctx: Context) -> Any:
        return await ctx.step("work", work)

    async with Environment([wf]) as env:
        run = await env.runtime.start(wf)
        assert await run.result() is None
        assert "step_progress work" not in await kinds(env.runtime, run.run_id)
    assert found == ["SerializationError"] * 3


# -- silence -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("through", [False, True])
async def test_an_attempt_that_falls_silent_has_failed(in_thread: bool, through: bool) -> None:
    release = threading.Event()
    attempts: list[int] = []
    ends: list[str] = []

    @step(heartbeat_timeout=0.05, retry=Retry(attempts=2, base=0))
    async def on_the_loop() -> str:
        attempts.append(step_context().attempt)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return "done"

    @step(heartbeat_timeout=0.05, retry=Retry(attempts=2, base=0))
    def in_a_thread() -> str:
        attempts.append(step_context().attempt)
        if step_context().wait_cancelled(60):
            ends.append("cancelled")
        step_context().raise_if_cancelled()
        return "done"

    async def middle(step: StepContext, call_next: Next) -> Any:
        return await call_next()

    @workflow(step_middleware=[middle] if through else [])
    async def wf(ctx: Context) -> str:
        try:
            return await (in_a_thread() if in_thread else on_the_loop())
        except StepTimeout as error:
            return error.error.message

    async with Runtime("memory://", workflows=[wf]) as runtime:
        found = await (await runtime.start(wf)).result(timeout=20)
        await until_true(lambda: len(ends) == 2)
    release.set()
    assert found.endswith("showed no sign of life for its heartbeat_timeout of 0.05 s")
    assert attempts == [1, 2]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_an_attempt_that_shows_signs_of_life_may_take_its_time(in_thread: bool) -> None:
    @step(heartbeat_timeout=1)
    async def on_the_loop() -> str:
        for _ in range(15):
            step_context().heartbeat()
            await asyncio.sleep(0.1)
        return "done"

    @step(heartbeat_timeout=1)
    def in_a_thread() -> str:
        for _ in range(15):
            step_context().heartbeat()
            assert not step_context().wait_cancelled(0.1)
        return "done"

    @workflow
    async def wf(ctx: Context) -> str:
        return await (in_a_thread() if in_thread else on_the_loop())

    async with Runtime("memory://", workflows=[wf]) as runtime:
        run = await runtime.start(wf)
        assert await run.result(timeout=20) == "done"
        assert "step_progress" not in " ".join(await kinds(runtime, run.run_id))


async def test_silence_goes_by_the_clock_of_an_environment() -> None:
    beats: list[int] = []
    go = asyncio.Event()

    @step(heartbeat_timeout=3600, timeout=86400)
    async def work() -> str:
        while True:
            step_context().heartbeat()
            beats.append(1)
            await go.wait()
            go.clear()

    @workflow
    async def wf(ctx: Context) -> str:
        try:
            return await work()
        except StepTimeout as error:
            return f"{error.error.message} at {ctx.now():%H:%M}"

    async with Environment([wf], patience=0.05) as env:
        run = await env.runtime.start(wf)
        await env.advance(minutes=50)
        go.set()
        await until_true(lambda: len(beats) == 2)
        await env.advance(minutes=50)
        assert (await env.runtime.get(run.run_id)).status == "running"
        await env.advance(minutes=20)
        assert (await run.result()).endswith("3600 s at 01:50")


def test_a_limit_that_makes_no_sense_is_refused() -> None:
    for bad, text in ((0, "heartbeat_timeout is 0"), (-1, "heartbeat_timeout"), ("x", "heartbeat_timeout")):
        with pytest.raises(WorkflowDefinitionError, match=text):
            step(heartbeat_timeout=bad)(lambda: None)  # type: ignore[arg-type]


# -- cancellation --------------------------------------------------------------------------------------------


class Listening:
    """A step that says how it was left."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.left: list[str] = []

    async def on_the_loop(self) -> str:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.left.append("cancelled")
            raise
        return "never"

    def in_a_thread(self) -> str:
        self.begun.set()
        here = step_context()
        assert not here.cancelled
        if here.wait_cancelled(60):
            self.left.append("cancelled" if here.cancelled else "?")
            here.raise_if_cancelled()
        return "never"


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize("how", ["run", "timeout", "limit", "race", "closing", "lost"])
async def test_a_step_hears_at_once_that_nobody_waits_for_it(
    how: str, in_thread: bool, through: bool
) -> None:
    listening = Listening()
    work = listening.in_a_thread if in_thread else listening.on_the_loop

    async def middle(step: StepContext, call_next: Next) -> Any:
        return await call_next()

    @workflow(step_middleware=[middle] if through else [])
    async def wf(ctx: Context) -> str:
        call = ctx.step("work", work, timeout=0.1 if how == "limit" else None)
        try:
            if how == "timeout":
                async with asyncio.timeout(0.05):
                    await call
            elif how == "race":
                waiting = {asyncio.create_task(call), asyncio.create_task(ctx.step("quick", lambda: 1))}
                _, rest = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for each in rest:
                    each.cancel()
            else:
                await call
        except TimeoutError:
            return "too late"
        return "done"

    runtime = Runtime("memory://", workflows=[wf], shutdown_timeout=0)
    async with runtime:
        run = await runtime.start(wf)
        await until_true(listening.begun.is_set)
        if how == "run":
            await runtime.cancel(run.run_id, "enough")
            with pytest.raises(RunCancelled):
                await run.result(timeout=20)
        elif how == "lost":
            await runtime.terminate(run.run_id, "enough")
        elif how != "closing":
            assert await run.result(timeout=20) == ("done" if how == "race" else "too late")
        if how != "closing":
            await until_true(lambda: listening.left == ["cancelled"])
    await until_true(lambda: listening.left == ["cancelled"])


async def test_the_handler_goes_on_while_a_cancelled_step_cleans_up(any_url: str) -> None:
    begun, go, cleaned = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow_to_leave() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await go.wait()
            cleaned.set()
        return "a result that nobody waits for"

    @workflow
    async def wf(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.05):
                await ctx.step("slow", slow_to_leave)
        except TimeoutError:
            return await ctx.step("next", lambda: "went on")
        return "?"

    async with Runtime(any_url, workflows=[wf]) as runtime:
        run = await runtime.start(wf)
        assert await run.result(timeout=20) == "went on"
        assert not cleaned.is_set()
        go.set()
        await cleaned.wait()
        assert "step_completed slow" not in await kinds(runtime, run.run_id)


async def test_what_is_no_time_is_refused() -> None:
    def work() -> bool:
        with pytest.raises(InvalidArgument):
            step_context().wait_cancelled(-1)
        return step_context().wait_cancelled(0)

    @workflow
    async def wf(ctx: Context) -> bool:
        return await ctx.step("work", work)

    async with Runtime("memory://", workflows=[wf]) as runtime:
        assert await (await runtime.start(wf)).result(timeout=20) is False
