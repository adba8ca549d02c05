"""Middleware, and classes that extend contexts. The examples of docs/middleware.md run here."""

import asyncio
import re
import threading
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Self

import pytest

from duramen import (
    Context,
    Event,
    Middleware,
    Next,
    Retry,
    RunCancelled,
    RunFailed,
    Runtime,
    StepContext,
    StepFailed,
    StepTimeout,
    step,
    step_context,
    workflow,
)
from duramen.errors import InvalidArgument, ReplayDiverged, WorkflowDefinitionError
from duramen.testing import Environment, replay
from tests.regressions.support import until_status

pytestmark = pytest.mark.anyio

PAGE = Path(__file__).parents[2] / "docs" / "middleware.md"

said: ContextVar[str] = ContextVar("said", default="nothing")


def tracing(name: str, seen: list[str]) -> Middleware[Any]:
    async def trace(ctx: Any, call_next: Next) -> Any:
        seen.append(f"into {name}")
        try:
            return await call_next()
        finally:
            seen.append(f"out of {name}")

    return trace


# -- the page ------------------------------------------------------------------------------------------------


async def test_the_examples_of_the_page_run() -> None:
    class Session:
        open = 0

        async def __aenter__(self) -> Self:
            Session.open += 1
            return self

        async def __aexit__(self, *_: object) -> None:
            Session.open -= 1

        def insert(self, order_id: str) -> str:
            return f"{order_id} with {Session.open} open"

    names: dict[str, Any] = {"Session": Session}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        exec(compile(block, str(PAGE), "exec"), names)
    async with Environment([names["welcome"], names["order"]]) as env:
        welcome = await env.runtime.start(names["welcome"], "ann", run_id="acme:1")
        assert await welcome.result() == ["acme", "hello from acme:1", "acme: welcome ann"]
        assert await (await env.runtime.start(names["order"], "o-1")).result() == "o-1 with 1 open"
    assert Session.open == 0


# -- around handlers -----------------------------------------------------------------------------------------


async def test_the_order_is_that_of_the_lists_and_the_same_on_each_replay(any_url: str) -> None:
    seen: list[str] = []

    @workflow(middleware=[tracing("a", seen), tracing("b", seen)])
    async def waits(ctx: Context) -> str:
        seen.append("handler")
        await ctx.wait_for_event("go")
        return "done"

    async with Runtime(any_url, workflows=[waits], warm=0, middleware=[tracing("runtime", seen)]) as runtime:
        run = await runtime.start(waits)
        await until_status(runtime, run.run_id, "waiting")
        inwards = ["into runtime", "into a", "into b", "handler"]
        outwards = ["out of b", "out of a", "out of runtime"]
        assert seen[:4] == inwards
        seen.clear()  # also what `finally` did when the run was dropped from memory
        await runtime.signal(run.run_id, "go", drive=True)
        assert await run.result(timeout=20) == "done"
        assert seen == [*inwards, *outwards]


class Progress:
    pass


class Tenant(Context[Any]):
    tenant: str
    shout: bool = False

    async def greet(self) -> str:
        text = await self.step("greet", lambda: f"hello {self.tenant}")
        return text.upper() if self.shout else text


async def with_tenant(ctx: Tenant, call_next: Next) -> Any:
    ctx.tenant = await ctx.step("tenant", lambda: "acme")
    return await call_next()


@workflow(context=Tenant, middleware=[with_tenant])
async def of_a_tenant(ctx: Tenant, shout: bool) -> str:
    ctx.shout = shout
    assert isinstance(ctx, Tenant)
    return await ctx.greet()


@pytest.mark.parametrize("driving", ["warm", "evicting", "one-by-one"])
async def test_a_context_has_what_middleware_sets_and_methods_of_its_own(driving: Any) -> None:
    async with Environment([of_a_tenant], driving=driving) as env:
        assert await env.result(await env.runtime.start(of_a_tenant, False)) == "hello acme"
        assert await env.result(await env.runtime.start(of_a_tenant, True)) == "HELLO ACME"


async def test_context_variables_set_by_middleware_are_seen_by_handler_steps_and_threads() -> None:
    async def says(ctx: Context, call_next: Next) -> Any:
        said.set(ctx.run_id)
        return await call_next()

    @workflow(middleware=[says])
    async def reads(ctx: Context) -> list[str]:
        async def on_the_loop() -> str:
            return said.get()

        return [said.get(), await ctx.step("a", on_the_loop), await ctx.step("b", said.get)]

    async with Environment([reads]) as env:
        one, two = await env.runtime.start(reads, run_id="1"), await env.runtime.start(reads, run_id="2")
        assert (await one.result(), await two.result()) == (["1"] * 3, ["2"] * 3)


