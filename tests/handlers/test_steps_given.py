"""Everything that may be given to `@step` and `ctx.step`: it works, or one sentence says what to write."""

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, Self

import pytest
from pydantic import BaseModel

from duramen import Context, Runtime, StepDef, step, step_context, workflow
from duramen.errors import InvalidArgument, WorkflowDefinitionError
from tests.handlers import later

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def in_a_run(body: Callable[[Context], Awaitable[Any]]) -> Any:
    """What a handler of one run gets out of `body`; what that raises is raised here too."""
    raised: list[BaseException] = []

    async def handler(ctx: Context) -> Any:
        try:
            return await body(ctx)
        except Exception as error:
            raised.append(error)
            raise

    async with Runtime("memory://", workflows=[workflow(name="w")(handler)]) as runtime:
        result = await runtime.run("w")
    if raised:
        raise raised[-1]
    assert result.kind == "completed", result
    return result.output


class Sum(BaseModel):
    n: int


async def double(n: int) -> int:
    return 2 * n


def double_plainly(n: int) -> int:
    return 2 * n


def double_soon(n: int) -> Awaitable[int]:
    return double(n)


@contextlib.contextmanager
def managed() -> Iterator[int]:
    yield 1


class Service:
    factor = 2

    async def method(self, n: int) -> int:
        return self.factor * n

    async def __call__(self, n: int) -> int:
        return self.factor * n

    @step
    async def declared(self, n: int) -> int:
        return self.factor * n

    @step
    @staticmethod
    async def static(n: int) -> int:
        return 2 * n

    @staticmethod
    @step
    async def static_outside(n: int) -> int:
        return 2 * n

    @step
    @classmethod
    async def of_class(cls, n: int) -> int:
        return cls.factor * n

    @classmethod
    @step
    async def of_class_outside(cls, n: int) -> int:
        return cls.factor * n


class Other(Service):
    factor = 3


