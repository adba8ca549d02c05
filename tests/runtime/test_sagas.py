"""Undos: in reverse order, before the end is recorded, whatever happens meanwhile."""

import asyncio
from typing import Any

import pytest

from duramen import Context, Retry, Runtime, workflow
from duramen.errors import InvalidArgument, InvalidId, RunCancelled, RunFailed, RunTimedOut, RunUndone
from tests.runtime.support import scenarios, status_is, until

calls = list[str]()
broken = set[str]()
gates = dict[str, asyncio.Event]()


async def do(name: str) -> str:
    calls.append(name)
    if name in gates:
        await gates[name].wait()
    if name in broken:
        raise LookupError(f"{name} is broken")
    return name


@workflow
async def travelling(ctx: Context, how: str) -> str:
    for name in ("hotel", "flight"):
        ctx.compensate(name, do, f"cancel {name}", retry=Retry(attempts=2, base=0))
        await ctx.step(name, do, name)
    if how == "wait":
        await ctx.wait_for_event("go")
    if how == "catch":
        try:
            await ctx.step("car", do, "car")
        except Exception:  # noqa: BLE001 - that is what is tried here
            return "without a car"
    if how == "unfit":
        return object()  # type: ignore[return-value]
    await ctx.step("car", do, "car")
    return "gone"


@workflow(timeout=0.5)
async def late(ctx: Context) -> None:
    ctx.compensate("it", do, "undo")
    await ctx.wait_for_event("never")


@workflow
async def looping(ctx: Context) -> None:
    for n in range(3):
        ctx.compensate("it", do, f"undo {n}")
    raise ValueError("enough")


@workflow
async def careless(ctx: Context) -> None:
    bad: Any = ctx.compensate
    for args, error in (((), TypeError), (("",), TypeError), (("a#b", do, "x"), InvalidId)):
        with pytest.raises(error):
            bad(*args)
    with pytest.raises(InvalidId):
        bad("x" * 251, do, "x")
    with pytest.raises(InvalidArgument):
        bad("x", do, "x", timeout=0)


ALL = [travelling, late, looping, careless]
UNDONE = ["cancel flight", "cancel hotel"]


@pytest.fixture(autouse=True)
def fresh() -> None:
    calls.clear()
    broken.clear()
    gates.clear()


scenario = scenarios(ALL)


async def called(name: str) -> None:
    async def look() -> bool:
        return name in calls

    await until(look)


@scenario
async def test_a_failure_undoes_what_was_done_the_last_first(runtime: Runtime) -> None:
    broken.add("car")
    run = await runtime.start(travelling, "", run_id="a")
    with pytest.raises(RunFailed, match="car is broken"):
        await run.result(timeout=10)
    assert calls == ["hotel", "flight", "car", *UNDONE]
    events = await runtime.timeline("a")
    assert [event.op for event in events if event.kind == "step_completed"][2:] == [
        "undo:flight",
        "undo:hotel",
    ]
    assert events[-1].undone
    with pytest.raises(RunUndone, match="has undone"):
        await runtime.retry("a")


@scenario
async def test_a_cancellation_does_the_same_and_a_second_one_stops_nothing(runtime: Runtime) -> None:
    gates["cancel flight"] = asyncio.Event()
    run = await runtime.start(travelling, "wait", run_id="a")
    await status_is(runtime, "a", "waiting")
    await runtime.cancel("a", "first")
    await called("cancel flight")
    await runtime.cancel("a", "second")
    gates["cancel flight"].set()
    with pytest.raises(RunCancelled, match="first"):
        await run.result(timeout=10)
    assert calls[-2:] == UNDONE
    assert calls.count("cancel flight") == 1


@scenario
async def test_a_run_whose_time_is_over_is_undone(runtime: Runtime) -> None:
    run = await runtime.start(late)
    with pytest.raises(RunFailed) as failed:
        await run.result(timeout=10)
    assert failed.value.error.type_name == RunTimedOut.__qualname__ or "timeout" in str(failed.value)
    assert calls == ["undo"]


@scenario
async def test_completed_runs_undo_nothing(runtime: Runtime) -> None:
    broken.add("car")
    run = await runtime.start(travelling, "catch")
    assert await run.result(timeout=10) == "without a car"
    assert calls == ["hotel", "flight", "car"]


@scenario
async def test_a_result_that_cannot_be_recorded_is_a_failure_as_well(runtime: Runtime) -> None:
    run = await runtime.start(travelling, "unfit")
    with pytest.raises(RunFailed):
        await run.result(timeout=10)
    assert calls[-2:] == UNDONE


@scenario
async def test_an_undo_that_fails_for_good_pauses_the_run_and_is_gone_on_with(runtime: Runtime) -> None:
    broken.update({"car", "cancel flight"})
    run = await runtime.start(travelling, "", run_id="a")
    await status_is(runtime, "a", "paused")
    assert (await runtime.get("a")).exhausted_steps == ("undo:flight",)
    assert calls == ["hotel", "flight", "car", "cancel flight", "cancel flight"]
    calls.clear()
    broken.clear()
    await runtime.retry("a")
    with pytest.raises(RunFailed, match="car is broken"):
        await run.result(timeout=10)
    assert calls == UNDONE


@scenario
async def test_an_undo_can_be_skipped(runtime: Runtime) -> None:
    broken.update({"car", "cancel flight"})
    run = await runtime.start(travelling, "", run_id="a")
    await status_is(runtime, "a", "paused")
    await runtime.skip("a")
    with pytest.raises(RunFailed, match="car is broken"):
        await run.result(timeout=10)
    assert calls[-1] == "cancel hotel"


@scenario
async def test_repeated_ids_are_numbered_in_the_order_of_undoing(runtime: Runtime) -> None:
    run = await runtime.start(looping, run_id="a")
    with pytest.raises(RunFailed, match="enough"):
        await run.result(timeout=10)
    assert calls == ["undo 2", "undo 1", "undo 0"]
    ops = [event.op for event in await runtime.timeline("a") if event.kind == "step_completed"]
    assert ops == ["undo:it", "undo:it#2", "undo:it#3"]


@scenario
async def test_bad_undos_are_refused_where_they_are_registered(runtime: Runtime) -> None:
    await (await runtime.start(careless)).result(timeout=10)


def test_undos_of_work_that_another_process_did(url: str) -> None:
    async def main() -> None:
        async with Runtime(url, workflows=ALL) as one:
            await one.start(travelling, "wait", run_id="a")
            await status_is(one, "a", "waiting")
        calls.clear()
        async with Runtime(url, workflows=ALL) as other:
            await other.cancel("a", "enough", drive=True)
            with pytest.raises(RunCancelled):
                await other.result("a", timeout=10)
        assert calls == UNDONE

    asyncio.run(main())