async def test_what_middleware_raises_or_gives_back_is_that_of_the_run() -> None:
    async def refuses(ctx: Context, call_next: Next) -> Any:
        if ctx.input == "bad":
            raise PermissionError("not for you")
        try:
            return f"<{await call_next()}>"
        except ValueError as error:
            return f"caught {error}"
        finally:
            if ctx.input == "worse":
                raise SystemExit("worse")

    @workflow(middleware=[refuses])
    async def wf(ctx: Context, how: str) -> str:
        if how == "raises":
            raise ValueError(how)
        return how

    async with Environment([wf]) as env:
        assert await (await env.runtime.start(wf, "good")).result() == "<good>"
        assert await (await env.runtime.start(wf, "raises")).result() == "caught raises"
        with pytest.raises(RunFailed, match="not for you"):
            await (await env.runtime.start(wf, "bad")).result()
        with pytest.raises(RunFailed, match="worse"):
            await (await env.runtime.start(wf, "worse")).result()


async def test_a_cancellation_passes_through_middleware(any_url: str) -> None:
    seen: list[str] = []

    async def watches(ctx: Context, call_next: Next) -> Any:
        try:
            return await call_next()
        except asyncio.CancelledError as error:
            seen.append(str(error))
            await ctx.step("clean up", lambda: seen.append("cleaned"))
            raise

    @workflow(middleware=[watches])
    async def waits(ctx: Context) -> None:
        await ctx.wait_for_event("never")

    async with Runtime(any_url, workflows=[waits], work=True) as runtime:
        run = await runtime.start(waits)
        await until_status(runtime, run.run_id, "waiting")
        await runtime.cancel(run.run_id, "no more")
        with pytest.raises(RunCancelled, match="no more"):
            await run.result(timeout=20)
    assert seen == ["no more", "cleaned"]


async def test_call_next_is_for_one_call() -> None:
    calls: list[str] = []

    async def twice(ctx: Any, call_next: Next) -> Any:
        await call_next()
        return await call_next()

    async def never(ctx: Context, call_next: Next) -> Any:
        return "instead"

    @workflow(middleware=[twice])
    async def called_twice(ctx: Context) -> None:
        calls.append("handler")

    @workflow(middleware=[never])
    async def never_called(ctx: Context) -> str:
        raise AssertionError

    @workflow(step_middleware=[twice])
    async def step_twice(ctx: Context) -> None:
        await ctx.step("a", lambda: calls.append("step"))

    async with Environment([called_twice, never_called, step_twice], replay=False) as env:
        with pytest.raises(RunFailed, match="a second time"):
            await (await env.runtime.start(called_twice)).result()
        with pytest.raises(RunFailed, match="a second time"):
            await (await env.runtime.start(step_twice)).result()
        assert await (await env.runtime.start(never_called)).result() == "instead"
    assert calls == ["handler", "step"]


async def test_a_kept_history_replays_with_the_runtimes_middleware() -> None:
    async def records(ctx: Context, call_next: Next) -> Any:
        await ctx.step("begun", lambda: 1)
        return await call_next()

    @workflow
    async def wf(ctx: Context) -> str:
        return await ctx.step("a", lambda: "a")

    async with Environment([wf], middleware=[records]) as env:
        run = await env.runtime.start(wf)
        assert await run.result() == "a"
        history = await env.runtime.export(run.run_id)
    assert replay(wf, history, middleware=[records]).output == "a"
    with pytest.raises(ReplayDiverged):
        replay(wf, history)


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run_id", "step", "state", "log", "sleep", "_host", "yield_"])
def test_names_of_the_context_are_refused_when_the_class_is_defined(name: str) -> None:
    with pytest.raises(WorkflowDefinitionError, match=rf"Mine\.{name}: .* another name"):
        type("Mine", (Context,), {name: 1})
    with pytest.raises(WorkflowDefinitionError, match=rf"Mine\.{name}: .* another name"):
        type("Mine", (Context,), {"__annotations__": {name: int}})
    mixin = type("Mixin", (), {name: 1})
    with pytest.raises(WorkflowDefinitionError, match=rf"Mine\.{name}: .* another name"):
        type("Mine", (mixin, Context), {})


@pytest.mark.parametrize("name", ["attempt", "emit", "idempotency_key", "_step"])
def test_names_of_the_context_of_steps_are_refused_too(name: str) -> None:
    with pytest.raises(WorkflowDefinitionError, match=rf"Mine\.{name}: step_context\(\)\.{name}"):
        type("Mine", (StepContext,), {name: 1})


