"""Steps that fail for good and pause their run, and the two ways on."""

import asyncio
from typing import Any

import pytest

from duramen import Context, Fatal, Retry, Runtime, step, workflow
from duramen.errors import InvalidArgument, RunCancelled, RunFailed, UnknownRun, WorkflowDefinitionError
from tests.runtime.support import scenarios, status_is

calls = list[str]()
broken = set[str]()

TWICE = Retry(attempts=2, base=0)


def work(name: str) -> str:
    calls.append(name)
    if name in broken:
        raise LookupError(f"{name} is not there")
    return name


@step(retry=TWICE, on_exhausted="pause")
def charge(name: str) -> str:
    return work(name)


@workflow
async def paying(ctx: Context) -> list[str]:
    first = await ctx.step("first", work, "first")
    return [first, await charge("charge"), await ctx.step("last", work, "last")]


@workflow(on_exhausted="pause")
async def both(ctx: Context) -> list[str]:
    return list(await asyncio.gather(*(ctx.step(name, work, name) for name in ("a", "b"))))


@workflow(on_exhausted="pause")
async def failing(ctx: Context) -> str:
    return await ctx.step("a", work, "a", on_exhausted="fail")


@workflow
async def fatal(ctx: Context) -> str:
    def give_up() -> str:
        calls.append("fatal")
        raise Fatal("no")

    return await ctx.step("fatal", give_up, retry=TWICE, on_exhausted="pause")


@workflow
async def typed(ctx: Context) -> int:
    async def number() -> int:
        raise LookupError("none")

    return await ctx.step("number", number, on_exhausted="pause")


ALL = [paying, both, failing, fatal, typed]


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    broken.clear()


scenario = scenarios(ALL)


async def paused(runtime: Runtime, definition: Any, *names: str) -> Any:
    broken.update(names)
    run = await runtime.start(definition, run_id="a")
    await status_is(runtime, "a", "paused")
    return run


@scenario
async def test_the_run_is_paused_and_shows_which_step_and_why(runtime: Runtime) -> None:
    await paused(runtime, paying, "charge")
    assert calls == ["first", "charge", "charge"]
    view = await runtime.get("a")
    assert view.exhausted_steps == ("charge",)
    assert view.error is not None
    assert (view.error.type_name, view.error.message) == (
        "builtins.LookupError",
        "charge is not there",
    )
    assert view.note is not None
    assert view.note.startswith('step "charge" has failed for good after 2 attempts')
    last = (await runtime.timeline("a"))[-1]
    assert (last.kind, last.op, last.attempt, last.exhausted) == ("step_attempt_failed", "charge", 2, True)
    found = await runtime.list(status="paused", waiting_for="exhausted:charge")
    assert [each.run_id for each in found] == ["a"]


@scenario
async def test_retry_gives_the_step_fresh_attempts(runtime: Runtime) -> None:
    run = await paused(runtime, paying, "charge")
    calls.clear()
    await runtime.retry("a")
    await status_is(runtime, "a", "paused")
    assert calls == ["charge", "charge"]
    broken.clear()
    await runtime.retry("a")
    assert await run.result(timeout=10) == ["first", "charge", "last"]
    assert calls == ["charge"] * 3 + ["last"]


@scenario
async def test_skip_gives_the_step_a_result(runtime: Runtime) -> None:
    run = await paused(runtime, paying, "charge")
    await runtime.skip("a", "paid by hand")
    assert await run.result(timeout=10) == ["first", "paid by hand", "last"]
    assert calls == ["first", "charge", "charge", "last"]
    (skipped,) = [event for event in await runtime.timeline("a") if event.skipped]
    assert (skipped.kind, skipped.op, skipped.data) == ("step_completed", "charge", "paid by hand")


@scenario
async def test_of_several_steps_one_is_named(runtime: Runtime) -> None:
    run = await paused(runtime, both, "a", "b")
    assert (await runtime.get("a")).exhausted_steps == ("a", "b")
    with pytest.raises(InvalidArgument, match="several steps"):
        await runtime.skip("a", "x")
    with pytest.raises(InvalidArgument, match="not paused for 'c'"):
        await runtime.skip("a", "x", operation="c")
    await runtime.skip("a", "one", operation="b")
    await status_is(runtime, "a", "paused")
    assert (await runtime.get("a")).exhausted_steps == ("a",)
    await runtime.skip("a", "two")
    assert await run.result(timeout=10) == ["two", "one"]


@scenario
async def test_a_failure_that_is_never_retried_pauses_as_well(runtime: Runtime) -> None:
    run = await paused(runtime, fatal)
    assert calls == ["fatal"]
    await runtime.skip("a", "yes")
    assert await run.result(timeout=10) == "yes"


@scenario
async def test_a_step_may_say_otherwise_than_its_workflow(runtime: Runtime) -> None:
    broken.add("a")
    run = await runtime.start(failing)
    with pytest.raises(RunFailed, match="a is not there"):
        await run.result(timeout=10)


@scenario
async def test_a_run_that_is_paused_for_a_step_can_be_cancelled(runtime: Runtime) -> None:
    run = await paused(runtime, paying, "charge")
    await runtime.cancel("a", "enough", drive=True)
    with pytest.raises(RunCancelled):
        await run.result(timeout=10)


@scenario
async def test_what_there_is_not_to_skip_is_refused(runtime: Runtime) -> None:
    with pytest.raises(UnknownRun):
        await runtime.skip("nobody")
    await paused(runtime, paying, "charge")
    with pytest.raises(InvalidArgument, match="`retry` lets it try again"):
        await runtime.resume("a")
    assert await runtime.resume_many(workflow=paying) == 0
    await runtime.skip("a", None)
    with pytest.raises(InvalidArgument):
        await runtime.skip("a")
    await runtime.enqueue(paying, run_id="q")
    await runtime.pause("q")
    with pytest.raises(InvalidArgument, match="resume it instead"):
        await runtime.retry("q")


@scenario
async def test_a_result_that_does_not_fit_parks_the_run(runtime: Runtime) -> None:
    await paused(runtime, typed)
    await runtime.skip("a", "no number")
    await status_is(runtime, "a", "stuck")


def test_bad_options_are_refused_when_they_are_defined() -> None:
    bad: Any = "stop"
    with pytest.raises(WorkflowDefinitionError, match="on_exhausted is 'stop'"):
        step(on_exhausted=bad)(work)
    with pytest.raises(WorkflowDefinitionError, match="on_exhausted is 'stop'"):
        workflow(on_exhausted=bad)(paying.handler)
