"""Changes from outside the driver, each of which fences it off."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from duramen.errors import InvalidArgument

from .creation import raises
from .support import (
    APPLIED,
    FENCED,
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
    lane,
    length,
    live,
    message,
    new_run,
    pause,
    row,
    rule,
    send,
    seqs,
    waiting,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duramen.store import Delete, Intervention, Next, Outgoing, Reopen, Status, Store, Terminate


def terminate(run_id: str = "a", at: int = T0 + 5, outgoing: Sequence[Outgoing] = ()) -> Terminate:
    """End a run from outside."""
    return {
        "kind": "terminate",
        "run_id": run_id,
        "entry": entry("", b'"why"', kind="run_terminated", at=at),
        "outgoing": list(outgoing),
    }


def reopen(
    run_id: str = "a",
    length: int = 2,
    now: int = T0 + 77,
    outgoing: Sequence[Outgoing] = (),
    *,
    version: str | None = None,
) -> Reopen:
    """Give a run another try."""
    return {
        "kind": "reopen",
        "run_id": run_id,
        "expected_len": length,
        "entries": [entry("", kind="run_reopened")],
        "outgoing": list(outgoing),
        "version": version,
        "now": now,
    }


def delete(run_id: str = "a", *, force: bool = False) -> Delete:
    """Remove a run."""
    return {"kind": "delete", "run_id": run_id, "force": force}


async def intervene(store: Store, one: Intervention) -> str:
    """Send a single intervention."""
    (answer,) = await store.intervene([one])
    return answer


class InterventionRules(Rules):
    """Changes from outside the driver, each of which fences it off."""

    async def _ended(self, store: Store, run_id: str, status: Status) -> None:
        await store.create([new_run(run_id, owner="ann")])
        outcome = await commit_one(store, commit(run_id, entries=[entry("")], next=finished(status)))
        assert outcome == APPLIED

    @rule
    async def test_a_live_or_stuck_run_can_be_terminated(self, store: Store) -> None:
        await store.create(
            [new_run("queued"), new_run("running", owner="ann"), new_run("stuck", owner="ann")]
        )
        await pause(store, "waiting", "event:go", ready_at=T0)
        await commit_one(store, commit("stuck", next={"kind": "stuck", "note": "why"}))
        for run_id, epoch in (("queued", 1), ("running", 2), ("stuck", 2), ("waiting", 2)):
            assert await intervene(store, terminate(run_id)) == "done"
            found = await detail(store, run_id)
            got = found["row"]
            assert (got["status"], got["epoch"], got["owner"]) == ("terminated", epoch, None)
            assert (got["ready_at"], got["finished_at"], got["journal_len"]) == (None, T0 + 5, 2)
            assert (list(got["waits"]), got["note"]) == ([], None)
            assert found["end"] is not None
            assert (found["end"]["kind"], found["end"]["payload"]) == ("run_terminated", b'"why"')
        assert ids(await store.claim(claim(now=T0 + 10**12))) == []

    @rule
    async def test_a_terminated_runs_driver_is_fenced_off(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await intervene(store, terminate())
        assert await commit_one(store, commit(entries=[entry("late")])) == FENCED
        assert await commit_one(store, commit(length=2, entries=[entry("late")])) == FENCED
        assert list(await store.held("ann", None, 10)) == []

    @rule
    async def test_an_entry_goes_behind_what_a_running_run_has_appended(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        for at in (1, 2):
            assert await commit_one(store, commit(length=at, entries=[entry(f"s{at}")])) == APPLIED
        assert await intervene(store, terminate()) == "done"
        assert [op for op, _ in await journal(store)] == ["", "s1", "s2", ""]
        found = await detail(store)
        assert found["end"] is not None
        assert (found["row"]["journal_len"], found["end"]["kind"]) == (4, "run_terminated")
        assert await length(store) == 4

    @rule
    async def test_a_reopened_run_is_not_suspect_any_more(self, store: Store) -> None:
        await live(store, "cyd", lease=10)
        await store.create([new_run("a", owner="cyd")])
        await store.claim(claim(now=T0 + 10))
        parked = commit(owner="bob", epoch=2, next={"kind": "stuck", "note": "drivers were lost"})
        assert await commit_one(store, parked) == APPLIED
        got = await row(store)
        assert (got["lost"], got["lost_at"]) == (1, 1)
        assert await intervene(store, reopen("a", 1)) == "done"
        got = await row(store)
        assert (got["lost"], got["lost_at"], got["status"]) == (0, 0, "queued")

    @rule
    async def test_a_run_ends_once(self, store: Store) -> None:
        for status in ("completed", "failed", "cancelled"):
            await self._ended(store, status, status)
            assert await intervene(store, terminate(status)) == "not_allowed"
            assert (await row(store, status))["journal_len"] == 2
        await store.create([new_run("a")])
        assert await intervene(store, terminate()) == "done"
        assert await intervene(store, terminate()) == "not_allowed"

    @rule
    async def test_a_run_that_failed_can_be_reopened(self, store: Store) -> None:
        for status in ("failed", "cancelled"):
            await self._ended(store, status, status)
        await store.create([new_run("terminated", owner="ann"), new_run("stuck", owner="ann")])
        await intervene(store, terminate("terminated"))
        note: Next = {"kind": "stuck", "note": "why"}
        await commit_one(store, commit("stuck", entries=[entry("s")], next=note))
        for run_id in ("failed", "cancelled", "terminated", "stuck"):
            epoch = (await row(store, run_id))["epoch"]
            assert await intervene(store, reopen(run_id)) == "done"
            found = await detail(store, run_id)
            got = found["row"]
            assert (got["status"], got["ready_at"], got["epoch"]) == ("queued", T0 + 77, epoch + 1)
            assert (got["finished_at"], got["note"], got["journal_len"]) == (None, None, 3)
            assert (found["end"], got["started_at"]) == (None, T0)
        claimed = await store.claim(claim(now=T0 + 77, due="queued"))
        assert len(claimed["runs"]) == 4

    @rule
    async def test_only_runs_that_failed_can_be_reopened(self, store: Store) -> None:
        await self._ended(store, "completed", "completed")
        await store.create([new_run("queued"), new_run("running", owner="ann")])
        await pause(store, "waiting", "event:go")
        assert await intervene(store, reopen("completed", 2)) == "not_allowed"
        for run_id in ("queued", "running", "waiting"):
            assert await intervene(store, reopen(run_id, 1)) == "not_allowed"
            assert (await row(store, run_id))["journal_len"] == 1

    @rule
    async def test_a_run_is_reopened_for_the_code_of_another_version(self, store: Store) -> None:
        await self._ended(store, "failed", "failed")
        await store.create([new_run("stuck", owner="ann")])
        await commit_one(store, commit("stuck", entries=[entry("s")], next={"kind": "stuck", "note": "why"}))
        for run_id in ("failed", "stuck"):
            assert await intervene(store, reopen(run_id, version="2")) == "done"
            got = await row(store, run_id)
            assert (got["version"], got["status"], got["ready_at"]) == ("2", "queued", T0 + 77)
        assert ids(await store.claim(claim(now=T0 + 77))) == []
        claimed = await store.claim(claim(now=T0 + 77, lanes=[lane(version="2")]))
        assert sorted(ids(claimed)) == ["failed", "stuck"]
        assert {one["row"]["version"] for one in claimed["runs"]} == {"2"}
        assert await store.count({"version": "2"}) == 2

    @rule
    async def test_a_run_that_has_not_ended_may_change_its_version(self, store: Store) -> None:
        await store.create([new_run("queued", at=T0 + 500), new_run("running", owner="ann")])
        await pause(store, "waiting", "event:go")
        await send(store, message("waiting"))
        assert await intervene(store, reopen("running", 1, version="2")) == "not_allowed"
        for run_id, ready_at in (("queued", T0 + 500), ("waiting", T0 + 77)):
            epoch = (await row(store, run_id))["epoch"]
            assert await intervene(store, reopen(run_id, 1, version="2")) == "done"
            got = await row(store, run_id)
            assert (got["version"], got["status"], got["epoch"]) == ("2", "queued", epoch + 1)
            # A queued one keeps its place in the line.
            assert (got["ready_at"], list(got["waits"])) == (ready_at, [])
        claimed = await store.claim(claim(now=T0 + 500, lanes=[lane(version="2")]))
        assert [(one["row"]["run_id"], seqs(one["inbox"])) for one in claimed["runs"]] == [
            ("waiting", [1]),
            ("queued", []),
        ]

    @rule
    async def test_no_run_gets_a_version_that_cannot_be_kept(self, store: Store) -> None:
        await self._ended(store, "a", "failed")
        for version in ("", "a\x1fb", "v" * 256):
            assert await raises(InvalidArgument, store.intervene([reopen(version=version)])), version
        assert (await row(store))["status"] == "failed"

    @rule
    async def test_a_run_is_reopened_at_the_length_that_was_looked_at(self, store: Store) -> None:
        await self._ended(store, "a", "failed")
        assert await intervene(store, reopen("a", 1)) == "not_allowed"
        assert await intervene(store, reopen("a", 2)) == "done"
        assert await intervene(store, reopen("a", 2)) == "not_allowed"
        assert len(await journal(store)) == 3

    @rule
    async def test_a_reopened_run_still_has_its_unread_messages(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        await send(store, message())
        await commit_one(store, commit(entries=[entry("")], next=finished("failed")))
        await intervene(store, reopen())
        (run,) = (await store.claim(claim(now=T0 + 77)))["runs"]
        assert seqs(run["inbox"]) == [1]

    @rule
    async def test_a_deleted_run_is_gone_with_all_that_belonged_to_it(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann", memo=b"memo"), new_run("b")])
        await send(store, message())
        await commit_one(store, commit(entries=[entry("")], next=finished(), state=b"state"))
        assert await intervene(store, delete()) == "done"
        assert list(await store.get(["a"])) == [None]
        assert await journal(store) == []
        assert await send(store, message()) == ("not_found", None, None)
        # Its id is free again, and nothing of the old run comes back with it.
        (answer,) = await store.create([new_run("a", owner="ann")])
        assert answer["kind"] == "created"
        found = await detail(store)
        assert (found["memo"], found["state"], found["row"]["inbox_len"]) == (None, None, 0)
        assert await journal(store) == [("", b"{}")]
        assert (await send(store, message()))[0] == "buffered"

    @rule
    async def test_a_live_run_is_deleted_only_by_force(self, store: Store) -> None:
        await store.create(
            [new_run("queued"), new_run("running", owner="ann"), new_run("stuck", owner="ann")]
        )
        await pause(store, "waiting", "event:go")
        await commit_one(store, commit("stuck", next={"kind": "stuck", "note": "why"}))
        for run_id in ("queued", "running", "waiting"):
            assert await intervene(store, delete(run_id)) == "not_allowed"
            assert await intervene(store, delete(run_id, force=True)) == "done"
        assert await intervene(store, delete("stuck")) == "done"
        assert await commit_one(store, commit("running")) == FENCED
        assert await store.count({}) == 0

    @rule
    async def test_an_intervention_fails_alone_in_its_batch(self, store: Store) -> None:
        await store.create([new_run("a"), new_run("b", owner="ann")])
        batch = [
            terminate("a"),
            terminate("nobody"),
            reopen("b", 1),
            terminate("a"),
            delete("a"),
            delete("a"),
        ]
        answers = await store.intervene(batch)
        assert list(answers) == ["done", "not_found", "not_allowed", "not_allowed", "done", "not_found"]
        assert await commit_one(store, commit("b", next=waiting("event:go"))) == APPLIED
