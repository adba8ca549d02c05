"""Whatever user code raises, wherever, and whoever cancels it when: the run ends, is parked or is given back.

Nobody renews a lease for a run that nothing drives, and the runs beside it finish as if it were not there.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, GetCoreSchemaHandler, field_serializer
from pydantic_core import core_schema

from duramen import CodecSerializer, Context, JsonSerializer, Retry, Runtime, RunView, workflow
from duramen._driving.stepper import NoOutcome
from duramen.errors import DuramenError, RunEvicted

numbers = count()

# -- what is raised


class Custom(Exception):
    pass


def hostile(part: str, raises: type[BaseException]) -> BaseException:
    """An exception one of whose own methods raises."""

    def method(self: Any, *_: Any) -> Any:
        raise raises(f"from {part}")

    members: dict[str, Any] = {
        part: property(method) if part in {"args", "__dict__", "__class__", "__cause__"} else method
    }
    if part == "__eq__":
        members["__hash__"] = Exception.__hash__
    cls = type("Hostile", (Exception,), members)
    return cls("hostile")


PARTS = [
    "__str__", "__repr__", "__reduce__", "__eq__", "__hash__", "__bool__", "add_note", "args", "__dict__",
    "__class__", "__cause__", "__traceback__", "with_traceback",
]  # fmt: skip
BASES: list[type[BaseException]] = [
    ValueError, Custom, RuntimeError, OSError, MemoryError, TimeoutError, SystemExit, GeneratorExit,
    asyncio.CancelledError, BaseException, StopIteration, StopAsyncIteration, NoOutcome, RunEvicted,
    DuramenError, RecursionError, ConnectionError, Warning,
]  # fmt: skip

raised = st.one_of(
    st.sampled_from(BASES).map(lambda cls: lambda: cls("plain")),
    st.builds(lambda part, cls: lambda: hostile(part, cls), st.sampled_from(PARTS), st.sampled_from(BASES)),
    st.builds(
        lambda part, cls: lambda: BaseExceptionGroup("group", [hostile(part, cls), cls("member")]),
        st.sampled_from(PARTS),
        st.sampled_from(BASES),
    ),
    st.sampled_from(BASES).map(lambda cls: lambda: cls(object(), "\ud800", {1: object()})),
)

# -- where


@dataclass
class Case:
    """What one run meets: where something is raised, how often, and who cancels it."""

    place: str
    make: Callable[[], BaseException]
    times: int
    cancel: str
    """``nobody``, ``host`` (the run is cancelled), ``program`` (its tasks are), ``drop`` (terminated)."""
    after: int
    """Turns of the loop before that."""
    left: int = 0

    def reach(self, place: str) -> None:
        if place == self.place and self.left > 0:
            self.left -= 1
            raise self.make()


case: Case


class Touchy:
    """A value whose writing and reading may raise."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> Any:
        def read(value: Any) -> Touchy:
            case.reach("reading a value")
            return cls()

        def write(value: Any) -> int:
            case.reach("writing a value")
            return 1

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(write)
        )


class Codec:
    def encode(self, data: bytes) -> bytes:
        if b"neighbour" not in data:
            case.reach("encoding")
        return data

    def decode(self, data: bytes) -> bytes:
        if b"neighbour" not in data:
            case.reach("decoding")
        return data


class State(BaseModel):
    x: int = 0

    def __init__(self, **members: Any) -> None:
        super().__init__(**members)
        case.reach("making the state")

    @field_serializer("x")
    def write(self, x: int) -> int:
        case.reach("writing the state")
        return x


def rule(error: Exception) -> bool:
    case.reach("the rule of retries")
    return True


async def on_the_loop() -> Touchy:
    case.reach("a step, at once")
    await asyncio.sleep(0)
    case.reach("a step, later")
    return Touchy()


def in_a_thread() -> Touchy:
    case.reach("a step, in a thread")
    return Touchy()


async def failing() -> None:
    raise ValueError("failing")


