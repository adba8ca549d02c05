"""`Runtime.export` and `duramen.testing.replay`."""

import asyncio
import copy
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import CodecSerializer, Context, JsonSerializer, Runtime, StepFailed, workflow
from duramen.errors import (
    DuramenError,
    InvalidArgument,
    InvalidHistory,
    ReplayDiverged,
    UnknownRun,
    UnknownWorkflow,
)
from duramen.testing import Replayed, replay

pytestmark = pytest.mark.anyio

STARTED: list[str] = []


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def work(name: str) -> str:
    STARTED.append(name)
    return f"{name} done"


@workflow
async def shop(ctx: Context, order: str) -> list[str]:
    done = await ctx.step("reserve", work, order)
    paid = await ctx.wait_for_event("paid", str)
    return [done, paid, await ctx.step("ship", work, order)]


async def exported(url: str = "memory://", *, paid: bool = True) -> dict[str, Any]:
    async with Runtime(url, workflows=[shop]) as runtime:
        if paid:
            await runtime.enqueue(shop, "1", run_id="order:1", tags=["a"], memo={"by": "ann"})
            await runtime.signal("order:1", "paid", "cash", signal_id="s1")
        await runtime.run(shop, "1", run_id="order:1")
        await runtime.sweep()
        return dict(await runtime.export("order:1"))


@pytest.fixture(scope="module")
def finished() -> dict[str, Any]:
    return asyncio.run(exported())


@pytest.fixture
def history(finished: dict[str, Any]) -> dict[str, Any]:
    STARTED.clear()
    return copy.deepcopy(finished)


# -- export --------------------------------------------------------------------------------------------------


def test_an_export_is_plain_json_with_the_row_and_the_whole_journal(history: dict[str, Any]) -> None:
    assert json.loads(json.dumps(history)) == history
    run = history["run"]
    assert (run["run_id"], run["workflow"], run["version"]) == ("order:1", "shop", "1")
    assert (run["status"], run["tags"], run["memo"]) == ("completed", ["a"], '{"by":"ann"}')
    assert [(entry["kind"], entry["op"], entry["payload"]) for entry in history["journal"]] == [
        ("run_created", "", '"1"'),
        ("step_completed", "reserve", '"1 done"'),
        ("event_received", "event-1", '"cash"'),
        ("step_completed", "ship", '"1 done"'),
        ("run_finished", "", '["1 done","cash","1 done"]'),
    ]
    assert json.loads(history["journal"][2]["meta"])["message"] == "s1"


async def test_every_store_exports_the_same(sqlite_url: str, postgres_url: str) -> None:
    def timeless(history: dict[str, Any]) -> dict[str, Any]:
        again = copy.deepcopy(history)
        again["run"] = {
            name: value for name, value in again["run"].items() if name != "seed" and not name.endswith("_at")
        }
        for entry in again["journal"]:
            entry["at"] = 0
        return again

    memory = await exported()
    for url in (sqlite_url, postgres_url):
        assert timeless(await exported(url)) == timeless(memory)


class Odd:
    """A codec whose payloads are no text."""

    def encode(self, data: bytes) -> bytes:
        return b"\xff\x00" + data

    def decode(self, data: bytes) -> bytes:
        assert data[:2] == b"\xff\x00"
        return data[2:]


async def test_payloads_that_are_no_json_are_kept_to_the_byte() -> None:
    serializer = CodecSerializer(JsonSerializer(), Odd())
    async with Runtime("memory://", workflows=[shop], serializer=serializer) as runtime:
        await runtime.run(shop, "1", run_id="order:1", memo="m")
        history = await runtime.export("order:1")
    assert history["journal"][0]["payload"] == {"base64": "/wAiMSI="}
    assert history["run"]["memo"] == {"base64": "/wAibSI="}
    assert replay(shop, history, serializer=serializer).kind == "unfinished"
    with pytest.raises(ReplayDiverged, match="found code that cannot read"):
        replay(shop, history)


async def test_a_journal_longer_than_a_page_is_exported_whole() -> None:
    @workflow
    async def many(ctx: Context) -> float:
        return sum(ctx.random() for _ in range(2345))

    async with Runtime("memory://", workflows=[many]) as runtime:
        await runtime.run(many, run_id="r")
        history = await runtime.export("r")
    assert len(history["journal"]) == 2347
    assert replay(many, history).entries == 2347


async def test_exporting_what_is_not_there() -> None:
    async with Runtime("memory://") as runtime:
        with pytest.raises(UnknownRun):
            await runtime.export("nobody")
        with pytest.raises(InvalidArgument):
            await runtime.export("")


def test_the_sync_calls_export_too() -> None:
    with Runtime("memory://", workflows=[shop]).sync as runtime:
        runtime.enqueue(shop, "1", run_id="order:1")
        assert runtime.export("order:1")["run"]["status"] == "queued"


