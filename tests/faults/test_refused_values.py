"""What cannot be kept is refused with a typed error at once; what is taken comes back as it was."""

import math
from asyncio import Lock
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import Context, Retry, Runtime, SignalResult, StepFailed, workflow
from duramen.errors import (
    DuplicateWorkflow,
    DuramenError,
    InvalidArgument,
    WorkflowDefinitionError,
)
from tests.regressions.support import finish, story, tables

pytestmark = pytest.mark.anyio

ODD = {
    "nul": "\0", "nul inside": "a\0b", "surrogate": "a\ud800b", "reversed": "a\udfff\ud800b", "bom": "\ufeff",
    "private": "\ue000\U0010ffff", "emoji": "👩‍👩‍👧", "controls": "\x01\x1f\x7f\x85",
    "lines": "a\r\n\u2028\u2029b", "noncharacter": "\uffff\ufdd0", "quotes": "'\"`;--\\",
    "blank": "", "space": " ",
}  # fmt: skip


class State(BaseModel):
    text: str = ""


async def echo(text: str) -> str:
    return text


async def fail_with(text: str) -> None:
    raise ValueError(text)


@workflow(state=State)
async def echoing(ctx: Context[State], text: str) -> list[str]:
    found = [text, await ctx.step("echo", echo, text)]
    try:
        await ctx.step("fail", fail_with, text)
    except StepFailed as error:
        found.append(error.error.message)
    ctx.state.text = text
    ctx.log.info("text %s", text)
    ctx.emit("text", text)
    found.append(await ctx.wait_for_event("text", str))
    return found


@workflow
async def using_ids(ctx: Context, text: str) -> list[str]:
    used: list[str] = []
    for what in ("step", "event", "name", "approval", "title"):
        try:
            match what:
                case "step":
                    await ctx.step(text, echo, "x")
                case "event":
                    await ctx.wait_for_event("go", id=text, timeout=0, default=None)
                case "name":
                    await ctx.wait_for_event(text, timeout=0, default=None)
                case "approval":
                    await ctx.approve("?", id=text, timeout=0)
                case _:
                    await ctx.approve(text, timeout=0)
        except DuramenError:
            used.append(f"{what} refused")
        except TimeoutError:
            used.append(what)
        else:
            used.append(what)
    return used


@pytest.mark.parametrize("name", ODD)
async def test_a_text_with_odd_characters_survives_or_is_refused_and_wedges_nothing(
    any_url: str, name: str
) -> None:
    text = ODD[name]
    storable = "surrogate" not in name and name != "reversed"
    async with Runtime(any_url, workflows=[echoing, using_ids]) as runtime:
        if storable:
            await runtime.enqueue(echoing, text, run_id="r", memo={"text": text})
            assert await runtime.signal("r", "text", text) is SignalResult.BUFFERED
            view = await finish(runtime, "r")
            assert view.output == [text] * 4
            assert (view.state, view.memo, view.input) == (State(text=text), {"text": text}, text)
        else:
            with pytest.raises(DuramenError):
                await runtime.enqueue(echoing, text)
            await runtime.enqueue(echoing, "x", run_id="r")
            with pytest.raises(DuramenError):
                await runtime.signal("r", "text", text)
            with pytest.raises(DuramenError):
                await runtime.approve("r", "a", feedback=text)
        calls = {
            "run id": lambda: runtime.enqueue(echoing, "x", run_id=text),
            "tag": lambda: runtime.enqueue(echoing, "x", run_id="tagged", tags=[text]),
            "event": lambda: runtime.signal("r", text, "x"),
            "signal id": lambda: runtime.signal("r", "text", "x", signal_id=text),
            "reason": lambda: runtime.cancel("r", text),
            "prefix": lambda: runtime.list(id_prefix=text),
            "get": lambda: runtime.get(text),
        }
        for what, call in calls.items():
            try:
                await call()
            except DuramenError:
                continue
            if what == "run id":
                assert (await runtime.get(text)).run_id == text
            if what == "tag":
                assert [run.run_id for run in await runtime.list(tag=text)] == ["tagged"]
        # Ids inside of a handler: taken or refused, and the run goes on either way.
        if storable:
            await runtime.enqueue(using_ids, text, run_id="ids")
            view = await finish(runtime, "ids")
            assert view.status == "completed", (view.error, view.note)
            assert [each.removesuffix(" refused") for each in view.output] == [
                "step", "event", "name", "approval", "title",
            ]  # fmt: skip
            assert await story(runtime, "ids")
        assert await runtime.list()