@workflow(state=State)
async def suffering(ctx: Context[State], name: str) -> Touchy:
    try:
        case.reach("the handler, at once")
        await ctx.step("loop", on_the_loop)
        case.reach("the handler, later")
        await ctx.step("thread", in_a_thread)
        try:
            await ctx.step("failing", failing, retry=Retry(attempts=2, base=0, retry_if=rule))
        except Exception:  # noqa: BLE001
            case.reach("the handler, in an except block")
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step("both", on_the_loop))
            group.create_task(ctx.step("both", in_a_thread))
            case.reach("a task group")
        ctx.state.x = 1
        await ctx.sleep(0)
        return Touchy()
    finally:
        case.reach("the handler, in a finally block")


PLACES = [
    "a step, at once", "a step, later", "a step, in a thread", "the handler, at once", "the handler, later",
    "the handler, in an except block", "the handler, in a finally block", "a task group", "encoding",
    "decoding", "writing a value", "reading a value", "making the state", "writing the state",
    "the rule of retries",
]  # fmt: skip

cases = st.builds(
    Case,
    place=st.sampled_from(PLACES),
    make=raised,
    times=st.integers(1, 3),
    cancel=st.sampled_from(["nobody", "nobody", "host", "program", "drop"]),
    after=st.integers(0, 30),
)


@workflow
async def neighbour(ctx: Context, name: str) -> str:
    await ctx.step("one", str, "neighbour")
    await ctx.sleep(0.001)
    return await ctx.step("two", str, "neighbour")


async def cancel(runtime: Runtime, chosen: Case) -> None:
    for _ in range(chosen.after):
        await asyncio.sleep(0)
    if chosen.cancel == "host":
        await runtime.cancel("r", "because")
    elif chosen.cancel == "drop":
        await runtime.terminate("r", "because")
    elif chosen.cancel == "program":
        me = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not me and task.get_name() == "duramen-step-runner":
                task.cancel()


async def play(url: str, chosen: Case) -> tuple[RunView, list[str]]:
    global case  # noqa: PLW0603
    case = chosen
    case.left = case.times
    driver: Any
    serializer = CodecSerializer(JsonSerializer(), Codec())
    async with Runtime(url, workflows=[suffering, neighbour], serializer=serializer, lease=1) as runtime:
        driver = runtime._services.lifecycle.driver  # pyright: ignore[reportPrivateUsage]
        others = [await runtime.start(neighbour, "neighbour", run_id=f"n{n}") for n in range(3)]
        data = '"neighbour"'
        try:
            await runtime.start(suffering, data, run_id="r")
        except BaseException:  # its input could not be written: the caller's matter
            if case.place != "encoding":
                raise
            return await runtime.get("n0"), [str(await run.result(timeout=30)) for run in others]
        case_done = asyncio.create_task(cancel(runtime, chosen))
        async with asyncio.timeout(60):
            await case_done
            while True:
                view = await _row(runtime)
                if view.finished or view.status == "stuck":
                    break
                if not driver.drives("r"):
                    # Given back, or waiting for its time: nobody has it in hand for longer than its lease.
                    await runtime.sweep()
                await asyncio.sleep(0.005)
            outputs = [str(await run.result(timeout=30)) for run in others]
            assert not driver.drives("r")
        return view, outputs


async def _row(runtime: Runtime) -> RunView:
    """The run without its payloads: those may not be readable."""
    return (await runtime.list(id_prefix="r")).items[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@given(chosen=cases)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_run_ends_or_is_parked_and_its_neighbours_finish(
    store: str, folder: Path, caplog: pytest.LogCaptureFixture, chosen: Case
) -> None:
    caplog.set_level(logging.CRITICAL, "duramen")
    caplog.set_level(logging.CRITICAL, "asyncio")
    url = "memory://" if store == "memory" else f"sqlite:///{folder}/{next(numbers)}.db"
    view, outputs = asyncio.run(play(url, chosen))
    assert outputs == ["neighbour"] * 3
    assert view.finished or view.status == "stuck"
