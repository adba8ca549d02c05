"""Commits: whole or not at all, in order, and never by a driver that has lost its run."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from .support import (
    APPLIED,
    FENCED,
    LEASE,
    OTHER_SEED,
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
    length,
    live,
    message,
    new_run,
    pause,
    row,
    rule,
    send,
    waiting,
)

if TYPE_CHECKING:
    from duramen.store import Entry, RunCommit, Status, Store


class CommitRules(Rules):
    """Commits: whole or not at all, in order, and never by a driver that has lost its run."""

    @rule
    async def test_entries_are_appended_in_order_and_read_back_as_they_went(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann", input=b"in")])
        first: Entry = {
            "encoding": 1,
            "kind": "step_attempt_failed",
            "op": "ch\u00e4rge#2",
            "meta": '{"attempt":2}',
            "payload": b"\x00\xff",
            "at": T0 + 7,
        }
        assert await commit_one(store, commit(entries=[first, entry("b", b"")])) == APPLIED
        assert await commit_one(store, commit(length=3, entries=[entry("c", b"3")], at=T0 + 8)) == APPLIED
        assert await journal(store) == [("", b"in"), ("ch\u00e4rge#2", b"\x00\xff"), ("b", b""), ("c", b"3")]
        assert list(await store.load("a", 1, 1)) == [first]
        after = await row(store)
        assert (after["status"], after["owner"], after["epoch"]) == ("running", "ann", 1)
        assert (after["ready_at"], await length(store)) == (None, 4)

    @rule
    async def test_a_timeline_is_read_in_pieces(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await commit_one(store, commit(entries=[entry(f"s{n}") for n in range(1, 10)]))
        pieces = [[one["op"] for one in await store.load("a", start, 4)] for start in (0, 4, 8, 12)]
        assert pieces == [["", "s1", "s2", "s3"], ["s4", "s5", "s6", "s7"], ["s8", "s9"], []]
        assert list(await store.load("a", 0, 0)) == []
        assert list(await store.load("nobody", 0, 10)) == []

    @rule
    async def test_all_kinds_of_entries_are_kept(self, store: Store) -> None:
        names = (
            "step_completed step_failed step_attempt_failed wait_opened event_received timer_fired "
            "approval_requested approval_resolved value_recorded child_started child_finished patch_marked "
            "cancel_requested run_finished run_failed run_cancelled run_terminated run_reopened step_progress"
        )
        kinds = names.split()
        await store.create([new_run("a", owner="ann")])
        await commit_one(store, commit(entries=[entry(kind=kind) for kind in kinds]))
        assert [one["kind"] for one in await store.load("a", 1, 100)] == kinds

    @rule
    async def test_late_writers_are_fenced_by_life_owner_epoch_length_and_status(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await commit_one(store, commit(entries=[entry("s1")]))
        before, timeline = await detail(store), await journal(store)
        writes = [entry("late")]
        late: list[RunCommit] = [
            commit(owner="bob", length=2, entries=writes, state=b"late"),
            commit(epoch=0, length=2, entries=writes, state=b"late"),
            commit(epoch=2, length=2, entries=writes, next=finished()),
            commit(length=1, entries=writes, next=waiting("timer", ready_at=T0)),
            commit(length=3, entries=writes),
            commit("nobody", length=1, entries=writes),
            commit(length=2, entries=writes, seed=OTHER_SEED),
        ]
        for one in late:
            assert await commit_one(store, one) == FENCED, one
        assert await detail(store) == before
        assert await journal(store) == timeline
        assert list(await store.get(["nobody"])) == [None]

    @rule
    async def test_a_commit_that_was_made_is_not_made_again(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        once = commit(entries=[entry("s1")])
        assert await commit_one(store, once) == APPLIED
        assert await commit_one(store, once) == FENCED
        assert len(await journal(store)) == 2

    @rule
    async def test_a_run_that_was_claimed_by_another_is_lost_to_its_former_driver(self, store: Store) -> None:
        await live(store, "cyd", lease=LEASE)
        await store.create([new_run("a", owner="cyd")])
        await store.claim(claim("bob", now=T0 + LEASE))
        assert await commit_one(store, commit(owner="cyd", entries=[entry("late")])) == FENCED
        assert await commit_one(store, commit(owner="bob", epoch=1)) == FENCED
        assert await commit_one(store, commit(owner="bob", epoch=2, entries=[entry("s1")])) == APPLIED

    @rule
    async def test_a_run_that_nobody_took_is_still_its_drivers(self, store: Store) -> None:
        await live(store, "cyd", lease=LEASE)
        await store.create([new_run("a", owner="cyd")])
        late = commit(owner="cyd", entries=[entry("s1")], at=T0 + 10 * LEASE)
        assert await commit_one(store, late) == APPLIED
        await store.retire("cyd", T0 + 10 * LEASE)
        assert await commit_one(store, {**late, "expected_len": 2}) == APPLIED

    @rule
    async def test_nothing_is_committed_to_a_run_that_is_not_running(self, store: Store) -> None:
        await store.create([new_run("queued")])
        await pause(store, "waiting", "event:go")
        for status in ("completed", "failed", "cancelled"):
            await store.create([new_run(status, owner="ann")])
            end = commit(status, entries=[entry("")], next=finished(status))
            assert await commit_one(store, end) == APPLIED
        await store.create([new_run("stuck", owner="ann")])
        await commit_one(store, commit("stuck", next={"kind": "stuck", "note": "the code has changed"}))
        for name, epoch, reached in (
            ("queued", 0, 1),
            ("waiting", 1, 1),
            ("completed", 1, 2),
            ("failed", 1, 2),
            ("cancelled", 1, 2),
            ("stuck", 1, 1),
        ):
            late = commit(name, epoch=epoch, length=reached, entries=[entry("late")])
            assert await commit_one(store, late) == FENCED, name
            assert ("late", b"1") not in await journal(store, name)

    @rule
    async def test_a_commit_that_only_appends_counts_at_once_for_the_fence(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        one = commit(entries=[entry("s"), entry("t")], state=b"state", at=T0 + 5)
        assert await commit_one(store, one) == APPLIED
        found = await detail(store)
        # The row of a running run may lag behind its journal; nothing else may.
        assert found["row"]["journal_len"] in {1, 3}
        assert found["row"]["updated_at"] in {T0, T0 + 5}
        assert (found["state"], await length(store), len(await journal(store))) == (b"state", 3, 3)
        assert await commit_one(store, commit(length=1, entries=[entry("late")])) == FENCED
        assert await commit_one(store, commit(length=2, entries=[entry("late")])) == FENCED
        assert await commit_one(store, commit(length=3, entries=[entry("u")], at=T0 + 6)) == APPLIED
        # Whatever more a commit does, it brings the row up to date.
        assert await commit_one(store, commit(length=4, seen=0, at=T0 + 7)) == APPLIED
        got = await row(store)
        assert (got["status"], got["journal_len"], got["updated_at"]) == ("running", 4, T0 + 7)
        rest = commit(length=4, entries=[entry("v")], next=waiting("timer"), at=T0 + 8)
        assert await commit_one(store, rest) == APPLIED
        got = await row(store)
        assert (got["journal_len"], got["updated_at"]) == (5, T0 + 8)

    @rule
    async def test_a_commit_of_a_former_life_is_fenced(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        late = [
            commit(entries=[entry("late")]),
            commit(entries=[entry("late")], next=finished()),
            commit(next=waiting("timer", ready_at=T0)),
        ]
        assert list(await store.intervene([{"kind": "delete", "run_id": "a", "force": True}])) == ["done"]
        # The same id, owner, epoch and length; only the seed is another.
        (answer,) = await store.create([new_run("a", owner="ann", seed=OTHER_SEED)])
        assert answer["kind"] == "created"
        before = await detail(store)
        for one in late:
            assert await commit_one(store, one) == FENCED
        assert await detail(store) == before
        assert await length(store) == 1
        assert await commit_one(store, commit(entries=[entry("s")], seed=OTHER_SEED)) == APPLIED

    @rule
    async def test_a_pause_gives_the_lease_up(self, store: Store) -> None:
        await pause(store, "a", "timer", "event:go", ready_at=T0 + 100)
        after = await row(store)
        assert (after["status"], after["owner"], after["ready_at"]) == ("waiting", None, T0 + 100)
        assert (after["waits"], after["epoch"], after["finished_at"]) == (["timer", "event:go"], 1, None)

    @rule
    async def test_an_end_is_final(self, store: Store) -> None:
        ends: tuple[Status, ...] = ("completed", "failed", "cancelled")
        for status in ends:
            await store.create([new_run(status, owner="ann")])
            last = entry("", b"result", kind="run_finished")
            outcome = await commit_one(
                store, commit(status, entries=[entry("s"), last], next=finished(status), at=T0 + 5)
            )
            assert outcome == APPLIED
            found = await detail(store, status)
            got = found["row"]
            assert (got["status"], got["owner"], got["ready_at"]) == (status, None, None)
            assert (got["finished_at"], got["updated_at"], got["journal_len"]) == (T0 + 5, T0 + 5, 3)
            assert found["end"] == last
        assert ids(await store.claim(claim(now=T0 + 10**12))) == []

    @rule
    async def test_a_stuck_run_is_parked_with_its_reason(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        outcome = await commit_one(store, commit(next={"kind": "stuck", "note": "step 3 is gone"}))
        assert outcome == APPLIED
        found = await detail(store)
        got = found["row"]
        assert (got["status"], got["note"], got["owner"], got["ready_at"]) == (
            "stuck",
            "step 3 is gone",
            None,
            None,
        )
        assert (got["finished_at"], found["end"]) == (None, None)
        assert ids(await store.claim(claim(now=T0 + 10**12))) == []

    @rule
    async def test_the_state_is_kept_until_it_changes(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann", memo=b"memo")])
        await commit_one(store, commit(state=b"one"))
        await commit_one(store, commit(entries=[entry("s")]))
        assert (await detail(store))["state"] == b"one"
        await commit_one(store, commit(length=2, state=b"", next=finished()))
        found = await detail(store)
        assert (found["state"], found["memo"]) == (b"", b"memo")

    @rule
    async def test_a_conflict_fails_alone_in_its_batch(self, store: Store) -> None:
        await store.create([new_run(name, owner="ann") for name in "abcd"])
        await send(store, message("d"))
        outcomes = await store.commit(
            [
                commit("a", entries=[entry("s")]),
                commit("b", owner="bob", entries=[entry("s")]),
                commit("nobody"),
                commit("c", entries=[entry("s")], next=waiting("event:a\x1fb")),
                commit("d", entries=[entry("s")], next=waiting("event:go")),
                commit("a", length=2, entries=[entry("t")]),
            ]
        )
        kinds = [outcome["kind"] for outcome in outcomes]
        assert kinds == ["applied", "fenced", "fenced", "rejected", "applied", "applied"]
        assert outcomes[4] == {"kind": "applied", "due": True}
        lengths = [await length(store, name) for name in "abcd"]
        assert lengths == [3, 1, 1, 2]

    @rule
    async def test_what_can_never_be_kept_is_rejected_with_a_reason(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        for bad in (waiting(""), waiting("event:a\nb"), finished("running"), finished("stuck")):
            (outcome,) = await store.commit([commit(entries=[entry("s")], next=bad)])
            assert outcome["kind"] == "rejected"
            assert outcome["reason"]
        assert await commit_one(store, commit(entries=[entry("s")])) == APPLIED

    @rule
    async def test_what_was_seen_neither_goes_back_nor_beyond_what_arrived(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await store.deliver([message(message_id=f"m{n}") for n in range(3)])
        for seen, kept in ((2, 2), (1, 2), (99, 3)):
            await commit_one(store, commit(seen=seen))
            after = await row(store)
            assert (after["inbox_seen"], after["inbox_len"]) == (kept, 3)
