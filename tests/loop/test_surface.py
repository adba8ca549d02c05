"""What libraries ask of a loop is there, and what a handler may not do is refused at once and clearly."""

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from duramen._loop.loop import RunLoop
from duramen._loop.refusals import RefusingLoop
from duramen.errors import NotDurableError
from tests.loop.driver import Driver

ABSTRACT = [
    name
    for name, value in vars(asyncio.AbstractEventLoop).items()
    if inspect.isfunction(value) and not name.startswith("__")
]


def test_the_whole_surface_of_an_event_loop_is_there() -> None:
    missing = [
        name for name in ABSTRACT if getattr(RunLoop, name) is getattr(asyncio.AbstractEventLoop, name)
    ]
    assert not missing


@pytest.mark.parametrize("name", [name for name in vars(RefusingLoop) if not name.startswith("_")])
def test_each_form_of_io_is_refused_at_the_call(name: str) -> None:
    loop = Driver().loop
    with pytest.raises(NotDurableError, match=r"was called in a workflow handler.*recorded: ") as caught:
        getattr(loop, name)()
    assert isinstance(caught.value, RuntimeError)


async def to_thread() -> None:
    await asyncio.to_thread(print)


async def connection() -> None:
    await asyncio.open_connection("localhost", 80)


async def server() -> None:
    await asyncio.start_server(print, port=0)


async def subprocess() -> None:
    await asyncio.create_subprocess_exec("true")


async def anyio_connection() -> None:
    await anyio.connect_tcp("127.0.0.1", 80)


@pytest.mark.parametrize("call", [to_thread, connection, server, subprocess])
def test_io_in_a_handler_says_put_it_in_a_step(call: Callable[[], Any]) -> None:
    async def handler(driver: Driver) -> None:
        await call()

    with pytest.raises(NotDurableError, match="put it in a step"):
        Driver().run(handler)


def test_io_through_anyio_is_refused_too() -> None:
    async def handler(driver: Driver) -> None:
        try:
            await anyio_connection()
        except* NotDurableError as errors:
            driver.note(str(errors.exceptions[0]))

    driver = Driver()
    driver.run(handler)
    assert "put it in a step" in str(driver.trace)


def in_thread(call: Callable[[], Any]) -> BaseException | None:
    errors: list[BaseException] = []

    def body() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join(10)
    return errors[0] if errors else None


async def nothing() -> None: ...


@pytest.mark.parametrize(
    "call",
    [
        lambda loop: loop.call_soon(print),
        lambda loop: loop.call_soon_threadsafe(print),
        lambda loop: loop.call_later(1, print),
        lambda loop: loop.create_task(nothing()),
        lambda loop: asyncio.run_coroutine_threadsafe(nothing(), loop),
        lambda loop: loop.drain(),
    ],
    ids=[
        "call_soon",
        "call_soon_threadsafe",
        "call_later",
        "create_task",
        "run_coroutine_threadsafe",
        "drain",
    ],
)
def test_other_threads_are_refused(call: Callable[[RunLoop], Any]) -> None:
    loop = Driver().loop
    loop.call_soon(print)
    error = in_thread(lambda: call(loop))
    assert isinstance(error, NotDurableError)
    assert "from another thread" in str(error)


def test_call_soon_threadsafe_of_the_loops_own_thread_is_call_soon() -> None:
    async def handler(driver: Driver) -> None:
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon_threadsafe(event.set)
        await event.wait()

    Driver().run(handler)


def test_handles_can_be_cancelled() -> None:
    loop = Driver().loop
    handle = loop.call_soon(pytest.fail)
    handle.cancel()
    assert handle.cancelled()
    assert loop.drain()


def test_timers_are_closed_once_when_cancelled_and_not_after_they_fired() -> None:
    async def handler(driver: Driver) -> None:
        loop = asyncio.get_running_loop()
        early, late = loop.call_later(1, int), loop.call_later(2, int)
        late.cancel()
        late.cancel()
        await asyncio.sleep(1.5)
        early.cancel()

    driver = Driver()
    driver.run(handler)
    assert [what for what in driver.trace if what[0] == "close"] == [("close", 2)]


