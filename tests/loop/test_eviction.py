"""A run that is dropped from memory unwinds without noise and without reaching its driver."""

import asyncio
import contextlib
import contextvars
import gc
import sys
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from duramen.errors import RunEvicted
from tests.loop.driver import HOSTS, Driver, on_host


@pytest.fixture(autouse=True)
def silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing may be warned of, logged, or reported as unraisable."""
    unraisable: list[Any] = []
    before, sys.unraisablehook = sys.unraisablehook, unraisable.append
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = before
    assert not [str(each) for each in unraisable]
    assert not caplog.records


def evict(handler: Callable[[Driver], Any], host: str = "none") -> Driver:
    driver = Driver()

    def call() -> None:
        driver.start(handler)
        driver.loop.drain()
        asked = dict(driver.asked)
        driver.loop.abandon()
        assert driver.asked == asked, "something reached the driver"
        assert driver.loop.evicted
        driver.loop.abandon()

    on_host(host, call)
    return driver


@pytest.mark.parametrize("host", HOSTS)
def test_finally_blocks_run_and_their_awaits_do_not_come_back(host: str) -> None:
    async def handler(driver: Driver) -> None:
        try:
            await driver.op()
        finally:
            driver.note("finally")
            try:
                await asyncio.sleep(1)
            finally:
                driver.note("inner")

    assert evict(handler, host).trace[1:] == [("finally",), ("inner",)]


def test_except_exception_does_not_catch_the_eviction() -> None:
    async def handler(driver: Driver) -> None:
        try:
            await driver.op()
        except Exception:  # noqa: BLE001
            driver.note("caught")
        finally:
            try:
                asyncio.get_running_loop().call_later(1, int)
            except Exception:  # noqa: BLE001
                driver.note("caught")

    assert ("caught",) not in evict(handler).trace


@pytest.mark.parametrize(
    "call",
    [
        lambda: asyncio.sleep(1),
        lambda: asyncio.create_task(asyncio.sleep(1)),
        lambda: asyncio.gather(asyncio.sleep(1), asyncio.sleep(2), asyncio.sleep(3)),
        lambda: asyncio.wait_for(asyncio.sleep(1), 1),
        lambda: asyncio.shield(asyncio.sleep(1)),
        lambda: asyncio.Event().wait(),
        lambda: asyncio.Queue[int]().get(),
        lambda: anyio.sleep(1),
    ],
    ids=["sleep", "create_task", "gather", "wait_for", "shield", "event", "queue", "anyio"],
)
def test_every_wait_of_a_clean_up_raises_run_evicted(call: Callable[[], Any]) -> None:
    async def handler(driver: Driver) -> None:
        try:
            await driver.op()
        finally:
            try:
                await call()
            except BaseException as error:
                driver.note(type(error))
                raise

    assert evict(handler).trace[-1] == (RunEvicted,)


def test_what_is_only_scheduled_is_dropped() -> None:
    async def handler(driver: Driver) -> None:
        event, queue = asyncio.Event(), asyncio.Queue[int]()
        waiters = [asyncio.create_task(event.wait()), asyncio.create_task(queue.get())]
        try:
            await asyncio.gather(*waiters)
        finally:
            event.set()
            queue.put_nowait(1)
            waiters[0].cancel()
            driver.note("went on")

    assert evict(handler).trace == [("went on",)]


@contextlib.asynccontextmanager
async def resource(driver: Driver) -> AsyncIterator[None]:
    try:
        yield
    finally:
        driver.note("released")
        await driver.op("release")


async def generate(driver: Driver) -> AsyncIterator[int]:
    try:
        while True:
            await driver.op("next")
            yield 1
    finally:
        driver.note("generator closed")
        await driver.op("close")


async def in_group(driver: Driver) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(driver.op())


async def in_anyio_group(driver: Driver) -> None:
    with anyio.fail_after(9):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(driver.op)


async def in_timeout(driver: Driver) -> None:
    async with asyncio.timeout(5), resource(driver):
        await asyncio.wait_for(driver.op(), 3)


async def in_generator(driver: Driver) -> None:
    async for _ in generate(driver):
        pass


async def beside_generator(driver: Driver) -> None:
    generator = generate(driver)
    driver.open.clear()
    task = asyncio.create_task(anext(generator))
    await asyncio.sleep(0)
    await task


async def in_shield(driver: Driver) -> None:
    await asyncio.shield(driver.op())


async def in_wait(driver: Driver) -> None:
    await asyncio.wait([asyncio.create_task(driver.op()) for _ in range(3)], timeout=1)


async def in_as_completed(driver: Driver) -> None:
    for each in asyncio.as_completed([driver.op() for _ in range(3)], timeout=4):
        await each


async def in_condition(driver: Driver) -> None:
    condition = asyncio.Condition()
    async with condition:
        await condition.wait()


async def with_tasks_not_begun(driver: Driver) -> None:
    asyncio.get_running_loop().call_soon(lambda: asyncio.create_task(driver.op()))
    await driver.op()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    "handler",
    [
        in_group,
        in_anyio_group,
        in_timeout,
        in_generator,
        beside_generator,
        in_shield,
        in_wait,
        in_as_completed,
        in_condition,
        with_tasks_not_begun,
    ],
)
def test_every_kind_of_wait_is_dropped_silently(handler: Callable[[Driver], Any], host: str) -> None:
    evict(handler, host)


def test_generators_are_closed_with_their_run() -> None:
    assert ("generator closed",) in evict(in_generator).trace


def test_tasks_that_never_began_are_dropped_silently() -> None:
    driver = Driver()
    driver.start(in_group)
    driver.loop.abandon()
    assert not driver.trace


def test_a_run_can_be_dropped_before_and_after_it_ended() -> None:
    async def handler(driver: Driver) -> int:
        return 1

    Driver().loop.abandon()
    driver = Driver()
    assert driver.run(handler) == 1
    driver.loop.abandon()
    driver = Driver()
    driver.start(in_group)
    driver.loop.drain()
    driver.loop.close()
    driver.loop.abandon()


def test_the_context_and_the_task_are_the_handlers_own_while_it_unwinds() -> None:
    variable = contextvars.ContextVar[int]("variable")

    async def handler(driver: Driver) -> None:
        task = asyncio.current_task()
        token = variable.set(1)
        try:
            await driver.op()
        finally:
            variable.reset(token)
            driver.note(asyncio.current_task() is task)

    assert evict(handler).trace[-1] == (True,)


def test_memory_comes_back_without_the_collector() -> None:
    async def handler(driver: Driver) -> None:
        await driver.op()

    driver = Driver()
    main = weakref.ref(driver.start(handler))
    driver.loop.drain()
    gc.disable()
    try:
        driver.loop.abandon()
        driver.open.clear()
        assert main() is None
    finally:
        gc.enable()


def test_a_coroutine_that_cannot_be_ended_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(driver: Driver) -> None:
        future = driver.loop.create_future()
        while True:
            try:
                await future
            except BaseException:  # noqa: BLE001
                pass

    evict(handler)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    caplog.clear()


def test_timers_of_a_dropped_run_are_not_closed_one_by_one() -> None:
    driver = evict(in_timeout)
    assert not [what for what in driver.trace if what[0] == "close"]