def wrapping(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(fn)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return wrapper


WORKS: dict[str, Any] = {
    "async": double,
    "plain": double_plainly,
    "gives an awaitable": double_soon,
    "lambda that gives a coroutine": lambda n: double(n) if n else None,
    "lambda": lambda n: 2 * n,
    "partial": functools.partial(lambda factor, n: factor * n, 2),
    "partial of a step": functools.partial(step(double)),
    "step": step(double),
    "wrapped": wrapping(double),
    "step of a wrapped one": step(wrapping(double)),
    "wrapped step": wrapping(step(double)),
    "bound method": Service().method,
    "bound step": Service().declared,
    "static step": Service.static,
    "static step of an object": Service().static,
    "static, the other way": Service.static_outside,
    "step of a class": Service.of_class,
    "step of a class, of an object": Service().of_class,
    "step of a class, the other way": Service.of_class_outside,
    "object": Service(),
    "strings as annotations": later.double,
}


@pytest.mark.parametrize("name", list(WORKS))
async def test_what_can_be_called_runs_as_a_step(name: str) -> None:
    fn = WORKS[name]
    assert await in_a_run(lambda ctx: ctx.step("s", fn, 21)) == 42


DIRECT = ["static", "static_outside", "of_class", "of_class_outside"]


@pytest.mark.parametrize(
    "call",
    [Service().declared, *(getattr(owner, name) for owner in (Service, Service()) for name in DIRECT)],
    ids=range(9),
)
async def test_methods_that_are_steps_can_be_called_directly(call: Any) -> None:
    async def handler(ctx: Context) -> Any:
        return await call(21)

    assert await in_a_run(handler) == 42
    assert await call(21) == 42


async def test_a_step_of_a_class_knows_which_class() -> None:
    async def handler(ctx: Context) -> Any:
        return [await Other.of_class(1), await Other().of_class(1), await Other.of_class_outside(1)]

    assert await in_a_run(handler) == [3, 3, 3]
    assert Service.static.name == "static"


async def test_a_class_is_called_as_any_function() -> None:
    async def handler(ctx: Context) -> Any:
        made = await ctx.step("sum", functools.partial(Sum, n=1))
        return [type(made).__name__, made.n]

    assert await in_a_run(handler) == ["Sum", 1]


def test_a_function_may_have_attributes_of_the_names_that_a_step_has() -> None:
    async def charge() -> int:
        return 1

    charge.name = "x"
    charge.retry = 3
    charge.note = "kept"
    declared: Any = step(charge)
    assert (declared.name, declared.retry, declared.note) == ("charge", None, "kept")


def generator() -> Iterator[int]:
    yield 1


async def stream() -> AsyncIterator[int]:
    yield 1


class Streaming:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


async def reads() -> AsyncIterator[int]: ...
async def gives_self() -> Self: ...


@workflow
async def flow(ctx: Context) -> int:
    return 1


# Each of these is refused by `ctx.step`, and by `@step` too.
NO_STEPS: dict[str, tuple[Any, str]] = {
    "generator": (generator, "return one value, such as a list"),
    "async generator": (stream, "return one value.* emit"),
    "partial of a generator": (functools.partial(generator), "return one value"),
    "object with a generator": (Streaming(), "return one value"),
    "workflow": (flow, "runtime.start, inside of a step"),
    "text": ("x", "give a function"),
    "number": (3, "give a function"),
    "nothing": (None, "give a function"),
    "class method of nobody": (classmethod(double), "@classmethod over the decorator"),
    "reads": (reads, "return a list"),
    "Self": (gives_self, "name it instead"),
}


@pytest.mark.parametrize("name", list(NO_STEPS))
async def test_what_cannot_be_a_step_is_told_what_to_write(name: str) -> None:
    given, text = NO_STEPS[name]
    with pytest.raises(WorkflowDefinitionError, match=text):
        await in_a_run(lambda ctx: ctx.step("s", given))
    with pytest.raises(WorkflowDefinitionError, match=text):
        await in_a_run(lambda ctx: ctx.transaction("s", given))
    if name != "class method of nobody":  # a decorator inside of a class gets these
        with pytest.raises(WorkflowDefinitionError, match=text):
            StepDef(given, name="s")


@pytest.mark.parametrize(
    ("given", "text"), [(Sum, "decorate a function that makes one"), (step(double), "decorate it once")]
)
def test_what_ctx_step_takes_but_no_decorator(given: Any, text: str) -> None:
    with pytest.raises(WorkflowDefinitionError, match=text):
        step(given)


def test_a_name_in_place_of_the_function_is_meant_as_a_name() -> None:
    with pytest.raises(WorkflowDefinitionError, match="name='charge'"):
        step("charge")


async def test_a_call_that_was_made_too_early_is_closed_and_named() -> None:
    with pytest.raises(WorkflowDefinitionError, match="give the function and its arguments, not the call"):
        await in_a_run(lambda ctx: ctx.step("s", double(3)))


@pytest.mark.parametrize("call", ["step", "transaction"])
async def test_a_call_without_an_id_is_shown_with_one(call: str) -> None:
    def calls(*args: Any) -> Callable[[Context], Awaitable[Any]]:
        return lambda ctx: getattr(ctx, call)(*args)

    declared = step(double)
    for args in ((double, 3), (declared, 3), (declared, declared), (double, double), (double,)):
        with pytest.raises(InvalidArgument, match=rf"ctx.{call}\('double', double, …\)"):
            await in_a_run(calls(*args))
    with pytest.raises(InvalidArgument, match=rf"ctx.{call}\('double', double, …\)"):
        await in_a_run(calls(double(3)))
    with pytest.raises(InvalidArgument, match=rf"no function: write ctx.{call}\('charge', function, …\)"):
        await in_a_run(calls("charge"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"retry": 3}, r"retry=Retry\(attempts=3\)"),
        ({"retry": 0}, r"retry=Retry\(attempts=1\)"),
        ({"retry": True}, r"retry=Retry\(attempts=3\)"),
        ({"retry": False}, r"retry=Retry\(attempts=1\)"),
        ({"retry": "3"}, r"retry=Retry\(attempts=3\)"),
        ({"timeout": 0}, "leave it out"),
        ({"timeout": -1}, "must not be negative"),
        ({"timeout": True}, "give a timedelta, or seconds"),
        ({"timeout": float("inf")}, "leave it out"),
        ({"timeout": float("nan")}, "must be finite"),
        ({"timeout": 1e15}, "numbers are seconds"),
        ({"timeout": "3"}, "give a timedelta, or seconds"),
    ],
    ids=str,
)
async def test_options_mean_the_same_in_the_decorator_and_in_the_call(
    options: dict[str, Any], text: str
) -> None:
    with pytest.raises(WorkflowDefinitionError, match=text):
        step(**options)(double)
    for call in ("step", "transaction"):
        with pytest.raises(InvalidArgument, match=text):
            await in_a_run(lambda ctx, call=call: getattr(ctx, call)("s", double, 1, **options))


async def test_a_misspelt_checkpoint_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'durable' or 'lazy'"):
        await in_a_run(lambda ctx: ctx.step("s", double, 1, checkpoint="lasy"))


@pytest.mark.parametrize("name", ["", "a#2", "a\nb", "\ud800", "x" * 256, 3])
def test_a_name_that_no_operation_may_have_is_no_name_of_a_step(name: Any) -> None:
    with pytest.raises(WorkflowDefinitionError, match=r"^step "):
        step(name=name)(double)


def test_no_name_of_its_own() -> None:
    for fn in (functools.partial(double, 1), Service()):
        with pytest.raises(WorkflowDefinitionError, match="name='…'"):
            step(fn)
        assert step(name="s")(fn).name == "s"


async def test_what_never_returns_has_no_type() -> None:
    @step
    async def fails() -> NoReturn:
        raise ValueError("no")

    assert fails.duramen_plan.result is None
    with pytest.raises(Exception, match="no"):
        await in_a_run(lambda ctx: fails())


