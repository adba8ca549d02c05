"""Steps run as in a task of their own, although they have none."""

import asyncio
import contextvars
import functools
import gc
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import uvloop

from duramen._driving import stepper
from duramen._driving.stepper import NoOutcome, StepJob, Stepper
from tests.driving.benching import Bench, variable


async def add(a: int, b: int) -> int:
    return a + b


async def slow(seconds: float = 30) -> str:
    await asyncio.sleep(seconds)
    return "slept"


# -- outcomes


def test_results_and_errors_come_back(bench: Any) -> None:
    async def fail() -> None:
        raise KeyError("gone")

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise KeyError("gone later")

    async def body(bench: Bench) -> None:
        assert await bench.run(add, 1, 2) == 3
        assert await bench.run(slow, 0.001) == "slept"
        for fn in (fail, fail_later):
            with pytest.raises(KeyError, match="gone"):
                await bench.run(fn)
        assert await bench.run(add, 3, 4) == 7

    bench(body)


def test_wrong_arguments_are_the_steps_error(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        for fn in (add, lambda x: x):
            with pytest.raises(TypeError, match="argument"):
                await bench.run(fn)

    bench(body)


def test_jobs_begin_in_order_and_none_is_lost(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        begun: list[int] = []

        async def step(number: int) -> int:
            begun.append(number)
            for _ in range(number % 4):
                await asyncio.sleep(0)
            return number

        outcomes = [bench.start(step, number)[1] for number in range(2000)]
        results = await asyncio.gather(*outcomes)
        assert begun == list(range(2000))
        assert results == [("result", number) for number in range(2000)]

    bench(body)


def test_a_step_that_suspends_holds_up_no_other(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        held = [bench.start(slow) for _ in range(100)]
        assert await bench.run(add, 1, 1) == 2
        assert bench.stepper.in_flight == 100
        for job, _ in held:
            job.cancel()
        await asyncio.gather(*(outcome for _, outcome in held))

    bench(body)


def test_two_steps_can_wait_for_each_other(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        event, other = asyncio.Event(), asyncio.Event()

        async def first() -> None:
            event.set()
            await other.wait()

        async def second() -> None:
            await event.wait()
            other.set()

        await asyncio.gather(bench.run(first), bench.run(second))

    bench(body)


def test_a_done_callback_that_fails_is_reported_and_stops_nothing(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        reported: list[Any] = []
        bench.loop.set_exception_handler(lambda loop, context: reported.append(context["exception"]))
        for fn in (add, functools.partial(max)):
            bench.stepper.submit(StepJob(fn, (1, 2), done=lambda result, error: 1 // 0))
        assert await bench.run(add, 1, 2) == 3
        while len(reported) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert all(isinstance(error, ZeroDivisionError) for error in reported)

    bench(body)


def test_done_may_submit_the_next_step(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        finished = bench.loop.create_future()

        def done(result: int, error: BaseException | None) -> None:
            if result == 5000:
                finished.set_result(result)
            else:
                bench.stepper.submit(StepJob(add, (result, 1), done=done))

        bench.stepper.submit(StepJob(add, (0, 1), done=done))
        assert await finished == 5000

    bench(body)


def test_steps_that_never_suspend_leave_the_host_its_turns(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        stop = False

        def done(result: Any, error: BaseException | None) -> None:
            if not stop:
                bench.stepper.submit(StepJob(add, (1, 1), done=done))

        bench.stepper.submit(StepJob(add, (0, 1), done=done))
        begun = time.monotonic()
        for _ in range(5):
            await asyncio.sleep(0.001)
        stop = True
        assert time.monotonic() - begun < 5

    bench(body)


def raising(kind: str, error: type[BaseException]) -> Any:
    """A step that raises at once, after it has waited, or in a thread."""

    async def at_once() -> None:
        raise error

    async def later() -> None:
        await asyncio.sleep(0)
        raise error

    def thread() -> None:
        raise error

    return {"at once": at_once, "later": later, "thread": thread}[kind]


KINDS = ["at once", "later", "thread"]


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError, BaseException])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_step_raises_is_its_outcome_and_stops_nothing(
    bench: Any, kind: str, error: type[BaseException]
) -> None:
    async def body(bench: Bench) -> None:
        _, outcome = bench.start(raising(kind, error))
        what, raised = await outcome
        assert (what, type(raised)) == ("error", error)
        assert await bench.run(add, 1, 2) == 3

    bench(body)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_an_interrupt_is_told_to_done_first_and_then_reaches_the_loop(factory: Any, kind: str) -> None:
    told: list[Any] = []

    async def main() -> None:
        stepper = Stepper(asyncio.get_running_loop())
        fn = raising(kind, KeyboardInterrupt)
        stepper.submit(StepJob(fn, done=lambda result, error: told.append(error)))
        await asyncio.sleep(10)

    with pytest.raises(KeyboardInterrupt), asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    assert isinstance(told[0], KeyboardInterrupt)
    assert len(told) == 1


def cancel_all_others() -> None:
    me = asyncio.current_task()
    for task in asyncio.all_tasks():
        if task is not me:
            task.cancel()


def test_a_program_that_cancels_all_its_tasks_takes_no_outcome_from_a_step(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        begun: list[None] = []

        async def step() -> None:
            begun.append(None)
            await asyncio.sleep(30)

        outcomes = [bench.start(step)[1] for _ in range(5)]
        while len(begun) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0)
        cancel_all_others()
        for outcome in outcomes:
            kind, error = await outcome
            assert (kind, type(error)) == ("error", NoOutcome)
        assert await bench.run(add, 1, 2) == 3

    bench(body)


@pytest.mark.parametrize("turns", range(4))
def test_a_job_in_the_line_outlives_the_cancellation_of_all_tasks(bench: Any, turns: int) -> None:
    """Also of the runner that was about to take it."""

    async def body(bench: Bench) -> None:
        outcomes = [bench.start(add, 1, number)[1] for number in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        cancel_all_others()
        assert [(await outcome)[1] for outcome in outcomes] == [1, 2, 3]

    bench(body)


def test_a_step_that_cancels_itself_has_an_outcome(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        async def step() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)

        with pytest.raises(asyncio.CancelledError):
            await bench.run(step)
        assert await bench.run(add, 1, 2) == 3

    bench(body)


@pytest.mark.parametrize("how", ["timeout", "wait_for", "anyio"])
def test_time_limits_inside_of_a_step_are_its_own(bench: Any, how: str) -> None:
    """They cancel the runner from a timer, and take that back."""

    async def body(bench: Bench) -> None:
        async def step() -> None:
            if how == "timeout":
                async with asyncio.timeout(0):
                    await asyncio.sleep(10)
            elif how == "wait_for":
                await asyncio.wait_for(asyncio.sleep(10), 0.001)
            else:
                with anyio.fail_after(0):
                    await anyio.sleep(10)

        with pytest.raises(TimeoutError):
            await bench.run(step)

    bench(body)


def test_a_loop_that_is_closed_under_a_step_settles_it() -> None:
    told: list[Any] = []
    loop = asyncio.new_event_loop()
    stepper = Stepper(loop)
    stepper.submit(StepJob(slow, done=lambda result, error: told.append(error)))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del stepper, loop
    gc.collect()
    assert [type(error) for error in told] == [NoOutcome]


# -- a step is in a task


def test_current_task_timeout_and_task_group_work_in_a_step(bench: Any) -> None:
    async def step() -> str:
        task = asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.sleep(10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 0.001)
        with pytest.raises(ExceptionGroup):  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                group.create_task(add(1, "x"))
                await asyncio.sleep(10)
        with anyio.move_on_after(0.001) as scope:
            await anyio.sleep(10)
        assert scope.cancelled_caught
        assert await asyncio.shield(add(1, 2)) == 3
        assert asyncio.current_task() is task
        assert task.cancelling() == 0
        return "fine"

    async def body(bench: Bench) -> None:
        for _ in range(3):
            assert await bench.run(step) == "fine"

    bench(body)


def test_a_step_may_use_generators_iterators_and_bare_yields(bench: Any) -> None:
    class Bare:
        def __await__(self) -> Iterator[None]:
            yield

    async def generate() -> Any:
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    async def step() -> list[int]:
        await Bare()
        return [number async for number in generate()]

    async def body(bench: Bench) -> None:
        assert await bench.run(step) == [0, 1, 2]

    bench(body)


# -- contexts


def test_each_step_sees_the_context_given_and_leaves_it_alone(bench: Any) -> None:
    async def step(value: str, wait: bool) -> str:
        seen = variable.get()
        variable.set(value)
        if wait:
            await asyncio.sleep(0)
            assert variable.get() == value
            assert await asyncio.create_task(read()) == value
        return seen

    async def read() -> str:
        return variable.get()

    def in_thread(value: str) -> str:
        seen = variable.get()
        variable.set(value)
        return seen

    async def body(bench: Bench) -> None:
        context = contextvars.copy_context()
        context.run(variable.set, "given")
        for number in range(4):
            for wait in (False, True):
                assert await bench.run(step, f"step {number}", wait, context_setup=context) == "given"
            assert await bench.run(in_thread, f"thread {number}", context_setup=context) == "given"
        assert context[variable] == "given"
        # Without one: the submitter's, and nothing of the steps before.
        assert await bench.run(step, "other", False) == "unset"
        assert await bench.run(in_thread, "other") == "unset"
        assert variable.get() == "unset"

    bench(body)


def test_the_context_of_whoever_made_the_runner_is_not_seen(bench: Any) -> None:
    async def step() -> str:
        return variable.get()

    async def body(bench: Bench) -> None:
        variable.set("submitter's")
        assert await bench.run(step) == "submitter's"
        assert await bench.run(step, context_setup=contextvars.Context()) == "unset"

    bench(body)


# -- cancellation


def test_a_cancelled_step_gets_cancelled_error_at_its_await(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        seen: list[str] = []

        async def step() -> None:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError as error:
                seen.append(str(error))
                await asyncio.sleep(0)
                seen.append("cleaned")
                raise

        job, outcome = bench.start(step)
        await asyncio.sleep(0.001)
        assert job.cancel("enough")
        kind, error = await outcome
        assert (kind, type(error)) == ("error", asyncio.CancelledError)
        assert seen == ["enough", "cleaned"]
        assert job.cancel_requested
        assert job.finished
        assert not job.cancel()

    bench(body)


def test_a_cancelled_error_of_the_steps_own_is_told_apart(bench: Any) -> None:
    async def step() -> None:
        raise asyncio.CancelledError

    async def body(bench: Bench) -> None:
        job, outcome = bench.start(step)
        assert isinstance((await outcome)[1], asyncio.CancelledError)
        assert not job.cancel_requested

    bench(body)


def test_a_job_that_waits_for_its_turn_never_starts_when_cancelled(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        ran: list[int] = []

        async def step() -> None:
            ran.append(1)

        job, outcome = bench.start(step)
        job.cancel()
        assert isinstance((await outcome)[1], asyncio.CancelledError)
        await bench.run(add, 1, 2)
        assert not ran

    bench(body)


def test_a_job_that_was_held_up_on_its_way_starts_only_if_it_still_may(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is stopped between its last look at its lease and the step must not run the step."""

    async def body(bench: Bench) -> None:
        allowed = False
        asked, ran = list[int](), list[int]()

        def may_start() -> bool:
            asked.append(1)
            return allowed

        async def step() -> None:
            ran.append(1)

        # At once, however long a busy machine takes: nobody is asked again, that would cost each step.
        monkeypatch.setattr(stepper, "_STALE", 3600.0)
        await bench.run(step, may_start=may_start)
        assert (len(ran), len(asked)) == (1, 0)
        # The whole process was stopped in between.
        monkeypatch.setattr(stepper, "_STALE", -1.0)
        _, outcome = bench.start(step, may_start=may_start)
        dropped, lost = bench.start(step, may_start=may_start)
        async with asyncio.timeout(20):
            while len(asked) < 4:  # noqa: ASYNC110 - each is asked when it comes, and again after a pause
                await asyncio.sleep(0.005)
        assert len(ran) == 1
        dropped.cancel()
        assert isinstance((await lost)[1], asyncio.CancelledError)
        allowed = True
        await outcome
        assert len(ran) == 2
        # What waits when the stepper is closed is settled as well.
        allowed = False
        before = len(asked)
        _, outcome = bench.start(step, may_start=may_start)
        async with asyncio.timeout(20):
            while len(asked) == before:  # noqa: ASYNC110
                await asyncio.sleep(0)
        bench.stepper.close()
        assert isinstance((await outcome)[1], asyncio.CancelledError)
        assert len(ran) == 2

    bench(body)


def test_a_step_that_swallows_its_cancellation_has_the_last_word(bench: Any) -> None:
    async def step() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "kept on"
        return "never"

    async def body(bench: Bench) -> None:
        job, outcome = bench.start(step)
        await asyncio.sleep(0.001)
        job.cancel()
        assert await outcome == ("result", "kept on")

    bench(body)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("uncancel", [False, True])
def test_a_cancellation_that_a_step_leaves_behind_never_hits_the_next(
    bench: Any, times: int, uncancel: bool
) -> None:
    async def leave() -> None:
        task = asyncio.current_task()
        assert task is not None
        for _ in range(times):
            task.cancel()
            if uncancel:
                task.uncancel()

    async def check() -> int:
        task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        await asyncio.sleep(0)
        return before + task.cancelling()

    async def body(bench: Bench) -> None:
        jobs = [bench.start(leave if number % 2 else check)[1] for number in range(50)]
        for kind, value in await asyncio.gather(*jobs):
            assert kind == "result"
            assert not value

    bench(body)


def test_a_cancel_that_comes_while_its_own_step_ends_hits_nobody(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        jobs: list[StepJob] = []

        async def cancels_itself() -> str:
            jobs[0].cancel()
            return "ended"

        job, outcome = bench.start(cancels_itself)
        jobs.append(job)
        others = [bench.start(slow, 0.001)[1] for _ in range(5)]
        assert await outcome == ("result", "ended")
        assert await asyncio.gather(*others) == [("result", "slept")] * 5

    bench(body)


def test_cancelling_at_any_moment_settles_every_job_once(bench: Any) -> None:
    async def step(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    async def body(bench: Bench) -> None:
        for moment in range(8):
            started = [bench.start(step, turns) for turns in range(8)]
            for _ in range(moment):
                await asyncio.sleep(0)
            for job, _ in started:
                job.cancel()
            for turns, (kind, value) in enumerate(await asyncio.gather(*(outcome for _, outcome in started))):
                assert isinstance(value, asyncio.CancelledError) if kind == "error" else value == turns
        assert await bench.run(step, 3) == 3

    bench(body)


# -- timeouts


def test_an_async_step_that_is_late_gets_timeout_error(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            await bench.run(slow, timeout=0.02)
        assert 0.01 < time.monotonic() - begun < 5
        assert await bench.run(slow, 0.001, timeout=20) == "slept"
        assert await bench.run(add, 1, 2, timeout=0.001) == 3

    bench(body)


def test_the_time_limit_leaves_the_runner_clean(bench: Any) -> None:
    async def cancelling() -> int:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        return task.cancelling() if task else -1

    async def body(bench: Bench) -> None:
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await bench.run(slow, timeout=0.001)
            assert await bench.run(cancelling) == 0

    bench(body)


def test_a_timeout_error_of_the_steps_own_is_its_error(bench: Any) -> None:
    async def step() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(10)

    async def body(bench: Bench) -> None:
        with pytest.raises(TimeoutError):
            await bench.run(step, timeout=10)

    bench(body)


def test_cancelling_beats_the_timeout(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        job, outcome = bench.start(slow, timeout=10)
        await asyncio.sleep(0.001)
        job.cancel()
        assert isinstance((await outcome)[1], asyncio.CancelledError)

    bench(body)
