"""Steps that are cancelled while their run is, in every order in which that can happen."""

import asyncio
import threading
from typing import Any

import pytest

from duramen import Context, Retry, RunCancelled, Runtime, StepFailed, step_context, workflow
from duramen.testing import replay
from tests.regressions.support import until_status, until_true

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def ends(runtime: Runtime, run_id: str) -> list[str]:
    """The ends of operations that the journal has, and of the run."""
    timeline = await runtime.timeline(run_id)
    kinds = ("step_completed", "step_failed", "cancel_requested", "run_")
    return [
        f"{each.kind} {each.op}".strip()
        for each in timeline
        if each.kind.startswith(kinds) and each.kind != "run_created"
    ]


async def test_a_step_that_the_handler_cancels_while_its_run_is_cancelled(any_url: str) -> None:
    """Both cancellations reach the step's await at about the same time: one way out, one record."""
    begun, left = asyncio.Event(), []

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.append(asyncio.current_task().cancelling() > 0)  # type: ignore[union-attr]

    @workflow
    async def wf(ctx: Context) -> str:
        task = asyncio.create_task(ctx.step("slow", slow))
        try:
            await ctx.wait_for_event("stop")
        except asyncio.CancelledError:
            task.cancel()
            found = await asyncio.gather(task, return_exceptions=True)
            await ctx.step("clean up", lambda: type(found[0]).__name__)
            raise
        return "?"

    async with Runtime(any_url, workflows=[wf], work=True) as runtime:
        run = await runtime.start(wf)
        await begun.wait()
        await runtime.cancel(run.run_id, "enough")
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=20)
        await until_true(lambda: left)
        assert await ends(runtime, run.run_id) == [
            "cancel_requested", "step_completed clean up", "run_cancelled",
        ]  # fmt: skip
        assert replay(wf, await runtime.export(run.run_id)).kind == "cancelled"
    assert left == [True]


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_cancel_with_steps_of_every_kind_in_flight(any_url: str, stubborn: bool) -> None:
    """All of them are told at once, and a step that swallows its cancellation records nothing."""
    begun: list[str] = []
    left: list[str] = []

    async def on_the_loop() -> str:
        begun.append("loop")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            left.append("loop")
            if not stubborn:
                raise
        return "a result that nobody waits for"

    def in_a_thread() -> str:
        begun.append("thread")
        step_context().wait_cancelled(60)
        left.append("thread")
        if not stubborn:
            step_context().raise_if_cancelled()
        return "a result that nobody waits for"

    async def fails() -> None:
        begun.append("fails")
        raise ConnectionError

    @workflow
    async def wf(ctx: Context) -> None:
        await asyncio.gather(
            ctx.step("loop", on_the_loop),
            ctx.step("thread", in_a_thread),
            ctx.step("back-off", fails, retry=Retry(attempts=3, base=3600)),
        )

    async with Runtime(any_url, workflows=[wf], work=True) as runtime:
        run = await runtime.start(wf)
        await until_true(lambda: len(begun) == 3)
        await runtime.cancel(run.run_id, "enough")
        with pytest.raises(RunCancelled):
            await run.result(timeout=20)
        await until_true(lambda: len(left) == 2)
        assert await ends(runtime, run.run_id) == ["cancel_requested", "run_cancelled"]
        assert replay(wf, await runtime.export(run.run_id)).kind == "cancelled"


