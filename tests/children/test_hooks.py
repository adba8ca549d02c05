"""Outcome hooks: what is started when a run completes, fails or is parked."""

import asyncio
from typing import Any

import pytest

from duramen import Context, Outcome, Runtime, workflow
from duramen.errors import RunFailed, RunStuck, UnknownRun, WorkflowDefinitionError

pytestmark = pytest.mark.anyio

OFF = {"now": True}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@workflow
async def noting(ctx: Context, outcome: Outcome) -> list[Any]:
    why = None if outcome.error is None else str(outcome.error)
    return [outcome.run_id, outcome.workflow, outcome.status, outcome.output, why]


@workflow(on_completed=noting, on_failed="noting")
async def deciding(ctx: Context, what: str) -> dict[str, str]:
    if what == "bad" and OFF["now"]:
        raise ValueError("so it is")
    return {"what": what}


@workflow(name="changing", on_stuck=noting)
async def before(ctx: Context) -> str:
    await ctx.sleep(0.01)
    return await ctx.wait_for_event("go", str)


@workflow(name="changing", on_stuck=noting)
async def after(ctx: Context) -> str:
    return await ctx.wait_for_event("go", str)


async def result(app: Runtime, run_id: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            try:
                return await app.result(run_id)
            except UnknownRun:
                await asyncio.sleep(0.01)


async def test_each_outcome_starts_its_hook_once(any_url: str) -> None:
    OFF["now"] = True
    async with Runtime(any_url, workflows=[deciding, noting]) as app:
        await (await app.start(deciding, "good", run_id="g")).result(timeout=20)
        found = await result(app, "g/on_completed")
        assert found == ["g", "deciding", "completed", {"what": "good"}, None]
        with pytest.raises(RunFailed):
            await (await app.start(deciding, "bad", run_id="b")).result(timeout=20)
        found = await result(app, "b/on_failed")
        assert found == ["b", "deciding", "failed", None, "ValueError: so it is"]
        await app.retry("b")
        with pytest.raises(RunFailed):
            await app.result("b", timeout=20)
        assert (await result(app, "b/on_failed@4"))[2] == "failed"
        OFF["now"] = False
        await app.retry("b")
        assert await app.result("b", timeout=20) == {"what": "bad"}
        assert (await result(app, "b/on_completed@6"))[3] == {"what": "bad"}
        hook = await app.get("b/on_failed")
        assert (hook.parent, hook.root) == (None, None)


async def test_a_run_that_is_parked_starts_its_hook_and_goes_on_after_a_retry(sqlite_url: str) -> None:
    async with Runtime(sqlite_url, workflows=[before, noting]) as app:
        await app.start(before, run_id="c")
        async with asyncio.timeout(20):
            while "event:go" not in (await app.get("c")).waits:  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.01)
    async with Runtime(sqlite_url, workflows=[after, noting]) as app:
        await app.start(after, run_id="c")
        await app.signal("c", "go", "on")
        with pytest.raises(RunStuck):
            await app.result("c", timeout=20)
        async with asyncio.timeout(20):
            while not (hooks := await app.list(workflow=noting)).items:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        (hook,) = hooks
        assert hook.run_id.startswith("c/on_stuck@")
        assert await app.result(hook.run_id, timeout=20) == ["c", "changing", "stuck", None, None]
    async with Runtime(sqlite_url, workflows=[before, noting]) as app:
        await app.retry("c")
        assert await app.result("c", timeout=20) == "on"


def test_what_cannot_be_a_hook_is_refused_when_it_is_defined() -> None:
    @workflow
    async def without(ctx: Context) -> None: ...

    for wrong, message in ((without, "takes no input"), (7, "give a workflow"), ("", "give a workflow")):
        with pytest.raises(WorkflowDefinitionError, match=message):
            workflow(name="x", on_failed=wrong)(without.handler)  # pyright: ignore[reportArgumentType, reportCallIssue]
