"""`Runtime.versions`, and `Runtime.retry` into another version."""

import asyncio
from typing import Any

import pytest

from duramen import Context, Runtime, VersionView, WorkflowDef, workflow
from duramen.errors import InvalidArgument, InvalidId, UnknownRun, UnknownWorkflow

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def work(what: str) -> str:
    return what


@workflow(name="order", version="1")
async def order_v1(ctx: Context) -> list[str]:
    done = [await ctx.step("reserve", work, "reserved")]
    await ctx.wait_for_event("paid")
    return [*done, await ctx.step("ship", work, "shipped")]


@workflow(name="order", version="2", previous=[order_v1])
async def order(ctx: Context) -> list[str]:
    done = [await ctx.step("reserve", work, "reserved")]
    await ctx.wait_for_event("paid")
    return [*done, await ctx.step("deliver", work, "delivered")]


@workflow(name="order", version="3", previous=[order, order_v1])
async def unfit(ctx: Context) -> str:
    await ctx.wait_for_event("paid")
    return await ctx.step("beam", work, "beamed")


@workflow
async def other(ctx: Context) -> None:
    await ctx.wait_for_event("x")


def seen(found: list[VersionView]) -> dict[tuple[str, str], VersionView]:
    return {(one.workflow, one.version): one for one in found}


async def paused(url: str, of: WorkflowDef[Any, Any], *run_ids: str) -> None:
    async with Runtime(url, workflows=[of]) as runtime:
        for run_id in run_ids:
            assert (await runtime.run(of, run_id=run_id)).kind == "paused"


# -- the report ----------------------------------------------------------------------------------------------


async def test_what_open_runs_need_is_told_with_who_has_it(url: str) -> None:
    await paused(url, order_v1, "old1", "old2")
    async with Runtime(url, workflows=[order, other]) as runtime:
        assert [(one.workflow, one.version) for one in await runtime.versions()] == [
            ("order", "1"),
            ("order", "2"),
            ("other", "1"),
        ]
        await runtime.run(order, run_id="new")
        await runtime.enqueue(order, run_id="queued")
        found = seen(await runtime.versions())
        first, second = found["order", "1"], found["order", "2"]
        assert first.counts == {"waiting": 2}
        assert (first.oldest["waiting"].run_id, first.queues) == ("old1", ("default",))
        assert (first.registered, first.current, first.removable) == (True, False, False)
        assert second.counts == {"queued": 1, "waiting": 1}
        assert second.oldest["queued"].run_id == "queued"
        assert (second.registered, second.current, second.runs) == (True, True, 2)
        assert first.workers == second.workers == (runtime.owner,)
        assert (found["other", "1"].counts, found["other", "1"].removable) == ({}, False)
        for run_id in ("old1", "old2"):
            await runtime.signal(run_id, "paid", drive=True)
        assert seen(await runtime.versions())["order", "1"].removable
    async with Runtime(url) as runtime:
        found = seen(await runtime.versions())
        # Nobody is alive any more who has it.
        assert list(found) == [("order", "2")]
        assert (found["order", "2"].registered, found["order", "2"].served) == (False, False)


async def test_runs_that_have_ended_are_not_counted(any_url: str) -> None:
    async with Runtime(any_url, workflows=[other]) as runtime:
        for run_id in ("done", "terminated", "open"):
            await runtime.run(other, run_id=run_id)
        await runtime.signal("done", "x", drive=True)
        await runtime.terminate("terminated")
        (found,) = await runtime.versions()
        assert (found.counts, found.oldest["waiting"].run_id) == ({"waiting": 1}, "open")


# -- retry into another version ------------------------------------------------------------------------------


async def test_a_stuck_run_goes_on_with_a_version_that_fits(any_url: str) -> None:
    async with Runtime(any_url, workflows=[unfit]) as runtime:
        await runtime.run(order_v1, run_id="a")
        await runtime.retry("a", version="3")
        await until(runtime, "a", "stuck")
        view = await runtime.get("a")
        assert view.version == "3"
        assert view.note is not None
        assert 'run of version "3"' in view.note
        await runtime.retry("a", version="2")
        await runtime.signal("a", "paid")
        assert await runtime.result("a", timeout=10) == ["reserved", "delivered"]
        assert (await runtime.get("a")).version == "2"


