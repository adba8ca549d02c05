"""`ctx.continue_as_new` and docs/long-runs.md: a run that goes on and on, with a fresh journal each time."""

import asyncio
import contextlib
import logging
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import Context, Retry, Runtime, step_context, workflow
from duramen.errors import (
    ContinueAsNew,
    InvalidArgument,
    NotADurableContext,
    RunCancelled,
    RunFailed,
    RunTimedOut,
    SerializationError,
    StepFailed,
    UnknownWorkflow,
)
from duramen.testing import Environment, replay

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Watched(BaseModel):
    alarm: int
    highest: int = 0
    looks: int = 3


async def work(what: str) -> str:
    return what


@workflow(tags=["counts"])
async def counting(ctx: Context, left: int) -> list[Any]:
    await ctx.step("work", work, "x")
    if left:
        ctx.continue_as_new(left - 1)
    return [ctx.run_id, ctx.generation, list(ctx.tags), ctx.input]


async def test_a_run_goes_on_under_its_id_until_its_last_generation_returns(any_url: str) -> None:
    async with Runtime(any_url, workflows=[counting]) as runtime:
        run = await runtime.start(counting, 3, run_id="r", tags=["mine"], memo="kept")
        assert await run.result(timeout=20) == ["r", 3, ["counts", "mine"], 0]
        view = await runtime.get("r")
        assert (view.generation, view.input, view.memo) == (3, 0, "kept")
        # The journal is that of the last generation, and its numbers go on.
        entries = await runtime.timeline("r")
        assert [entry.kind for entry in entries] == ["run_created", "step_completed", "run_finished"]
        assert [entry.index for entry in entries] == [6, 7, 8]
        assert (view.journal_start, view.journal_len) == (6, 9)
        assert [entry.index for entry in await runtime.timeline("r", from_index=7)] == [7, 8]
        assert [entry.index async for entry in runtime.events("r")] == [6, 7, 8]
        again = await runtime.start(counting, 9, run_id="r")
        assert not again.created
        assert await again.result(timeout=20) == ["r", 3, ["counts", "mine"], 0]
        history = await runtime.export("r")
        assert (history["run"]["generation"], len(history["journal"])) == (3, 3)
        assert replay(counting, history).kind == "completed"


async def test_runs_that_are_driven_inline_or_by_sweeps_go_on_too(any_url: str) -> None:
    async with Runtime(any_url, workflows=[counting]) as runtime:
        found = await runtime.run(counting, 2, run_id="inline")
        assert (found.kind, found.run.generation) == ("completed", 2)
        await runtime.enqueue(counting, 2, run_id="swept")
        kinds: list[str] = []
        for _ in range(3):
            swept = await runtime.sweep()
            kinds += [one.kind for one in swept.queued]
            assert swept.remaining_may_exist == (kinds[-1] == "continued")
        assert kinds == ["continued", "continued", "completed"]


async def test_whoever_waits_elsewhere_gets_the_last_result(url: str) -> None:
    async with Runtime(url) as elsewhere, Runtime(url, workflows=[counting], work=True) as runtime:
        await runtime.enqueue(counting, 5, run_id="r")
        assert (await elsewhere.result("r", timeout=20))[1] == 5


@workflow
async def keys(ctx: Context, seen: list[Any]) -> list[Any]:
    async def key() -> str:
        return step_context().idempotency_key

    seen.append([str(ctx.uuid()), ctx.random(), await ctx.step("key", key)])
    if len(seen) < 3:
        ctx.continue_as_new(seen)
    return seen


async def test_no_two_generations_share_a_drawn_value_or_an_idempotency_key(any_url: str) -> None:
    async with Runtime(any_url, workflows=[keys]) as runtime:
        seen = await (await runtime.start(keys, [], run_id="r")).result(timeout=20)
    assert [key for _, _, key in seen] == ["r/key", "r@1/key", "r@2/key"]
    for column in range(3):
        assert len({one[column] for one in seen}) == 3


