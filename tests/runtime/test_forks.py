"""`Runtime.fork`, what-if forks, `Runtime.diff` and docs/forks.md."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, RunDiff, Runtime, RunView, step_context, workflow
from duramen._runtime.forking import brought_by
from duramen._values.serializer import JsonSerializer
from duramen.errors import (
    InvalidArgument,
    RunFailed,
    RunIdConflict,
    RunStuck,
    StepFailed,
    UnknownRun,
    UnknownWorkflow,
)
from duramen.testing import Environment
from tests.regressions.support import until_status

pytestmark = pytest.mark.anyio

RAN: list[str] = []


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_has_run() -> None:
    RAN.clear()


async def work(what: str) -> str:
    RAN.append(step_context().idempotency_key)
    return what.upper()


async def broken(what: str) -> str:
    raise LookupError(what)


@workflow(tags=["orders"])
async def order(ctx: Context, item: str) -> list[str]:
    number = str(ctx.uuid())
    found = [await ctx.step("reserve", work, item)]
    found.append(await ctx.wait_for_event("paid", str, id="payment"))
    try:
        found.append(await ctx.step("pack", work, found[-1]))
    except StepFailed as failed:
        found.append(f"not packed: {failed.error.message}")
    answer = await ctx.approve("Ship?", id="ok")
    found.append(await ctx.step("ship", work, "yes" if answer.approved else "no"))
    return [*found, number]


async def ended(runtime: Runtime, run_id: str = "o") -> list[str]:
    run = await runtime.start(order, "tea", run_id=run_id, tags=["mine"], memo={"k": 1})
    await run.signal("paid", "p1", signal_id="1")
    await runtime.approve(run_id, "ok", True)
    return await run.result(timeout=20)


async def test_a_fork_keeps_what_came_before_an_operation_and_does_the_rest_again(any_url: str) -> None:
    async with Runtime(any_url, workflows=[order], work=True) as runtime:
        first = await ended(runtime)
        before = await runtime.timeline("o")
        RAN.clear()
        fork = await runtime.fork("o", from_operation="pack", new_run_id="f")
        assert fork.created
        # The approval was given to the other run.
        view = await until_status(runtime, "f", "waiting")
        assert view.waiting_approvals == ("ok",)
        assert RAN == ["f/pack"]
        await runtime.approve("f", "ok", False)
        assert await fork.result(timeout=20) == [*first[:3], "NO", first[4]]
        view = await runtime.get("f")
        assert (view.input, view.memo, view.tags) == ("tea", {"k": 1}, ("orders", "mine"))
        assert await runtime.timeline("o") == before
        # A caller that heard nothing asks again.
        again = await runtime.fork("o", from_operation="pack", new_run_id="f")
        assert not again.created


async def test_a_fork_without_a_place_begins_at_the_beginning_with_another_input(any_url: str) -> None:
    async with Runtime(any_url, workflows=[order], work=True) as runtime:
        first = await ended(runtime)
        fork = await runtime.fork("o", input="coffee")
        await fork.signal("paid", "p2")
        await runtime.approve(fork.run_id, "ok", True)
        found = await fork.result(timeout=20)
        assert found[:4] == ["COFFEE", "p2", "P2", "YES"]
        assert found[4] != first[4]


async def test_what_if_an_outcome_had_been_another(any_url: str) -> None:
    async with Runtime(any_url, workflows=[order], work=True) as runtime:
        first = await ended(runtime)
        RAN.clear()
        no = await runtime.fork("o", overrides={"ok": False}, new_run_id="no")
        assert await no.result(timeout=20) == [*first[:3], "NO", first[4]]
        assert RAN == ["no/ship"]
        error = await runtime.fork("o", overrides={"pack": ValueError("torn")}, from_operation="ok")
        await runtime.approve(error.run_id, "ok", True)
        assert await error.result(timeout=20) == [*first[:2], "not packed: torn", "YES", first[4]]
        both = await runtime.fork("o", overrides={"reserve": "R", "payment": "p9"})
        await runtime.approve(both.run_id, "ok", True)
        assert (await both.result(timeout=20))[:3] == ["R", "p9", "P9"]


async def test_what_cannot_be_forked_is_refused_and_nothing_is_made(any_url: str) -> None:
    @workflow
    async def other(ctx: Context) -> None: ...

    async with Runtime(any_url, workflows=[order, other], work=True) as runtime:
        await ended(runtime)
        await runtime.run(other, run_id="other")
        count = await runtime.count()
        with pytest.raises(UnknownRun):
            await runtime.fork("nobody")
        with pytest.raises(InvalidArgument, match=r"'packed' is not in the journal of run 'o'.*'pack'"):
            await runtime.fork("o", from_operation="packed")
        with pytest.raises(InvalidArgument, match="'nothing' has no outcome in run 'o'"):
            await runtime.fork("o", overrides={"nothing": 1})
        with pytest.raises(InvalidArgument, match="'ok' comes behind 'pack'"):
            await runtime.fork("o", from_operation="pack", overrides={"ok": True})
        with pytest.raises(InvalidArgument, match="cannot fail"):
            await runtime.fork("o", overrides={"payment": ValueError()})
        with pytest.raises(InvalidArgument, match="give True or False"):
            await runtime.fork("o", overrides={"ok": "yes"})
        with pytest.raises(InvalidArgument, match="value_recorded"):
            await runtime.fork("o", overrides={"uuid-1": "x"})
        with pytest.raises(UnknownWorkflow):
            await runtime.fork("o", version="9")
        with pytest.raises(RunIdConflict):
            await runtime.fork("o", new_run_id="other")
        assert await runtime.count() == count


async def test_an_input_that_leads_elsewhere_parks_the_fork_with_the_difference(any_url: str) -> None:
    @workflow
    async def choosing(ctx: Context, which: str) -> str:
        await ctx.step(which, work, which)
        return await ctx.step("end", work, "x")

    async with Runtime(any_url, workflows=[choosing]) as runtime:
        await runtime.run(choosing, "left", run_id="r")
        fork = await runtime.fork("r", from_operation="end", input="right")
        with pytest.raises(RunStuck, match="right"):
            await fork.result(timeout=20)


# -- runs in every state -------------------------------------------------------------------------------------


async def test_a_live_run_is_forked_at_the_place_where_it_waits(any_url: str) -> None:
    async with Runtime(any_url, workflows=[order], work=True) as runtime:
        run = await runtime.start(order, "tea", run_id="o")
        await until_status(runtime, "o", "waiting")
        fork = await runtime.fork("o", from_operation="payment", new_run_id="f")
        await until_status(runtime, "f", "waiting")
        assert RAN == ["o/reserve"]
        for one in (run, fork):
            await one.signal("paid", one.run_id)
            await runtime.approve(one.run_id, "ok", True)
        assert [(await one.result(timeout=20))[1] for one in (run, fork)] == ["o", "f"]


MENDED = {"is": False}


@workflow
async def fragile(ctx: Context) -> str:
    await ctx.step("a", work, "a")
    await ctx.step("b", work if MENDED["is"] else broken, "b")
    return await ctx.step("c", work, "c")


async def test_what_a_retry_took_back_is_in_no_fork(any_url: str) -> None:
    MENDED["is"] = False
    async with Runtime(any_url, workflows=[fragile]) as runtime:
        run = await runtime.start(fragile, run_id="r")
        for _ in range(2):
            with pytest.raises(RunFailed):
                await run.result(timeout=20)
            failed = await runtime.fork("r", from_operation="b")
            with pytest.raises(RunFailed):
                await failed.result(timeout=20)
            await runtime.retry("r")
        with pytest.raises(RunFailed):
            await run.result(timeout=20)
        MENDED["is"] = True
        await runtime.retry("r")
        assert await run.result(timeout=20) == "C"
        RAN.clear()
        fork = await runtime.fork("r", from_operation="c", new_run_id="f")
        assert await fork.result(timeout=20) == "C"
        assert RAN == ["f/c"]
        kinds = [entry.kind for entry in await runtime.timeline("f")]
        assert kinds == ["run_created", "step_completed", "step_completed", "step_completed", "run_finished"]


@workflow
async def going_on(ctx: Context, number: int) -> list[str]:
    found = await ctx.step("look", work, str(number))
    await ctx.sleep(60)
    answer = await ctx.approve("Go on?", id="go")
    if number < 2:
        ctx.continue_as_new(number + 1)
    return [found, answer.approval_id, await ctx.step("end", work, "end")]


async def test_a_fork_of_a_later_generation_is_a_first_one(url: str) -> None:
    async with Environment([going_on], store=url) as env:
        run = await env.runtime.start(going_on, 0, run_id="r")
        for name in ("go", "go@1", "go@2"):
            await env.advance(minutes=2)
            assert await env.runtime.approve("r", name, True) == "delivered"
        assert await env.result(run) == ["2", "go@2", "END"]
        fork = await env.runtime.fork("r", from_operation="end", new_run_id="f")
        assert await env.result(fork) == ["2", "go", "END"]
        fork = await env.runtime.fork("r", from_operation="go", new_run_id="g")
        await env.settle()
        assert (await fork.get()).waiting_approvals == ("go",)
        view = await fork.get()
        assert (view.generation, view.journal_start) == (0, 0)


async def test_a_fork_goes_by_the_clock_of_its_journal() -> None:
    @workflow
    async def patient(ctx: Context) -> str:
        await ctx.step("a", work, "a")
        await ctx.sleep(3600)
        await ctx.step("b", work, "b")
        await ctx.sleep(3600)
        return f"{ctx.now():%d}"

    async with Environment([patient]) as env:
        run = await env.runtime.start(patient)
        assert await env.result(run) == "01"
        await env.advance(days=3)
        # What had been waited for has been waited for; what it does now is done today.
        fork = await env.runtime.fork(run.run_id, from_operation="b")
        await env.settle()
        assert (await fork.get()).status == "waiting"
        assert await env.result(fork) == "04"


def history_of(*entries: tuple[str, str]) -> Any:
    same = {"encoding": 1, "meta": None, "payload": "1", "at": 5}
    journal = [{**same, "kind": kind, "op": op} for kind, op in entries]
    return {"run": {"run_id": "r"}, "journal": journal}


def test_a_child_that_had_not_ended_cannot_be_kept() -> None:
    history = history_of(
        ("run_created", ""),
        ("child_started", "one"),
        ("step_completed", "a"),
        ("child_finished", "one"),
        ("step_completed", "b"),
    )
    serializer = JsonSerializer()
    with pytest.raises(InvalidArgument, match="child 'one' had not ended"):
        brought_by(history, "a", {}, serializer)
    assert [entry[2] for entry in brought_by(history, "b", {}, serializer)] == ["one", "a", "one"]
    assert brought_by(history, "one", {}, serializer) == []


def test_what_was_under_way_begins_anew_and_a_patch_is_no_operation() -> None:
    history = history_of(
        ("run_created", ""),
        ("patch_marked", "a"),
        ("step_attempt_failed", "slow"),
        ("wait_opened", "event-1"),
        ("step_attempt_failed", "a"),
        ("step_completed", "a"),
        ("step_completed", "b"),
        ("step_completed", "slow"),
    )
    kept = brought_by(history, "b", {}, JsonSerializer())
    assert [(kind, op) for _, kind, op, *_ in kept] == [
        ("patch_marked", "a"),
        ("step_attempt_failed", "a"),
        ("step_completed", "a"),
    ]
    assert [(kind, op) for _, kind, op, *_ in brought_by(history, "a", {}, JsonSerializer())] == [
        ("patch_marked", "a")
    ]


# -- versions, other processes, diff -------------------------------------------------------------------------


async def test_a_fork_is_of_the_newest_version_or_the_one_that_is_asked_for(url: str) -> None:
    @workflow(name="versioned", version="1")
    async def one(ctx: Context) -> str:
        await ctx.step("a", work, "a")
        return ctx.version

    @workflow(name="versioned", version="2", previous=[one])
    async def two(ctx: Context) -> str:
        await ctx.step("a", work, "a")
        return ctx.version

    async with Runtime(url, workflows=[one]) as runtime:
        await runtime.run(one, run_id="r")
    async with Runtime(url) as anybody:
        # Without workflow code: left to those who have it.
        left = await anybody.fork("r", from_operation="a", new_run_id="left")
        assert (await left.get()).status == "queued"
    async with Runtime(url, workflows=[two], work=True) as runtime:
        assert await runtime.result("left", timeout=20) == "1"
        assert await (await runtime.fork("r", from_operation="a")).result(timeout=20) == "2"
        assert await (await runtime.fork("r", from_operation="a", version="1")).result(timeout=20) == "1"


async def test_a_difference_is_where_two_runs_part_and_what_each_operation_came_to(any_url: str) -> None:
    async with Runtime(any_url, workflows=[order], work=True) as runtime:
        await ended(runtime)
        same = await runtime.fork("o", from_operation="ship", new_run_id="same")
        await runtime.approve("same", "ok", True)
        await same.result(timeout=20)
        found = await runtime.diff("o", "same")
        assert found.same
        assert found.differences == ()
        assert str(found) == "o and same do not differ"
        no = await runtime.fork("o", overrides={"ok": False}, new_run_id="no")
        await no.result(timeout=20)
        found = await runtime.diff("o", "no")
        assert isinstance(found, RunDiff)
        assert found.parting is not None
        assert found.parting.op == "ok"
        assert {each.op for each in found.differences} == {"ok", "ship", ""}
        assert "they part at 'ok'" in str(found)
        live = await runtime.fork("o", from_operation="pack", new_run_id="live")
        await until_status(runtime, "live", "waiting")
        found = await runtime.diff("o", live.run_id)
        assert found.parting is not None
        assert (found.parting.op, found.parting.other) == ("ok", None)
        with pytest.raises(UnknownRun):
            await runtime.diff("o", "nobody")


def test_the_blocking_calls_fork_and_compare(sqlite_url: str) -> None:
    with Runtime(sqlite_url, workflows=[fragile]).sync as runtime:
        MENDED["is"] = True
        runtime.start(fragile, run_id="r").result(timeout=20)
        fork = runtime.fork("r", overrides={"a": "x"}, new_run_id="f")
        assert fork.result(timeout=20) == "C"
        found: RunDiff = runtime.diff("r", "f")
        assert [each.op for each in found.differences] == ["a"]
        view: RunView = fork.get()
        assert view.run_id == "f"


# -- the page ------------------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[2] / "docs" / "forks.md").read_text("utf-8")
BLOCKS: list[str] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

APP = f"""\
from duramen import Context, Runtime, workflow