def test_a_context_is_made_by_its_run() -> None:
    with pytest.raises(WorkflowDefinitionError, match="Mine has __init__ of its own"):
        type("Mine", (Context,), {"__init__": lambda self: None})


async def test_attributes_say_when_they_are_not_set_or_cannot_be() -> None:
    class Later(Tenant):
        pass

    @workflow(context=Later)
    async def wf(ctx: Later, how: str) -> Any:
        if how == "unset":
            return ctx.tenant
        if how == "unknown":
            return ctx.nothing  # type: ignore[attr-defined]
        ctx.step = 3  # type: ignore[method-assign, assignment]
        return None

    async with Environment([wf]) as env:
        for how, text in (
            ("unset", r"ctx\.tenant is not set yet: set it in a middleware"),
            ("unknown", "'Later' has no attribute 'nothing'"),
            ("taken", r"ctx\.step is a call of Context"),
        ):
            with pytest.raises(RunFailed, match=text):
                await (await env.runtime.start(wf, how)).result()


async def plain(ctx: Context) -> None: ...
async def no_next(ctx: Context) -> None: ...
def not_async(ctx: Context, call_next: Next) -> None: ...
async def of_a_step(step: StepContext, call_next: Next) -> None: ...
async def fits(ctx: Context, call_next: Next) -> Any: ...
async def unknown(ctx: "Nowhere", call_next: Next) -> Any: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"middleware": [no_next]}, "no_next is called with a context and call_next"),
        ({"middleware": [not_async]}, "middleware holds .*not_async"),
        ({"middleware": fits}, "middleware is .*fits.*: give a list"),
        ({"middleware": [of_a_step]}, "of_a_step wants a StepContext, and is given a Context"),
        ({"middleware": [with_tenant]}, r"with_tenant wants a Tenant.*write @workflow\(context=Tenant"),
        ({"step_middleware": [fits]}, r"fits wants a Context, and is given a StepContext"),
        ({"context": StepContext}, "context is .*StepContext.*: give a class that extends it"),
        ({"context": 3}, "context is 3: give a class that extends it"),
        ({"step_context": Tenant}, "step_context is .*Tenant"),
    ],
)
def test_middleware_that_cannot_work_is_refused_where_it_is_given(options: dict[str, Any], text: str) -> None:
    async def handler(ctx: Context) -> None: ...

    with pytest.raises(WorkflowDefinitionError, match=f"workflow 'handler': .*{text}"):
        workflow(**options)(handler)
    if options.keys() <= {"middleware", "step_middleware"}:
        with pytest.raises(InvalidArgument, match=text):
            Runtime("memory://", **options)


def test_a_handler_that_wants_more_than_its_workflow_names_is_refused() -> None:
    async def handler(ctx: Tenant) -> None: ...

    with pytest.raises(WorkflowDefinitionError, match=r"write @workflow\(context=Tenant, …\)"):
        workflow(handler)  # type: ignore[call-overload]
    assert workflow(context=Tenant)(handler).context is Tenant
    workflow(context=Context[int], middleware=[unknown])(plain)


# -- around steps --------------------------------------------------------------------------------------------


class Numbered(StepContext):
    number: int


async def test_each_attempt_has_its_middleware_and_no_replay_has(any_url: str) -> None:
    seen: list[str] = []

    async def with_number(step: Numbered, call_next: Next) -> Any:
        step.number = step.attempt * 10
        said.set(f"attempt {step.attempt}")
        return await call_next()

    @step(retry=Retry(attempts=3, base=0))
    async def fails_first() -> str:
        if step_context().attempt < 2:
            raise ValueError
        return f"{step_context(Numbered).number} {said.get()} {threading.current_thread().name == main}"

    @step
    def in_a_thread() -> str:
        return f"{step_context(Numbered).number} {said.get()} {threading.current_thread().name == main}"

    main = threading.current_thread().name

    @workflow(step_context=Numbered, step_middleware=[tracing("wf", seen), with_number])
    async def wf(ctx: Context) -> list[str]:
        found = [await fails_first(), await in_a_thread(), said.get()]
        await ctx.wait_for_event("go")
        return found

    async with Runtime(any_url, workflows=[wf], warm=0, step_middleware=[tracing("rt", seen)]) as runtime:
        run = await runtime.start(wf)
        await until_status(runtime, run.run_id, "waiting")
        await runtime.signal(run.run_id, "go", drive=True)
        assert await run.result(timeout=20) == ["20 attempt 2 True", "10 attempt 1 False", "nothing"]
    assert seen == ["into rt", "into wf", "out of wf", "out of rt"] * 3