def test_timers_of_one_instant_are_two_timers() -> None:
    loop = Driver().loop
    assert len({loop.call_later(1, int), loop.call_later(1, int)}) == 2


def test_timers_at_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        Driver().loop.call_later(float("nan"), print)


def test_exception_handlers_and_debug_flags_are_kept() -> None:
    loop = Driver().loop
    seen: list[Any] = []

    def keep(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        seen.append(context)

    loop.set_exception_handler(keep)
    assert loop.get_exception_handler() is keep
    loop.call_exception_handler({"message": "one"})
    loop.set_debug(True)
    assert loop.get_debug()
    loop.call_soon(lambda: 1 / 0)
    loop.drain()
    assert [each["message"][:9] for each in seen] == ["one", "Exception"]
    assert loop.errors == seen
    with pytest.raises(TypeError):
        loop.set_exception_handler("no")
    with pytest.raises(TypeError):
        loop.set_task_factory("no")


def test_a_broken_exception_handler_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    loop = Driver().loop
    loop.set_exception_handler(lambda loop, context: 1 / 0)
    loop.call_exception_handler({"message": "one"})
    assert "Unhandled error in exception handler" in caplog.text


def test_task_factories_are_used() -> None:
    made: list[Any] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        made.append(kwargs)
        return asyncio.Task(coro, loop=loop, **kwargs)

    async def handler(driver: Driver) -> str:
        asyncio.get_running_loop().set_task_factory(factory)
        task = asyncio.create_task(asyncio.sleep(0), name="named")
        await task
        return task.get_name()

    driver = Driver()
    assert driver.run(handler) == "named"
    assert len(made) == 1
    assert driver.loop.get_task_factory() is factory


def test_names_of_tasks_do_not_depend_on_the_process() -> None:
    async def handler(driver: Driver) -> list[str]:
        return [asyncio.create_task(asyncio.sleep(0)).get_name() for _ in range(3)]

    asyncio.run(asyncio.wait_for(asyncio.sleep(0), 1))
    assert Driver().run(handler) == Driver().run(handler) == ["Task-2", "Task-3", "Task-4"]


def test_leaked_tasks_are_those_left_without_main() -> None:
    async def handler(driver: Driver) -> None:
        driver.kept = [asyncio.create_task(driver.op(), name=f"leak {n}") for n in range(3)]
        await asyncio.gather(*(driver.op() for _ in range(200)))

    driver = Driver()
    main = driver.start(handler)
    driver.loop.drain()
    for entry in list(driver.open)[3:]:
        driver.deliver(entry)
    driver.loop.drain()
    assert main.done()
    assert [task.get_name() for task in driver.loop.leaked_tasks(main)] == ["leak 0", "leak 1", "leak 2"]
    driver.loop.abandon()


def test_finished_tasks_are_forgotten() -> None:
    async def handler(driver: Driver) -> int:
        for _ in range(5000):
            await asyncio.create_task(asyncio.sleep(0))
        return len(driver.loop._tasks)

    assert Driver().run(handler) <= 64


def test_finished_async_generators_are_forgotten() -> None:
    async def generate() -> AsyncIterator[int]:
        yield 1

    async def handler(driver: Driver) -> int:
        for _ in range(1000):
            async for _ in generate():
                pass
        return len(driver.loop.asyncgens)

    assert Driver().run(handler) <= 64


def test_a_loop_is_drained_by_one_at_a_time() -> None:
    async def handler(driver: Driver) -> None:
        driver.loop.call_soon(int)
        with pytest.raises(RuntimeError, match="being drained already"):
            driver.loop.drain()
        with pytest.raises(RuntimeError, match="while it is being drained"):
            driver.loop.close()
        with pytest.raises(RuntimeError, match="while it is being drained"):
            driver.loop.abandon()

    Driver().run(handler)


def test_a_closed_loop_takes_nothing() -> None:
    loop = Driver().loop
    loop.close()
    assert loop.is_closed()
    for call in (loop.create_future, lambda: loop.call_soon(int), lambda: loop.call_later(1, int)):
        with pytest.raises(NotDurableError, match="had ended"):
            call()
    with pytest.raises(NotDurableError, match="had ended"):
        loop.create_task(nothing())


# -- eager tasks and as_completed


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="3.12 and later")
def test_nothing_is_idle_while_an_eager_start_is_nested() -> None:
    async def child(driver: Driver) -> None:
        driver.note("in child", driver.loop.idle)
        await driver.op("child")

    async def handler(driver: Driver) -> None:
        driver.loop.set_task_factory(asyncio.eager_task_factory)
        task = asyncio.create_task(child(driver))
        driver.note("after", driver.loop.idle)
        await driver.op("parent")
        await task

    first = Driver()
    first.run(handler)
    again = Driver(journal=first.journal)
    again.run(handler)
    assert ("in child", False) in first.trace
    assert ("after", True) in first.trace
    assert again.trace == first.trace


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="3.12 and later")
def test_eager_tasks_are_the_loops_own() -> None:
    async def handler(driver: Driver) -> None:
        driver.loop.set_task_factory(asyncio.eager_task_factory)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(driver.op)

    driver = Driver()
    main = driver.start(handler)
    driver.loop.drain()
    assert len(driver.loop.leaked_tasks(main)) == 3
    driver.loop.abandon()