async def price(item: str) -> int:
    return 20

async def ship(what: str) -> str:
    return what + " is on its way"

{BLOCKS[0]}
"""


async def test_the_examples_of_the_page_do_what_it_says() -> None:
    names: dict[str, Any] = {}
    for block in (APP, *BLOCKS[1:3]):
        exec(compile(block, "docs/forks.md", "exec"), names)
    async with Runtime("memory://", workflows=[names["order"]], work=True) as runtime:
        run = await runtime.start(names["order"], "tea", run_id="order:1")
        await run.signal("paid", "p-1")
        assert await run.result(timeout=20) == "tea for p-1 is on its way"
        assert await names["again"](runtime) == "tea for p-1 is on its way"
        output, table = await names["what_if"](runtime)
        assert output == "too dear"
        assert f"```text\n{table}\n```" in PAGE


def test_an_exported_run_steps_under_the_debugger(tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(compile(APP, "app.py", "exec"), names)
    with Runtime("memory://", workflows=[names["order"]]).sync as runtime:
        run = runtime.start(names["order"], "tea", run_id="order:1")
        run.signal("paid", "p-1")
        run.result(timeout=20)
        (tmp_path / "order.json").write_text(json.dumps(runtime.export("order:1")))
    (tmp_path / "app.py").write_text(
        APP.replace("return 20", "raise AssertionError('it is not carried out')")
    )
    (tmp_path / "debug.py").write_text(f"from app import order\n{BLOCKS[3]}")
    line = APP.split("\n").index('    payment = await ctx.wait_for_event("paid", str, id="payment")') + 1
    said = "\n".join(
        (f"b app.py:{line}", "c", "p ('cents', cents)", "n", "p ('payment', payment)", "c", "q", "")
    )
    stepped = subprocess.run(
        [sys.executable, "-m", "pdb", "debug.py"],
        input=said,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert "('cents', 20)" in stepped.stdout
    assert "('payment', 'p-1')" in stepped.stdout
    assert "tea for p-1 is on its way" in stepped.stdout
