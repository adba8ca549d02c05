"""Creation, the schema, and the store's own life."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from duramen.errors import DuramenError, InvalidArgument, StoreClosed

from .support import (
    LEASE,
    SEED,
    T0,
    Rules,
    claim,
    commit,
    commit_one,
    detail,
    entry,
    finished,
    ids,
    journal,
    message,
    new_run,
    row,
    rule,
    rule_of_place,
    send,
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
        assert answer["created"]
        expected = {
            "run_id": "a",
            "workflow": "w",
            "version": "1",
            "status": "queued",
            "created_at": T0,
            "started_at": None,
            "updated_at": T0,
            "finished_at": None,
            "ready_at": T0,
            "owner": None,
            "epoch": 0,
            "journal_len": 1,
            "inbox_len": 0,
            "inbox_seen": 0,
            "deadline": None,
            "waits": [],
            "tags": ["x", "y"],
            "seed": list(SEED),
            "note": None,
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
        made = answer["row"]
        assert (made["status"], made["owner"], made["epoch"]) == ("running", "ann", 1)
        assert (made["started_at"], made["ready_at"]) == (T0, T0 + LEASE)
        assert ids(await store.claim(claim(now=T0 + LEASE - 1))) == []

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
    async def test_an_id_that_exists_keeps_its_first_input(self, store: Store) -> None:
        await store.create([new_run("a", input=b"first", tags=["one"], memo=b"m")])
        again = new_run("a", input=b"second", workflow="other", tags=["two"], owner="ann", now=T0 + 9)
        (answer,) = await store.create([again])
        assert not answer["created"]
        assert (answer["row"]["workflow"], answer["row"]["status"]) == ("w", "queued")
        found = await detail(store)
        assert (found["input"], found["memo"], found["row"]["tags"]) == (b"first", b"m", ["one"])
        assert await journal(store) == [("", b"first")]

    @rule
    async def test_an_id_is_taken_even_when_its_run_has_ended(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await commit_one(store, commit(next=finished(), entries=[entry("")]))
        (answer,) = await store.create([new_run("a")])
        assert (answer["created"], answer["row"]["status"]) == (False, "completed")

    @rule
    async def test_a_batch_is_answered_one_by_one_in_its_order(self, store: Store) -> None:
        await store.create([new_run("b", input=b"old")])
        batch = [new_run("c"), new_run("b"), new_run("a", input=b"1"), new_run("a", input=b"2")]
        answers = await store.create(batch)
        assert [answer["created"] for answer in answers] == [True, False, True, False]
        assert [answer["row"]["run_id"] for answer in answers] == ["c", "b", "a", "a"]
        assert (await detail(store, "a"))["input"] == b"1"
        assert (await detail(store, "b"))["input"] == b"old"

    @rule
    async def test_ids_are_compared_character_by_character(self, store: Store) -> None:
        names = ["order", "Order", "order ", "\u00e9", "e\u0301", "%", "_", "'; --", "\U0001f600"]
        answers = await store.create([new_run(name) for name in names])
        assert all(answer["created"] for answer in answers)
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

    @rule_of_place
    async def test_a_closed_store_says_so(self, place: Path) -> None:
        store = await self.open_store(place)
        await store.migrate()
        await store.create([new_run("a", owner="ann")])
        await store.close()
        assert await raises(StoreClosed, store.create([new_run("b")]))
        assert await raises(StoreClosed, store.claim(claim()))
        assert await raises(StoreClosed, store.commit([commit()]))
        assert await raises(StoreClosed, store.get(["a"]))
        assert await raises(StoreClosed, store.schema())

    @rule_of_place
    async def test_everything_is_still_there_after_a_restart(self, place: Path) -> None:
        if not self.durable:
            return
        store = await self.open_store(place)
        await store.migrate()
        await store.create([new_run("a", owner="ann", tags=["x"], memo=b"memo", timeout=500), new_run("b")])
        await send(store, message(fingerprint="f"))
        await commit_one(store, commit(entries=[entry("s", b"r")], state=b"state"))
        before = await store.get(["a", "b"])
        await store.close()
        store = await self.open_store(place)
        schema = await store.migrate()
        assert list(schema["applied"]) == []
        assert await store.get(["a", "b"]) == before
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
