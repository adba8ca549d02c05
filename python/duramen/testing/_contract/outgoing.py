"""What leaves a run with a commit: kept with it, in order, until somebody reports it as sent."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from .interventions import delete, intervene, reopen, terminate
from .support import (
    APPLIED,
    FENCED,
    T0,
    Rules,
    commit,
    commit_one,
    continued,
    entry,
    finished,
    item,
    new_run,
    rule,
    unsent,
    waiting,
)

if TYPE_CHECKING:
    from duramen.store import Outgoing, Store, Unsent


def names(items: list[Unsent]) -> str:
    """Items by their bodies, in their order."""
    return " ".join(one["body"].decode() for one in items)


def leaving(*bodies: str) -> list[Outgoing]:
    """Items with these bodies."""
    return [item(body=body.encode()) for body in bodies]


class OutgoingRules(Rules):
    """What leaves a run with a commit: kept with it, in order, until somebody reports it as sent."""

    @rule
    async def test_items_are_kept_by_the_commit_that_brings_them(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        assert await commit_one(store, commit(entries=[entry("s")])) == APPLIED
        items: list[Outgoing] = [
            {"kind": "start", "target": "child", "body": b"\x00\xff"},
            {"kind": "message", "target": "other", "body": b""},
            {"kind": "stream_item", "target": "a", "body": b"3"},
        ]
        last = commit(length=2, entries=[entry("t"), entry("u")], outgoing=items, at=T0 + 7)
        assert await commit_one(store, last) == APPLIED
        assert await unsent(store) == [
            {"run_id": "a", "entry": 2, "number": number, "at": T0 + 7, **one}
            for number, one in enumerate(items)
        ]

    @rule
    async def test_items_of_an_intervention_are_kept_with_its_entry(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        assert await commit_one(store, commit(entries=[entry("s")], outgoing=leaving("0"))) == APPLIED
        assert await intervene(store, terminate(at=T0 + 8, outgoing=leaving("1", "2"))) == "done"
        assert await intervene(store, terminate(outgoing=leaving("never"))) == "not_allowed"
        assert await intervene(store, reopen(length=3, outgoing=leaving("3"))) == "done"
        found = [(one["entry"], one["number"], one["at"], one["body"]) for one in await unsent(store)]
        at = entry("")["at"]
        assert sorted(found) == [
            (1, 0, T0 + 1, b"0"),
            (2, 0, T0 + 8, b"1"),
            (2, 1, T0 + 8, b"2"),
            (3, 0, at, b"3"),
        ]

    @rule
    async def test_the_oldest_come_first_and_those_of_a_commit_in_its_order(self, store: Store) -> None:
        await store.create([new_run(name, owner="ann") for name in "abc"])
        many = [f"c{n}" for n in range(12)]
        for run_id, at, length, bodies in (
            ("c", T0 + 5, 1, many),
            ("b", T0 + 9, 1, ["b9"]),
            ("a", T0 + 9, 1, ["a9"]),
            ("b", T0 + 4, 2, ["b4"]),
            ("a", T0 + 9, 2, ["a9+"]),
        ):
            one = commit(run_id, length=length, entries=[entry("s")], outgoing=leaving(*bodies), at=at)
            assert await commit_one(store, one) == APPLIED
        assert names(await unsent(store)) == f"b4 {' '.join(many)} a9 a9+ b9"
        assert names(await unsent(store, limit=3)) == "b4 c0 c1"
        assert names(await unsent(store, before=T0 + 4)) == "b4"
        assert names(await unsent(store, before=T0 + 3)) == ""
        assert names(await unsent(store, run_id="b")) == "b4 b9"
        assert names(await unsent(store, run_id="b", before=T0 + 8)) == "b4"
        assert names(await unsent(store, run_id="nobody")) == ""
        assert await unsent(store, limit=0) == []

    @rule
    async def test_what_was_reported_as_sent_is_gone(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("b", owner="ann")])
        for run_id in "ab":
            first = commit(run_id, entries=[entry("s")], outgoing=leaving(f"{run_id}0", f"{run_id}1"))
            again = commit(run_id, length=2, entries=[entry("t")], outgoing=leaving(f"{run_id}2"))
            assert [await commit_one(store, first), await commit_one(store, again)] == [APPLIED, APPLIED]
        items = await unsent(store)
        assert names(items) == "a0 a1 a2 b0 b1 b2"
        await store.sent([items[1], items[3]])
        assert names(await unsent(store)) == "a0 a2 b1 b2"
        # Whoever is late, or knows of one that never was, takes out nothing.
        await store.sent([items[1], {**items[0], "number": 9}, {**items[0], "run_id": "nobody"}])
        await store.sent([])
        assert names(await unsent(store)) == "a0 a2 b1 b2"
        await store.sent(items)
        assert await unsent(store) == []

    @rule
    async def test_what_was_not_committed_has_not_left(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        late = commit(owner="bob", entries=[entry("s")], outgoing=[item()])
        assert await commit_one(store, late) == FENCED
        bad = commit(entries=[entry("s")], outgoing=[item()], next=waiting(""))
        assert (await commit_one(store, bad))["kind"] == "rejected"
        assert await unsent(store) == []

    @rule
    async def test_items_need_an_entry_and_are_no_more_than_ten_thousand(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        assert (await commit_one(store, commit(outgoing=[item()])))["kind"] == "rejected"
        many = [item(body=b"%d" % n) for n in range(10_001)]
        too_many = commit(entries=[entry("s")], outgoing=many)
        assert (await commit_one(store, too_many))["kind"] == "rejected"
        assert await unsent(store) == []
        assert await commit_one(store, commit(entries=[entry("s")], outgoing=many[1:])) == APPLIED
        found = await unsent(store, limit=20_000)
        assert [int(one["body"]) for one in found] == list(range(1, 10_001))

    @rule
    async def test_they_stay_when_their_run_has_ended_and_go_when_it_is_deleted(self, store: Store) -> None:
        await store.create([new_run(name, owner="ann") for name in ("cont", "done", "ended")])
        last = entry("", kind="run_created")
        ends = (("cont", continued()), ("done", finished()), ("ended", waiting("event:go")))
        for run_id, end in ends:
            one = commit(run_id, entries=[last], outgoing=leaving(run_id), next=end)
            assert await commit_one(store, one) == APPLIED
        assert await intervene(store, terminate("ended")) == "done"
        assert names(await unsent(store)) == "cont done ended"
        assert await intervene(store, delete("done")) == "done"
        assert await intervene(store, delete("cont", force=True)) == "done"
        assert names(await unsent(store)) == "ended"
        # Nor do they come back with a new run of that id.
        await store.create([new_run("done", owner="ann")])
        assert await unsent(store, run_id="done") == []