@workflow
async def surrogates_from_within(ctx: Context) -> list[str]:
    found: list[str] = []
    try:
        await ctx.step("result", echo, "\ud800")
    except StepFailed as error:
        found.append(error.error.short_name)
    try:
        await ctx.step("error", fail_with, "\ud800 \0")
    except StepFailed as error:
        found.append(error.error.short_name)
    return found


async def test_half_characters_from_a_step_fail_the_step_and_not_the_run(url: str) -> None:
    async with Runtime(url, workflows=[surrogates_from_within]) as runtime:
        await runtime.enqueue(surrogates_from_within, run_id="r")
        assert (await finish(runtime, "r")).output == ["SerializationError", "ValueError"]


NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - that is what it is about


def bad_calls(runtime: Any) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "naive start_at": lambda: runtime.enqueue(echoing, "x", start_at=NAIVE),
        "naive now": lambda: runtime.sweep(now=NAIVE),
        "naive deadline": lambda: runtime.sweep(deadline=NAIVE),
        "naive filter": lambda: runtime.list(created_after=NAIVE),
        "text for an instant": lambda: runtime.enqueue(echoing, "x", start_at="2026-01-01"),
        "negative time-out": lambda: runtime.result("r", timeout=-1),
        "nan time-out": lambda: runtime.result("r", timeout=math.nan),
        "negative duration": lambda: runtime.run(echoing, "x", max_duration=timedelta(seconds=-1)),
        "absurd duration": lambda: runtime.sweep(max_duration=timedelta(days=99_999)),
        "infinite duration": lambda: runtime.sweep(max_duration=math.inf),
        "negative limit": lambda: runtime.sweep(limit=-1),
        "no limit at all": lambda: runtime.list(limit=0),
        "fractional limit": lambda: runtime.list(limit=1.5),
        "absurd limit": lambda: runtime.list(limit=10**9),
        "concurrency": lambda: runtime.work(concurrency=0),
        "polls": lambda: runtime.work(poll_min=2, poll_max=1),
        "over-long run id": lambda: runtime.enqueue(echoing, "x", run_id="x" * 256),
        "empty run id": lambda: runtime.enqueue(echoing, "x", run_id=""),
        "run id with a NUL": lambda: runtime.enqueue(echoing, "x", run_id="a\0b"),
        "number as run id": lambda: runtime.enqueue(echoing, "x", run_id=42),
        "over-long tag": lambda: runtime.enqueue(echoing, "x", tags=["x" * 256]),
        "text as tags": lambda: runtime.enqueue(echoing, "x", tags="vip"),
        "over-long event": lambda: runtime.signal("r", "x" * 256),
        "empty event": lambda: runtime.signal("r", ""),
        "over-long signal id": lambda: runtime.signal("r", "x", signal_id="x" * 256),
        "reserved event": lambda: runtime.signal("r", "__x"),
        "over-long approval id": lambda: runtime.approve("r", "x" * 256),
        "approved as a text": lambda: runtime.approve("r", "a", "yes"),
        "reason as a number": lambda: runtime.cancel("r", 5),
        "foreign cursor": lambda: runtime.list(cursor="abc"),
        "unknown status": lambda: runtime.list(status="done"),
        "nan input": lambda: runtime.enqueue("loose", math.nan),
        "unknown workflow": lambda: runtime.enqueue("nobody", 1),
        "unknown run": lambda: runtime.get("nobody"),
        "unknown run's end": lambda: runtime.result("nobody", timeout=1),
        "unknown run's journal": lambda: runtime.timeline("nobody"),
        "retry of what waits": lambda: runtime.retry("r"),
        "retry of nobody": lambda: runtime.retry("nobody"),
        "delete of what waits": lambda: runtime.delete("r"),
    }


@workflow
async def loose(ctx: Context, value: Any) -> None:
    return None


@pytest.mark.parametrize("name", bad_calls(None))
async def test_a_call_that_makes_no_sense_is_refused_with_a_sentence_and_writes_nothing(
    url: str, name: str
) -> None:
    async with Runtime(url, workflows=[echoing, loose]) as runtime:
        await runtime.enqueue(echoing, "x", run_id="r")
        before = tables(url), (await runtime.get("r")).updated_at
        with pytest.raises(DuramenError) as caught:
            await bad_calls(runtime)[name]()
        assert len(str(caught.value)) > 15
        assert (tables(url), (await runtime.get("r")).updated_at) == before


