"""Handlers and steps that do what they should not: it must not break a pause, a replay or another run."""

import asyncio
import contextvars
import gc
import logging
import sys
import time
import weakref
from functools import partial
from typing import Any

import pytest

from duramen._handlers.context import Context
from duramen._handlers.workflow import step, workflow
from duramen.errors import (
    InvalidArgument,
    InvalidId,
    NotADurableContext,
    RunEvicted,
    StepFailed,
    WorkflowDefinitionError,
)
from tests.driving.elsewhere import Elsewhere
from tests.driving.harness import Harness


@step
async def double(x: int) -> int:
    return 2 * x


async def drive(harness: Harness, definition: Any, value: Any = None) -> Any:
    async with harness as h:
        h.work()
        await h.start(definition, value)
        return await h.end()


def test_catching_everything_does_not_break_pauses(harness: Harness) -> None:
    caught: list[str] = []

    @workflow
    async def handler(ctx: Context) -> int:
        found = 0
        for _ in range(3):
            try:
                found += await double(1)
                await ctx.wait_for_event("go")
            except BaseException as error:  # noqa: BLE001
                caught.append(type(error).__name__)
                await double(100)
        return found

    async def main() -> Any:
        async with harness as h:
            await h.start(handler)
            h.work()
            for _ in range(3):
                await h.until("waiting")
                await h.event("go", None)
                await asyncio.sleep(0.02)
            return await h.end(), await h.story()

    ending, story = asyncio.run(main())
    assert ending.output == 6, ending
    assert [line for line in story if "double" in line] == [
        "step_completed double", "step_completed double#2", "step_completed double#3",
    ]  # fmt: skip
    assert set(caught) <= {"RunEvicted"}


def test_leaked_tasks_are_dropped_with_a_warning(harness: Harness, caplog: Any) -> None:
    unwound: list[str] = []

    @workflow
    async def handler(ctx: Context) -> str:
        async def background() -> None:
            try:
                await ctx.sleep(60)
            finally:
                unwound.append("ended")
                await double(1)

        handler.task = asyncio.create_task(background(), name="leak")
        await double(1)
        return "done"

    async def main() -> Any:
        async with harness as h:
            await h.start(handler)
            ending = await h.end()
            return ending, await h.story()

    with caplog.at_level(logging.WARNING, "duramen"):
        ending, story = asyncio.run(main())
    assert ending.output == "done"
    assert unwound == ["ended"]
    assert story == ["run_created", "step_completed double", "run_finished"]
    assert "1 of its tasks still running" in caplog.text
    assert "'leak'" in caplog.text


def test_a_foreign_future_fails_the_run_and_not_the_worker(harness: Harness) -> None:
    foreign: list[Any] = []

    @workflow
    async def handler(ctx: Context) -> None:
        await foreign[0]

    async def main() -> Any:
        foreign.append(asyncio.get_running_loop().create_future())
        return await drive(harness, handler)

    ending = asyncio.run(main())
    assert ending.status == "failed"
    assert ending.error.type_name == "duramen.errors.NotDurableError"
    assert "belongs to another event loop" in ending.error.message
    assert "attached to a different loop" in ending.error.cause.message


def test_durable_calls_from_threads_are_refused(memory: Harness) -> None:
    found: list[str] = []

    @workflow
    async def handler(ctx: Context) -> None:
        def work() -> None:
            for call in (ctx.step("x", double, 1), double(1), ctx.sleep(1)):
                try:
                    asyncio.run(call)
                except NotADurableContext as error:
                    found.append(str(error)[:8])
            try:
                ctx.now()
            except NotADurableContext:
                found.append("now")

        # With the handler's context variables, as a library might hand them on.
        elsewhere.do(partial(contextvars.copy_context().run, work))

    with Elsewhere() as elsewhere:
        assert asyncio.run(drive(memory, handler)).status == "completed"
    assert found == ["ctx.step", "ctx.step", "ctx.slee", "now"]


def test_durable_calls_after_the_end_are_refused(memory: Harness) -> None:
    kept: list[Context] = []

    @workflow
    async def handler(ctx: Context) -> None:
        kept.append(ctx)

    async def main() -> None:
        await drive(memory, handler)
        with pytest.raises((RunEvicted, NotADurableContext)):
            await kept[0].sleep(1)

    asyncio.run(main())


