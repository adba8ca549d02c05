"""What bad input gets: a typed error that says what to do, and nothing written (SPEC 6)."""

import asyncio
import math
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, JsonSerializer, RunRequest, Runtime, workflow
from duramen.errors import (
    DuplicateWorkflow,
    DuramenError,
    InvalidArgument,
    InvalidId,
    NotDurableError,
    PayloadTooLarge,
    RuntimeClosed,
    RuntimeNotOpen,
    SerializationError,
    SignalRefused,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreNewer,
    StoreReadOnly,
    StoreUnavailable,
    StoreUnmigrated,
    UnknownRun,
    UnknownWorkflow,
    WorkflowDefinitionError,
)
from tests.runtime.workflows import ALL, Order, adding, nothing, ordering, waiting

NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 - naive on purpose


@workflow
async def anything(ctx: Context, value: Any) -> Any:
    return value


CALLS: list[tuple[str, type[DuramenError], Callable[[Runtime], Awaitable[Any]]]] = [
    ("unknown workflow", UnknownWorkflow, lambda r: r.start("nobody", 1)),
    ("no workflow at all", InvalidArgument, lambda r: r.start(42, 1)),
    ("empty id", InvalidId, lambda r: r.start(adding, 1, run_id="")),
    ("long id", InvalidId, lambda r: r.start(adding, 1, run_id="x" * 256)),
    ("NUL in an id", InvalidId, lambda r: r.start(adding, 1, run_id="a\0b")),
    ("surrogate in an id", InvalidId, lambda r: r.start(adding, 1, run_id="a\ud800b")),
    ("number as an id", InvalidId, lambda r: r.start(adding, 1, run_id=7)),
    ("wrong input", SerializationError, lambda r: r.start(ordering, {"amount": 1})),
    ("input for none", InvalidArgument, lambda r: r.start(nothing, 1)),
    ("NaN", SerializationError, lambda r: r.start(anything, {"x": math.nan})),
    ("no JSON", SerializationError, lambda r: r.start(anything, object())),
    ("too large", PayloadTooLarge, lambda r: r.start(anything, "x" * 3_000_000)),
    ("bad memo", SerializationError, lambda r: r.start(adding, 1, memo=object())),
    ("bad tag", InvalidId, lambda r: r.start(adding, 1, tags=["ok", ""])),
    ("tags as text", InvalidArgument, lambda r: r.start(adding, 1, tags="abc")),
    ("naive start", InvalidArgument, lambda r: r.start(adding, 1, start_at=NAIVE)),
    ("naive start, enqueued", InvalidArgument, lambda r: r.enqueue(adding, 1, start_at=NAIVE)),
    (
        "one bad among many",
        InvalidId,
        lambda r: r.enqueue_many([(adding, 1), RunRequest(adding, 1, run_id="")]),
    ),
    ("negative duration", InvalidArgument, lambda r: r.run(adding, 1, max_duration=-1)),
    ("endless duration", InvalidArgument, lambda r: r.run(adding, 1, max_duration=math.inf)),
    ("absurd duration", InvalidArgument, lambda r: r.run(adding, 1, max_duration=timedelta(days=10**6))),
    ("bad result id", InvalidId, lambda r: r.result("")),
    ("unknown result", UnknownRun, lambda r: r.result("none")),
    ("negative timeout", InvalidArgument, lambda r: r.result("w", timeout=-1)),
    ("unknown run", UnknownRun, lambda r: r.get("none")),
    ("reserved event", SignalRefused, lambda r: r.signal("w", "__timer")),
    ("empty event", InvalidId, lambda r: r.signal("w", "")),
    ("NUL in an event", InvalidId, lambda r: r.signal("w", "a\0")),
    ("bad signal id", InvalidId, lambda r: r.signal("w", "go", 1, signal_id="")),
    ("bad payload", SerializationError, lambda r: r.signal("w", "go", {1: object()})),
    ("large payload", PayloadTooLarge, lambda r: r.signal("w", "go", "x" * 50_000_000)),
    ("reason is no text", InvalidArgument, lambda r: r.cancel("w", 5)),
    ("long reason", SerializationError, lambda r: r.cancel("w", "x" * 20_000)),
    ("bad limit", InvalidArgument, lambda r: r.list(limit=0)),
    ("huge limit", InvalidArgument, lambda r: r.list(limit=10**9)),
    ("limit as a bool", InvalidArgument, lambda r: r.list(limit=True)),
    ("bad cursor", InvalidArgument, lambda r: r.list(cursor="rubbish")),
    ("bad status", InvalidArgument, lambda r: r.list(status="asleep")),
    ("no status", InvalidArgument, lambda r: r.list(status=[])),
    ("no wait", InvalidArgument, lambda r: r.list(waiting_for="")),
    ("a zero in a wait", InvalidArgument, lambda r: r.count(waiting_for="a\0b")),
    ("naive filter", InvalidArgument, lambda r: r.count(created_after=NAIVE)),
    ("bad index", InvalidArgument, lambda r: r.timeline("w", from_index=-1)),
    ("bad sweep limit", InvalidArgument, lambda r: r.sweep(limit=0)),
    ("bad sweep count", InvalidArgument, lambda r: r.sweep(max_timers=-1)),
    ("naive deadline", InvalidArgument, lambda r: r.sweep(deadline=NAIVE)),
    ("no concurrency", InvalidArgument, lambda r: r.work(concurrency=0)),
    ("polls backwards", InvalidArgument, lambda r: r.work(poll_min=2, poll_max=1)),
]


