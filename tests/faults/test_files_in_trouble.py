"""A file that is full, locked, read-only or damaged gives typed errors, and work goes on when it can."""

import asyncio
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from duramen import Context, Runtime, workflow
from duramen.errors import StoreCorrupt, StoreError, StoreFull, StoreLocked, StoreReadOnly
from duramen.testing import open_store
from tests.regressions.support import (
    DIED,
    Child,
    finish,
    note,
    notes,
    ran,
    run_child,
    tables,
    until_status,
    until_true,
    url_of,
    work_on,
)

# ruff: noqa: ASYNC240 - nothing else runs while a test looks at its file
pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "duramen")


@workflow
async def growing(ctx: Context, ledger: str) -> int:
    size = 0
    for n in range(40):
        size += len(await ctx.step(f"s{n}", make, ledger, f"s{n}"))
    return size


async def make(ledger: str, what: str) -> str:
    return await work_on(ledger, what) + "x" * 20_000


# -- full ----------------------------------------------------------------------------------------------------


async def fits(runtime: Runtime, run_id: str) -> bool:
    try:
        await runtime.enqueue(growing, "x" * 30_000, run_id=run_id)
    except StoreFull:
        return False
    return True


async def test_a_full_file_refuses_new_work_with_its_own_error_and_keeps_what_it_has(
    file: Path, ledger: str
) -> None:
    url = url_of(file)
    store = open_store(url, migrate=True, max_pages=60)
    # Calls are made again for as long as a lease before they say what is wrong.
    async with Runtime(store, workflows=[growing], migrate=True, lease=1) as runtime:
        created = 0
        while await fits(runtime, f"r{created}"):
            created += 1
        assert 0 < created < 60
        with pytest.raises(StoreFull):
            await runtime.signal("r0", "big", "x" * 100_000)
        assert await runtime.count() == created
        assert (await runtime.get("r0")).unread == 0
    found = tables(url)
    assert found["runs"] == created
    async with Runtime(url, workflows=[growing]) as runtime:  # somebody has made room
        assert (await runtime.signal("r0", "big", "x" * 100_000)) == "buffered"
        await runtime.enqueue(growing, ledger, run_id="more")
        await runtime.sweep(limit=1)


async def test_a_run_that_meets_a_full_file_is_not_failed_and_goes_on_when_there_is_room(
    file: Path, ledger: str
) -> None:
    url = url_of(file)
    store = open_store(url, migrate=True, max_pages=60)
    async with Runtime(store, workflows=[growing], migrate=True, shutdown_timeout=0.2) as runtime:
        await runtime.start(growing, ledger, run_id="r")
        # About ten results fit; then there is one that does not, and the step after it does not begin.
        await until_true(lambda: ran(ledger, "s5"))
        with pytest.raises(TimeoutError):
            await runtime.result("r", timeout=0.5)
        view = await runtime.get("r")
        assert view.status in {"running", "waiting"}
        kept = len(await runtime.timeline("r"))
        assert 1 < kept < 41
    async with Runtime(url, workflows=[growing]) as runtime:
        view = await finish(runtime, "r")
        assert view.status == "completed"
    again = [n for n in range(40) if ran(ledger, f"s{n}") > 1]
    assert len(again) <= 1  # the one whose result did not fit
    assert all(n >= kept - 1 for n in again)


# -- locked --------------------------------------------------------------------------------------------------


