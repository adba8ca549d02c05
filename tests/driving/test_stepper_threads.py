"""Steps in threads, steps of every kind of callable, and the end of a stepper."""

import asyncio
import functools
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from duramen._driving.stepper import StepJob, Stepper
from duramen._handlers.callables import is_async_callable
from duramen.errors import RuntimeClosed
from tests.driving.benching import Bench


async def add(a: int, b: int) -> int:
    return a + b


async def slow(seconds: float = 30) -> str:
    await asyncio.sleep(seconds)
    return "slept"


# -- threads


def test_plain_functions_run_in_named_threads(bench: Any) -> None:
    def step() -> tuple[int, str]:
        return threading.get_ident(), threading.current_thread().name

    async def body(bench: Bench) -> None:
        ident, name = await bench.run(step)
        assert ident != bench.thread
        assert name.startswith("duramen-step")

    bench(body)


def test_no_more_threads_run_than_allowed_and_the_rest_waits(bench: Any) -> None:
    running = most = 0
    lock = threading.Lock()

    def step() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1

    async def body(bench: Bench) -> None:
        await asyncio.gather(*(bench.run(step) for _ in range(20)))

    bench(body, max_threads=3)
    assert 1 < most <= 3


def test_a_function_that_is_late_is_reported_at_the_deadline_and_runs_out_by_itself(bench: Any) -> None:
    finish, finished = threading.Event(), threading.Event()

    def step() -> str:
        finish.wait(10)
        finished.set()
        return "too late"

    async def body(bench: Bench) -> None:
        job, outcome = bench.start(step, timeout=0.01)
        kind, error = await outcome
        assert (kind, type(error)) == ("error", TimeoutError)
        assert job.finished
        finish.set()
        assert finished.wait(10)
        while bench.stepper.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    bench(body)


def test_the_result_of_a_cancelled_function_is_dropped(bench: Any) -> None:
    finish = threading.Event()

    def step() -> Any:
        finish.wait(10)
        return slow()  # an awaitable that nobody will await: it is closed

    async def body(bench: Bench) -> None:
        job, outcome = bench.start(step)
        queued, queued_outcome = bench.start(step)
        await asyncio.sleep(0.005)
        assert job.cancel()
        assert queued.cancel()
        for each in (outcome, queued_outcome):
            assert isinstance((await each)[1], asyncio.CancelledError)
        finish.set()
        while bench.stepper.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    bench(body, max_threads=1)


UNENDING = """
import asyncio, threading
from duramen._driving.stepper import StepJob, Stepper

begun = threading.Event()

def for_ever():
    begun.set()
    threading.Event().wait()

async def main():
    stepper = Stepper(asyncio.get_running_loop())
    stepper.submit(StepJob(for_ever, done=lambda *_: None))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    await stepper.aclose()

asyncio.run(main())
"""


def test_a_function_that_never_returns_does_not_keep_the_process() -> None:
    subprocess.run([sys.executable, "-c", UNENDING], timeout=60, check=True)


def test_threads_are_used_again_and_end_with_the_stepper(bench: Any) -> None:
    names: list[str] = []
    threads: list[threading.Thread] = []

    def step() -> None:
        threads.append(threading.current_thread())
        names.append(threads[-1].name)

    async def body(bench: Bench) -> None:
        for _ in range(20):
            await bench.run(step)

    bench(body, max_threads=8)
    # One may not yet count as free when the next step comes.
    assert len(set(names)) <= 8
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


class Callable_:
    async def __call__(self, value: int) -> int:
        await asyncio.sleep(0)
        return value

    async def method(self, value: int) -> int:
        return value

    @classmethod
    async def class_method(cls, value: int) -> int:
        return value

    @staticmethod
    async def static_method(value: int) -> int:
        return value


def wrapped(value: int) -> Any:
    return Callable_().method(value)


class Awaits:
    def __init__(self, value: int) -> None:
        self.value = value

    def __await__(self) -> Iterator[None]:
        yield
        return self.value