@pytest.mark.parametrize(("kind", "call"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS])
def test_a_bad_call_is_refused_and_writes_nothing(
    kind: type[DuramenError], call: Callable[[Runtime], Awaitable[Any]]
) -> None:
    async def main() -> None:
        async with Runtime("memory://", workflows=[*ALL, anything]) as runtime:
            await runtime.run(waiting, "go", run_id="w")
            before = (await runtime.get("w")).updated_at
            with pytest.raises(kind) as caught:
                await call(runtime)
            assert str(caught.value)
            assert await runtime.count() == 1
            view = await runtime.get("w")
            assert (view.status, view.updated_at, view.unread) == ("waiting", before, 0)

    asyncio.run(main())


def test_texts_with_odd_characters_survive(tmp_path: Path, postgres_url: str) -> None:
    async def main(url: str) -> None:
        async with Runtime(url, workflows=[anything]) as runtime:
            value = {"nul": "a\0b", "emoji": "🌲", "quote": "\"'\\", "line": "\u2028\n"}
            assert await (await runtime.start(anything, value, run_id="🌲'\"")).result(5) == value
            assert (await runtime.get("🌲'\"")).output == value

    asyncio.run(main("memory://"))
    asyncio.run(main(f"sqlite:///{tmp_path / 'ünï cödé.db'}"))
    asyncio.run(main(postgres_url))


