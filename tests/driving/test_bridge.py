"""What crosses the bridge: objects that name their facts and never change."""

import asyncio
from typing import Any

import pytest

from duramen import store
from duramen._bridge import (
    Advance,
    Completed,
    Deliver,
    Detail,
    Drive,
    Entry,
    Refused,
    Reply,
    Row,
    Start,
    Turn,
)
from duramen._driving.host import RunHost
from duramen._handlers.context import Context
from duramen._handlers.workflow import step, workflow
from tests.driving.harness import Harness


@step
async def double(x: int) -> int:
    return 2 * x


@workflow
async def doubled(ctx: Context) -> int:
    found = await ctx.step("double", double, 4)
    await ctx.wait_for_event("go", int)
    return found


def driven(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Any], list[Turn], Detail]:
    """The events and the turns of a run, and what is left of it."""
    events: list[Any] = []
    turns: list[Turn] = []
    dispatch, act = harness.dispatch, RunHost._act

    def seen(event: Any) -> None:
        events.append(event)
        dispatch(event)

    def acted(host: RunHost, turn: Turn) -> Turn | None:
        turns.append(turn)
        return act(host, turn)

    monkeypatch.setattr(harness, "dispatch", seen)
    monkeypatch.setattr(RunHost, "_act", acted)

    async def main() -> Detail:
        async with harness as h:
            await h.start(doubled)
            h.work()
            await h.until("waiting")
            await h.event("go", "not a number")
            await h.event("go", 1)
            return (await h.end()).detail

    return events, turns, asyncio.run(main())


def test_events_and_turns_name_their_facts(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    events, turns, _ = driven(harness, monkeypatch)
    drive = next(event for event in events if isinstance(event, Drive))
    assert drive.run.run_id == "r"
    assert drive.run.ticket == drive.ticket
    reply = next(event for event in events if isinstance(event, Reply))
    assert reply.error is None
    assert [event.driven for event in events if isinstance(event, Advance)][-1] == "completed"

    start, deliver = turns[:2]
    match start, deliver:
        case Start(began, 1), Deliver(slot, Completed(None), at):
            assert began == slot
            assert at > 0
        case _:
            pytest.fail(f"{start}, {deliver}")
    assert repr(start) == f"Start(slot={start.slot}, attempt=1)"
    assert repr(deliver) == f"Deliver(slot={slot}, outcome=Completed(payload=None), at={at})"


def test_nothing_of_it_can_be_changed_or_made_up(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    events, turns, detail = driven(harness, monkeypatch)
    for record in (*events, *turns, detail, detail.row):
        name = next(each for each in dir(record) if not each.startswith("_"))
        with pytest.raises(AttributeError):
            setattr(record, name, None)
        with pytest.raises(AttributeError):
            record.other = None
        with pytest.raises(TypeError, match=r"No constructor|cannot create"):
            type(record)()


def names(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_no_fact_of_the_store_is_missing() -> None:
    """What a store written in Python tells the engine is what the engine tells Python."""
    assert names(Row) == set(store.RunRow.__annotations__)
    assert names(Entry) == set(store.Entry.__annotations__)
    assert names(Detail) == set(store.RunDetail.__annotations__)
    assert names(Refused) == set(store.Message.__annotations__) - {"run_id", "seq"} | {"reason"}


def test_a_detail_has_the_end_and_what_was_refused(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    detail = driven(harness, monkeypatch)[2]
    row, end, (refused,) = detail.row, detail.end, detail.refused
    assert end is not None
    assert (row.run_id, row.status, row.waits, row.tags, len(row.seed)) == ("r", "completed", [], [], 16)
    assert (end.kind, end.op, end.payload, end.at) == ("run_finished", "", b"8", row.finished_at)
    assert (refused.kind, refused.name, refused.payload) == ("event", "go", b'"not a number"')
    assert refused.reason