# -- replay --------------------------------------------------------------------------------------------------


def test_a_replay_gives_the_outcome_and_runs_no_step(history: dict[str, Any]) -> None:
    done = replay(shop, history)
    assert done == Replayed("order:1", "completed", ["1 done", "cash", "1 done"], None, 5)
    assert STARTED == []


@pytest.mark.parametrize("form", ["dict", "str", "bytes", "path"])
def test_a_history_comes_in_any_form(history: dict[str, Any], form: str, tmp_path: Path) -> None:
    text = json.dumps(history)
    (tmp_path / "history.json").write_text(text)
    given: Any = {
        "dict": history,
        "str": text,
        "bytes": text.encode(),
        "path": tmp_path / "history.json",
    }[form]
    assert replay(shop, given).kind == "completed"
    assert json.dumps(history) == text


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_replay_ends_where_its_history_ends(history: dict[str, Any], length: int) -> None:
    history["journal"] = history["journal"][:length]
    done = replay(shop, history)
    # Behind the last answer there is only the handler's own end.
    assert (done.kind, done.entries) == ("unfinished" if length < 4 else "completed", length)
    assert STARTED == []


async def test_a_run_that_waits_replays_as_unfinished() -> None:
    history = await exported(paid=False)
    assert history["run"]["status"] == "waiting"
    STARTED.clear()
    assert replay(shop, history).kind == "unfinished"
    assert STARTED == []


async def test_a_timer_that_is_overdue_by_now_does_not_fire() -> None:
    fired: list[str] = []

    @workflow
    async def sleeper(ctx: Context) -> None:
        await ctx.sleep(2)
        fired.append("live")

    async with Runtime("memory://", workflows=[sleeper]) as runtime:
        await runtime.run(sleeper, run_id="r")
        history = copy.deepcopy(await runtime.export("r"))
    history["run"]["created_at"] = history["run"]["started_at"] = history["journal"][0]["at"] = 1000
    assert json.loads(history["journal"][1]["meta"] or "")["deadline"] < 10**15
    history["journal"][1]["meta"] = '{"deadline":3000}'
    assert replay(sleeper, history).kind == "unfinished"
    assert fired == []


def test_a_replay_within_an_event_loop(history: dict[str, Any]) -> None:
    async def inside() -> Replayed:
        done = replay(shop, history)
        assert asyncio.current_task() is not None
        await asyncio.sleep(0)
        return done

    assert asyncio.run(inside()).kind == "completed"


def test_the_class_of_an_error_is_compared_and_its_text_is_not() -> None:
    @workflow(name="fails")
    async def fails(ctx: Context) -> None:
        raise LookupError(f"at {id(object()):#x}, process {os.getpid()}")

    @workflow(name="fails")
    async def same(ctx: Context) -> None:
        raise LookupError("somewhere else")

    @workflow(name="fails")
    async def other(ctx: Context) -> None:
        raise PermissionError("somewhere else")

    async def make() -> Any:
        async with Runtime("memory://", workflows=[fails]) as runtime:
            await runtime.run(fails, run_id="r")
            return await runtime.export("r")

    history = asyncio.run(make())
    done = replay(same, history)
    assert (done.kind, type(done.error)) == ("failed", LookupError)
    with pytest.raises(ReplayDiverged, match="found PermissionError") as caught:
        replay(other, history)
    assert caught.value.index == 1
    assert replay(other, history, compare_output=False).kind == "failed"


def test_a_divergence_names_everything(history: dict[str, Any]) -> None:
    @workflow(name="shop")
    async def changed(ctx: Context, order: str) -> None:
        await ctx.step("reserve", work, order)
        await ctx.step("charge", work, order)

    with pytest.raises(ReplayDiverged) as caught:
        replay(changed, history)
    error = caught.value
    assert (error.run_id, error.index) == ("order:1", 2)
    assert str(error) == (
        f"run 'order:1' does not replay under workflow 'shop' version '1' ({changed.location}): the code no "
        'longer fits the journal at entry 2: expected (recorded) event_received of "event-1", found a '
        'handler that has not asked for it; it waits for a step "charge". Nothing was lost: deploy code that '
        "fits, then `retry` the run. If the code is the same, look in the handler for a loop over a set (its "
        "order differs between processes), the clock, chance or I/O\n"
        "       0  run_created\n"
        "       1  step_completed       reserve\n"
        "  >    2  event_received       event-1\n"
        "       3  step_completed       ship\n"
        "       4  run_finished"
    )
    assert STARTED == []