async def test_a_handler_in_memory_does_not_go_on_under_another_version(any_url: str) -> None:
    async with Runtime(any_url, workflows=[order]) as runtime:
        await runtime.start(order_v1, run_id="a")
        await until(runtime, "a", "waiting")
        await runtime.retry("a", version="2")
        await until(runtime, "a", "waiting")
        await runtime.signal("a", "paid")
        assert await runtime.result("a", timeout=10) == ["reserved", "delivered"]


async def test_a_message_that_came_before_the_move_is_taken_by_the_other_version(any_url: str) -> None:
    async with Runtime(any_url, workflows=[order]) as runtime:
        await runtime.enqueue(order_v1, run_id="a")
        await runtime.signal("a", "paid")
        await runtime.retry("a", version="2")
        assert await runtime.result("a", timeout=10) == ["reserved", "delivered"]


async def test_a_failed_run_is_retried_with_another_version(any_url: str) -> None:
    @workflow(name="order", version="1")
    async def failing(ctx: Context) -> str:
        await ctx.step("reserve", work, "reserved")
        raise LookupError("no such shelf")

    @workflow(name="order", version="2", previous=[failing])
    async def mended(ctx: Context) -> str:
        return await ctx.step("reserve", work, "reserved")

    async with Runtime(any_url, workflows=[mended]) as runtime:
        assert (await runtime.run(failing, run_id="a")).kind == "failed"
        await runtime.retry("a", version="2")
        assert await runtime.result("a", timeout=10) == "reserved"


async def test_what_cannot_be_moved_is_refused(any_url: str) -> None:
    reached, go = asyncio.Event(), asyncio.Event()

    async def held() -> str:
        reached.set()
        await go.wait()
        return "held"

    @workflow(name="held", version="1")
    async def holding(ctx: Context) -> str:
        return await ctx.step("held", held)

    @workflow(name="held", version="2", previous=[holding])
    async def next_one(ctx: Context) -> str:
        return await ctx.step("held", held)

    async with Runtime(any_url, workflows=[next_one, order]) as runtime:
        run = await runtime.start(holding, run_id="a")
        await reached.wait()
        with pytest.raises(InvalidArgument, match="its version can be changed when it waits"):
            await runtime.retry("a", version="2")
        go.set()
        await run.result(timeout=10)
        with pytest.raises(InvalidArgument, match="completed"):
            await runtime.retry("a", version="2")
        await runtime.run(order_v1, run_id="b")
        with pytest.raises(UnknownWorkflow, match="version '7'"):
            await runtime.retry("b", version="7")
        # Its own version is no move.
        with pytest.raises(InvalidArgument, match="is waiting"):
            await runtime.retry("b", version="1")
        with pytest.raises(InvalidId):
            await runtime.retry("b", version="")
        with pytest.raises(UnknownRun):
            await runtime.retry("nobody", version="2")


async def test_a_client_without_code_moves_a_run(url: str) -> None:
    await paused(url, order_v1, "a")
    async with Runtime(url) as client:
        await client.retry("a", version="2")
        view = await client.get("a")
        assert (view.version, view.status) == ("2", "queued")
    async with Runtime(url, workflows=[order_v1]) as runtime:
        assert (await runtime.sweep()).driven == ()
    async with Runtime(url, workflows=[order]) as runtime:
        await runtime.signal("a", "paid")
        assert len((await runtime.sweep()).driven) == 1
        assert await runtime.result("a", timeout=10) == ["reserved", "delivered"]


async def until(runtime: Runtime, run_id: str, status: str) -> None:
    async with asyncio.timeout(10):
        while (await runtime.get(run_id)).status != status:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.005)
