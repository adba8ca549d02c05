"""The blocking calls keep the types of those that are awaited, for pyright and for mypy; misspelt options are
rejected by both."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, assert_type

from duramen import (
    CheckReport,
    Context,
    Event,
    History,
    Page,
    PatchReport,
    PauseResult,
    ResumeResult,
    RunDiff,
    RunFilters,
    RunRequest,
    RunResult,
    Runtime,
    RunView,
    Schedule,
    ScheduleView,
    SchemaView,
    SignalResult,
    StreamItem,
    SweepResult,
    VersionView,
    WorkerView,
    every,
    workflow,
)
from duramen.runtime import SyncRun


@workflow
async def greet(ctx: Context, name: str) -> bytes:
    return name.encode()


@workflow
async def ping(ctx: Context) -> int:
    return 1


FILTERS: RunFilters = {"tag": "nightly", "status": ["failed"], "workflow": greet}


async def awaited(runtime: Runtime) -> None:
    assert_type(await (await runtime.start(greet, "you", tags=["t"])).result(), bytes)
    assert_type(await (await runtime.enqueue(ping)).result(timeout=3), int)
    assert_type(await runtime.list(**FILTERS, limit=3), Page[RunView])
    assert_type(await runtime.count(**FILTERS), int)
    await runtime.start(greet, "you", runid="x")  # pyright: ignore[reportCallIssue]
    await runtime.count(tga="x")  # pyright: ignore[reportCallIssue]


def blocked(runtime: Runtime, connection: object) -> None:
    sync = runtime.sync
    run = sync.start(greet, "you", run_id="a", start_at=datetime.now(UTC), tags=["t"], memo={"k": 1})
    assert_type(run, SyncRun[bytes])
    assert_type(run.result(timeout=3), bytes)
    assert_type(run.get(), RunView)
    assert_type(run.signal("go", 3, signal_id="1"), SignalResult)
    assert_type(run.timeline(), list[Event])
    assert_type(sync.schedules.get("a"), ScheduleView)
    assert_type(sync.schedules.list(limit=2, cursor=None), Page[ScheduleView])
    assert_type(sync.schedules.upsert(Schedule("a", ping, every.days(1))), ScheduleView)
    assert_type(sync.schedules.pause("a", note="x"), ScheduleView)
    assert_type(sync.schedules.resume("a", catch_up="latest"), ScheduleView)
    assert_type(sync.schedules.trigger("a", trigger_id="1"), SyncRun[Any])
    assert_type(sync.schedules.backfill("a", datetime.now(UTC), datetime.now(UTC)), list[str])
    assert_type(sync.schedules.preview("a", 3), list[datetime])
    assert_type(sync.schedules.delete("a"), None)
    assert_type(sync.start(ping), SyncRun[int])
    assert_type(sync.fork("a", from_operation="s", input=1, overrides={"x": ValueError()}), SyncRun[Any])
    assert_type(sync.diff("a", "b"), RunDiff)
    assert_type(sync.start("any", 3).result(), Any)
    assert_type(sync.enqueue(greet, "you", connection=connection), SyncRun[bytes])
    assert_type(sync.enqueue_many([(greet, "you"), RunRequest(ping)]), list[SyncRun[Any]])
    assert_type(sync.enqueue_many([(greet, "you"), (greet, "me")]), list[SyncRun[bytes]])
    assert_type(sync.handle("a"), SyncRun[Any])
    assert_type(sync.handle("a", greet), SyncRun[bytes])
    assert_type(sync.handle("a", "greet"), SyncRun[Any])
    assert_type(sync.run(greet, "you", max_duration=3), RunResult[bytes])
    assert_type(sync.sweep(limit=3), SweepResult)
    assert_type(sync.signal("a", "go", drive=True, connection=connection), SignalResult)
    assert_type(sync.signal_many([("a", "go", 1)]), list[SignalResult])
    assert_type(sync.approve("a", "b", False, by="me"), SignalResult)
    assert_type(sync.cancel("a", "why"), SignalResult)
    assert_type(sync.terminate("a"), bool)
    assert_type(sync.delete("a", force=True), bool)
    assert_type(sync.pause("a", "why", by="me"), PauseResult)
    assert_type(sync.resume("a"), ResumeResult)
    assert_type(sync.pause_many("why", **FILTERS), int)
    assert_type(sync.resume_many(tag="nightly"), int)
    sync.pause_many(tga="x")  # pyright: ignore[reportCallIssue]
    assert_type(sync.get("a"), RunView)
    assert_type(sync.get_many(["a"]), list[RunView | None])
    assert_type(sync.list(**FILTERS, cursor=None), Page[RunView])
    assert_type(sync.count(status="failed"), int)
    assert_type(sync.workers(), list[WorkerView])
    assert_type(sync.versions(), list[VersionView])
    assert_type(sync.check(greet, version="1", sample=3, progress=print), CheckReport)
    assert_type(sync.patches("greet", limit=3), PatchReport)
    sync.retry("a", version="2", drive=False)
    assert_type(sync.timeline("a", from_index=3), list[Event])
    assert_type(sync.events("a", follow=False), Iterator[Event])
    assert_type(sync.stream("a", "log", type=bytes, from_seq=3), Iterator[StreamItem[bytes]])
    assert_type(sync.export("a"), History)
    assert_type(sync.migrate(), SchemaView)


def rejected(runtime: Runtime) -> None:
    sync = runtime.sync
    sync.start(greet, "you", runid="x")  # pyright: ignore[reportCallIssue]
    sync.start(greet, 3)  # pyright: ignore[reportCallIssue, reportArgumentType]
    sync.enqueue(greet, "you", drive=True)  # pyright: ignore[reportCallIssue]
    sync.run(ping, max_time=3)  # pyright: ignore[reportCallIssue]
    sync.signal("a", "go", signalid="x")  # pyright: ignore[reportCallIssue]
    sync.sweep(most=3)  # pyright: ignore[reportCallIssue]
    sync.list(tga="x")  # pyright: ignore[reportCallIssue]
    sync.check(sampel=3)  # pyright: ignore[reportCallIssue]
    sync.patches(limit="3")  # pyright: ignore[reportArgumentType]
    sync.retry("a", version=2)  # pyright: ignore[reportArgumentType]
    sync.count(limit=3)  # pyright: ignore[reportCallIssue]
    sync.get(3)  # pyright: ignore[reportArgumentType]
    _other: str = sync.handle("a", ping).result()  # pyright: ignore[reportAssignmentType]
    _text: str = sync.start(ping).result()  # pyright: ignore[reportAssignmentType]
    sync.start(ping).cancel(why="x")  # pyright: ignore[reportCallIssue]
