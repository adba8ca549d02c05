"""An SQLite file in which one run is damaged: the others go on, and whoever asks gets a typed error."""

import asyncio
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from duramen import Context, Runtime, workflow
from duramen.errors import DuramenError
from tests.fuzz.effort import effort


@workflow
async def visit(ctx: Context, name: str) -> str:
    try:
        await ctx.step("knock", len, 3)
    except Exception as error:  # noqa: BLE001 - how a step fails is recorded, too
        name += type(error).__name__
    key = ctx.uuid()
    word = await ctx.wait_for_event("word", str)
    await ctx.sleep(0)
    return f"{name} {word} {key}"


VICTIM, OTHERS = "b", ("a", "c")


async def _make(url: str) -> None:
    async with Runtime(url, workflows=[visit]) as runtime:
        for run_id in (VICTIM, *OTHERS):
            await runtime.run(visit, run_id, run_id=run_id, memo="m", tags=["t"])
    # A runtime that did not start them does not go on with them.
    async with Runtime(url, workflows=[visit]) as runtime:
        for run_id in (VICTIM, *OTHERS):
            await runtime.signal(run_id, "word", "hello", signal_id="s1")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    asyncio.run(_make(f"sqlite:///{folder}/whole.db"))
    return folder


numbers = st.integers(-2, 20) | st.sampled_from([-(2**63), 2**31, 2**32 - 1, 2**63 - 1]) | st.none()
texts = (
    st.none()
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=5).map(str.encode)
    | st.binary(max_size=5)
)
blobs = st.none() | st.binary(max_size=20) | st.sampled_from([b"1", b'"a"', b"{}", b"[", bytes(16)])
COLUMNS: dict[str, dict[str, Any]] = {
    "runs": {
        # Without the end of its range: no count gets there, and the file cannot hold the next.
        "epoch": st.integers(-(2**63), 2**62),
        **dict.fromkeys(["status", "journal_len", "inbox_len", "inbox_seen", "ready_at"], numbers),
        **dict.fromkeys(["updated_at", "started_at", "finished_at", "created_at", "deadline"], numbers),
        **dict.fromkeys(["unread", "unread_bytes", "timeout", "lost", "lost_at"], numbers),
        **dict.fromkeys(["format", "priority", "journal_start", "generation"], numbers),
        **dict.fromkeys(["owner", "workflow", "version", "waits", "tags", "note"], texts),
        **dict.fromkeys(["lane", "queue", "parent", "root", "origin"], texts),
        "seed": blobs,
    },
    "journal": {
        **dict.fromkeys(["idx", "encoding", "kind", "at"], numbers),
        **dict.fromkeys(
            ["op", "meta"], texts | st.sampled_from([b'{"attempt":4294967295}', b'{"deadline":-1}'])
        ),
        "payload": blobs,
    },
    "inbox": {
        **dict.fromkeys(["seq", "kind", "state", "at", "encoding"], numbers),
        **dict.fromkeys(["message_id", "name", "fingerprint", "note"], texts),
        **dict.fromkeys(["payload", "reply"], blobs),
    },
    "run_data": {"state": blobs, "memo": blobs},
}
TEXTS = {
    "owner",
    "workflow",
    "version",
    "waits",
    "tags",
    "note",
    "lane",
    "queue",
    "parent",
    "root",
    "origin",
    "op",
    "meta",
    "message_id",
    "name",
    "fingerprint",
}
# Table, column, value; for the journal also which entry.
damages = st.one_of(
    [
        st.tuples(st.just(table), st.just(column), values, st.integers(0, 4))
        for table, columns in COLUMNS.items()
        for column, values in columns.items()
    ]
)


def spoil(path: Path, damage: tuple[str, str, Any, int]) -> None:
    table, column, value, index = damage
    what = "CAST(? AS TEXT)" if column in TEXTS else "?"
    where = " AND idx = ?" if table == "journal" else ""
    file = sqlite3.connect(path)
    try:
        with file:
            file.execute(
                f"UPDATE {table} SET {column} = {what} WHERE run_id = ?{where}",
                (value, VICTIM, index) if where else (value, VICTIM),
            )
    except sqlite3.IntegrityError:
        pass  # NULL where none may be, or an index that exists
    finally:
        file.close()


async def use(url: str) -> list[str]:
    """Do what people and workers do; the results of the runs that are whole."""
    async with Runtime(url, workflows=[visit], synchronous="normal", shutdown_timeout=1) as runtime:
        for _ in range(3):
            await runtime.sweep()
        calls = (
            lambda: runtime.get(VICTIM),
            lambda: runtime.timeline(VICTIM),
            lambda: runtime.export(VICTIM),
            runtime.list,
            lambda: runtime.count(status="stuck"),
            lambda: runtime.signal(VICTIM, "word", "again"),
            lambda: runtime.result(VICTIM, timeout=0),
            lambda: runtime.cancel(VICTIM),
            lambda: runtime.retry(VICTIM, drive=False),
            runtime.sweep,
            lambda: runtime.terminate(VICTIM),
            lambda: runtime.delete(VICTIM, force=True),
        )
        for call in calls:
            try:
                await call()
            except DuramenError:
                pass
        return [await runtime.result(run_id, timeout=10) for run_id in OTHERS]


@effort(60)
@given(changes=st.lists(damages, min_size=1, max_size=3))
@example(changes=[("journal", "kind", 99, 1)])
@example(changes=[("journal", "encoding", 300, 1)])
@example(changes=[("runs", "seed", b"", 0)])
@example(changes=[("runs", "journal_len", -1, 0)])
@example(changes=[("runs", "updated_at", 2**63 - 1, 0)])
@example(changes=[("runs", "created_at", -(2**63), 0)])
@example(changes=[("journal", "at", 2**63 - 1, 1)])
@example(changes=[("journal", "idx", 2**63 - 1, 0), ("inbox", "kind", -(2**63), 0)])
@example(changes=[("journal", "idx", 2**31, 0), ("inbox", "kind", -(2**63), 0)])
@example(changes=[("runs", "tags", b"\xff", 0)])
@example(changes=[("runs", "owner", b"\x80", 0)])
@example(changes=[("runs", "owner", b"\x80", 0), ("runs", "status", 1, 0)])
def test_a_damaged_run_harms_no_other(store: Path, changes: list[tuple[str, str, Any, int]]) -> None:
    copy = store / "copy.db"
    for left in store.glob("copy.db*"):
        left.unlink()
    shutil.copy(store / "whole.db", copy)
    for change in changes:
        spoil(copy, change)
    results = asyncio.run(asyncio.wait_for(use(f"sqlite:///{copy}"), 30))
    assert [result.split()[:2] for result in results] == [
        [f"{run_id}StepFailed", "hello"] for run_id in OTHERS
    ]
