"""Logging of the application's that raises: the run does what it would have done, and so do the others."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from duramen import Context, Retry, Runtime, workflow
from duramen._logging import logger
from tests.logging.kit import records
from tests.regressions.support import until_status

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# -- ways for it to be broken: each gives the names of the records that met it


def is_ours(name: str) -> bool:
    return name.split(".", maxsplit=1)[0] == "duramen"


@contextmanager
def a_handler(met: list[str], error: type[BaseException]) -> Iterator[None]:
    class Broken(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            if is_ours(record.name):
                met.append(record.name)
                raise error("from a handler")
            return True

    broken = Broken()
    logging.getLogger().addHandler(broken)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(broken)


@contextmanager
def a_filter(met: list[str], error: type[BaseException]) -> Iterator[None]:
    """As one that wants an attribute which a record has not."""

    def wants(record: logging.LogRecord) -> bool:
        met.append(record.name)
        raise error("from a filter")

    loggers = [logging.getLogger(name) for name in ("duramen", "duramen.run", "duramen.loop")]
    for each in loggers:
        each.addFilter(wants)
    try:
        yield
    finally:
        for each in loggers:
            each.removeFilter(wants)


@contextmanager
def a_factory(met: list[str], error: type[BaseException]) -> Iterator[None]:
    def make(name: str, *args: Any, **kwargs: Any) -> logging.LogRecord:
        if is_ours(name):
            met.append(name)
            raise error("from a factory")
        return logging.LogRecord(name, *args, **kwargs)

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(make)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


# -- runs about which something is said


async def fails() -> None:
    raise ValueError("no")


@workflow
async def failing(ctx: Context) -> None:
    await ctx.step("fails", fails, retry=Retry(attempts=2, base=0))


@workflow
async def stuck(ctx: Context) -> None:
    await asyncio.Event().wait()


@workflow
async def leaking(ctx: Context) -> None:
    leaking.task = asyncio.create_task(ctx.sleep(60))
    await asyncio.sleep(0)


@workflow
async def with_a_broken_callback(ctx: Context) -> None:
    asyncio.get_running_loop().call_soon(lambda: 1 // 0)
    await ctx.sleep(0.01)


@workflow
async def speaking(ctx: Context) -> None:
    ctx.log.warning("hello")


interrupted = threading.Event()


async def once() -> None:
    if not interrupted.is_set():
        interrupted.set()
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.Event().wait()


@workflow
async def given_back(ctx: Context) -> None:
    await ctx.step("once", once)


@workflow
async def neighbour(ctx: Context) -> str:
    await ctx.step("one", str, "one")
    await ctx.sleep(0.01)
    return await ctx.step("two", str, "two")


ENDS = {
    failing: "failed", stuck: "stuck", leaking: "completed", with_a_broken_callback: "completed",
    speaking: "completed", given_back: "completed",
}  # fmt: skip


@pytest.mark.parametrize("error", [AttributeError, SystemExit])
@pytest.mark.parametrize("broken", [a_handler, a_filter, a_factory])
async def test_what_the_applications_logging_raises_reaches_no_run(
    url: str, broken: Callable[..., Any], error: type[BaseException]
) -> None:
    interrupted.clear()
    met: list[str] = []
    async with Runtime(url, workflows=[*ENDS, neighbour], lease=1) as runtime:
        with broken(met, error):
            others = [await runtime.start(neighbour) for _ in range(3)]
            for definition in ENDS:
                await runtime.start(definition, run_id=definition.name)
            while not (interrupted.is_set() and (await runtime.get("given_back")).status == "completed"):
                await runtime.sweep()
            for definition, status in ENDS.items():
                await until_status(runtime, definition.name, status)
            assert [await run.result(timeout=30) for run in others] == ["two"] * 3
        driver: Any = runtime._services.lifecycle.driver  # pyright: ignore[reportPrivateUsage]
        assert not [definition.name for definition in ENDS if driver.drives(definition.name)]
    assert met, "nothing was said"


def test_a_lost_record_leaves_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with a_filter([], KeyError):
        logger("duramen").warning("run %r is %s", "r", "lost")
    assert capsys.readouterr().err == "duramen: the application's logging raised KeyError: run 'r' is lost\n"


def test_an_interrupt_passes() -> None:
    with a_filter([], KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        logger("duramen").warning("hello")


def test_records_name_the_line_that_spoke() -> None:
    with records() as kept:
        logger("duramen").warning("hello")
    (record,) = kept.of("duramen", "hello")
    assert (record.pathname, record.funcName) == (__file__, "test_records_name_the_line_that_spoke")