def test_code_that_looks_at_the_clock_shows_up(history: dict[str, Any]) -> None:
    turn = iter(range(10))

    @workflow(name="shop")
    async def impure(ctx: Context, order: str) -> list[str]:
        await ctx.step("reserve", work, order)
        paid = await ctx.wait_for_event("paid", str)
        await ctx.step("ship", work, order)
        return [f"{order} done", paid, f"{next(turn)}"]

    with pytest.raises(ReplayDiverged, match=r"returned something else: .* found \['1 done', 'cash', '0'\]"):
        replay(impure, history)


def test_a_handler_that_awaits_nothing_durable_is_found() -> None:
    @workflow
    async def deadlocked(ctx: Context) -> None:
        await asyncio.Event().wait()

    async def make() -> Any:
        async with Runtime("memory://", workflows=[deadlocked]) as runtime:
            await runtime.run(deadlocked, run_id="r")
            return await runtime.export("r")

    history = asyncio.run(make())
    assert history["run"]["status"] == "stuck"
    with pytest.raises(ReplayDiverged, match="awaits something that is not durable") as caught:
        replay(deadlocked, history)
    assert caught.value.index == 1
    assert "(end of the journal)" in str(caught.value)


def test_a_history_of_an_older_version_replays_with_that_versions_code(history: dict[str, Any]) -> None:
    @workflow(name="shop", version="2", previous=[shop])
    async def newer(ctx: Context, order: str) -> None:
        await ctx.step("all-new", work, order)

    assert replay(newer, history).kind == "completed"

    @workflow(name="shop", version="2")
    async def alone(ctx: Context, order: str) -> None: ...

    with pytest.raises(UnknownWorkflow, match="version '1'"):
        replay(alone, history)

    @workflow
    async def other(ctx: Context) -> None: ...

    with pytest.raises(InvalidArgument, match="one of workflow 'shop'"):
        replay(other, history)


def test_a_long_computation_between_two_steps_is_replayed_to_its_end(history: dict[str, Any]) -> None:
    @workflow(name="shop")
    async def busy(ctx: Context, order: str) -> list[str]:
        done = await ctx.step("reserve", work, order)
        for _ in range(25_000):  # more callbacks than fit into one slice
            await asyncio.sleep(0)
        paid = await ctx.wait_for_event("paid", str)
        return [done, paid, await ctx.step("ship", work, order)]

    assert replay(busy, history).kind == "completed"


