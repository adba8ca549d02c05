"""The names of asyncio and anyio that nobody promises are there, and nobody else uses any."""

import ast
import asyncio
import concurrent.futures
import inspect
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio._backends._asyncio as backend
import pytest

from duramen._loop import insides
from duramen._loop.loop import keep_threads_out

SOURCES = sorted(Path("python/duramen").rglob("*.py"))
FOREIGN = ("asyncio", "anyio", "concurrent", "threading")


def private_uses(path: Path) -> Iterator[str]:
    """Private names that a module takes from asyncio and its like: by import, or of a module."""
    tree = ast.parse(path.read_text())
    modules: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {
                (each.asname or each.name).split(".")[0]
                for each in node.names
                if each.name.split(".")[0] in FOREIGN
            }
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FOREIGN:
            yield from (each.name for each in node.names if each.name.startswith("_"))
            modules |= {each.asname or each.name for each in node.names}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr.startswith("_")
            and not node.attr.startswith("__")
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            yield f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_only_one_module_uses_the_insides_of_others(path: Path) -> None:
    if path.name != "insides.py":
        assert list(private_uses(path)) == []


def test_the_look_at_sources_finds_private_names(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("import asyncio.tasks as t\nfrom asyncio.events import _x\nt._enter_task\nt.wait\n")
    assert list(private_uses(path)) == ["_x", "t._enter_task"]


def test_the_running_loop_and_the_current_task_can_be_set() -> None:
    assert insides.get_running_loop() is None
    loop = asyncio.new_event_loop()
    try:
        insides.set_running_loop(loop)
        assert asyncio.get_running_loop() is loop
        coroutine = asyncio.sleep(0)
        task = loop.create_task(coroutine)
        insides.enter_task(loop, task)
        assert asyncio.current_task() is task
        insides.leave_task(loop, task)
        assert asyncio.current_task() is None
        insides.forget_quietly(task)
        task.cancel()
        assert insides.is_about_to_be_cancelled(task)
    finally:
        insides.set_running_loop(None)
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()


def test_a_task_shows_what_it_awaits_and_a_future_can_be_unblocked() -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()

        async def wait() -> None:
            await future

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert insides.waiter_of(task) is future
        coroutine: Any = wait()
        awaited = coroutine.send(None)
        assert awaited._asyncio_future_blocking
        insides.unblock(awaited)
        assert not awaited._asyncio_future_blocking
        coroutine.close()
        task.cancel()

    asyncio.run(main())


def caller_of(create: Any, method: str) -> Any:
    """The code that calls `method` of a loop while `create` runs."""
    seen: list[Any] = []

    class Loop(asyncio.SelectorEventLoop):
        pass

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(sys._getframe(1).f_code)
        return getattr(super(Loop, self), method)(*args, **kwargs)

    setattr(Loop, method, spy)
    with asyncio.Runner(loop_factory=Loop) as runner:

        async def main() -> None:
            seen.clear()
            await create()

        runner.run(main())
    return seen


async def wrapped() -> None:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    future.set_result(1)
    await asyncio.wrap_future(future)


async def ensured() -> None:
    await asyncio.ensure_future(asyncio.sleep(0))


def test_callers_are_known_by_their_code() -> None:
    assert insides.WRAP_FUTURE in caller_of(wrapped, "create_future")
    assert insides.ENSURE_FUTURE in caller_of(ensured, "create_task")
    for code, argument in insides.AS_COMPLETED.items():
        assert argument in inspect.signature(asyncio.as_completed).parameters or argument in code.co_varnames


def test_the_wrapper_of_an_awaitable_has_its_name() -> None:
    class Awaitable:
        def __await__(self) -> Iterator[None]:
            yield

    async def main() -> str:
        task = asyncio.ensure_future(Awaitable())
        name: str = task.get_coro().__name__
        await task
        return name

    assert asyncio.run(main()) == insides.WRAPS_AWAITABLE


def test_anyio_cancels_scopes_by_the_method_that_is_looked_for() -> None:
    assert callable(getattr(backend.CancelScope, insides.ANYIO_CANCELS_AGAIN))


@pytest.mark.parametrize("name", ["_callback", "_args", "_context", "_cancelled", "_when", "_scheduled"])
def test_handles_have_their_fields(name: str) -> None:
    assert inspect.ismemberdescriptor(insides.handle_slot(name))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_a_task_that_starts_eagerly_is_seen() -> None:
    seen: list[int] = []

    async def eager() -> None:
        seen.append(len(insides.eager_starts))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        await loop.create_task(eager())

    asyncio.run(main())
    assert seen == [1]


def test_threads_are_guarded_once() -> None:
    keep_threads_out()
    start = threading.Thread.start
    submit = concurrent.futures.ThreadPoolExecutor.submit
    keep_threads_out()
    assert threading.Thread.start is start
    assert concurrent.futures.ThreadPoolExecutor.submit is submit
    assert inspect.signature(threading.Thread.start) == inspect.signature(start)
