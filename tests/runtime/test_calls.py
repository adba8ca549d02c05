"""Every call of the runtime, on both stores."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from duramen import Event, RunRequest, RunStatus, Runtime, SignalResult
from duramen.errors import (
    ApprovalConflict,
    InvalidArgument,
    RunCancelled,
    RunFailed,
    RunIdConflict,
    RunTerminated,
    UnknownRun,
)
from tests.runtime.support import scenarios, status_is, until
from tests.runtime.workflows import (
    ALL,
    Order,
    adding,
    approving,
    emitting,
    failing,
    fixable,
    flag,
    many,
    nothing,
    ordering,
    paying,
    sleeping,
    waiting,
    working,
)

scenario = scenarios(ALL)


@scenario
async def test_start_and_result(runtime: Runtime) -> None:
    run = await runtime.start(adding, 41)
    assert run.created
    assert await run.result(timeout=5) == 42
    assert await runtime.result(run.run_id) == 42


@scenario
async def test_the_result_has_the_type_of_the_annotation(runtime: Runtime) -> None:
    run = await runtime.start(ordering, Order(order_id="a"))
    assert await run.result(5) == Order(order_id="a", amount=2)
    assert await runtime.result(run.run_id) == Order(order_id="a", amount=2)
    view = await runtime.get(run.run_id)
    assert (view.input, view.output) == (Order(order_id="a"), Order(order_id="a", amount=2))


@scenario
async def test_an_id_that_exists_keeps_its_first_input(runtime: Runtime) -> None:
    first = await runtime.start(adding, 1, run_id="x")
    assert await first.result(5) == 2
    second = await runtime.start(adding, 100, run_id="x")
    assert not second.created
    assert await second.result(5) == 2
    with pytest.raises(RunIdConflict, match="choose another run id"):
        await runtime.start(nothing, run_id="x")
    with pytest.raises(RunIdConflict):
        await runtime.enqueue(nothing, run_id="x")


@scenario
async def test_generated_ids_sort_by_time(runtime: Runtime) -> None:
    ids = [(await runtime.enqueue(adding, n)).run_id for n in range(20)]
    assert ids == sorted(ids)


@scenario
async def test_start_at_waits_for_its_instant(runtime: Runtime) -> None:
    begin = datetime.now(UTC)
    run = await runtime.start(adding, 1, start_at=begin + timedelta(seconds=0.3))
    assert (await run.get()).status is RunStatus.QUEUED
    assert await run.result(5) == 2
    assert datetime.now(UTC) - begin >= timedelta(seconds=0.3)


@scenario
async def test_enqueued_runs_wait_for_a_sweep(runtime: Runtime) -> None:
    run = await runtime.enqueue(adding, 1, tags=["t", "t"], memo={"k": 1})
    await asyncio.sleep(0.05)
    view = await run.get()
    assert (view.status, view.tags, view.memo) == ("queued", ("t",), {"k": 1})
    swept = await runtime.sweep()
    assert [(each.run_id, each.kind) for each in swept.queued] == [(run.run_id, "completed")]
    assert swept.summary["completed"] == 1
    assert not swept.remaining_may_exist
    assert await run.result(5) == 2


@scenario
async def test_enqueue_many_and_work(runtime: Runtime) -> None:
    handles = await runtime.enqueue_many([RunRequest(adding, 1, run_id="one"), (adding, 2), ("adding", 3)])
    assert [handle.created for handle in handles] == [True] * 3
    work = asyncio.create_task(runtime.work(handle_signals=False))
    assert [await handle.result(5) for handle in handles] == [2, 3, 4]
    late = await runtime.enqueue(adding, 10)
    assert await late.result(5) == 11
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


@scenario
async def test_a_conflict_among_many_creates_the_others(runtime: Runtime) -> None:
    await runtime.enqueue(nothing, run_id="taken")
    requests = [RunRequest(adding, number, run_id=f"many:{number:04}") for number in range(1_700)]
    requests.insert(3, RunRequest(adding, 0, run_id="taken"))
    with pytest.raises(RunIdConflict, match="taken"):
        await runtime.enqueue_many(requests)
    assert await runtime.count(workflow="adding") == 1_700
    again = await runtime.enqueue_many(requests[4:])
    assert [handle.run_id for handle in again] == [request.run_id for request in requests[4:]]
    assert not any(handle.created for handle in again)


@scenario
async def test_run_drives_inline(runtime: Runtime) -> None:
    done = await runtime.run(adding, 1, run_id="a")
    assert (done.kind, done.output, done.run_id) == ("completed", 2, "a")
    again = await runtime.run(adding, 7, run_id="a")
    assert (again.kind, again.output) == ("completed", 2)
    paused = await runtime.run(waiting, "go", run_id="b")
    assert paused.kind == "paused"
    assert paused.run is not None
    assert paused.run.waiting_events == ("go",)
    still = await runtime.run(waiting, "go", run_id="b")
    assert still.kind == "not_claimable"
    failed = await runtime.run(failing, "no", run_id="c")
    assert failed.kind == "failed"
    assert failed.error is not None
    assert str(failed.error) == "ValueError: no"


@scenario
async def test_run_gives_live_events_up_to_a_limit(runtime: Runtime) -> None:
    result = await runtime.run(emitting, 5, max_events=3)
    assert [(event.kind, event.op, event.data) for event in result.events] == [
        ("emitted", "progress", number) for number in range(3)
    ]
    assert (result.event_count, result.events_truncated) == (5, True)


@scenario
async def test_run_stops_at_its_budget_and_a_sweep_goes_on(runtime: Runtime) -> None:
    result = await runtime.run(many, 50, run_id="m", max_duration=0.1)
    assert result.kind == "paused"
    before = (await runtime.get("m")).journal_len
    assert 1 < before < 50
    swept = await runtime.sweep()
    assert [(each.run_id, each.kind) for each in swept.driven] == [("m", "completed")]


@scenario
async def test_signals(runtime: Runtime) -> None:
    assert await runtime.signal("none", "go", "x") is SignalResult.NOT_FOUND
    run = await runtime.start(waiting, "go", run_id="w")
    await status_is(runtime, "w", "waiting")
    assert await run.signal("other", 1, signal_id="1") == "buffered"
    assert await run.signal("other", 1, signal_id="1") == "duplicate"
    assert await run.signal("go", "now") == "delivered"
    assert await run.result(5) == "now"
    assert await run.signal("go", "late") == "finished"


@scenario
async def test_an_early_signal_is_kept(runtime: Runtime) -> None:
    run = await runtime.enqueue(waiting, "go")
    assert await run.signal("go", "early") == "buffered"
    await runtime.sweep()
    assert await run.result(5) == "early"


@scenario
async def test_signal_may_drive(runtime: Runtime) -> None:
    await runtime.run(waiting, "go", run_id="w")
    assert await runtime.signal("w", "go", "x", drive=True) == "delivered"
    assert (await runtime.get("w")).output == "x"


@scenario
async def test_signal_many(runtime: Runtime) -> None:
    runs = [await runtime.start(waiting, "go", run_id=f"w{n}") for n in range(3)]
    found = await runtime.signal_many(
        [(run.run_id, "go", run.run_id, "id") for run in runs] + [("none", "go", 1)]
    )
    assert found[3] == "not_found"
    assert [await run.result(5) for run in runs] == ["w0", "w1", "w2"]


@scenario
async def test_a_bad_signal_is_set_aside_and_the_run_waits_on(runtime: Runtime) -> None:
    run = await runtime.start(waiting, "go", run_id="w")
    await status_is(runtime, "w", "waiting")
    await run.signal("go", {"not": "a string"}, signal_id="bad")

    async def refused() -> bool:
        return bool((await run.get()).refused)

    await until(refused)
    view = await run.get()
    assert (view.refused[0].signal_id, view.refused[0].name) == ("bad", "go")
    assert view.refused[0].payload == {"not": "a string"}
    assert "string" in view.refused[0].reason
    await run.signal("go", "good")
    assert await run.result(5) == "good"


@scenario
async def test_approvals(runtime: Runtime) -> None:
    run = await runtime.start(approving, run_id="a")
    await status_is(runtime, "a", "waiting")
    (approval,) = (await run.get()).waiting_approvals
    assert await run.approve(approval, True, feedback="ok", by="me") == "delivered"
    assert await run.result(5) == "True ok me"
    with pytest.raises(InvalidArgument):
        await run.approve(approval, "yes")


@scenario
async def test_the_first_decision_stands(runtime: Runtime) -> None:
    run = await runtime.enqueue(approving, run_id="a")
    await runtime.sweep()
    (approval,) = (await run.get()).waiting_approvals
    assert await run.approve(approval, False) == "delivered"
    assert await run.approve(approval, False) == "duplicate"
    with pytest.raises(ApprovalConflict):
        await run.approve(approval, True)
    await runtime.sweep()
    assert await run.result(5) == "False None None"


@scenario
async def test_cancel_reaches_a_paused_run_and_one_in_a_step(runtime: Runtime) -> None:
    paused = await runtime.start(waiting, "go", run_id="p")
    await status_is(runtime, "p", "waiting")
    await paused.cancel("enough")
    with pytest.raises(RunCancelled, match="enough"):
        await paused.result(5)
    busy = await runtime.start(working, 30.0, run_id="b")
    await status_is(runtime, "b", "running")
    await busy.cancel()
    with pytest.raises(RunCancelled):
        await busy.result(5)
    assert (await paused.get()).reason == "enough"
    assert await paused.cancel() == "finished"


@scenario
async def test_terminate(runtime: Runtime) -> None:
    run = await runtime.start(working, 30.0, run_id="t")
    assert await runtime.terminate("t", "stop it")
    with pytest.raises(RunTerminated, match="stop it"):
        await run.result(5)
    assert not await runtime.terminate("t")
    with pytest.raises(UnknownRun):
        await runtime.terminate("none")


@scenario
async def test_retry_goes_on_from_the_failed_step(runtime: Runtime) -> None:
    flag["fail"] = True
    run = await runtime.start(fixable)
    with pytest.raises(RunFailed, match="not yet") as caught:
        await run.result(5)
    assert caught.value.error.short_name == "StepFailed"
    flag["fail"] = False
    await runtime.retry(run.run_id)
    assert await run.result(5) == "3 fine"
    assert [event.op for event in await run.timeline() if event.kind == "step_completed"] == [
        "before",
        "flaky",
    ]
    with pytest.raises(InvalidArgument, match="completed"):
        await runtime.retry(run.run_id)
    with pytest.raises(UnknownRun):
        await runtime.retry("none")


@scenario
async def test_result_of_a_failed_run(runtime: Runtime) -> None:
    run = await runtime.start(failing, "why")
    with pytest.raises(RunFailed, match="ValueError: why") as caught:
        await run.result(5)
    assert isinstance(caught.value.__cause__, ValueError)
    view = await run.get()
    assert view.error is not None
    assert "raise ValueError(message)" in view.error.traceback


@scenario
async def test_result_times_out_and_the_run_goes_on(runtime: Runtime) -> None:
    run = await runtime.start(sleeping, 0.3)
    with pytest.raises(TimeoutError, match="goes on"):
        await run.result(timeout=0.05)
    assert await run.result(timeout=5) == "slept"
    with pytest.raises(UnknownRun):
        await runtime.result("none")


@scenario
async def test_a_long_sleep_pauses_and_is_woken_here(runtime: Runtime) -> None:
    run = await runtime.start(sleeping, 1.3)
    await status_is(runtime, run.run_id, "waiting")
    assert (await run.get()).waits == ("timer",)
    assert await run.result(5) == "slept"


@scenario
async def test_list_and_count(runtime: Runtime) -> None:
    for number in range(5):
        await runtime.run(adding, number, run_id=f"add:{number}", tags=["odd" if number % 2 else "even"])
    await runtime.run(waiting, "go", run_id="w")
    first = await runtime.list(limit=2)
    seen = [run.run_id for run in first]
    await runtime.enqueue(nothing, run_id="new")
    cursor = first.cursor
    while cursor is not None:
        page = await runtime.list(limit=2, cursor=cursor)
        seen += [run.run_id for run in page]
        cursor = page.cursor
    assert sorted(seen) == [*(f"add:{n}" for n in range(5)), "w"]
    assert await runtime.count() == 7
    assert await runtime.count(workflow=adding, tag="odd") == 2
    assert await runtime.count(workflow="adding", status="completed") == 5
    assert await runtime.count(status=["waiting", RunStatus.QUEUED]) == 2
    assert [run.run_id for run in await runtime.list(waiting_for="go")] == ["w"]
    assert await runtime.count(id_prefix="add:") == 5
    now = datetime.now(UTC)
    assert await runtime.count(created_after=now - timedelta(hours=1), created_before=now) == 7
    assert await runtime.count(created_after=now + timedelta(hours=1)) == 0


@scenario
async def test_timeline_and_events(runtime: Runtime) -> None:
    run = await runtime.start(emitting, 3)
    await run.result(5)
    timeline = await runtime.timeline(run.run_id)
    assert [event.index for event in timeline] == list(range(5))
    assert [event.kind for event in timeline] == ["run_created", *["step_completed"] * 3, "run_finished"]
    assert (timeline[1].op, timeline[1].data, timeline[1].attempt) == ("s0", 1, 1)
    assert await runtime.timeline(run.run_id, from_index=1, limit=2) == timeline[1:3]
    assert [event async for event in runtime.events(run.run_id)] == timeline
    assert [event async for event in runtime.events(run.run_id, 3, follow=False)] == timeline[3:]
    with pytest.raises(UnknownRun):
        await runtime.timeline("none")
    with pytest.raises(UnknownRun):
        await anext(runtime.events("none"))


@scenario
async def test_events_follow_a_run_to_its_end(runtime: Runtime) -> None:
    run = await runtime.start(waiting, "go")

    async def follow() -> AsyncIterator[str]:
        async for event in runtime.events(run.run_id):
            yield event.kind

    kinds: list[str] = []
    async for kind in follow():
        kinds.append(kind)
        if kind == "wait_opened" or len(kinds) == 1:
            await asyncio.sleep(0.05)
            await run.signal("go", "x", signal_id="1")
    assert kinds[0] == "run_created"
    assert kinds[-2:] == ["event_received", "run_finished"]


@scenario
async def test_delete(runtime: Runtime) -> None:
    run = await runtime.start(waiting, "go", run_id="w")
    await status_is(runtime, "w", "waiting")
    with pytest.raises(InvalidArgument, match="force=True"):
        await runtime.delete("w")
    assert await runtime.delete("w", force=True)
    assert not await runtime.delete("w")
    with pytest.raises(UnknownRun):
        await run.get()


@scenario
async def test_sweep_keeps_its_limits(runtime: Runtime) -> None:
    for number in range(5):
        await runtime.enqueue(emitting, number)
    swept = await runtime.sweep(limit=2, include_events=True)
    assert len(swept.driven) == 2
    assert swept.remaining_may_exist
    swept = await runtime.sweep(max_queued=0)
    assert not swept.driven
    swept = await runtime.sweep(max_duration=timedelta(seconds=5), include_events=True, max_events=1)
    assert len(swept.driven) == 3
    assert swept.summary["event_count"] == sum((2, 3, 4))
    assert (swept.summary["returned_event_count"], len(swept.events)) == (1, 1)


@scenario
async def test_sweep_at_a_given_instant_fires_timers(runtime: Runtime) -> None:
    await runtime.enqueue(sleeping, 86_400.0, run_id="s")
    assert (await runtime.sweep()).queued[0].kind == "paused"
    assert not (await runtime.sweep()).driven
    swept = await runtime.sweep(now=datetime.now(UTC) + timedelta(days=2))
    assert [(each.run_id, each.kind) for each in swept.timers] == [("s", "completed")]


@scenario
async def test_a_declared_event_is_refused_to_its_sender(runtime: Runtime) -> None:
    from duramen.errors import EventRejected

    run = await runtime.start(paying, Order(order_id="a"), run_id="p")
    with pytest.raises(EventRejected, match="number"):
        await run.signal("card", {"number": "many"})
    assert not (await run.get()).refused
    await run.signal("card", {"number": 7})
    assert await run.result(5) == 7


@scenario
async def test_schema(runtime: Runtime) -> None:
    schema = await runtime.schema()
    assert schema.current
    assert (await runtime.migrate()).applied == ()


@scenario
async def test_a_sweep_can_publish_live_events_as_they_happen(runtime: Runtime) -> None:
    await runtime.enqueue(emitting, 3, run_id="e")
    published: list[tuple[str, object]] = []

    def publish(event: Event) -> None:
        published.append((event.run_id, event.data))
        if event.data == 1:
            raise OSError("the socket is gone")
        if event.data == 2:
            raise SystemExit

    swept = await runtime.sweep(publish=publish, max_events=1)
    assert published == [("e", 0), ("e", 1), ("e", 2)]
    assert (swept.summary["completed"], swept.summary["event_count"]) == (1, 3)