def test_a_replay_is_silent(history: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    @workflow(name="shop")
    async def talks(ctx: Context, order: str) -> list[str]:
        ctx.log.warning("begins")
        done = await ctx.step("reserve", work, order)
        ctx.emit("progress", 1)
        paid = await ctx.wait_for_event("paid", str)
        ctx.log.warning("paid")
        return [done, paid, await ctx.step("ship", work, order)]

    with caplog.at_level(logging.DEBUG):
        replay(talks, history)
    assert caplog.records == []


def test_what_was_said_of_a_handler_is_not_said_again(caplog: pytest.LogCaptureFixture) -> None:
    @workflow
    async def leaves_a_task(ctx: Context) -> None:
        asyncio.ensure_future(ctx.sleep(3600))  # noqa: RUF006 - as careless code has it
        await asyncio.sleep(0)

    async def make() -> Any:
        async with Runtime("memory://", workflows=[leaves_a_task]) as runtime:
            await runtime.run(leaves_a_task, run_id="r")
            return await runtime.export("r")

    history = asyncio.run(make())
    assert "still running" in caplog.text
    caplog.clear()
    assert replay(leaves_a_task, history).kind == "completed"
    assert caplog.records == []


class Strict(BaseModel):
    number: int


async def test_results_that_no_longer_fit_their_types_diverge() -> None:
    async def old() -> dict[str, str]:
        return {"number": "many"}

    async def new() -> Strict:
        raise AssertionError("never called")

    @workflow(name="typed")
    async def before(ctx: Context) -> str:
        return (await ctx.step("count", old))["number"]

    @workflow(name="typed")
    async def changed(ctx: Context) -> str:
        return str((await ctx.step("count", new)).number)

    async with Runtime("memory://", workflows=[before]) as runtime:
        await runtime.run(before, run_id="r")
        history = await runtime.export("r")
    with pytest.raises(ReplayDiverged, match="found code that cannot read"):
        replay(changed, history)


async def test_a_failure_that_was_caught_is_the_same_exception_again() -> None:
    seen: list[Any] = []

    async def broken() -> None:
        raise KeyError("card")

    @workflow
    async def catches(ctx: Context) -> str:
        try:
            await ctx.step("broken", broken)
        except StepFailed as error:
            seen.append((type(error), str(error), type(error.__cause__), error.attempts))
        return "caught"

    async with Runtime("memory://", workflows=[catches]) as runtime:
        await runtime.run(catches, run_id="r")
        history = await runtime.export("r")
    replay(catches, history)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("payload", ["", "3", "{}", '{"type":"x","message":"m","attempts":"many"}'])
async def test_a_recorded_failure_that_cannot_be_read_diverges(payload: str, together: bool) -> None:
    """It used to be raised in whatever drove the run, which another process then took over, and so on."""
    learnt: list[Any] = []

    async def broken() -> None:
        raise KeyError("card")

    @workflow
    async def catching(ctx: Context) -> str:
        if together:
            steps = ctx.step("b", broken), ctx.step("a", work, "a")
            learnt.append((await asyncio.gather(*steps, return_exceptions=True))[0])
        else:
            try:
                await ctx.step("b", broken)
            except Exception as error:  # noqa: BLE001
                learnt.append(error)
        return "survived"

    async with Runtime("memory://", workflows=[catching]) as runtime:
        await runtime.run(catching, run_id="r")
        history = copy.deepcopy(await runtime.export("r"))
    (failed,) = (entry for entry in history["journal"] if entry["kind"] == "step_failed")
    failed["payload"] = payload
    learnt.clear()
    if "message" in payload:
        assert replay(catching, history).output == "survived"
        assert isinstance(learnt[0], StepFailed)
    else:
        with pytest.raises(ReplayDiverged, match="found code that cannot read what is recorded"):
            replay(catching, history)
        assert learnt == []


# -- what is no history --------------------------------------------------------------------------------------


def put(*path: Any, value: Any) -> Callable[[Any], None]:
    def spoil(history: Any) -> None:
        for part in path[:-1]:
            history = history[part]
        history[path[-1]] = value

    return spoil


def drop(*path: Any) -> Callable[[Any], None]:
    def spoil(history: Any) -> None:
        for part in path[:-1]:
            history = history[part]
        del history[path[-1]]

    return spoil


SPOILT = [
    (put("format", value=2), "$.format"),
    (put("format", value=True), "$.format"),
    (put("format", value="1"), "$.format"),
    (drop("format"), "$.format"),
    (put("more", value=1), "$.more"),
    (drop("run", "seed"), "$.run.seed"),
    (put("run", "seed", value="00"), "$.run.seed"),
    (put("run", "run_id", value=""), "$.run.run_id"),
    (put("run", "run_id", value="a\0"), "$.run.run_id"),
    (put("run", "run_id", value="x" * 256), "$.run.run_id"),
    (put("run", "status", value="asleep"), "$.run.status"),
    (put("run", "created_at", value=-1), "$.run.created_at"),
    (put("run", "created_at", value=2**63), "$.run.created_at"),
    (put("run", "created_at", value="0"), "$.run.created_at"),
    (put("run", "epoch", value=True), "$.run.epoch"),
    (put("run", "epoch", value=2**63 - 1), "$.run.epoch"),
    (put("run", "tags", value=[1]), "$.run.tags[0]"),
    (put("run", "state", value={"base64": "*"}), "$.run.state"),
    (put("journal", value=[]), "$.journal"),
    (drop("journal", 0), "$.journal[0].kind"),
    (put("journal", 1, "kind", value="step_done"), "$.journal[1].kind"),
    (put("journal", 1, "at", value=None), "$.journal[1].at"),
    (put("journal", 1, "encoding", value=256), "$.journal[1].encoding"),
    (put("journal", 1, "op", value="\ud800"), "$.journal[1].op"),
    (put("journal", 1, "payload", value="\ud800"), "$.journal[1].payload"),
    (put("journal", 1, "payload", value=1), "$.journal[1].payload"),
    (put("journal", 1, "payload", value={"base64": "a"}), "$.journal[1].payload"),
    (put("journal", 1, "more", value=1), "$.journal[1].more"),
]


@pytest.mark.parametrize(
    ("spoil", "path"), SPOILT, ids=[f"{place} {path}" for place, (_, path) in enumerate(SPOILT)]
)
def test_what_is_no_history_is_refused_with_the_place(
    history: dict[str, Any], spoil: Callable[[Any], None], path: str
) -> None:
    spoil(history)
    with pytest.raises(InvalidHistory) as caught:
        replay(shop, history)
    assert caught.value.path == path
    assert isinstance(caught.value, DuramenError)


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "3", "history.json", "[" * 100_000, b"\xff", b"{"],
    ids=["empty", "no JSON", "list", "number", "path", "deep", "no UTF-8", "half"],
)
def test_text_that_is_no_history_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidHistory):
        replay(shop, text)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replay(shop, tmp_path / "nothing.json")


def test_an_entry_of_a_newer_build_is_no_difference(history: dict[str, Any]) -> None:
    history["journal"][1]["encoding"] = 2
    history["journal"][2]["encoding"] = 3
    with pytest.raises(InvalidHistory, match="reads encoding 3, and this one reads up to 1") as caught:
        replay(shop, history)
    assert caught.value.path == "$.journal[2].encoding"