@pytest.mark.parametrize("n", range(12))
async def test_a_cancel_racing_a_completion_has_one_winner_and_the_journal_says_which(
    any_url: str, n: int
) -> None:
    """The step's result and the cancellation come in the same few turns of the loop."""
    go = asyncio.Event()

    async def work() -> str:
        await go.wait()
        for _ in range(n):
            await asyncio.sleep(0)
        return "done"

    @workflow
    async def wf(ctx: Context) -> str:
        try:
            return await ctx.step("work", work)
        except asyncio.CancelledError:
            await ctx.step("clean up", lambda: None)
            raise

    async with Runtime(any_url, workflows=[wf], work=True) as runtime:
        run = await runtime.start(wf)
        cancelling = asyncio.create_task(runtime.cancel(run.run_id, "enough"))
        if n % 2:
            await asyncio.sleep(0)
        go.set()
        answer = await cancelling
        try:
            output: Any = await run.result(timeout=20)
        except RunCancelled:
            output = "cancelled"
        found = await ends(runtime, run.run_id)
        ways = {
            "done": (
                ["step_completed work", "run_finished"],
                # It came when the handler had nothing left to be cancelled at.
                ["step_completed work", "cancel_requested", "run_finished"],
            ),
            "cancelled": (
                ["cancel_requested", "step_completed clean up", "run_cancelled"],
                ["step_completed work", "cancel_requested", "run_cancelled"],
            ),
        }
        assert found in ways[output], (answer, found)
        assert replay(wf, await runtime.export(run.run_id)).kind == (
            "completed" if output == "done" else "cancelled"
        )


async def test_a_wait_for_the_first_of_many_beside_threads(any_url: str) -> None:
    """The winner is the one whose outcome was recorded first, on each replay; the losers hear of it."""
    release, left = threading.Event(), []

    def racer(n: int) -> int:
        if n == 7:
            return n
        step_context().wait_cancelled(60)
        left.append(n)
        return n

    @workflow
    async def wf(ctx: Context) -> list[int]:
        tasks = [asyncio.create_task(ctx.step(f"racer {n}", racer, n)) for n in range(16)]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in rest:
            each.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await ctx.wait_for_event("go")
        return sorted(task.result() for task in done)

    async with Runtime(any_url, workflows=[wf], warm=0, max_threads=16, work=True) as runtime:
        run = await runtime.start(wf)
        await until_status(runtime, run.run_id, "waiting")
        await until_true(lambda: len(left) == 15)
        await runtime.signal(run.run_id, "go")
        assert await run.result(timeout=20) == [7]
        assert [each for each in await ends(runtime, run.run_id) if each.startswith("step")] == [
            "step_completed racer 7"
        ]
        assert replay(wf, await runtime.export(run.run_id)).output == [7]
    release.set()


async def test_more_racers_than_threads_and_none_that_lost_begins_any_more() -> None:
    begun: list[int] = []
    go = threading.Event()

    def racer(n: int) -> int:
        begun.append(n)
        if n:
            step_context().wait_cancelled(60)
        else:
            go.wait(60)
        return n

    @workflow
    async def wf(ctx: Context) -> int:
        tasks = [asyncio.create_task(ctx.step(f"racer {n}", racer, n)) for n in range(10)]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in rest:
            each.cancel()
        await asyncio.wait(rest)
        return await ctx.step("next", lambda: done.pop().result())

    async with Runtime("memory://", workflows=[wf], max_threads=2) as runtime:
        run = await runtime.start(wf)
        await until_true(lambda: len(begun) == 2)
        go.set()
        assert await run.result(timeout=20) == 0
    # The thread that the winner left takes the next one before anybody is told; nothing begins after that.
    assert sorted(begun[:2]) == [0, 1]
    assert len(begun) <= 3


async def test_a_step_that_fails_as_it_is_cancelled_is_not_a_failure_of_the_run(any_url: str) -> None:
    begun = asyncio.Event()

    async def breaks_when_cancelled() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("while cleaning up") from None

    @workflow
    async def wf(ctx: Context) -> str:
        try:
            await ctx.step("work", breaks_when_cancelled, retry=Retry(attempts=5, base=0))
        except StepFailed:
            return "failed"
        return "?"

    async with Runtime(any_url, workflows=[wf], work=True) as runtime:
        run = await runtime.start(wf)
        await begun.wait()
        await runtime.cancel(run.run_id, "enough")
        with pytest.raises(RunCancelled):
            await run.result(timeout=20)
        assert await ends(runtime, run.run_id) == ["cancel_requested", "run_cancelled"]