async def hold_the_lock(path: str, ledger: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    note(ledger, "locked")
    await until_true(lambda: "unlock" in notes(ledger))
    connection.execute("ROLLBACK")


async def test_while_another_process_holds_the_lock_calls_say_so_and_runs_wait_for_its_end(
    file: Path, ledger: str
) -> None:
    async with Runtime(url_of(file), workflows=[growing], busy_timeout=0.05, lease=1) as runtime:
        await runtime.enqueue(growing, ledger, run_id="r")
        with Child(hold_the_lock, str(file), ledger) as other:
            await until_true(lambda: "locked" in notes(ledger))
            with pytest.raises(StoreLocked, match=r"\w"):
                await runtime.enqueue(growing, ledger, run_id="refused")
            with pytest.raises(StoreLocked):
                await runtime.signal("r", "x", 1)
            assert (await runtime.get("r")).status == "queued"  # readers are not in its way
            note(ledger, "unlock")
            assert other.end() == 0
        assert await runtime.count() == 1
        assert (await finish(runtime, "r")).status == "completed"


async def test_a_run_whose_commit_meets_a_lock_is_not_lost_and_repeats_nothing_recorded(
    file: Path, ledger: str
) -> None:
    gate = asyncio.Event()

    async def gated(ledger: str) -> str:
        note(ledger, "ran gated x")
        await gate.wait()
        return "through"

    @workflow
    async def locked_out(ctx: Context, ledger: str) -> str:
        await ctx.step("before", work_on, ledger, "before")
        found = await ctx.step("gated", gated, ledger)
        await ctx.step("after", work_on, ledger, "after")
        return found

    async with Runtime(url_of(file), workflows=[locked_out], busy_timeout=0.05) as runtime:
        await runtime.start(locked_out, ledger, run_id="r")
        await until_true(lambda: ran(ledger, "gated"))
        with Child(hold_the_lock, str(file), ledger) as other:
            await until_true(lambda: "locked" in notes(ledger))
            gate.set()
            with pytest.raises(TimeoutError):
                await runtime.result("r", timeout=0.3)
            assert ran(ledger, "after") == 0  # nothing begins that stands on what is not on the disk
            note(ledger, "unlock")
            assert other.end() == 0
        assert await runtime.result("r", timeout=30) == "through"
    assert (ran(ledger, "before"), ran(ledger, "gated"), ran(ledger, "after")) == (1, 1, 1)


# -- read-only -----------------------------------------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may enter; the one of `tmp_path` is ours alone."""
    with tempfile.TemporaryDirectory(prefix="duramen-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


async def use_as_nobody(url: str, path: str) -> None:
    async with Runtime("memory://", workflows=[growing]) as runtime:  # imports all there is to import
        await runtime.count()
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    assert not os.access(path, os.W_OK)
    try:
        async with Runtime(url, workflows=[growing], lease=1) as runtime:
            await runtime.enqueue(growing, "x", run_id="r2")
    except StoreReadOnly:
        os._exit(DIED)


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX users")
async def test_a_file_that_may_not_be_written_is_refused_as_read_only_and_left_as_it_is(
    open_folder: Path,
) -> None:
    path = open_folder / "runs.db"
    async with Runtime(url_of(path), workflows=[growing]) as runtime:
        await runtime.enqueue(growing, "x", run_id="r")
    before = path.read_bytes()
    path.chmod(0o444)
    open_folder.chmod(0o555)
    try:
        assert run_child(use_as_nobody, url_of(path), str(path)) == DIED
    finally:
        open_folder.chmod(0o755)
    assert path.read_bytes() == before


# -- damaged -------------------------------------------------------------------------------------------------


async def read_all(file: Path) -> None:
    async with Runtime(url_of(file), workflows=[growing]) as runtime:
        await runtime.list(limit=1000)
        for n in range(50):
            await runtime.get(f"r{n}")


async def use_on(runtime: Runtime) -> None:
    for n in range(500):
        await runtime.enqueue(growing, "x" * 3000, run_id=f"more{n}")
        await runtime.get(f"r{n % 200}")


@pytest.mark.parametrize("damage", ["text", "truncated", "random pages", "empty directory"])
async def test_a_damaged_file_is_refused_and_not_overwritten(file: Path, damage: str) -> None:
    if damage == "empty directory":
        file.mkdir()
        with pytest.raises(StoreError):
            async with Runtime(url_of(file)):
                pass
        return
    async with Runtime(url_of(file), workflows=[growing]) as runtime:
        for n in range(50):
            await runtime.enqueue(growing, "x" * 3000, run_id=f"r{n}")
    data = file.read_bytes()
    match damage:
        case "text":
            data = b"this is a letter to my aunt, and no database at all\n" * 500
        case "truncated":
            data = data[: len(data) // 3]
        case _:
            data = data[:4096] + os.urandom(len(data) - 4096)
    file.write_bytes(data)
    for extra in ("-wal", "-shm"):
        file.with_name(file.name + extra).unlink(missing_ok=True)
    with pytest.raises(StoreCorrupt, match=r"\w"):
        await read_all(file)
    assert file.read_bytes() == data


async def test_a_file_that_is_damaged_while_it_is_open_stops_calls_with_an_error_and_closes(
    file: Path, ledger: str
) -> None:
    runtime = Runtime(url_of(file), workflows=[growing], shutdown_timeout=1)
    await runtime.open()
    for n in range(200):
        await runtime.enqueue(growing, "x" * 3000, run_id=f"r{n}")
    for name in (file, file.with_name(file.name + "-wal")):
        if name.exists():
            with name.open("r+b") as raw:
                raw.write(os.urandom(name.stat().st_size))
    with pytest.raises(StoreError):
        await use_on(runtime)
    async with asyncio.timeout(20):
        await runtime.close()


async def test_a_file_that_disappears_under_a_runtime_does_not_hang_it(file: Path, ledger: str) -> None:
    async with Runtime(url_of(file), workflows=[growing], shutdown_timeout=1, lease=1) as runtime:
        await runtime.start(growing, ledger, run_id="r")
        await until_status(runtime, "r", "completed")
        for each in file.parent.glob("runs.db*"):
            each.unlink()
        async with asyncio.timeout(20):
            try:
                await runtime.enqueue(growing, ledger, run_id="r2")
                await runtime.get("r2")
            except StoreError:
                pass  # an answer, in any case