def test_a_step_that_wakes_the_handler_past_the_journal_fails(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> str:
        event = asyncio.Event()

        async def sneaky() -> None:
            event.set()

        waiting = asyncio.create_task(event.wait())
        await asyncio.sleep(0)
        try:
            await ctx.step("sneaky", sneaky)
        except StepFailed as error:
            waiting.cancel()
            return error.error.short_name
        return "?"

    assert asyncio.run(drive(harness, handler)).output == "NotDurableError"


def test_io_in_a_handler_says_what_to_do(memory: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> None:
        await asyncio.open_connection("localhost", 1)

    ending = asyncio.run(drive(memory, handler))
    assert ending.error.short_name == "NotDurableError"
    assert "step" in ending.error.message


def test_exit_in_a_handler_or_a_step_fails_only_that_run(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> None:
        sys.exit("enough")

    ending = asyncio.run(drive(harness, handler))
    assert (ending.status, ending.error.type_name) == ("failed", "builtins.SystemExit")


@pytest.mark.slow
def test_a_handler_that_spins_leaves_the_host_its_turns(memory: Harness, caplog: Any) -> None:
    stop: list[int] = []

    @workflow
    async def handler(ctx: Context) -> str:
        while not stop:  # noqa: ASYNC110 - what is tested
            await asyncio.sleep(0)
        return "stopped"

    async def main() -> Any:
        async with memory as h:
            await h.start(handler)
            while "runs on and on" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0)
            stop.append(1)
            return await h.end()

    with caplog.at_level(logging.WARNING, "duramen"):
        assert asyncio.run(main()).output == "stopped"


def test_cancellation_lets_the_handler_clean_up_durably(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> None:
        try:
            await ctx.wait_for_event("never")
        except asyncio.CancelledError as error:
            await ctx.step("refund", double, 1)
            await asyncio.sleep(0.005)
            await ctx.step(f"note-{error.args[0]}", double, 2)
            raise

    async def main() -> Any:
        async with harness as h:
            await h.start(handler)
            h.work()
            await h.until("waiting")
            await h.cancel("changed-mind")
            ending = await h.end()
            return ending, await h.story()

    ending, story = asyncio.run(main())
    assert ending.status == "cancelled"
    assert ending.detail.end.payload == b'"changed-mind"'
    assert [line for line in story if line.startswith("step")] == [
        "step_completed refund", "step_completed note-changed-mind",
    ]  # fmt: skip


def test_cancellation_stops_a_step_in_flight(harness: Harness) -> None:
    log: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            log.append("stopped")
            raise

    @workflow
    async def handler(ctx: Context) -> None:
        await ctx.step("endless", endless)

    async def main() -> Any:
        async with harness as h:
            await h.start(handler)
            await asyncio.sleep(0.03)
            await h.cancel("x")
            ending = await h.end()
            await asyncio.sleep(0)
            return ending

    assert asyncio.run(main()).status == "cancelled"
    assert log == ["stopped"]


def test_a_step_is_stopped_when_the_handler_turns_away(harness: Harness) -> None:
    log: list[str] = []

    async def endless() -> None:
        log.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            log.append("stopped")

    async def seen() -> None:
        while not log:  # noqa: ASYNC110
            await asyncio.sleep(0)

    @workflow
    async def handler(ctx: Context) -> str:
        waiting = asyncio.create_task(ctx.step("endless", endless))
        await ctx.step("seen", seen)
        waiting.cancel()
        try:
            await waiting
        except asyncio.CancelledError:
            return "turned away"
        return "?"

    assert asyncio.run(drive(harness, handler)).output == "turned away"
    assert log == ["begun", "stopped"]


def test_a_swallowed_cancellation_is_warned_of(memory: Harness, caplog: Any) -> None:
    @workflow
    async def handler(ctx: Context) -> str:
        try:
            await ctx.sleep(60)
        except asyncio.CancelledError:
            pass
        return "went on"

    async def main() -> Any:
        async with memory as h:
            await h.start(handler)
            h.work()
            await h.until("waiting")
            await h.cancel("x")
            return await h.end()

    with caplog.at_level(logging.WARNING, "duramen"):
        assert asyncio.run(main()).output == "went on"
    assert "swallowed its cancellation" in caplog.text


def test_a_cancellation_of_the_handlers_own_making_is_a_failure(memory: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> None:
        raise asyncio.CancelledError("mine")

    ending = asyncio.run(drive(memory, handler))
    assert (ending.status, ending.error.type_name) == ("failed", "asyncio.exceptions.CancelledError")


def test_the_runs_own_timeout(harness: Harness) -> None:
    @workflow(timeout=0.05)
    async def handler(ctx: Context) -> None:
        try:
            await ctx.sleep(60)
        finally:
            await ctx.step("cleanup", double, 1)

    ending = asyncio.run(drive(harness, handler))
    assert (ending.status, ending.error.type_name) == ("failed", "duramen.errors.RunTimedOut")


def test_the_failure_that_ends_a_run_keeps_what_the_step_raised(harness: Harness) -> None:
    class Odd(Exception): ...

    async def fails() -> None:
        raise Odd("deep")

    @workflow
    async def handler(ctx: Context) -> None:
        try:
            await ctx.step("fails", fails)
        except StepFailed as error:
            raise ValueError("outer") from error

    async def main() -> Any:
        async with harness as h:
            await h.start(handler)
            ending = await h.end()
            return ending, (await h.call("load", "r", 0, 100))[-1]

    ending, last = asyncio.run(main())
    error = ending.error
    assert (error.short_name, error.cause.short_name, error.cause.cause.short_name) == (
        "ValueError", "StepFailed", "Odd",
    )  # fmt: skip
    assert "in fails" in error.cause.cause.traceback
    assert '"cause":1' in last.meta


BAD: dict[str, tuple[Any, type[Exception]]] = {
    "empty id": (lambda ctx: ctx.step("", double, 1), InvalidId),
    "long id": (lambda ctx: ctx.step("x" * 256, double, 1), InvalidId),
    "id with NUL": (lambda ctx: ctx.step("a\0b", double, 1), InvalidId),
    "no time": (lambda ctx: ctx.step("a", double, 1, timeout=0), InvalidArgument),
    "negative time": (lambda ctx: ctx.step("a", double, 1, timeout=-1), InvalidArgument),
    "checkpoint": (lambda ctx: ctx.step("a", double, 1, checkpoint="maybe"), InvalidArgument),
    "a coroutine": (lambda ctx: ctx.step("a", double.fn(1)), WorkflowDefinitionError),
    "no function": (lambda ctx: ctx.step("a", 42), WorkflowDefinitionError),
    "negative sleep": (lambda ctx: ctx.sleep(-1), InvalidArgument),
    "NaN sleep": (lambda ctx: ctx.sleep(float("nan")), InvalidArgument),
    "reserved event": (lambda ctx: ctx.wait_for_event("__timer"), InvalidId),
    "empty event": (lambda ctx: ctx.wait_for_event(""), InvalidId),
    "negative wait": (lambda ctx: ctx.wait_for_event("x", timeout=-1), InvalidArgument),
    "empty approval id": (lambda ctx: ctx.approve("x", id=""), InvalidId),
    "no state": (lambda ctx: ctx.state, InvalidArgument),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_arguments_are_refused_and_the_run_goes_on(memory: Harness, name: str) -> None:
    call, error = BAD[name]

    @workflow
    async def handler(ctx: Context) -> int:
        with pytest.raises(error):
            await call(ctx)
        return await double(4)

    ending = asyncio.run(drive(memory, handler))
    assert ending.output == 8, ending


def test_bad_input_fails_the_run_with_its_reason(harness: Harness) -> None:
    @workflow(input=Any)
    async def old(ctx: Context, n: int) -> int:
        return n

    @workflow(name="old")
    async def handler(ctx: Context, n: int) -> int:
        return n

    async def main() -> Any:
        async with harness as h:
            h.register(handler)
            await h.call("start", "r", "old", "1", b'"text"', [], None, None)
            return await h.end()

    ending = asyncio.run(main())
    assert (ending.status, ending.error.short_name) == ("failed", "DeserializationError")


def test_an_output_that_cannot_be_recorded_fails_the_run(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> int:
        return "text"

    ending = asyncio.run(drive(harness, handler))
    assert (ending.status, ending.error.short_name) == ("failed", "SerializationError")


def test_changed_code_parks_the_run(scheme: str, tmp_path: Any) -> None:
    @workflow(name="w")
    async def before(ctx: Context) -> None:
        await ctx.step("a", double, 1)
        await ctx.wait_for_event("go")

    @workflow(name="w")
    async def after(ctx: Context) -> None:
        try:
            ctx.now()
            await ctx.step("b", double, 1)
        except BaseException:  # noqa: BLE001 - it cannot get past a divergence
            await ctx.step("c", double, 1)

    async def main() -> Any:
        async with Harness(scheme, str(tmp_path / "x.db") if scheme == "sqlite" else "", warm=0) as h:
            await h.start(before)
            h.work()
            await h.until("waiting")
            h.workflows["w", "1"] = after
            await h.event("go", None)
            ending = await h.end()
            return ending, await h.story()

    ending, story = asyncio.run(main())
    assert ending.status == "stuck"
    assert "step" in ending.detail.row.note
    assert "step_completed c" not in story


def test_a_budget_that_ran_out_releases_the_run_before_fresh_work(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> int:
        for _ in range(3):
            await double(1)
        return 1

    async def main() -> Any:
        async with harness as h:
            h.services.deadline = time.monotonic() + 0.5
            await h.start(handler)
            return await h.end()

    ending = asyncio.run(main())
    assert ending.output == 1
    # The engine takes it up again at once, as a started run. One step is done in any case, or a run whose
    # replay takes long would never get on; a host that is kept forgets the budget of the pass that is over.
    assert ending.detail.row.epoch == (2 if harness.warm else 3)


def test_yield_releases_the_run_at_the_next_durable_call(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> int:
        await double(1)
        await ctx.yield_()
        await double(2)
        return 1

    async def main() -> Any:
        async with harness as h:
            await h.start(handler)
            return await h.end()

    ending = asyncio.run(main())
    assert ending.output == 1
    assert ending.detail.row.epoch == 2


def test_dropping_a_run_stops_its_steps_and_lets_nothing_through(memory: Harness) -> None:
    log: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            log.append("step stopped")

    @workflow
    async def handler(ctx: Context) -> None:
        try:
            await ctx.step("endless", endless)
        finally:
            try:
                await ctx.step("after", double, 1)
            except BaseException as error:  # noqa: BLE001
                log.append(type(error).__name__)

    async def main() -> Any:
        async with memory as h:
            await h.start(handler)
            await asyncio.sleep(0.02)
            host = h.all_hosts[0]
            host.evict()
            host.evict()
            host.advance()
            await asyncio.sleep(0.01)
            return host, await h.story()

    host, story = asyncio.run(main())
    assert host.closed
    assert log == ["RunEvicted", "step stopped"]
    assert story == ["run_created"]


def test_threads_and_timeouts_of_steps_do_not_outlive_their_run_in_the_journal(memory: Harness) -> None:
    def slow() -> int:
        time.sleep(0.05)
        return 1

    @workflow
    async def handler(ctx: Context) -> str:
        try:
            await asyncio.wait_for(ctx.step("slow", slow), 0.01)
        except TimeoutError:
            await asyncio.sleep(0.08)
        return "done"

    async def main() -> Any:
        async with memory as h:
            await h.start(handler)
            h.work()
            ending = await h.end()
            return ending, await h.story()

    ending, story = asyncio.run(main())
    assert ending.output == "done"
    assert "step_completed slow" not in story


def test_a_run_that_is_over_leaves_nothing_for_the_collector(memory: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> int:
        await asyncio.gather(double(1), double(2))
        await asyncio.sleep(0.001)
        return await ctx.step("a", double, 1)

    async def main() -> None:
        async with memory as h:
            h.work()
            await h.start(handler)
            await h.end()
            await asyncio.sleep(0.01)
            host = weakref.ref(h.all_hosts.pop())
            loop = weakref.ref(host().loop)
            h.hosts.clear()
            assert host() is None
            assert loop() is None

    gc.collect()
    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()