async def test_a_step_context_tells_of_progress_from_the_loop_and_from_threads() -> None:
    async def on_the_loop(ctx: Context) -> int:
        step_context().emit("half", 1)
        ctx.emit("also", 2)
        await asyncio.sleep(0)
        step_context().emit("done", 3)
        return 1

    def in_a_thread(ctx: Context) -> int:
        step_context().emit("half", 4)
        ctx.emit("also", 5)
        return 2

    @workflow
    async def handler(ctx: Context) -> int:
        ctx.emit("begin")
        first = await ctx.step("a", on_the_loop, ctx)
        second = await ctx.step("b", in_a_thread, ctx)
        ctx.emit("end")
        return first + second

    async with Runtime("memory://", workflows=[handler]) as runtime:
        result = await runtime.run(handler)
    told = [(each.op, each.data) for each in result.events if each.kind == "emitted"]
    assert told == [
        ("begin", None), ("half", 1), ("also", 2), ("done", 3), ("half", 4), ("also", 5), ("end", None),
    ]  # fmt: skip
    assert result.output == 3


async def test_an_attempt_that_is_over_tells_nothing_more() -> None:
    release, told = threading.Event(), threading.Event()

    def late() -> int:
        context = step_context()
        release.wait(30)
        context.emit("late")
        told.set()
        return 1

    @workflow
    async def handler(ctx: Context) -> str:
        try:
            await ctx.step("late", late, timeout=0.05)
        except TimeoutError:
            release.set()
        await ctx.step("wait", told.wait, 30)
        ctx.emit("on time")
        return "done"

    async with Runtime("memory://", workflows=[handler]) as runtime:
        result = await runtime.run(handler)
    assert result.output == "done"
    assert [each.op for each in result.events if each.kind == "emitted"] == ["on time"]


async def test_events_of_another_run_are_not_a_steps_to_tell() -> None:
    contexts: list[Context] = []

    async def first(ctx: Context) -> int:
        contexts.append(ctx)
        return 1

    async def tells() -> None:
        contexts[0].emit("x")

    async def second(ctx: Context) -> int:
        await ctx.step("tells", tells)
        return 1

    workflows = [workflow(first), workflow(second)]
    async with Runtime("memory://", workflows=workflows) as runtime:
        await runtime.run("first")
        result = await runtime.run("second")
    assert result.kind == "failed"
    assert "NotADurableContext" in str(result.error)


async def test_events_have_names() -> None:
    async def handler(ctx: Context) -> None:
        ctx.emit(3)

    with pytest.raises(InvalidArgument, match="give a string"):
        await in_a_run(handler)


# -- steps that wait for runs --------------------------------------------------------------------------------


async def test_a_step_that_waits_for_a_run_of_its_own_worker_is_not_silent(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All places of the worker are kept by steps that wait for what needs a place."""
    monkeypatch.setattr("duramen._handlers.step.PATIENCE", 0.05)
    said = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "waits for run 'child'" in record.getMessage():
                loop.call_soon_threadsafe(said.set)

    async def ask() -> int:
        return await (await runtime.enqueue(child, run_id="child")).result(timeout=60)

    @workflow
    async def child(ctx: Context) -> int:
        return 7

    @workflow
    async def parent(ctx: Context) -> int:
        return await ctx.step("ask", ask)

    listener = Listener()
    logging.getLogger("duramen").addHandler(listener)
    try:
        async with Runtime(f"sqlite:///{file}", workflows=[child, parent]) as runtime:
            handle = await runtime.enqueue(parent)
            worker = asyncio.create_task(runtime.work(concurrency=1))
            async with asyncio.timeout(60):
                await said.wait()
            # Somebody else's place is free.
            async with Runtime(f"sqlite:///{file}", workflows=[child]) as other:
                await other.sweep()
            assert await handle.result(timeout=60) == 7
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker
    finally:
        logging.getLogger("duramen").removeHandler(listener)


@pytest.mark.parametrize("way", ["start", "run"])
async def test_a_step_that_begins_a_run_and_waits_needs_no_place_for_it(
    way: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("duramen._handlers.step.PATIENCE", 0.05)
    begun = asyncio.Event()

    async def start() -> int:
        handle = await runtime.start(child)
        await begun.wait()
        return await handle.result(timeout=60)

    async def run() -> Any:
        return (await runtime.run(child)).output

    @workflow
    async def child(ctx: Context) -> int:
        begun.set()
        await ctx.sleep(0.5)
        return 7

    @workflow
    async def parent(ctx: Context) -> int:
        return await ctx.step("ask", start if way == "start" else run)

    async with Runtime("memory://", workflows=[child, parent]) as runtime:
        handle = await runtime.enqueue(parent)
        worker = asyncio.create_task(runtime.work(concurrency=1))
        assert await handle.result(timeout=60) == 7
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
    assert "place in the worker" not in caplog.text
