"""Pauses: at once of a run at rest, by its driver of one that is driven, until a message frees it."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from .interventions import delete, intervene, reopen, terminate
from .support import (
    APPLIED,
    FENCED,
    T0,
    Rules,
    claim,
    commit,
    commit_one,
    entry,
    ids,
    lane,
    live,
    message,
    new_run,
    pause,
    read,
    row,
    rule,
    send,
    seqs,
    standing,
)

if TYPE_CHECKING:
    from duramen.store import Filter, NewMessage, Next, Store


def held(run_id: str = "a", now: int = T0 + 2) -> NewMessage:
    """Ask for a pause."""
    return message(run_id, f"pause{now}", "ann: why", kind="pause", payload=b"{}", now=now)


def freed(run_id: str = "a", now: int = T0 + 3) -> NewMessage:
    """End a pause."""
    return message(run_id, f"resume{now}", "", kind="resume", payload=b"", now=now)


def paused(*waits: str, ready_at: int | None = None) -> Next:
    """The end of a commit that pauses its run for people."""
    return {"kind": "paused", "ready_at": ready_at, "waits": list(waits), "note": "held"}


class PauseRules(Rules):
    """Pauses of runs."""

    @rule
    async def test_a_run_at_rest_is_paused_at_once_and_never_claimed(self, store: Store) -> None:
        await store.create([new_run("queued", at=T0 + 50)])
        await pause(store, "waiting", "event:go", "timer", ready_at=T0 + 90)
        for run_id, ready_at in (("queued", T0 + 50), ("waiting", T0 + 90)):
            before = await row(store, run_id)
            assert await send(store, held(run_id)) == ("buffered", None, None)
            got = await row(store, run_id)
            assert (got["status"], got["note"], got["updated_at"]) == ("paused", "ann: why", T0 + 2)
            assert (got["ready_at"], got["epoch"], got["unread"]) == (ready_at, before["epoch"], 1)
            assert list(got["waits"]) == list(before["waits"])
        assert ids(await store.claim(claim(now=T0 + 10**9))) == []
        due = await store.next_due({"lanes": [lane()], "now": T0 + 10**9})
        assert due["ready_at"] is None

    @rule
    async def test_what_comes_meanwhile_is_kept_and_does_not_end_the_pause(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        await send(store, held())
        assert (await send(store, message("a", "m", now=T0 + 5)))[0] == "buffered"
        got = await row(store)
        assert (got["status"], got["ready_at"], got["unread"]) == ("paused", None, 2)
        assert await send(store, freed(now=T0 + 9)) == ("delivered", None, None)
        (run,) = (await store.claim(claim(now=T0 + 9)))["runs"]
        assert seqs(run["inbox"]) == [1, 2, 3]
        assert [one["kind"] for one in run["inbox"]] == ["pause", "event", "resume"]

    @rule
    async def test_a_pause_of_a_paused_run_changes_nothing(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        await send(store, held())
        before = await row(store)
        assert await send(store, held(now=T0 + 7)) == ("duplicate", None, None)
        assert await row(store) == before

    @rule
    async def test_a_resumed_run_is_due_at_once(self, store: Store) -> None:
        await pause(store, "a", "timer", ready_at=T0 + 900)
        await send(store, held())
        assert await send(store, freed(now=T0 + 4)) == ("delivered", None, None)
        got = await row(store)
        assert (got["status"], got["note"], got["ready_at"]) == ("waiting", None, T0 + 4)
        assert got["updated_at"] == T0 + 4
        assert ids(await store.claim(claim(now=T0 + 4))) == ["a"]

    @rule
    async def test_a_run_that_nobody_began_keeps_its_start_time(self, store: Store) -> None:
        await store.create([new_run("a", at=T0 + 500)])
        await send(store, held())
        assert (await send(store, freed(now=T0 + 4)))[0] == "delivered"
        got = await row(store)
        assert (got["status"], got["note"], got["ready_at"]) == ("queued", None, T0 + 500)
        # One that was not paused keeps it as well.
        assert (await send(store, freed(now=T0 + 5)))[0] == "buffered"
        assert (await row(store))["ready_at"] == T0 + 500

    @rule
    async def test_a_cancellation_frees_a_paused_run(self, store: Store) -> None:
        await store.create([new_run("queued", at=T0 + 500)])
        await pause(store, "waiting", "event:go")
        for run_id, status in (("queued", "queued"), ("waiting", "waiting")):
            await send(store, held(run_id))
            cancel = message(run_id, "c", "cancel", kind="cancel", now=T0 + 6)
            assert await send(store, cancel) == ("delivered", None, None)
            got = await row(store, run_id)
            assert (got["status"], got["note"], got["ready_at"]) == (status, None, T0 + 6)

    @rule
    async def test_a_driven_run_is_paused_by_its_driver(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        assert await send(store, held()) == ("delivered", None, "ann")
        assert (await row(store))["status"] == "running"
        one = commit(entries=[entry("s")], seen=1, next=paused("retry:t", ready_at=T0 + 70), at=T0 + 8)
        assert await commit_one(store, one) == APPLIED
        got = await row(store)
        assert (got["status"], got["note"], got["owner"]) == ("paused", "held", None)
        assert (list(got["waits"]), got["ready_at"]) == (["retry:t"], T0 + 70)
        assert (got["unread"], got["inbox_seen"], got["updated_at"]) == (1, 1, T0 + 8)
        assert await commit_one(store, commit(length=2, entries=[entry("late")])) == FENCED
        assert ids(await store.claim(claim(now=T0 + 10**9))) == []
        assert (await standing(store))["status"] == "paused"

    @rule
    async def test_a_pause_is_not_slept_over_by_what_its_driver_has_not_seen(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await send(store, held())
        assert await send(store, freed()) == ("delivered", None, "ann")
        outcome = await commit_one(store, commit(seen=1, next=paused("event:go"), at=T0 + 8))
        assert outcome == {"kind": "applied", "due": True}
        got = await row(store)
        assert (got["status"], got["note"], got["ready_at"]) == ("waiting", None, T0 + 8)
        (run,) = (await store.claim(claim(now=T0 + 8)))["runs"]
        one = commit(owner="bob", epoch=2, read=[read(1), read(2)], seen=2, next=paused("event:go"))
        assert (run["row"]["epoch"], await commit_one(store, one)) == (2, APPLIED)
        assert (await row(store))["status"] == "paused"

    @rule
    async def test_messages_of_one_batch_have_their_effects_in_their_order(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        await pause(store, "b", "event:go")
        batch = [
            held("a"),
            message("b", "m1", now=T0 + 4),
            message("a", "m1", now=T0 + 4),
            freed("a", now=T0 + 5),
            held("a", now=T0 + 6),
            held("b", now=T0 + 6),
            held("b", now=T0 + 7),
            message("b", "c", "cancel", kind="cancel", now=T0 + 8),
        ]
        answers = [each["result"] for each in await store.deliver(batch)]
        expected = ["buffered", "delivered", "buffered", "delivered", "buffered"]
        assert answers == [*expected, "buffered", "duplicate", "delivered"]
        assert [(await row(store, run_id))["status"] for run_id in ("a", "b")] == ["paused", "waiting"]

    @rule
    async def test_an_inbox_is_never_too_full_for_it(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        large = 64 << 20
        assert (await send(store, message("a", "m", "other", payload=bytes(large))))[0] == "buffered"
        assert (await send(store, message("a", "n", "other")))[0] == "full"
        assert (await send(store, held()))[0] == "buffered"
        assert (await send(store, freed()))[0] == "delivered"

    @rule
    async def test_a_paused_run_is_changed_from_outside_like_one_that_has_not_ended(
        self, store: Store
    ) -> None:
        for run_id in ("ends", "opens", "goes"):
            await pause(store, run_id, "event:go")
            await send(store, held(run_id))
        assert await intervene(store, terminate("ends")) == "done"
        assert (await row(store, "ends"))["note"] is None
        assert await intervene(store, reopen("opens", 1)) == "done"
        got = await row(store, "opens")
        assert (got["status"], got["note"], got["ready_at"]) == ("queued", None, T0 + 77)
        assert await intervene(store, delete("goes")) == "not_allowed"
        assert await intervene(store, delete("goes", force=True)) == "done"

    @rule
    async def test_paused_runs_are_found_by_their_status_and_their_waits(self, store: Store) -> None:
        await live(store, "ann")
        for n in range(3):
            await pause(store, f"p{n}", "event:go")
            await send(store, held(f"p{n}"))
        await pause(store, "w", "event:go")
        asked: Filter = {"status": ["paused"], "waiting_for": "event:go"}
        page = await store.list(asked, 10, None)
        assert sorted(each["run_id"] for each in page["rows"]) == ["p0", "p1", "p2"]
        assert await store.count({"waiting_for": "event:go"}) == 4
        assert await store.count({"status": ["paused", "waiting"]}) == 4