@workflow
async def misusing(ctx: Context) -> list[str]:
    refused: list[str] = []
    step: Any = ctx.step
    calls: list[Any] = [
        lambda: ctx.sleep(-1),
        lambda: ctx.sleep(math.nan),
        lambda: ctx.sleep(timedelta(days=99_999)),
        lambda: ctx.sleep_until(NAIVE),
        lambda: ctx.wait_for_event("x", timeout=-1),
        lambda: ctx.wait_for_event(""),
        lambda: ctx.wait_for_event("x" * 256),
        lambda: ctx.wait_for_event("x", id="x" * 256),
        lambda: ctx.wait_for_event("x", id="a#2"),
        lambda: ctx.approve("x", timeout=math.inf),
        lambda: ctx.approve("x", meta={"x": object()}),
        lambda: ctx.step("", echo, "x"),
        lambda: ctx.step("x" * 256, echo, "x"),
        lambda: ctx.step("a\0b", echo, "x"),
        lambda: ctx.step("x", echo, "x", timeout=-1),
        lambda: ctx.step("x", echo, "x", timeout=0),
        lambda: step("x", echo, "x", checkpoint="sometimes"),
    ]
    for call in calls:
        try:
            await call()
        except DuramenError as error:
            refused.append(type(error).__name__)
    refused.append(await ctx.step("fine", echo, "fine"))
    return refused


async def test_a_handler_hears_of_its_mistakes_at_once_and_may_go_on(url: str) -> None:
    async with Runtime(url, workflows=[misusing]) as runtime:
        await runtime.enqueue(misusing, run_id="r")
        view = await finish(runtime, "r")
        assert view.status == "completed", (view.error, view.note, view.waits)
        assert len(view.output) == 18
        assert set(view.output) <= {"InvalidArgument", "InvalidId", "SerializationError", "fine"}
        assert await story(runtime, "r") == ["run_created", "step_completed fine", "run_finished"]


@workflow
async def asking_with_a_long_id(ctx: Context, length: int) -> bool:
    return (await ctx.approve("?", id="x" * length)).approved


@pytest.mark.parametrize("length", [200, 246, 247, 255])
async def test_an_approval_that_a_handler_could_ask_for_can_be_decided(url: str, length: int) -> None:
    async with Runtime(url, workflows=[asking_with_a_long_id]) as runtime:
        await runtime.enqueue(asking_with_a_long_id, length, run_id="r")
        await runtime.sweep()
        view = await runtime.get("r")
        if view.status == "failed":  # refused at the earliest place
            assert view.error is not None
            assert view.error.short_name == "InvalidId"
            return
        (approval_id,) = view.waiting_approvals
        assert await runtime.approve("r", approval_id) is SignalResult.DELIVERED
        assert (await finish(runtime, "r")).output is True


async def test_two_workflows_of_one_name_and_version_are_refused_when_they_are_registered() -> None:
    @workflow(name="same")
    async def one(ctx: Context) -> None: ...

    @workflow(name="same")
    async def two(ctx: Context) -> None: ...

    @workflow(name="same", version="2")
    async def later(ctx: Context) -> None: ...

    @workflow(name="same", version="2", previous=[one])
    async def proper(ctx: Context) -> None: ...

    for pair in ([one, two], [two, one], [one, later], [proper, two]):
        with pytest.raises(DuplicateWorkflow, match="same"):
            Runtime("memory://", workflows=pair)
    Runtime("memory://", workflows=[one, one])
    Runtime("memory://", workflows=[proper, one])


def test_definitions_that_cannot_work_are_refused_where_they_stand() -> None:
    def plain(ctx: Context) -> None: ...

    async def nothing() -> None: ...

    async def two_inputs(ctx: Context, a: int, b: int) -> None: ...

    async def odd_input(ctx: Context, a: Lock) -> None: ...

    async def fine(ctx: Context) -> None: ...

    make: Any = workflow
    handlers: list[Any] = [plain, nothing, two_inputs, odd_input, 7, print]
    for handler in handlers:
        with pytest.raises(WorkflowDefinitionError):
            make(handler)
    for options in (
        {"name": ""}, {"name": "x" * 256}, {"name": "a\0b"}, {"version": ""}, {"timeout": -1}, {"timeout": 0},
        {"timeout": math.nan}, {"events": {"__x": int}}, {"events": {"": int}}, {"tags": "vip"}, {"retry": 3},
        {"previous": [fine]},
    ):  # fmt: skip
        with pytest.raises((WorkflowDefinitionError, InvalidArgument)):
            make(**options)(fine)
    rules: list[dict[str, Any]] = [
        {"attempts": 0}, {"attempts": 1.5}, {"base": -1}, {"cap": math.nan}, {"backoff": "magic"},
    ]  # fmt: skip
    for rule in rules:
        with pytest.raises(InvalidArgument):
            Retry(**rule)
