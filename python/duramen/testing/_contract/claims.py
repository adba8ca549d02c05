"""Leases: claims, their ends and renewals, and that nothing starves."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from .support import (
    APPLIED,
    LEASE,
    SEED,
    T0,
    Rules,
    claim,
    commit,
    commit_one,
    entry,
    finished,
    ids,
    key,
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
    from duramen.store import Store


class ClaimRules(Rules):
    """Leases: claims, their ends and renewals, and that nothing starves."""

    @rule
    async def test_a_claim_brings_everything_its_driver_needs(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        await send(store, message(payload=b"hello"))
        claimed = await store.claim(claim("bob", now=T0 + 10))
        assert (claimed["now"], claimed["more"]) == (T0 + 10, False)
        (run,) = claimed["runs"]
        got = run["row"]
        assert (run["was"], got["status"], got["owner"], got["epoch"]) == ("waiting", "running", "bob", 2)
        assert (got["ready_at"], got["updated_at"]) == (T0 + 10 + LEASE, T0 + 10)
        assert (got["started_at"], list(got["seed"])) == (T0, list(SEED))
        assert run["journal"] is not None
        assert [one["kind"] for one in run["journal"]] == ["run_created"]
        assert [(one["seq"], one["name"], one["payload"], one["at"]) for one in run["inbox"]] == [
            (1, "go", b"hello", T0 + 2)
        ]
        found = await row(store)
        assert {**found, "seed": list(found["seed"]), "waits": []} == {
            **got,
            "seed": list(got["seed"]),
            "waits": [],
        }

    @rule
    async def test_a_lease_blocks_until_it_ends_and_is_then_reclaimed(self, store: Store) -> None:
        await store.create([new_run("a")])
        (run,) = (await store.claim(claim("ann")))["runs"]
        assert (run["was"], run["row"]["epoch"]) == ("queued", 1)
        assert ids(await store.claim(claim("bob", now=T0 + LEASE - 1))) == []
        (run,) = (await store.claim(claim("bob", now=T0 + LEASE)))["runs"]
        assert (run["was"], run["row"]["epoch"], run["row"]["owner"]) == ("running", 2, "bob")
        assert run["row"]["started_at"] == T0

    @rule
    async def test_the_former_owner_itself_gets_a_new_epoch_too(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        (run,) = (await store.claim(claim("ann", now=T0 + LEASE)))["runs"]
        assert run["row"]["epoch"] == 2
        assert (await commit_one(store, commit(epoch=1)))["kind"] == "fenced"

    @rule
    async def test_a_heartbeat_moves_the_end_of_every_lease_of_its_owner(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("b", owner="ann"), new_run("c", owner="bob")])
        beat = await store.heartbeat({"owner": "ann", "lease": LEASE, "now": T0 + 100})
        assert beat["now"] == T0 + 100
        assert sorted(map(tuple, beat["held"])) == [("a", 1), ("b", 1)]
        assert ids(await store.claim(claim("eve", now=T0 + LEASE))) == ["c"]
        assert sorted(ids(await store.claim(claim("eve", now=T0 + LEASE + 100)))) == ["a", "b"]

    @rule
    async def test_a_late_heartbeat_keeps_what_nobody_took(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann"), new_run("b", owner="ann")])
        await store.claim(claim("bob", now=T0 + LEASE, run_id="a"))
        beat = await store.heartbeat({"owner": "ann", "lease": LEASE, "now": T0 + LEASE + 1})
        assert list(map(tuple, beat["held"])) == [("b", 1)]
        assert (await row(store, "a"))["owner"] == "bob"
        assert ids(await store.claim(claim("eve", now=T0 + 2 * LEASE))) == ["a"]

    @rule
    async def test_a_heartbeat_holds_nothing_that_was_released(self, store: Store) -> None:
        await pause(store, "a", "timer", ready_at=T0 + 50)
        await store.create([new_run("b", owner="ann")])
        await commit_one(store, commit("b", next=finished(), entries=[entry("")]))
        beat = await store.heartbeat({"owner": "ann", "lease": LEASE, "now": T0 + 1})
        assert list(beat["held"]) == []
        assert (await row(store, "a"))["ready_at"] == T0 + 50

    @rule
    async def test_a_timer_is_claimed_once_for_each_lease(self, store: Store) -> None:
        await pause(store, "a", "timer", ready_at=T0 + 100)
        assert ids(await store.claim(claim("bob", now=T0 + 99))) == []
        assert ids(await store.claim(claim("bob", now=T0 + 100))) == ["a"]
        assert ids(await store.claim(claim("eve", now=T0 + 100))) == []
        assert ids(await store.claim(claim("eve", now=T0 + 99 + LEASE))) == []
        (run,) = (await store.claim(claim("eve", now=T0 + 100 + LEASE)))["runs"]
        assert run["was"] == "running"

    @rule
    async def test_what_waits_for_a_message_only_is_never_due(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        assert (await row(store))["ready_at"] is None
        assert ids(await store.claim(claim(now=T0 + 10**12))) == []

    @rule
    async def test_a_claim_takes_what_it_is_asked_for(self, store: Store) -> None:
        async def three(n: int) -> None:
            await pause(store, f"wake{n}", "timer", ready_at=T0)
            await store.create([new_run(f"recovery{n}", owner="ann", lease=1), new_run(f"queued{n}")])

        await three(1)
        for due in ("recovery", "wake", "queued"):
            assert ids(await store.claim(claim(now=T0 + 1, due=due))) == [f"{due}1"]
        await three(2)
        taken = ids(await store.claim(claim(now=T0 + 1)))
        assert sorted(taken) == ["queued2", "recovery2", "wake2"]

    @rule
    async def test_the_earliest_due_come_first_and_the_rest_is_announced(self, store: Store) -> None:
        await store.create([new_run(f"q{n}", at=T0 + 10 * n) for n in (4, 1, 3, 2)])
        first = await store.claim(claim(now=T0 + 100, limit=3))
        assert (ids(first), first["more"]) == (["q1", "q2", "q3"], True)
        second = await store.claim(claim(now=T0 + 100, limit=3))
        assert (ids(second), second["more"]) == (["q4"], False)

    @rule
    async def test_lines_are_served_in_turn_whatever_stands_in_them(self, store: Store) -> None:
        # A flood of one workflow, all of it due before anything else is.
        await store.create([new_run(f"flood{n:03}", workflow="x", at=T0 + n) for n in range(100)])
        await store.create([new_run(f"q{n}", at=T0 + 500 + n) for n in range(3)])
        await pause(store, "woken", "timer", ready_at=T0 + 900)
        await store.create([new_run("lost", owner="ann", lease=950)])
        both = [key("x"), key()]
        claimed = await store.claim(claim(now=T0 + 1_000, limit=6, workflows=both))
        # Lost, woken and queued runs of the first workflow, then those of the second; and once more.
        assert ids(claimed) == ["flood000", "lost", "woken", "q0", "flood001", "q1"]
        assert claimed["more"]

    @rule
    async def test_a_claim_begins_with_the_line_whose_turn_it_is(self, store: Store) -> None:
        await store.create([new_run(f"x{n}", workflow="x", at=T0 + n) for n in range(3)])
        await store.create([new_run(f"w{n}", at=T0 + 500 + n) for n in range(3)])
        await pause(store, "woken", "timer", ready_at=T0 + 900)
        both, taken = [key("x"), key(), key("x")], list[str]()
        # The lines 0 to 2 are those of x (lost, woken, queued), 3 to 5 those of w; then it begins anew.
        for turn in (2, 3, 4, 5, 6 * 10**12 + 2, 0):
            taken += ids(await store.claim(claim(now=T0 + 1_000, limit=1, workflows=both, turn=turn)))
        assert taken == ["x0", "woken", "w0", "w1", "x1", "x2"]
        queued = claim(now=T0 + 1_000, due="queued", limit=1, workflows=both, turn=1)
        assert ids(await store.claim(queued)) == ["w2"]

    @rule
    async def test_a_claim_notes_how_many_drivers_were_lost_without_progress(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann", lease=10)])
        notes = list[str | None]()
        for n in range(1, 4):
            (run,) = (await store.claim(claim("bob", now=T0 + 10 * n, lease=10)))["runs"]
            notes.append(run["row"]["note"])
            assert run["row"]["note"] == (await row(store))["note"]
        # The journal's length and the epoch of the first driver that was lost there.
        assert notes == ["1@1", "1@1", "1@1"]
        more = commit(owner="bob", epoch=4, entries=[entry("s1")], next={"kind": "running"}, at=T0 + 35)
        assert await commit_one(store, more) == APPLIED
        (run,) = (await store.claim(claim("bob", now=T0 + 50)))["runs"]
        assert (run["row"]["note"], run["row"]["epoch"]) == ("2@4", 5)
        rest = commit(owner="bob", epoch=5, length=2, next=waiting("timer", ready_at=T0 + 60), at=T0 + 55)
        assert await commit_one(store, rest) == APPLIED
        (run,) = (await store.claim(claim("bob", now=T0 + 60)))["runs"]
        assert (run["was"], run["row"]["note"]) == ("waiting", None)
        # What a paused run waited for is kept until it pauses again.
        assert list(run["row"]["waits"]) == ["timer"]

    @rule
    async def test_a_limit_that_just_suffices_announces_nothing(self, store: Store) -> None:
        await store.create([new_run("a"), new_run("b")])
        claimed = await store.claim(claim(limit=2))
        assert (sorted(ids(claimed)), claimed["more"]) == (["a", "b"], False)

    @rule
    async def test_only_runs_of_the_workflows_asked_for(self, store: Store) -> None:
        await store.create(
            [
                new_run("a", workflow="x"),
                new_run("b", workflow="x", version="2"),
                new_run("c", workflow="y"),
                new_run("d", workflow="X"),
            ]
        )
        assert ids(await store.claim(claim(workflows=[]))) == []
        assert ids(await store.claim(claim(workflows=[key("x", "2"), key("z")]))) == ["b"]
        both = claim(workflows=[key("x"), key("y"), key("x")])
        assert sorted(ids(await store.claim(both))) == ["a", "c"]

    @rule
    async def test_one_run_alone_only_if_it_is_due_and_asked_for(self, store: Store) -> None:
        await store.create([new_run("a"), new_run("b"), new_run("later", at=T0 + 1)])
        assert ids(await store.claim(claim(run_id="later"))) == []
        assert ids(await store.claim(claim(run_id="nobody"))) == []
        assert ids(await store.claim(claim(run_id="b", due="wake"))) == []
        assert ids(await store.claim(claim(run_id="b", workflows=[key("x")]))) == []
        assert ids(await store.claim(claim(run_id="b", due="queued", limit=1))) == ["b"]
        assert ids(await store.claim(claim(run_id="b"))) == []

    @rule
    async def test_a_stale_row_never_starves_later_ones(self, store: Store) -> None:
        # Drivers die over the first run again and again; the others still get their turn.
        await store.create([new_run("poison", owner="ann", lease=1)])
        await store.create([new_run(f"r{n}", at=T0 + n) for n in range(1, 6)])
        now, taken = T0 + 1_000, list[str]()
        for n in range(6):
            taken += ids(await store.claim(claim(f"driver{n}", now=now + n, limit=1, lease=5_000)))
        assert taken == ["poison", "r1", "r2", "r3", "r4", "r5"]

    @rule
    async def test_due_rows_of_unknown_workflows_block_nobody(self, store: Store) -> None:
        await store.create([new_run(f"old{n}", workflow="gone", now=T0 - 1_000 + n) for n in range(300)])
        await store.create([new_run("a", workflow="known")])
        claimed = await store.claim(claim(workflows=[key("known")], limit=1))
        assert (ids(claimed), claimed["more"]) == (["a"], False)

    @rule
    async def test_due_rows_of_one_kind_block_no_other(self, store: Store) -> None:
        await store.create([new_run(f"lost{n}", owner="ann", lease=n) for n in range(50)])
        await store.create([new_run("queued", at=T0 + 900)])
        await pause(store, "wake", "timer", ready_at=T0 + 900)
        assert ids(await store.claim(claim(now=T0 + 1_000, due="queued", limit=1))) == ["queued"]
        assert ids(await store.claim(claim(now=T0 + 1_000, due="wake", limit=1))) == ["wake"]

    @rule
    async def test_a_claim_brings_no_more_bytes_than_asked_for_but_always_a_run(self, store: Store) -> None:
        sizes = {"a": 1_000, "b": 600, "c": 300, "d": 200}
        new = [new_run(name, input=b"x" * size, at=T0 + n) for n, (name, size) in enumerate(sizes.items())]
        await store.create(new)

        async def take(max_bytes: int) -> tuple[list[str], bool]:
            claimed = await store.claim(claim(now=T0 + 10, max_bytes=max_bytes))
            return ids(claimed), claimed["more"]

        assert await take(10) == (["a"], True)
        assert await take(900) == (["b", "c"], True)
        assert await take(900) == (["d"], False)
        assert await take(900) == ([], False)

    @rule
    async def test_a_warm_run_comes_without_its_journal_and_weighs_nothing(self, store: Store) -> None:
        await store.create([new_run(name, input=b"x" * 500, at=T0 + n) for n, name in enumerate("abc")])
        claimed = await store.claim(claim(now=T0 + 10, max_bytes=600, warm=[("a", 1), ("b", 2), ("no", 1)]))
        assert (ids(claimed), claimed["more"]) == (["a", "b"], True)
        # What was warm at another length comes whole.
        assert [run["journal"] is None for run in claimed["runs"]] == [True, False]

    @rule
    async def test_a_warm_run_brings_its_messages_all_the_same(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        await send(store, message())
        (run,) = (await store.claim(claim(now=T0 + 9, warm=[("a", 1)])))["runs"]
        assert (run["journal"], seqs(run["inbox"])) == (None, [1])

    @rule
    async def test_the_next_due_time_is_the_least_of_live_runs(self, store: Store) -> None:
        async def next_due(*names: str) -> int | None:
            return (await store.next_due([key(name) for name in names]))["ready_at"]

        assert await next_due("w") is None
        await store.create([new_run("a", at=T0 + 90), new_run("x", workflow="x", at=T0 + 10)])
        assert await next_due("w") == T0 + 90
        await pause(store, "b", "timer", ready_at=T0 + 80)
        await pause(store, "c", "event:go")
        assert await next_due("w") == T0 + 80
        await store.create([new_run("d", owner="ann", lease=70)])
        assert await next_due("w") == T0 + 70
        assert await next_due("w", "x") == T0 + 10
        outcome = await commit_one(store, commit("d", next=finished(), entries=[entry("")]))
        assert outcome == APPLIED
        assert await next_due("w") == T0 + 80
        assert await next_due() is None

    @rule
    async def test_a_claimed_run_may_pause_and_be_claimed_many_times(self, store: Store) -> None:
        await store.create([new_run("a")])
        for n in range(1, 20):
            (run,) = (await store.claim(claim("ann", now=T0 + n)))["runs"]
            assert (run["row"]["epoch"], run["row"]["journal_len"]) == (n, n)
            done = commit(
                epoch=n,
                length=n,
                entries=[entry(f"s{n}")],
                next=waiting("timer", ready_at=T0 + n + 1),
                at=T0 + n,
            )
            assert await commit_one(store, done) == APPLIED
        assert (await row(store))["started_at"] == T0 + 1