async def test_what_step_middleware_raises_is_a_failed_attempt() -> None:
    attempts: list[int] = []

    async def flaky(step: StepContext, call_next: Next) -> Any:
        attempts.append(step.attempt)
        if step.attempt == 1:
            raise ConnectionError("no session")
        result = await call_next()
        if step.attempt == 2:
            raise ConnectionError("no commit")
        return f"<{result}>"

    @workflow(step_middleware=[flaky], retry=Retry(attempts=3, base=0))
    async def wf(ctx: Context) -> list[str]:
        return [await ctx.step("a", lambda: "a"), await ctx.step("b", async_b)]

    async def async_b() -> str:
        return "b"

    async with Environment([wf]) as env:
        assert await (await env.runtime.start(wf)).result() == ["<a>", "<b>"]
    assert attempts == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize("in_thread", [False, True])
async def test_the_time_limit_of_a_step_is_for_its_middleware_too(in_thread: bool) -> None:
    released = threading.Event()
    seen: list[str] = []

    async def stuck() -> None:
        await asyncio.Event().wait()

    @workflow(step_middleware=[tracing("m", seen)])
    async def wf(ctx: Context) -> str:
        try:
            await ctx.step("a", released.wait if in_thread else stuck, timeout=0.05)
        except StepTimeout:
            return "too late"
        return "in time"

    async with Runtime("memory://", workflows=[wf]) as runtime:
        assert await (await runtime.start(wf)).result(timeout=20) == "too late"
        released.set()
    assert seen == ["into m", "out of m"]


async def test_steps_with_middleware_wait_for_their_turn_in_few_threads() -> None:
    running = most = 0
    lock = threading.Lock()

    def work(n: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001)
        with lock:
            running -= 1
        return n

    async def through(step: StepContext, call_next: Next) -> Any:
        return await call_next()

    @workflow(step_middleware=[through])
    async def wf(ctx: Context) -> int:
        return sum(await asyncio.gather(*(ctx.step("w", work, n) for n in range(20))))

    async with Runtime("memory://", workflows=[wf], max_threads=2) as runtime:
        assert await (await runtime.start(wf)).result(timeout=20) == 190
    assert most == 2


def raises(kind: Callable[[], BaseException]) -> Callable[[], None]:
    def step() -> None:
        raise kind()

    return step


@pytest.mark.parametrize(
    "kind", [ValueError, SystemExit, GeneratorExit, StopIteration, asyncio.CancelledError]
)
async def test_whatever_a_step_raises_inside_of_middleware_is_its_failure(kind: Any) -> None:
    async def through(step: StepContext, call_next: Next) -> Any:
        return await call_next()

    @workflow(step_middleware=[through])
    async def wf(ctx: Context, n: int) -> str:
        try:
            await ctx.step("a", raises(kind))
        except StepFailed as error:
            return error.error.type_name
        except kind as error:
            return f"builtins.{type(error).__name__}"
        return "nothing"

    async with Runtime("memory://", workflows=[wf]) as runtime:
        found = await (await runtime.start(wf, 1)).result(timeout=20)
    # A coroutine may not raise StopIteration: Python makes this of it, as it does in any async step.
    assert found.endswith("RuntimeError" if kind is StopIteration else kind.__name__)


# -- attempts ------------------------------------------------------------------------------------------------


async def test_an_attempt_that_is_over_does_not_speak_for_the_next_one() -> None:
    late = threading.Event()
    told: list[int] = []
    kept: list[StepContext] = []

    def slow() -> int:
        here = step_context()
        kept.append(here)
        if here.attempt == 1:
            late.wait()
        assert step_context() is here
        step_context().emit("attempt", here.attempt)
        told.append(here.attempt)
        if here.attempt == 2:
            late.set()
            while len(told) < 2:
                threading.Event().wait(0.001)
        return here.attempt

    @workflow
    async def wf(ctx: Context) -> int:
        return await ctx.step("a", slow, timeout=0.3, retry=Retry(attempts=2, base=0))

    async with Runtime("memory://", workflows=[wf]) as runtime:
        found = await runtime.run(wf)
        assert found.output == 2
        events: list[Event] = [event for event in found.events if event.op == "attempt"]
    assert [each.attempt for each in kept] == [1, 2]
    assert sorted(told) == [1, 2]
    assert [event.data for event in events] == [2]
