"""The loop under the loops it lives in: asyncio, uvloop, and none at all."""

import asyncio
import contextvars
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from duramen._loop.loop import RunLoop
from duramen.errors import NotDurableError
from tests.loop.driver import HOSTS, START, Driver, on_host

pytestmark = pytest.mark.parametrize("host", HOSTS)


def test_the_hosts_loop_is_back_after_each_drain(host: str) -> None:
    async def handler(driver: Driver) -> bool:
        return asyncio.get_running_loop() is driver.loop

    def call() -> None:
        before = asyncio._get_running_loop()
        hooks = sys.get_asyncgen_hooks()
        assert Driver().run(handler)
        assert asyncio._get_running_loop() is before
        assert sys.get_asyncgen_hooks() == hooks

    on_host(host, call)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_leave_the_drain_and_the_hosts_loop_is_back(host: str, error: type[BaseException]) -> None:
    async def handler(driver: Driver) -> None:
        raise error

    def call() -> None:
        before = asyncio._get_running_loop()
        driver = Driver()
        main = driver.start(handler)
        with pytest.raises(error):
            driver.loop.drain()
        assert isinstance(main.exception(), error)
        assert asyncio._get_running_loop() is before
        assert not driver.loop.is_running()

    on_host(host, call)


def test_tasks_of_the_host_and_of_the_run_do_not_mix(host: str) -> None:
    async def handler(driver: Driver) -> Any:
        me = asyncio.current_task()
        await driver.op()
        return asyncio.current_task() is me and asyncio.all_tasks() == {me}

    assert on_host(host, lambda: Driver().run(handler))


def test_a_handler_that_is_drained_over_many_turns_of_the_host(host: str) -> None:
    if host == "none":
        pytest.skip("needs a host")
    driver = Driver()
    done: list[Any] = []

    async def handler(driver: Driver) -> int:
        async with asyncio.timeout(60):
            for _ in range(10):
                await driver.op()
        return driver.asked["op"]

    def turn() -> None:
        host_loop = asyncio.get_running_loop()
        driver.loop.drain()
        if main.done():
            done.append(main.result())
            host_loop.stop()
        else:
            driver.deliver(next(iter(driver.open)))
            host_loop.call_soon(turn)

    main = driver.start(handler)
    import uvloop

    host_loop = uvloop.new_event_loop() if host == "uvloop" else asyncio.new_event_loop()
    try:
        host_loop.call_soon(turn)
        host_loop.run_forever()
    finally:
        host_loop.close()
    assert done == [10]
    driver.loop.close()


def test_time_is_that_of_the_last_entry(host: str) -> None:
    async def handler(driver: Driver) -> None:
        loop = asyncio.get_running_loop()
        assert loop.time() == START
        await asyncio.sleep(0.0004)
        assert START < loop.time() <= START + 0.001
        await asyncio.sleep(86_400 * 365)
        assert START + 86_400 * 365 <= loop.time() < START + 86_400 * 365 + 1

    on_host(host, lambda: Driver().run(handler))


def test_deadlines_have_passed_when_their_timer_fires(host: str) -> None:
    async def handler(driver: Driver) -> None:
        loop = asyncio.get_running_loop()
        for thousandth in range(1, 300):
            deadline = loop.time() + thousandth / 1000
            await asyncio.sleep(thousandth / 1000)
            assert loop.time() >= deadline
        # No timer was asked for twice because the first had come too early.
        assert driver.asked["timer"] == 299

    on_host(host, lambda: Driver().run(handler))


@pytest.mark.parametrize("delay", [0, -1, -0.5])
def test_a_delay_that_is_over_asks_for_no_timer(host: str, delay: float) -> None:
    async def handler(driver: Driver) -> None:
        fired = asyncio.Event()
        asyncio.get_running_loop().call_later(delay, fired.set)
        await fired.wait()
        assert "timer" not in driver.asked

    on_host(host, lambda: Driver().run(handler))


def test_sleeping_for_ever_asks_for_no_timer(host: str) -> None:
    async def handler(driver: Driver) -> None:
        sleeper = asyncio.create_task(asyncio.sleep(float("inf")))
        await asyncio.sleep(1)
        sleeper.cancel()
        assert driver.asked["timer"] == 1

    on_host(host, lambda: Driver().run(handler))


def test_context_variables_flow_as_in_asyncio(host: str) -> None:
    variable = contextvars.ContextVar("variable", default="outside")

    async def child() -> str:
        seen = variable.get()
        variable.set("child")
        return seen

    async def handler(driver: Driver) -> None:
        variable.set("handler")
        assert await asyncio.create_task(child()) == "handler"
        await driver.op()
        assert variable.get() == "handler"
        context = contextvars.Context()
        assert await asyncio.create_task(child(), context=context) == "outside"
        assert context[variable] == "child"

    on_host(host, lambda: Driver().run(handler))
    assert variable.get() == "outside"


def test_errors_of_callbacks_are_collected_and_stop_nothing(
    host: str, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ValueError("broken")

    async def handler(driver: Driver) -> int:
        asyncio.get_running_loop().call_soon(broken)
        await driver.op()
        return 1

    driver = Driver()
    assert on_host(host, lambda: driver.run(handler)) == 1
    assert [str(each["exception"]) for each in driver.loop.errors] == ["broken"]
    assert "Exception in callback" in caplog.text


def test_async_generators_left_in_the_middle_close_when_asked_in_order(host: str) -> None:
    async def generate(driver: Driver, name: str) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            await driver.op(name)
            driver.note("closed", name)

    async def handler(driver: Driver) -> None:
        for name in "abc":
            async for _ in generate(driver, name):
                break
        assert not driver.asked
        await asyncio.get_running_loop().shutdown_asyncgens()

    driver = Driver()
    on_host(host, lambda: driver.run(handler))
    assert [what[1] for what in driver.trace if what[0] == "closed"] == ["a", "b", "c"]


def test_a_limit_hands_a_spinning_handler_back(host: str) -> None:
    async def handler(driver: Driver) -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    def call() -> None:
        driver = Driver()
        driver.start(handler)
        assert driver.loop.drain(1000) is False
        assert driver.loop.drain(1) is False
        driver.loop.abandon()
        assert driver.loop.drain(1)

    on_host(host, call)


def test_strict_loops_refuse_what_wakes_them_past_the_driver(host: str) -> None:
    events: list[asyncio.Event] = []

    async def handler(driver: Driver) -> str:
        events.append(asyncio.Event())
        await driver.op()
        await events[0].wait()
        return "woken"

    def call() -> None:
        driver = Driver()
        driver.loop = RunLoop(driver, strict=True)
        main = driver.start(handler)
        driver.loop.drain()
        [future] = driver.open.values()
        assert driver.loop.deliver(future.set_result, None)
        with pytest.raises(NotDurableError, match="outside of a workflow handler woke it"):
            events[0].set()
        driver.loop.abandon()
        assert not main.done()

    on_host(host, call)