@pytest.mark.parametrize(
    "options",
    [
        {"lease": 0},
        {"lease": -5},
        {"lease": 10**9},
        {"lease": math.nan},
        {"owner": ""},
        {"owner": "a\0"},
        {"warm": -1},
        {"max_threads": 0},
        {"synchronous": "off"},
        {"busy_timeout": -1},
        {"shutdown_timeout": "soon"},
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Runtime("memory://", **options)


@pytest.mark.parametrize(
    "url",
    ["", "app.db", "sqlite:app.db", "sqlite://app.db", "sqlite:///", "sqlite:///:memory:", "sqlite:///a?x=1",
     "sqlite:///a\0b", "redis://h", None,
     "postgresql://me:secret@h/db#x", "postgresql://me:secret@h/db?pool_size=many", "postgresql://me:secret@[h/db",
     "postgresql://me:secret@h/db?notify=1", "postgresql://me:secret@h/db?isolation=none",
     "postgresql://me:secret@h/db?flavour=fast",
     "postgresql://me:secret@h/db?schema=a;b", "postgresql://me:secret@h/db?schema=", 7, Path("app.db")],
    ids=repr,
)  # fmt: skip
def test_bad_urls(url: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Runtime(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"schema": "1st"},
        {"schema": 'a"b'},
        {"schema": "a" * 54},
        {"tables": {"runs": "my runs"}},
        {"tables": {"nothing": "x"}},
        {"tables": {"runs": "journal"}},
        {"pool_size": 0},
        {"statement_cache": "maybe"},
    ],
    ids=str,
)
def test_bad_options_of_postgres(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        Runtime("postgresql://me:secret@h/db", **options)
    with pytest.raises(InvalidArgument, match="Postgres"):
        Runtime("memory://", **options)


def test_bad_registrations() -> None:
    @workflow(name="adding", version="1")
    async def same(ctx: Context) -> None: ...

    @workflow(name="adding", version="2")
    async def other(ctx: Context) -> None: ...

    @workflow(name="adding", version="3", previous=[adding])
    async def newer(ctx: Context, number: int) -> int:
        return number

    for pair in ([adding, same], [adding, other]):
        with pytest.raises(DuplicateWorkflow, match="adding"):
            Runtime("memory://", workflows=pair)
    for single in (test_bad_urls, 7, "nocolon", "a b:c", adding):
        with pytest.raises(WorkflowDefinitionError):
            Runtime("memory://", workflows=single if single is adding else [single])
    for fine in ([adding, adding], [newer], [newer, adding], [adding, newer]):
        Runtime("memory://", workflows=fine)


def test_calls_need_an_open_runtime() -> None:
    runtime = Runtime("memory://", workflows=ALL)

    async def main() -> None:
        with pytest.raises(RuntimeNotOpen):
            await runtime.start(adding, 1)
        async with runtime:
            with pytest.raises(InvalidArgument, match="open already"):
                await runtime.open()
        with pytest.raises(RuntimeClosed):
            await runtime.get("x")
        await runtime.close()
        async with runtime:
            assert await (await runtime.start(adding, 1)).result(5) == 2

    asyncio.run(main())


def test_a_call_that_waits_when_the_runtime_closes_ends() -> None:
    async def main() -> None:
        runtime = await Runtime("memory://", workflows=ALL).open()
        run = await runtime.start(waiting, "go")
        waiter = asyncio.create_task(run.result())
        await asyncio.sleep(0.02)
        await runtime.close()
        with pytest.raises(RuntimeClosed):
            await asyncio.wait_for(waiter, 3)

    asyncio.run(main())


def test_a_handler_must_not_call_its_runtime() -> None:
    runtime = Runtime("memory://", workflows=[])

    @workflow
    async def calling(ctx: Context) -> str:
        try:
            await runtime.count()
        except NotDurableError as error:
            return str(error)
        return "no error"

    async def main() -> None:
        runtime._services.registry.add(calling)
        async with runtime:
            assert "step" in await (await runtime.start(calling)).result(5)

    asyncio.run(main())


def open_and_count(path: Path, **options: Any) -> int:
    async def main() -> int:
        async with Runtime(f"sqlite:///{path}", workflows=ALL, **options) as runtime:
            await runtime.run(adding, 1)
            return await runtime.count()

    return asyncio.run(main())


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(b"this is no database, it is a text" * 100)
    with pytest.raises(StoreCorrupt):
        open_and_count(path)
    assert path.read_bytes().startswith(b"this is no database")


def test_a_file_that_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_and_count(path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.db"], "closed, all is in the one file"
    data = bytearray(path.read_bytes())
    assert len(data) > 4096
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    for extra in tmp_path.glob("a.db-*"):
        extra.unlink()
    with pytest.raises(StoreError):
        open_and_count(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anything")
def test_a_file_that_may_only_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_and_count(path)
    path.chmod(stat.S_IRUSR)
    with pytest.raises(StoreReadOnly):
        open_and_count(path)


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        open_and_count(tmp_path / "none" / "a.db")


def test_a_locked_file(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_and_count(path)
    # In another process: two copies of SQLite in one do not see each other's locks.
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('begin immediate'); print('locked', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        try:
            with pytest.raises(StoreLocked):
                open_and_count(path, busy_timeout=0.2)
        finally:
            other.communicate()
    assert open_and_count(path) == 2


def test_an_unmigrated_file_names_the_command(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with pytest.raises(StoreUnavailable, match="unable to open"):
        open_and_count(path, migrate=False)
    path.touch()
    with pytest.raises(StoreUnmigrated, match="duramen migrate"):
        open_and_count(path, migrate=False)

    async def migrate() -> None:
        runtime = Runtime(f"sqlite:///{path}", migrate=False)
        assert (await runtime.schema()).found == 0
        found = await runtime.migrate()
        assert found.applied
        assert found.current
        assert (await runtime.schema()).current

    asyncio.run(migrate())
    assert open_and_count(path, migrate=False) == 1


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    open_and_count(path)
    with sqlite3.connect(path) as connection:
        columns = [row[1] for row in connection.execute("pragma table_info(duramen_schema_migrations)")]
        row = dict(
            zip(
                columns, connection.execute("select * from duramen_schema_migrations").fetchone(), strict=True
            )
        )
        row["number"] = 999
        row["compatible_from"] = 999  # with 1, as after a harmless migration, this library could go on
        marks = ",".join("?" * len(columns))
        connection.execute(
            f"insert into duramen_schema_migrations values ({marks})", [row[c] for c in columns]
        )
    connection.close()
    with pytest.raises(StoreNewer, match="upgrade"):
        open_and_count(path)


def test_the_limit_of_payloads_can_be_raised() -> None:
    async def main() -> None:
        async with Runtime(
            "memory://", workflows=[anything], serializer=JsonSerializer(max_bytes=None)
        ) as runtime:
            text = "x" * 10_000_000
            assert await (await runtime.start(anything, text)).result(10) == text

    asyncio.run(main())


def test_input_of_the_wrong_shape_names_the_place() -> None:
    async def main() -> None:
        async with Runtime("memory://", workflows=ALL) as runtime:
            with pytest.raises(SerializationError, match="amount"):
                await runtime.start(ordering, Order.model_construct(order_id="a", amount="many"))

    asyncio.run(main())