@workflow
async def decided(ctx: Context, said: list[str]) -> list[str]:
    answer = await ctx.approve("Go on?", id="go")
    said.append(f"{answer.approval_id} {answer.feedback}")
    if answer.approved:
        ctx.continue_as_new(said)
    return said


async def test_a_decision_is_about_the_generation_that_asked(any_url: str) -> None:
    async with Runtime(any_url, workflows=[decided]) as runtime:
        run = await runtime.start(decided, [], run_id="r")
        for number in range(3):
            asked = "go" if number == 0 else f"go@{number}"
            while (await runtime.get("r")).waiting_approvals != (asked,):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            if number:
                # What is said once more of the former one is none.
                assert await runtime.approve("r", "go", True, feedback="0") == "duplicate"
            assert await runtime.approve("r", asked, number < 2, feedback=str(number)) == "delivered"
        assert await run.result(timeout=20) == ["go 0", "go@1 1", "go@2 2"]


@workflow
async def gathering(ctx: Context, found: list[int]) -> list[int]:
    found += [await ctx.wait_for_event("number", int) for _ in range(3)]
    if len(found) < 30:
        ctx.continue_as_new(found)
    return found


async def test_messages_are_neither_lost_nor_doubled_on_the_way(any_url: str) -> None:
    async with Runtime(any_url, workflows=[gathering], work=True) as runtime:
        run = await runtime.start(gathering, [], run_id="r")
        for number in range(30):
            await runtime.signal("r", "number", number, signal_id=f"n{number}")
            if number % 4 == 0:
                assert await runtime.signal("r", "number", number, signal_id=f"n{number}") == "duplicate"
            if number % 7 == 0:
                await asyncio.sleep(0.02)
        assert await run.result(timeout=20) == list(range(30))
        assert (await runtime.get("r")).generation == 9
        assert await runtime.signal("r", "number", 0, signal_id="n0") == "duplicate"


# -- how a handler ends --------------------------------------------------------------------------------------


@workflow
async def tidy(ctx: Context, done: list[str]) -> list[str]:
    if done:
        return done
    try:
        ctx.continue_as_new(["next"])
    finally:
        done.append(await ctx.step("tidy", work, "tidied"))  # too late for the input


@workflow
async def untidy(ctx: Context, again: bool) -> str:
    if again:
        return "again"
    try:
        ctx.continue_as_new(True)
    finally:
        await ctx.step("tidy", broken, retry=Retry(attempts=1))


async def broken() -> None:
    raise LookupError("no broom")


@workflow
async def twice(ctx: Context, which: str) -> str:
    if which:
        return which
    try:
        ctx.continue_as_new("first")
    finally:
        ctx.continue_as_new("last")


@workflow
async def in_a_group(ctx: Context, again: bool) -> str:
    if again:
        return "again"

    async def branch() -> None:
        await ctx.step("branch", work, "x")
        ctx.continue_as_new(True)

    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.wait_for_event("never"))
        group.create_task(branch())
    return "never"


@workflow
async def swallowing(ctx: Context, again: bool) -> str:
    if again:
        return "again"
    with contextlib.suppress(BaseException):
        ctx.continue_as_new(True)
    await ctx.step("more", work, "x")
    return "swallowed"


