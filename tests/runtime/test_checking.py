"""`Runtime.check` and `Runtime.patches`: open runs under the code that is here."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import CheckReport, Context, Runtime, WorkflowDef, workflow
from duramen.errors import InvalidArgument, StoreError

pytestmark = pytest.mark.anyio

STARTED: list[str] = []


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _nothing_started() -> None:
    STARTED.clear()


async def work(what: str) -> str:
    STARTED.append(what)
    return what


@workflow
async def order(ctx: Context, name: str = "n") -> list[str]:
    done = [await ctx.step("reserve", work, "reserved")]
    await ctx.wait_for_event("paid")
    return [*done, await ctx.step("ship", work, "shipped")]


@workflow(name="order")
async def renamed(ctx: Context, name: str = "n") -> list[str]:
    done = [await ctx.step("book", work, "booked")]
    await ctx.wait_for_event("paid")
    return [*done, await ctx.step("ship", work, "shipped")]


async def paused(url: str, *run_ids: str, of: WorkflowDef[Any, Any] = order) -> None:
    """Runs that wait for their payment."""
    async with Runtime(url, workflows=[of]) as runtime:
        for run_id in run_ids:
            assert (await runtime.run(of, run_id=run_id)).kind == "paused"
    STARTED.clear()


async def checked(url: str, *workflows: Any, **options: Any) -> CheckReport:
    async with Runtime(url, workflows=workflows) as runtime:
        return await runtime.check(**options)


def kinds(report: CheckReport) -> dict[str, str]:
    return {problem.run_id: problem.kind for problem in report.problems}


async def test_code_that_fits_is_no_problem(url: str) -> None:
    await paused(url, "a", "b")
    seen: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        seen.append((done, total))

    report = await checked(url, order, progress=note)
    assert (report.checked, report.total, report.fits, report.problems) == (2, 2, 2, ())
    assert report.ok
    assert report.complete
    assert seen == [(1, 2), (2, 2)]
    assert not STARTED


async def test_a_run_that_would_be_stuck_is_told_with_the_difference_that_it_would_show(url: str) -> None:
    await paused(url, "a")
    report = await checked(url, renamed)
    (problem,) = report.problems
    assert not report.ok
    assert (problem.run_id, problem.kind, problem.index, problem.status) == ("a", "stuck", 1, "waiting")
    assert not STARTED
    async with Runtime(url, workflows=[renamed]) as runtime:
        await runtime.signal("a", "paid", drive=True)
        view = await runtime.get("a")
    assert view.status == "stuck"
    assert view.note is not None
    assert problem.reason in view.note


async def test_code_that_is_not_here_is_told(url: str) -> None:
    await paused(url, "a")
    report = await checked(url)
    assert kinds(report) == {"a": "no_code"}
    assert "version '1' is not registered here" in report.problems[0].reason
    report = await checked(url, "no.such_module:order")
    assert "'no.such_module:order' could not be loaded: ModuleNotFoundError" in report.problems[0].reason


class Named(BaseModel):
    name: str


@workflow(name="order")
async def retyped(ctx: Context, name: Named) -> list[str]:
    return [name.name]


@workflow(name="order")
async def rereading(ctx: Context, name: str = "n") -> int:
    async def counted() -> int:
        return 1

    return await ctx.step("reserve", counted)


async def test_input_and_results_that_the_code_cannot_read_are_told(url: str) -> None:
    await paused(url, "waits")
    async with Runtime(url, workflows=[order]) as runtime:
        await runtime.enqueue(order, "x", run_id="queued")
    report = await checked(url, retyped)
    assert kinds(report) == {"waits": "unreadable", "queued": "unreadable"}
    report = await checked(url, rereading)
    assert kinds(report) == {"waits": "unreadable"}
    assert "cannot read what is recorded" in report.problems[0].reason
    assert not STARTED


@workflow(name="order")
async def raising(ctx: Context, name: str = "n") -> None:
    await ctx.step("reserve", work, "reserved")
    raise LookupError("a slip of the pen")


@workflow(name="order")
async def spinning(ctx: Context, name: str = "n") -> None:
    while True:  # noqa: ASYNC110 - that is the defect
        await asyncio.sleep(0)


@workflow(name="order")
async def blocking(ctx: Context, name: str = "n") -> None:
    time.sleep(5)  # noqa: ASYNC251 - that is the defect


async def test_a_handler_that_would_fail_or_not_come_to_rest_is_told(url: str) -> None:
    await paused(url, "a")
    report = await checked(url, raising)
    # The event that it waited for is recorded as awaited: this code does not ask for it.
    assert kinds(report) == {"a": "stuck"}
    async with Runtime(url, workflows=[order]) as runtime:
        await runtime.delete("a", force=True)
        await runtime.enqueue(order, run_id="b")
    for code, reason in ((spinning, "rest"), (blocking, "rest")):
        report = await checked(url, code, patience=0.2)
        assert kinds(report) == {"b": "hangs"}
        assert reason in report.problems[0].reason

    @workflow(name="order")
    async def failing(ctx: Context, name: str = "n") -> None:
        raise LookupError("a slip of the pen")

    report = await checked(url, failing)
    assert kinds(report) == {"b": "fails"}
    assert "LookupError: a slip of the pen" in report.problems[0].reason


async def test_runs_that_are_stuck_already_are_counted_apart(url: str) -> None:
    await paused(url, "a", "b")
    async with Runtime(url, workflows=[renamed]) as runtime:
        await runtime.signal("a", "paid", drive=True)
    report = await checked(url, order)
    assert (report.fits, report.mended, report.stuck_before, report.ok) == (2, 1, 0, True)
    report = await checked(url, renamed)
    assert (report.fits, report.mended, report.stuck_before, report.ok) == (0, 0, 1, False)
    async with Runtime(url, workflows=[order]) as runtime:
        await runtime.delete("b", force=True)
    # What is stuck anyway is not this code's fault.
    report = await checked(url, renamed)
    assert (report.counts, report.ok) == ({"stuck": 1}, True)


async def test_only_some_runs_are_looked_at(url: str) -> None:
    await paused(url, *(f"r{number}" for number in range(20)))

    @workflow
    async def other(ctx: Context) -> None:
        await ctx.wait_for_event("x")

    await paused(url, "other", of=other)
    report = await checked(url, order, other, sample=5)
    assert (report.checked, report.total, report.complete) == (5, 21, False)
    # As many looks as there are runs, not as were asked for.
    report = await checked(url, other, sample=100_000)
    assert (report.checked, report.total) == (21, 21)
    report = await checked(url, order, workflow="other")
    assert (report.checked, kinds(report)) == (1, {"other": "no_code"})
    report = await checked(url, order, workflow=order, version="2")
    assert (report.checked, report.total) == (0, 0)


async def test_a_sample_has_the_oldest_and_the_newest(url: str) -> None:
    for run_id in ("old", "middle", "new"):
        await paused(url, run_id)
        await asyncio.sleep(0.01)
    report = await checked(url, renamed, sample=2)
    assert sorted(kinds(report)) == ["new", "old"]


async def test_arguments_that_make_no_sense_are_refused() -> None:
    async with Runtime("memory://", workflows=[order]) as runtime:
        for options in ({"sample": 0}, {"parallel": 0}, {"patience": -1}, {"workflow": 3}, {"version": ""}):
            with pytest.raises(InvalidArgument):
                await runtime.check(**options)  # pyright: ignore[reportArgumentType]


def rows(file: Path) -> list[list[Any]]:
    """All that is in a file."""
    with closing(sqlite3.connect(file)) as connection:
        names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        tables = [name for (name,) in names]
        return [connection.execute(f'SELECT * FROM "{table}"').fetchall() for table in tables]


async def test_a_check_changes_nothing(sqlite_url: str, file: Path) -> None:
    await paused(sqlite_url, "a", "b")
    async with Runtime(sqlite_url, workflows=[order]) as runtime:
        await runtime.enqueue(order, run_id="due")
    before = rows(file)
    for code in (order, renamed, retyped, raising):
        runtime = Runtime(sqlite_url, workflows=[code], work={})
        await runtime.open(only_look=True)
        report = await runtime.check()
        await runtime.patches()
        await runtime.versions()
        await runtime.close()
        assert report.checked == 3
        assert rows(file) == before
    assert not STARTED


def test_a_look_makes_no_store(sqlite_url: str, file: Path) -> None:
    runtime = Runtime(sqlite_url, workflows=[order], work={})
    with pytest.raises(StoreError):
        asyncio.run(runtime.open(only_look=True))
    assert not file.exists()


async def test_runs_that_are_being_driven_are_checked_as_far_as_they_are(url: str) -> None:
    reached, go = asyncio.Event(), asyncio.Event()

    async def held() -> str:
        reached.set()
        await go.wait()
        return "held"

    @workflow(name="order")
    async def driven(ctx: Context, name: str = "n") -> str:
        await ctx.step("reserve", work, "reserved")
        return await ctx.step("held", held)

    async with Runtime(url, workflows=[driven]) as runtime:
        run = await runtime.start(driven, run_id="a")
        await reached.wait()
        assert (await checked(url, driven)).fits == 1
        assert kinds(await checked(url, renamed)) == {"a": "stuck"}
        go.set()
        assert await run.result(timeout=10) == "held"
    assert (await checked(url, renamed)).checked == 0


# -- patches -------------------------------------------------------------------------------------------------


@workflow(name="order")
async def patched(ctx: Context, name: str = "n") -> list[str]:
    done = [await ctx.step("reserve", work, "reserved")]
    if ctx.patched("fraud-check"):
        done.append(await ctx.step("check", work, "checked"))
    await ctx.wait_for_event("paid")
    return [*done, await ctx.step("ship", work, "shipped")]


async def test_what_follows_which_branch_is_told(url: str) -> None:
    await paused(url, "old1", "old2")
    await paused(url, "new", of=patched)
    async with Runtime(url, workflows=[patched]) as runtime:
        await runtime.enqueue(patched, run_id="queued")
        report = await runtime.patches()
        (found,) = report.patches
        assert (found.workflow, found.version, found.patch) == ("order", "1", "fraud-check")
        assert (found.marked, found.older, found.ahead, found.unknown) == (1, 2, 1, 0)
        assert found.oldest is not None
        assert (found.oldest.run_id, found.retirable) == ("old1", False)
        assert (report.complete, report.problems) == (True, {})
        for run_id in ("old1", "old2"):
            await runtime.signal(run_id, "paid", drive=True)
        (found,) = (await runtime.patches("order")).patches
        assert (found.marked, found.older, found.ahead, found.retirable) == (1, 0, 1, True)
        assert found.oldest is None
        assert (await runtime.patches("another")).patches == ()
        part = await runtime.patches(limit=1)
        assert (part.checked, part.total, part.complete) == (1, 2, False)
    assert STARTED == ["shipped", "shipped"]


async def test_code_without_the_question_is_told_of_the_marks(url: str) -> None:
    await paused(url, "new", of=patched)
    (problem,) = (await checked(url, order)).problems
    assert (problem.kind, problem.index) == ("stuck", 3)
    assert problem.reason.endswith("marks of patches that this code did not ask for: fraud-check")


async def test_without_the_code_only_marks_are_known(url: str) -> None:
    await paused(url, "old")
    await paused(url, "new", of=patched)
    async with Runtime(url) as runtime:
        report = await runtime.patches()
    (found,) = report.patches
    assert (found.marked, found.older, found.ahead, found.unknown) == (1, 0, 0, 1)
    assert not found.retirable
    assert report.problems == {"no_code": 2}