@pytest.mark.parametrize(
    ("fn", "is_async"),
    [
        (functools.partial(functools.partial(add, 0)), True),
        (Callable_(), True),
        (functools.partial(Callable_()), True),
        (Callable_().method, True),
        (Callable_.class_method, True),
        (Callable_.static_method, True),
        (wrapped, False),
        (Awaits, False),
        (abs, False),
        (int, False),
        (functools.partial(int, base=10), False),
    ],
    ids=[
        *(
            "partial",
            "object",
            "partial of object",
            "method",
            "class method",
            "static method",
            "returns coroutine",
        ),
        *("returns awaitable", "builtin", "class", "partial of class"),
    ],
)
def test_every_kind_of_callable_is_run(bench: Any, fn: Any, is_async: bool) -> None:
    assert is_async_callable(fn) is is_async
    argument: Any = "7" if isinstance(fn, functools.partial) and fn.func is int else 7

    async def body(bench: Bench) -> None:
        assert await bench.run(fn, argument) == 7
        assert await bench.run(fn, argument, timeout=10) == 7

    bench(body)


def test_the_awaitable_of_a_function_shares_its_time_limit(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        with pytest.raises(TimeoutError):
            await bench.run(lambda: slow(), timeout=0.02)  # noqa: PLW0108 - a coroutine made in a thread

    bench(body)


# -- the end


def test_closing_cancels_what_is_queued_in_flight_or_in_a_thread(bench: Any) -> None:
    finish = threading.Event()

    async def body(bench: Bench) -> None:
        suspended = bench.start(slow)
        in_thread = bench.start(finish.wait, 10)
        waiting = bench.start(finish.wait, 10)
        await asyncio.sleep(0.005)
        queued = bench.start(slow)
        bench.stepper.close()
        bench.stepper.close()
        for _, outcome in (suspended, in_thread, waiting, queued):
            assert isinstance((await outcome)[1], asyncio.CancelledError)
        with pytest.raises(RuntimeClosed):
            bench.start(add, 1, 2)
        finish.set()

    bench(body, max_threads=1)


def test_closing_waits_for_steps_that_clean_up(bench: Any) -> None:
    cleaned: list[int] = []

    async def step() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.01)
            cleaned.append(1)

    async def body(bench: Bench) -> None:
        bench.start(step)
        await asyncio.sleep(0.001)
        await bench.stepper.aclose()
        assert cleaned == [1]

    bench(body)


def test_a_stepper_can_be_closed_from_within_a_step(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        async def step() -> str:
            await bench.stepper.aclose()
            return "closed"

        assert await bench.run(step) == "closed"

    bench(body)


@pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_a_host_that_ends_without_closing_leaves_no_noise(
    factory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    async def main() -> None:
        stepper = Stepper(asyncio.get_running_loop())
        for fn in (add, slow, slow):
            args = (1, 2) if fn is add else ()
            stepper.submit(StepJob(fn, args, done=lambda result, error: told.append(error)))
        await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
    loop = factory()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    gc.collect()
    assert not caplog.records
    assert [type(error).__name__ for error in told] == ["NoneType", "NoOutcome", "NoOutcome"] * 2


def test_idle_runners_are_few(bench: Any) -> None:
    async def body(bench: Bench) -> None:
        await asyncio.gather(*(bench.run(slow, 0.001) for _ in range(300)))
        await asyncio.sleep(0.01)
        assert len(bench.stepper._runners) <= 32
        assert bench.stepper.in_flight == 0
        assert await bench.run(add, 1, 2) == 3

    bench(body)


def test_an_eager_task_factory_of_the_host_runs_no_step_inside_of_submit(bench: Any) -> None:
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with 3.12")

    async def body(bench: Bench) -> None:
        bench.loop.set_task_factory(asyncio.eager_task_factory)
        _, outcome = bench.start(add, 1, 2)
        assert not outcome.done()
        bench.loop.set_task_factory(None)  # the host's own end may not know it
        assert await outcome == ("result", 3)

    bench(body)


def test_nothing_of_a_finished_step_is_kept(bench: Any) -> None:
    class Thing:
        pass

    async def step(thing: Thing, wait: bool) -> Thing:
        if wait:
            await asyncio.sleep(0)
        return thing

    async def body(bench: Bench) -> None:
        for wait in (False, True):
            thing = Thing()
            reference = weakref.ref(thing)
            await bench.run(step, thing, wait)
            del thing
            await asyncio.sleep(0)
            assert reference() is None

    gc.disable()
    try:
        bench(body)
    finally:
        gc.enable()
