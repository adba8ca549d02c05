"""Children: started once, awaited, cancelled with their parents; each test runs on every store."""

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import (
    ChildCancelled,
    ChildConflict,
    ChildFailed,
    Context,
    RunCancelled,
    RunFailed,
    Runtime,
    StepFailed,
    register_exception,
    step,
    workflow,
)
from duramen.errors import DuramenError, UnknownRun


class Parcel(BaseModel):
    number: int
    weight: float = 1.0


@register_exception
class TooHeavy(Exception):
    pass


@step
async def weigh(parcel: Parcel) -> float:
    if parcel.weight > 10:
        raise TooHeavy(parcel.weight)
    return parcel.weight


@workflow
async def packing(ctx: Context, parcel: Parcel) -> Parcel:
    return Parcel(number=parcel.number, weight=await weigh(parcel) + 1)


@workflow
async def shipping(ctx: Context, count: int) -> float:
    parcels = await asyncio.gather(*(ctx.child(packing, Parcel(number=n)) for n in range(count)))
    assert all(isinstance(parcel, Parcel) for parcel in parcels)
    return sum(parcel.weight for parcel in parcels)


@workflow
async def delivering(ctx: Context, count: int) -> float:
    return await ctx.child(shipping, count, id="ship") + 100


@workflow
async def failing(ctx: Context, weight: float) -> str:
    try:
        await ctx.child(packing, Parcel(number=1, weight=weight), run_id="heavy")
    except ChildFailed as error:
        return f"{error.run_id} {error.operation_id} {type(error.__cause__).__name__} {error.error}"
    return "passed"


@workflow
async def letting_fail(ctx: Context) -> None:
    await ctx.child(packing, Parcel(number=1, weight=11))


@workflow
async def waiting(ctx: Context, name: str) -> str:
    try:
        return await ctx.wait_for_event(name, str)
    except asyncio.CancelledError:
        await ctx.step("clean up", cleaned, ctx.run_id)
        raise


async def cleaned(run_id: str) -> str:
    return run_id


@workflow
async def nesting(ctx: Context) -> str:
    return await ctx.child(waiting, "never", id="inner")


@workflow
async def outermost(ctx: Context) -> str:
    return await ctx.child(nesting, id="middle")


pytestmark = pytest.mark.anyio

ALL = [packing, shipping, delivering, failing, letting_fail, waiting, nesting, outermost]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def runtime(url: str, *more: Any, **options: Any) -> Runtime:
    return Runtime(url, workflows=[*ALL, *more], **options)


async def status_is(app: Runtime, run_id: str, status: str) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                if (await app.get(run_id)).status == status:
                    return
            except UnknownRun:
                pass
            await asyncio.sleep(0.01)


async def test_a_parent_gets_what_its_children_return(any_url: str) -> None:
    async with runtime(any_url) as app:
        run = await app.start(shipping, 3, run_id="p")
        assert await run.result(timeout=20) == 6.0
        child = await app.get("p/child-2")
        assert (child.workflow, child.status, child.input) == ("packing", "completed", Parcel(number=1))
        assert (await app.start(delivering, 2, run_id="g")).run_id == "g"
        assert await app.result("g", timeout=20) == 104.0
        assert (await app.get("g/ship/child-1")).status == "completed"


async def test_a_failure_comes_with_the_exception_of_the_child(any_url: str) -> None:
    async with runtime(any_url) as app:
        run = await app.start(failing, 11)
        assert (
            await run.result(timeout=20)
            == "heavy child-1 StepFailed StepFailed: step 'weigh' failed after 1 attempt: TooHeavy: 11.0"
        )
        run = await app.start(letting_fail, run_id="l")
        with pytest.raises(RunFailed) as caught:
            await run.result(timeout=20)
        cause = caught.value.__cause__
        assert isinstance(cause, ChildFailed)
        assert cause.run_id == "l/child-1"
        assert isinstance(cause.__cause__, StepFailed)
        assert isinstance(cause.__cause__.__cause__, TooHeavy)


async def test_cancelling_the_parent_cancels_its_children_and_waits_for_their_clean_up(any_url: str) -> None:
    async with runtime(any_url) as app:
        run = await app.start(outermost, run_id="o")
        await status_is(app, "o/middle/inner", "waiting")
        assert await app.cancel("o", "enough") == "delivered"
        with pytest.raises(RunCancelled, match="enough"):
            await run.result(timeout=20)
        for run_id in ("o/middle", "o/middle/inner"):
            child = await app.get(run_id)
            assert (child.status, child.reason) == ("cancelled", "enough")
        kinds = [entry.kind for entry in await app.timeline("o/middle/inner")]
        assert "step_completed" in kinds, "it has cleaned up"


async def test_a_time_out_around_a_child_cancels_it_and_waits(any_url: str) -> None:
    @workflow
    async def hurrying(ctx: Context) -> str:
        try:
            async with asyncio.timeout(0.05):
                return await ctx.child(waiting, "never", id="slow")
        except TimeoutError:
            return "too slow"

    async with runtime(any_url, hurrying) as app:
        run = await app.start(hurrying, run_id="h")
        assert await run.result(timeout=20) == "too slow"
        assert (await app.get("h/slow")).status == "cancelled"


async def test_who_stops_waiting_for_a_handle_leaves_the_child_alone(any_url: str) -> None:
    @workflow
    async def patient(ctx: Context) -> str:
        child = await ctx.start_child(waiting, "go", id="slow")
        try:
            async with asyncio.timeout(0.05):
                return await child.result()
        except TimeoutError:
            await child.signal("go", "now")
            return f"{await child.result()} {await child.result()}"

    async with runtime(any_url, patient) as app:
        run = await app.start(patient, run_id="h")
        assert await run.result(timeout=20) == "now now"