@pytest.mark.parametrize(
    ("flow", "given", "expected"),
    [
        (tidy, [], ["next"]),
        (twice, "", "last"),
        (in_a_group, False, "again"),
        (swallowing, False, "again"),
    ],
)
async def test_the_run_continues_once_its_handler_has_ended(
    flow: Any, given: Any, expected: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with Environment([flow]) as env:
        run = await env.runtime.start(flow, given)
        assert await env.result(run) == expected
        assert (await run.get()).generation == 1
    told = [record for record in caplog.records if "called ctx.continue_as_new" in record.getMessage()]
    assert len(told) == (flow is swallowing)


async def test_a_failure_on_the_way_fails_the_run_and_retry_continues_it() -> None:
    async with Environment([untidy]) as env:
        run = await env.runtime.start(untidy, False, run_id="r")
        with pytest.raises(RunFailed, match="no broom"):
            await env.result(run)
        view = await run.get()
        assert (view.generation, view.status) == (0, "failed")
    mended = workflow(name="untidy")(tidied)
    async with Environment([mended], world=env.world) as env:
        await env.runtime.retry("r")
        assert await env.result("r") == "again"


async def tidied(ctx: Context, again: bool) -> str:
    if again:
        return "again"
    try:
        ctx.continue_as_new(True)
    finally:
        await ctx.step("tidy", work, "tidied")


@workflow
async def outside(ctx: Context) -> str:
    def from_a_thread() -> None:
        ctx.continue_as_new(None)

    with pytest.raises(StepFailed) as refused:
        await ctx.step("outside", from_a_thread)
    return str(refused.value)


async def test_it_is_for_handlers_alone() -> None:
    async with Environment([outside]) as env:
        told = await env.result(await env.runtime.start(outside))
    assert NotADurableContext.__name__ in told
    assert issubclass(ContinueAsNew, BaseException)
    assert not issubclass(ContinueAsNew, Exception)


# -- cancellation, time --------------------------------------------------------------------------------------


@workflow
async def unwilling(ctx: Context, late: bool) -> str:
    """Calls it after its cancellation, or is cancelled after its call."""
    try:
        if late:
            ctx.continue_as_new(False)
        await ctx.wait_for_event("never")
    finally:
        if late:
            with contextlib.suppress(asyncio.CancelledError):
                await ctx.wait_for_event("never")
        else:
            ctx.continue_as_new(False)
    return "no"


@pytest.mark.parametrize("late", [False, True])
async def test_a_cancelled_run_does_not_continue(late: bool) -> None:
    async with Environment([unwilling]) as env:
        run = await env.runtime.start(unwilling, late)
        await env.settle()
        await run.cancel("enough")
        with pytest.raises(RunCancelled, match="enough"):
            await env.result(run)
        assert (await run.get()).generation == 0


@workflow
async def busy(ctx: Context, count: int) -> int:
    await ctx.sleep(60)
    ctx.continue_as_new(count + 1)


async def test_a_run_without_end_can_be_cancelled_and_terminated(url: str) -> None:
    async with Environment([busy], store=url) as env:
        one = await env.runtime.start(busy, 0)
        other = await env.runtime.start(busy, 0)
        await env.advance(minutes=10, seconds=30)
        # Each sleeps for as long as the first: its time begins with its generation.
        assert [(await run.get()).generation for run in (one, other)] == [10, 10]
        await one.cancel("enough")
        await other.terminate("enough")
        with pytest.raises(RunCancelled, match="enough"):
            await env.result(one)
        assert (await other.get()).status == "terminated"


@workflow(timeout=timedelta(minutes=5))
async def limited(ctx: Context, waits: int) -> str:
    await ctx.sleep(timedelta(minutes=waits))
    ctx.continue_as_new(waits + 1)


async def test_each_generation_has_the_whole_timeout() -> None:
    async with Environment([limited]) as env:
        run = await env.runtime.start(limited, 1)
        with pytest.raises(RunFailed) as failed:
            await env.result(run)
        assert failed.value.error.type_name.endswith(RunTimedOut.__name__)
        assert (await run.get()).generation == 5  # at the same instant, what was waited for comes first


@workflow(state=dict)
async def with_state(ctx: Context[dict[str, int]], last: bool) -> dict[str, int]:
    ctx.state["seen"] = ctx.state.get("seen", 0) + 1
    await ctx.wait_for_event("go")
    if not last:
        ctx.continue_as_new(True)
    return ctx.state


async def test_the_state_begins_anew(any_url: str) -> None:
    async with Environment([with_state], store=any_url) as env:
        run = await env.runtime.start(with_state, False)
        await env.settle()
        await run.signal("go")
        await env.settle()
        view = await run.get()
        assert (view.generation, view.state) == (1, {"seen": 1})
        await run.signal("go")
        assert await env.result(run) == {"seen": 1}


@workflow
async def endless(ctx: Context, number: int) -> int:
    await ctx.step("work", work, "x")
    ctx.continue_as_new(number + 1)


async def test_a_runtime_can_be_closed_over_a_run_that_never_waits(url: str) -> None:
    reached = 0
    for _ in range(2):
        async with Runtime(url, workflows=[endless], lease=2) as runtime:
            run = await runtime.start(endless, 0, run_id="r")
            while (await run.get()).generation < reached + 3:  # noqa: ASYNC110 - it is its own doing
                await asyncio.sleep(0.01)
        async with Runtime(url) as anybody:
            view = await anybody.get("r")
            # It was let go in order, and anybody may take it; or it was claimed for its next generation while
            # the runtime closed, and its owner has left.
            left = {each.owner for each in await anybody.workers() if each.ended_at is not None}
            assert view.status in {"queued", "waiting"} or view.owner in left
            reached = view.generation
            assert view.input == reached


# -- versions and inputs -------------------------------------------------------------------------------------


@workflow(name="moving", version="1")
async def moving_1(ctx: Context, said: list[str]) -> list[str]:
    said.append(f"code 1, version {ctx.version}")
    if len(said) == 1:
        ctx.continue_as_new(said, version="1")
    ctx.continue_as_new(said)


@workflow(name="moving", version="2", previous=[moving_1])
async def moving(ctx: Context, said: list[str]) -> list[str]:
    said.append(f"code 2, version {ctx.version}")
    if len(said) == 3:
        ctx.continue_as_new(said, version=moving_1)
    return said


async def test_a_generation_is_of_the_newest_version_or_of_the_one_that_is_asked_for(any_url: str) -> None:
    async with Runtime(any_url, workflows=[moving_1]) as runtime:
        await runtime.enqueue(moving_1, [], run_id="r")
    async with Runtime(any_url, workflows=[moving], work=True) as runtime:
        if any_url == "memory://":
            await runtime.enqueue(moving, [], run_id="r")
            said = await runtime.result("r", timeout=20)
            assert said == ["code 2, version 2"]
            return
        said = await runtime.result("r", timeout=20)
        one, two = "code 1, version 1", "code 2, version 2"
        assert said == [one, one, two, one, two]
        view = await runtime.get("r")
        assert view.version == "2"
        assert [each.run_id for each in (await runtime.list(version="2")).items] == ["r"]
        assert [each.run_id for each in (await runtime.list(version="1")).items] == []


@workflow(name="typed", version="1")
async def typed_1(ctx: Context, number: int) -> int:
    ctx.continue_as_new(number + 1)


@workflow(name="typed", version="2", previous=[typed_1])
async def typed(ctx: Context, number: int) -> Watched:
    return Watched(alarm=number)


async def test_a_result_is_read_as_the_last_version_says(any_url: str) -> None:
    async with Runtime(any_url, workflows=[typed]) as runtime:
        found = await (await runtime.start(typed_1, 6)).result(timeout=20)
        assert found == Watched(alarm=7)
        run = await runtime.start(typed_1, 7, run_id="r")
        await run.result(timeout=20)
        assert await run.result() == Watched(alarm=8)


@workflow
async def choosy(ctx: Context, what: str) -> str:
    attempts: dict[str, tuple[Any, dict[str, Any], type[BaseException]]] = {
        "type": (7, {}, SerializationError),
        "unserialisable": (object(), {}, SerializationError),
        "version": ("x", {"version": "9"}, UnknownWorkflow),
        "other": ("x", {"version": counting}, InvalidArgument),
    }
    if what != "done":
        value, options, error = attempts[what]
        try:
            ctx.continue_as_new(value, **options)
        except error:
            await ctx.step("still here", work, "x")
        ctx.continue_as_new("done")
    return "done"


@pytest.mark.parametrize("what", ["type", "unserialisable", "version", "other"])
async def test_what_cannot_be_is_refused_where_it_is_called(what: str) -> None:
    async with Environment([choosy, counting]) as env:
        run = await env.runtime.start(choosy, what)
        assert await env.result(run) == "done"


@workflow
async def without_input(ctx: Context) -> str:
    if ctx.generation == 0:
        with pytest.raises(InvalidArgument, match="takes no input"):
            ctx.continue_as_new(1)
        ctx.continue_as_new()
    return "done"


@workflow
async def with_default(ctx: Context, number: int = 7) -> int:
    if ctx.generation == 0:
        ctx.continue_as_new()
    return number


async def test_an_input_may_be_none_or_the_default() -> None:
    async with Environment([without_input, with_default]) as env:
        assert await env.result(await env.runtime.start(without_input)) == "done"
        assert await env.result(await env.runtime.start(with_default, 1)) == 7


# -- after failures ------------------------------------------------------------------------------------------

BROKEN = {"is": True}


@workflow
async def failing_later(ctx: Context, number: int) -> str:
    async def step() -> str:
        if BROKEN["is"] and number == 2:
            raise LookupError("broken")
        return "ok"

    await ctx.step("step", step)
    if number < 3:
        ctx.continue_as_new(number + 1)
    return "done"


async def test_a_later_generation_that_failed_is_retried_as_any_run(
    any_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    BROKEN["is"] = True
    async with Runtime(any_url, workflows=[failing_later]) as runtime:
        run = await runtime.start(failing_later, 0, run_id="r")
        with pytest.raises(RunFailed, match="broken"):
            await run.result(timeout=20)
        view = await runtime.get("r")
        assert (view.generation, view.input) == (2, 2)
        BROKEN["is"] = False
        await runtime.retry("r")
        assert await run.result(timeout=20) == "done"
        assert (await runtime.get("r")).generation == 3


async def test_a_history_of_a_generation_that_had_not_ended_replays_to_its_continuation() -> None:
    async with Environment([gathering]) as env:
        run = await env.runtime.start(gathering, [1, 2, 3])
        await run.signal("number", 4)
        await run.signal("number", 5)
        await env.settle()
        history = await env.runtime.export(run.run_id)
        assert "generation" not in history["run"]
        assert replay(gathering, history).kind == "unfinished"
        await run.signal("number", 6)
        await env.settle()
        assert (await run.get()).generation == 1
        # As a process left it that died before its last commit.
        entry = dict(history["journal"][-1])
        entry.update(kind="event_received", op="event-3", meta=None, payload="6")
        history["journal"].append(entry)  # type: ignore[arg-type]
        assert replay(gathering, history).kind == "continued"


# -- the page ------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "long-runs.md").read_text("utf-8")


async def test_the_examples_of_the_page_do_what_it_says() -> None:
    names: dict[str, Any] = {"workflow": workflow, "Context": Context, "Watched": Watched, "work": work}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(block, "docs/long-runs.md", "exec"), names)
    async with Environment([names["watch"], names["shift"], names["poll"]]) as env:
        run = await env.runtime.start(names["watch"], Watched(alarm=100))
        for price in (10, 30, 20, 40, 100):
            await run.signal("price", price)
        assert await env.result(run) == 100
        view = await run.get()
        assert (view.generation, view.input.highest) == (1, 30)
        assert await env.result(await env.runtime.start(names["shift"], 1)) == "3 shifts"
        run = await env.runtime.start(names["poll"], 0)
        assert await env.result(run) == "2 in version 2"
