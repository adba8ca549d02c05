"""Creation, the schema, and the store's own life."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from duramen.errors import DuramenError, InvalidArgument, StoreClosed

from .support import (
    SEED,
    T0,
    Rules,
    beat,
    claim,
    commit,
    commit_one,
    detail,
    entry,
    finished,
    ids,
    item,
    journal,
    lane,
    length,
    live,
    message,
    new_run,
    row,
    rule,
    rule_of_place,
    send,
    unsent,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from duramen.store import Store


class CreationRules(Rules):
    """Creation, the schema, and the store's own life."""

    @rule
    async def test_a_queued_run_is_due_at_once_and_nobody_has_it(self, store: Store) -> None:
        (answer,) = await store.create([new_run("a", input=b"[1]", tags=["x", "y"], memo=b"memo")])
        assert answer["kind"] == "created"
        expected = {
            "run_id": "a",
            "workflow": "w",
            "version": "1",
            "queue": "default",
            "priority": 5,
            "status": "queued",
            "created_at": T0,
            "started_at": None,
            "updated_at": T0,
            "finished_at": None,
            "ready_at": T0,
            "owner": None,
            "epoch": 0,
            "format": 1,
            "journal_start": 0,
            "journal_len": 1,
            "generation": 0,
            "inbox_len": 0,
            "inbox_seen": 0,
            "unread": 0,
            "unread_bytes": 0,
            "timeout": None,
            "deadline": None,
            "lost": 0,
            "lost_at": 0,
            "waits": [],
            "tags": ["x", "y"],
            "seed": list(SEED),
            "note": None,
            "parent": None,
            "root": None,
            "origin": None,
        }
        assert {**answer["row"], "seed": list(answer["row"]["seed"])} == expected
        found = await detail(store)
        assert {**found["row"], "seed": list(found["row"]["seed"])} == expected
        assert (found["input"], found["memo"], found["state"], found["end"]) == (b"[1]", b"memo", None, None)
        assert list(found["refused"]) == []

    @rule
    async def test_entry_0_is_the_input(self, store: Store) -> None:
        await store.create([new_run("a", input=b"\x00\xff not text")])
        (first,) = await store.load("a", 0, 10)
        assert first == {
            "encoding": 1,
            "kind": "run_created",
            "op": "",
            "meta": None,
            "payload": b"\x00\xff not text",
            "at": T0,
        }

    @rule
    async def test_a_leased_run_is_running_from_the_beginning(self, store: Store) -> None:
        (answer,) = await store.create([new_run("a", owner="ann")])
        assert answer["kind"] == "created"
        made = answer["row"]
        assert (made["status"], made["owner"], made["epoch"]) == ("running", "ann", 1)
        assert (made["started_at"], made["ready_at"]) == (T0, None)
        assert ids(await store.claim(claim(now=T0 + 10**12))) == []

    @rule
    async def test_a_run_may_start_later(self, store: Store) -> None:
        await store.create([new_run("a", at=T0 + 500)])
        assert (await row(store))["ready_at"] == T0 + 500
        assert ids(await store.claim(claim(now=T0 + 499))) == []
        (run,) = (await store.claim(claim(now=T0 + 500)))["runs"]
        assert (run["was"], run["row"]["started_at"]) == ("queued", T0 + 500)

    @rule
    async def test_a_timeout_counts_from_the_creation_or_the_start(self, store: Store) -> None:
        await store.create([new_run("a", timeout=700), new_run("b", timeout=700, owner="ann")])
        await store.create([new_run("c", timeout=700, at=T0 + 500)])
        for run_id, deadline in (("a", T0 + 700), ("b", T0 + 700), ("c", T0 + 1_200)):
            assert (await row(store, run_id))["deadline"] == deadline
        await store.claim(claim(now=T0 + 600))
        assert (await row(store, "a"))["deadline"] == T0 + 700

    @rule
    async def test_a_run_has_its_place_and_its_family(self, store: Store) -> None:
        new = new_run("a", queue="slow", priority=0, parent="mother", root="eve", origin="schedule:nightly")
        await store.create([new, new_run("b", priority=9)])
        got = await row(store)
        assert (got["queue"], got["priority"]) == ("slow", 0)
        assert (got["parent"], got["root"], got["origin"]) == ("mother", "eve", "schedule:nightly")
        (run,) = (await store.claim(claim(lanes=[lane(queue="slow")])))["runs"]
        assert {**run["row"], "seed": list(SEED)} == {
            **got,
            "status": "running",
            "owner": "bob",
            "epoch": 1,
            "started_at": T0,
            "ready_at": None,
            "seed": list(SEED),
        }

    @rule
    async def test_a_run_may_bring_the_beginning_of_a_journal(self, store: Store) -> None:
        brought = [entry("s", b"one", at=T0 - 500), entry("t", b"two", at=T0 - 400)]
        brought[0]["meta"] = '{"attempt":2}'
        new = new_run("a", input=b"in", entries=brought, started_at=T0 - 900, timeout=700)
        (answer,) = await store.create([new])
        assert answer["kind"] == "created"
        assert answer["row"]["journal_len"] == 3
        first, *others = await store.load("a", 0, 10)
        assert (first["kind"], first["payload"], first["at"]) == ("run_created", b"in", T0)
        assert others == brought
        got = await row(store)
        # Its clock is that of the journal; its deadline is its own.
        assert (got["status"], got["started_at"], got["deadline"]) == ("queued", T0 - 900, T0 + 700)
        assert (got["journal_start"], got["format"]) == (0, 1)
        (run,) = (await store.claim(claim()))["runs"]
        assert run["journal"] == [first, *brought]
        assert run["row"]["started_at"] == T0 - 900
        more = commit(owner="bob", length=3, entries=[entry("u")])
        assert (await commit_one(store, more))["kind"] == "applied"
        assert await length(store) == 4
        await store.create([new_run("b", owner="ann", entries=brought, started_at=T0 - 1)])
        assert (await row(store, "b"))["started_at"] == T0 - 1

    @rule
    async def test_an_id_that_exists_keeps_its_first_input(self, store: Store) -> None:
        await store.create([new_run("a", input=b"first", tags=["one"], memo=b"m")])
        again = new_run("a", input=b"second", workflow="other", tags=["two"], owner="ann", now=T0 + 9)
        (answer,) = await store.create([again])
        assert answer["kind"] == "exists"
        assert (answer["row"]["workflow"], answer["row"]["status"]) == ("w", "queued")
        found = await detail(store)
        assert (found["input"], found["memo"], found["row"]["tags"]) == (b"first", b"m", ["one"])
        assert await journal(store) == [("", b"first")]

    @rule
    async def test_an_id_is_taken_even_when_its_run_has_ended(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await commit_one(store, commit(next=finished(), entries=[entry("")]))
        (answer,) = await store.create([new_run("a")])
        assert answer["kind"] == "exists"
        assert answer["row"]["status"] == "completed"

    @rule
    async def test_a_batch_is_answered_one_by_one_in_its_order(self, store: Store) -> None:
        await store.create([new_run("b", input=b"old")])
        batch = [new_run("c"), new_run("b"), new_run("a", input=b"1"), new_run("a", input=b"2")]
        answers = await store.create(batch)
        assert [answer["kind"] for answer in answers] == ["created", "exists", "created", "exists"]
        rows = [answer["row"] for answer in answers if answer["kind"] != "blocked"]
        assert [one["run_id"] for one in rows] == ["c", "b", "a", "a"]
        assert (await detail(store, "a"))["input"] == b"1"
        assert (await detail(store, "b"))["input"] == b"old"

    @rule
    async def test_ids_are_compared_character_by_character(self, store: Store) -> None:
        names = ["order", "Order", "order ", "\u00e9", "e\u0301", "%", "_", "'; --", "\U0001f600"]
        answers = await store.create([new_run(name) for name in names])
        assert {answer["kind"] for answer in answers} == {"created"}
        for name in names:
            assert (await row(store, name))["run_id"] == name

    @rule
    async def test_names_that_no_store_can_keep_are_refused_before_anything_is_written(
        self, store: Store
    ) -> None:
        bad = [
            new_run(""),
            new_run("a\0b"),
            new_run("a\nb"),
            new_run("x" * 256),
            new_run("a", workflow=""),
            new_run("a", version="\x1f"),
            new_run("a", tags=["x\x1fy"]),
            new_run("a", tags=[""]),
            new_run("a", queue=""),
            new_run("a", queue="slow\x1fw"),
            new_run("a", parent="a\tb"),
            new_run("a", root=""),
            new_run("a", origin="a\nb"),
            new_run("a", priority=10),
        ]
        for new in bad:
            assert await raises(InvalidArgument, store.create([new_run("fine"), new])), new
        assert list(await store.get(["fine", "a"])) == [None, None]

    @rule
    async def test_migrating_again_changes_nothing(self, store: Store) -> None:
        before = await store.schema()
        assert before["found"] == before["needed"]
        again = await store.migrate()
        assert (again["found"], again["needed"]) == (before["found"], before["needed"])
        assert list(again["applied"]) == []

    @rule
    async def test_empty_batches_are_answered_with_nothing(self, store: Store) -> None:
        assert list(await store.create([])) == []
        assert list(await store.commit([])) == []
        assert list(await store.deliver([])) == []
        assert list(await store.intervene([])) == []
        assert list(await store.get([])) == []
        assert list(await store.standing([])) == []
        assert list(await store.receipts([])) == []
        await store.sent([])

    @rule_of_place
    async def test_a_closed_store_says_so(self, place: Path) -> None:
        store = await self.open_store(place)
        await store.migrate()
        await live(store, "ann")
        await store.create([new_run("a", owner="ann")])
        await store.close()
        assert await raises(StoreClosed, store.create([new_run("b")]))
        assert await raises(StoreClosed, store.claim(claim()))
        assert await raises(StoreClosed, store.commit([commit()]))
        assert await raises(StoreClosed, store.get(["a"]))
        assert await raises(StoreClosed, store.schema())
        assert await raises(StoreClosed, beat(store, "ann"))
        assert await raises(StoreClosed, store.owners())

    @rule_of_place
    async def test_everything_is_still_there_after_a_restart(self, place: Path) -> None:
        if not self.durable:
            return
        store = await self.open_store(place)
        await store.migrate()
        await live(store, "ann", "bob")
        await store.create([new_run("a", owner="ann", tags=["x"], memo=b"memo", timeout=500), new_run("b")])
        await send(store, message(fingerprint="f"))
        await commit_one(store, commit(entries=[entry("s", b"r")], state=b"state", outgoing=[item()]))
        await store.retire("bob", T0 + 5)
        before, owners, items = await store.get(["a", "b"]), await store.owners(), await unsent(store)
        await store.close()
        store = await self.open_store(place)
        schema = await store.migrate()
        assert list(schema["applied"]) == []
        assert await store.get(["a", "b"]) == before
        assert await store.owners() == owners
        assert (await unsent(store), len(items)) == (items, 1)
        assert not (await beat(store, "bob"))["alive"]
        assert await journal(store) == [("", b"{}"), ("s", b"r")]
        assert await send(store, message()) == ("duplicate", "f", "ann")
        assert (await commit_one(store, commit(length=2)))["kind"] == "applied"
        await store.close()


async def raises(kind: type[DuramenError], call: Awaitable[object]) -> bool:
    """Whether a call raises an error of the expected kind, with a text."""
    try:
        await call
    except kind as error:
        return str(error) != ""
    return False