async def test_children_that_nobody_awaits_end_before_their_parent(any_url: str) -> None:
    @workflow
    async def returning(ctx: Context, detached: bool) -> str:
        await ctx.start_child(waiting, "go", id="slow", detached=detached)
        await ctx.start_child(packing, Parcel(number=1), id="quick")
        return "returned"

    @workflow
    async def raising(ctx: Context) -> str:
        await ctx.start_child(waiting, "never", id="slow")
        raise TooHeavy("raised")

    @workflow
    async def neglecting(ctx: Context) -> str:
        await ctx.start_child(waiting, "never", id="slow")
        await ctx.start_child(packing, Parcel(number=1, weight=11), id="bad")
        return "returned"

    async with runtime(any_url, returning, raising, neglecting) as app:
        run = await app.start(returning, False, run_id="a")
        await status_is(app, "a", "waiting")
        await status_is(app, "a/slow", "waiting")
        assert await app.signal("a/slow", "go", "now") == "delivered"
        assert await run.result(timeout=20) == "returned"
        run = await app.start(returning, True, run_id="d")
        assert await run.result(timeout=20) == "returned"
        await status_is(app, "d/slow", "waiting")
        run = await app.start(raising, run_id="r")
        with pytest.raises(RunFailed, match="raised"):
            await run.result(timeout=20)
        assert (await app.get("r/slow")).status == "cancelled"
        run = await app.start(neglecting, run_id="n")
        with pytest.raises(RunFailed, match="n/bad"):
            await run.result(timeout=20)
        assert (await app.get("n/slow")).status == "cancelled"


async def test_a_detached_child_goes_on_when_its_parent_is_cancelled(any_url: str) -> None:
    @workflow
    async def letting_go(ctx: Context) -> str:
        return await ctx.child(waiting, "go", id="free", detached=True)

    async with runtime(any_url, letting_go) as app:
        run = await app.start(letting_go, run_id="p")
        await status_is(app, "p/free", "waiting")
        await app.cancel("p")
        with pytest.raises(RunCancelled):
            await run.result(timeout=20)
        await app.signal("p/free", "go", "on")
        assert await app.result("p/free", timeout=20) == "on"


async def test_a_handle_cancels_and_a_cancelled_child_is_an_error(any_url: str) -> None:
    @workflow
    async def stopping(ctx: Context) -> str:
        child = await ctx.start_child("waiting", "never", tags=["t"], memo={"why": 1})
        await child.cancel("changed my mind")
        try:
            await child.result()
        except ChildCancelled as error:
            return error.reason
        return "?"

    async with runtime(any_url, stopping) as app:
        run = await app.start(stopping, run_id="s")
        assert await run.result(timeout=20) == "changed my mind"
        child = await app.get("s/child-1")
        assert (child.tags, child.memo) == (("t",), {"why": 1})


async def test_an_id_of_another_run_is_a_conflict(any_url: str) -> None:
    @workflow
    async def taking(ctx: Context) -> str:
        try:
            await ctx.child(packing, Parcel(number=1), run_id="taken")
        except ChildConflict as error:
            return str(error)
        return "?"

    async with runtime(any_url, taking) as app:
        await (await app.start(packing, Parcel(number=7), run_id="taken")).result(timeout=20)
        run = await app.start(taking)
        assert "another run of that id" in await run.result(timeout=20)
        assert (await app.get("taken")).input == Parcel(number=7)


async def test_what_cannot_be_started_is_refused_at_once(any_url: str) -> None:
    @workflow
    async def trying(ctx: Context) -> list[str]:
        refused: list[str] = []
        calls: list[Any] = [
            lambda: ctx.start_child("unheard of"),
            lambda: ctx.start_child(packing, {"number": "x"}),  # pyright: ignore[reportCallIssue, reportArgumentType]
            lambda: ctx.start_child(packing, Parcel(number=1), run_id="x" * 256),
            lambda: ctx.start_child(packing, Parcel(number=1), id="a" * 250),
            lambda: ctx.start_child(packing, Parcel(number=1), id="a#2"),
            lambda: ctx.signal("other", "__timer", 1),
            lambda: ctx.signal("", "x"),
        ]
        for call in calls:
            try:
                await call()
            except DuramenError as error:
                refused.append(type(error).__name__)
        return refused

    async with runtime(any_url, trying) as app:
        run = await app.start(trying, run_id="t" * 20)
        names = ["UnknownWorkflow", "SerializationError", *["InvalidId"] * 3, "SignalRefused", "InvalidId"]
        assert await run.result(timeout=20) == names
        assert [entry.kind for entry in await app.timeline("t" * 20)] == ["run_created", "run_finished"]


async def test_a_message_between_runs_is_there_once(any_url: str) -> None:
    @workflow
    async def telling(ctx: Context, to: str) -> None:
        for n in range(3):
            await ctx.signal(to, "told", n)
        await ctx.signal("nobody", "told", 1)

    @workflow
    async def hearing(ctx: Context) -> list[int]:
        return [await ctx.wait_for_event("told", int) for _ in range(3)]

    async with runtime(any_url, telling, hearing) as app:
        run = await app.start(hearing, run_id="h")
        await (await app.start(telling, "h")).result(timeout=20)
        assert await run.result(timeout=20) == [0, 1, 2]


async def test_two_hundred_children_of_one_parent(any_url: str) -> None:
    async with runtime(any_url) as app:
        run = await app.start(shipping, 200)
        assert await run.result(timeout=60) == 400.0