def test_as_completed_runs_coroutines_in_the_order_of_the_list() -> None:
    class Awaitable:
        def __init__(self, driver: Driver) -> None:
            self.driver = driver

        def __await__(self) -> Any:
            return self.driver.op("awaitable").__await__()

    async def handler(driver: Driver) -> list[Any]:
        task = asyncio.create_task(driver.op("task"))
        await asyncio.sleep(0)
        things = [driver.op(f"op{n}") for n in range(30)]
        things[10:10] = [Awaitable(driver), task]
        return [await each for each in asyncio.as_completed(things)]

    driver = Driver()
    results = driver.run(handler)
    assert len(results) == 32
    asked = [what[1] for what in driver.trace if what[0] == "ask"]
    assert asked == ["task", *(f"op{n}" for n in range(10)), "awaitable", *(f"op{n}" for n in range(10, 30))]


@pytest.mark.parametrize("make", [set, iter], ids=["set", "generator"])
def test_as_completed_refuses_coroutines_without_an_order(make: Any) -> None:
    async def handler(driver: Driver) -> None:
        coroutines = [driver.op() for _ in range(3)]
        try:
            for each in asyncio.as_completed(make(coroutines)):
                await each
        finally:
            for coroutine in coroutines:
                coroutine.close()

    with pytest.raises(NotDurableError, match="pass a list"):
        Driver().run(handler)


def test_as_completed_takes_tasks_in_any_container() -> None:
    async def handler(driver: Driver) -> int:
        tasks = {asyncio.create_task(driver.op()) for _ in range(9)}
        return len([await each for each in asyncio.as_completed(tasks)])

    assert Driver().run(handler) == 9


# -- anyio


def test_a_cancelled_scope_of_anyio_does_not_spin_while_a_task_in_it_cleans_up() -> None:
    async def handler(driver: Driver) -> bool:
        with anyio.move_on_after(1) as scope:
            async with asyncio.TaskGroup() as group:

                async def stubborn() -> None:
                    inner = asyncio.ensure_future(driver.op("clean"))
                    while not inner.done():
                        try:
                            await asyncio.wait([inner])
                        except asyncio.CancelledError:
                            pass

                group.create_task(stubborn())
        return scope.cancelled_caught

    first = Driver(choices=[1])
    assert first.run(handler)
    again = Driver(journal=first.journal)
    assert again.run(handler)
    assert again.trace == first.trace
