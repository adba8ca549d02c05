"""Claims: who gets which runs, in which order, and that nothing starves."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from .support import (
    APPLIED,
    FENCED,
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
    from duramen.store import Store


class ClaimRules(Rules):
    """Claims: who gets which runs, in which order, and that nothing starves."""

    @rule
    async def test_a_claim_brings_everything_its_driver_needs(self, store: Store) -> None:
        await pause(store, "a", "event:go")
        await send(store, message(payload=b"hello"))
        claimed = await store.claim(claim("bob", now=T0 + 10))
        assert (claimed["now"], claimed["more"], claimed["lapsed"]) == (T0 + 10, False, False)
        (run,) = claimed["runs"]
        got = run["row"]
        assert (run["was"], got["status"], got["owner"], got["epoch"]) == ("waiting", "running", "bob", 2)
        assert (got["ready_at"], got["updated_at"], got["journal_len"]) == (None, T0 + 10, 1)
        assert (got["started_at"], list(got["seed"])) == (T0, list(SEED))
        assert run["journal"] is not None
        assert [one["kind"] for one in run["journal"]] == ["run_created"]
        assert [(one["seq"], one["name"], one["payload"], one["at"]) for one in run["inbox"]] == [
            (1, "go", b"hello", T0 + 2)
        ]
        assert not run["inbox_more"]
        found = await row(store)
        assert {**found, "seed": list(found["seed"]), "waits": []} == {
            **got,
            "seed": list(got["seed"]),
            "waits": [],
        }

    @rule
    async def test_a_lease_blocks_until_it_ends_and_the_run_is_then_anybodys(self, store: Store) -> None:
        await live(store, "cyd", lease=LEASE)
        await store.create([new_run("a")])
        (run,) = (await store.claim(claim("cyd")))["runs"]
        assert (run["was"], run["row"]["epoch"]) == ("queued", 1)
        assert ids(await store.claim(claim("bob", now=T0 + LEASE - 1))) == []
        (run,) = (await store.claim(claim("bob", now=T0 + LEASE)))["runs"]
        assert (run["was"], run["row"]["epoch"], run["row"]["owner"]) == ("running", 2, "bob")
        assert (run["row"]["started_at"], run["row"]["ready_at"]) == (T0, None)

    @rule
    async def test_a_new_name_of_the_same_process_gets_a_new_epoch(self, store: Store) -> None:
        await live(store, "cyd", lease=LEASE)
        await store.create([new_run("a", owner="cyd")])
        await live(store, "cyd-2", now=T0 + LEASE)
        (run,) = (await store.claim(claim("cyd-2", now=T0 + LEASE)))["runs"]
        assert run["row"]["epoch"] == 2
        assert await commit_one(store, commit(owner="cyd")) == FENCED
        assert await commit_one(store, commit(owner="cyd-2")) == FENCED
        assert await commit_one(store, commit(owner="cyd-2", epoch=2)) == APPLIED

    @rule
    async def test_a_timer_is_claimed_once(self, store: Store) -> None:
        await pause(store, "a", "timer", ready_at=T0 + 100)
        await live(store, "cyd", "dan", lease=LEASE, now=T0 + 100)
        assert ids(await store.claim(claim("cyd", now=T0 + 99))) == []
        assert ids(await store.claim(claim("cyd", now=T0 + 100))) == ["a"]
        assert ids(await store.claim(claim("dan", now=T0 + 100))) == []
        assert ids(await store.claim(claim("bob", now=T0 + 99 + LEASE))) == []
        (run,) = (await store.claim(claim("bob", now=T0 + 100 + LEASE)))["runs"]
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
            await live(store, f"cyd{n}", lease=1)
            await store.create([new_run(f"recovery{n}", owner=f"cyd{n}"), new_run(f"queued{n}")])

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
        await live(store, "cyd", lease=950)
        await store.create([new_run("lost", owner="cyd")])
        both = [lane("x"), lane()]
        claimed = await store.claim(claim(now=T0 + 1_000, limit=6, lanes=both))
        # Lost, woken and queued runs of the first workflow, then those of the second; and once more.
        assert ids(claimed) == ["flood000", "lost", "woken", "q0", "flood001", "q1"]
        assert claimed["more"]

    @rule
    async def test_a_claim_begins_with_the_line_whose_turn_it_is(self, store: Store) -> None:
        await store.create([new_run(f"x{n}", workflow="x", at=T0 + n) for n in range(3)])
        await store.create([new_run(f"w{n}", at=T0 + 500 + n) for n in range(3)])
        await pause(store, "woken", "timer", ready_at=T0 + 900)
        both, taken = [lane("x"), lane(), lane("x")], list[str]()
        # The lines 0 to 2 are those of x (lost, woken, queued), 3 to 5 those of w; then it begins anew.
        for turn in (2, 3, 4, 5, 6 * 10**12 + 2, 0):
            taken += ids(await store.claim(claim(now=T0 + 1_000, limit=1, lanes=both, turn=turn)))
        assert taken == ["x0", "woken", "w0", "w1", "x1", "x2"]
        queued = claim(now=T0 + 1_000, due="queued", limit=1, lanes=both, turn=1)
        assert ids(await store.claim(queued)) == ["w2"]

    @rule
    async def test_a_limit_that_just_suffices_announces_nothing(self, store: Store) -> None:
        await store.create([new_run("a"), new_run("b")])
        claimed = await store.claim(claim(limit=2))
        assert (sorted(ids(claimed)), claimed["more"]) == (["a", "b"], False)

    @rule
    async def test_only_runs_of_the_lanes_asked_for(self, store: Store) -> None:
        await store.create(
            [
                new_run("a", workflow="x"),
                new_run("b", workflow="x", version="2"),
                new_run("c", workflow="y"),
                new_run("d", workflow="X"),
                new_run("e", workflow="x", queue="slow"),
                new_run("f", workflow="slow", queue="x"),
            ]
        )
        assert ids(await store.claim(claim(lanes=[]))) == []
        assert ids(await store.claim(claim(lanes=[lane("x", "2"), lane("z")]))) == ["b"]
        both = claim(lanes=[lane("x"), lane("y"), lane("x")])
        assert sorted(ids(await store.claim(both))) == ["a", "c"]
        assert ids(await store.claim(claim(lanes=[lane("x", queue="slow")]))) == ["e"]
        # A lane is compared whole.
        parts = [lane("x")[:-1], lane("x") + "1", "x", "", lane("SLOW", queue="x")]
        assert ids(await store.claim(claim(lanes=parts))) == []

    @rule
    async def test_one_run_alone_only_if_it_is_due_and_asked_for(self, store: Store) -> None:
        await store.create([new_run("a"), new_run("b"), new_run("later", at=T0 + 1)])
        assert ids(await store.claim(claim(run_id="later"))) == []
        assert ids(await store.claim(claim(run_id="nobody"))) == []
        assert ids(await store.claim(claim(run_id="b", due="wake"))) == []
        assert ids(await store.claim(claim(run_id="b", lanes=[lane("x")]))) == []
        assert ids(await store.claim(claim(run_id="b", due="queued", limit=1))) == ["b"]
        assert ids(await store.claim(claim(run_id="b"))) == []

    @rule
    async def test_in_a_line_priority_comes_first_then_time_then_id(self, store: Store) -> None:
        places = [("b", 5, 10), ("a", 5, 10), ("first", 0, 90), ("early", 5, 5), ("last", 9, 0), ("n", 7, 1)]
        await store.create([new_run(name, priority=urgent, at=T0 + at) for name, urgent, at in places])
        # What is not due stands behind nobody's back and before nobody.
        await store.create([new_run(f"later{n}", priority=n % 10, at=T0 + 101) for n in range(30)])
        order = ["first", "early", "a", "b", "n", "last"]
        claimed = await store.claim(claim(now=T0 + 100, limit=4))
        assert (ids(claimed), claimed["more"]) == (order[:4], True)
        claimed = await store.claim(claim(now=T0 + 100, limit=4))
        assert (ids(claimed), claimed["more"]) == (order[4:], False)

    @rule
    async def test_a_run_keeps_its_priority_when_it_waits(self, store: Store) -> None:
        for name, urgent in (("a", 5), ("b", 0), ("c", 9), ("d", 5)):
            await store.create([new_run(name, priority=urgent, owner="ann")])
            rest = waiting("timer", ready_at=T0 + (4 if name == "a" else 3))
            assert await commit_one(store, commit(name, next=rest)) == APPLIED
        assert ids(await store.claim(claim(now=T0 + 5, due="wake"))) == ["b", "d", "a", "c"]

    @rule
    async def test_runs_of_ended_owners_come_by_id(self, store: Store) -> None:
        await live(store, "cyd", "dan", lease=10)
        await store.create([new_run("c", owner="dan", priority=9), new_run("b", owner="cyd")])
        await store.create([new_run("d", owner="cyd", priority=0, now=T0 - 9), new_run("a", owner="dan")])
        await store.create([new_run("held", owner="ann"), new_run("x", workflow="x", owner="cyd")])
        first = await store.claim(claim(now=T0 + 10, due="recovery", limit=3))
        assert (ids(first), first["more"]) == (["a", "b", "c"], True)
        assert ids(await store.claim(claim(now=T0 + 10))) == ["d"]

    @rule
    async def test_what_a_lost_driver_appended_is_brought_and_counted(self, store: Store) -> None:
        await live(store, "cyd", lease=10)
        await store.create([new_run("a", owner="cyd")])
        for at in (1, 2):
            more = commit(owner="cyd", length=at, entries=[entry(f"s{at}")], at=T0 + at)
            assert await commit_one(store, more) == APPLIED
        (run,) = (await store.claim(claim(now=T0 + 10, warm=[("a", 1)])))["runs"]
        # Its row may have lagged behind; the claim does not.
        assert run["journal"] is not None
        assert [one["op"] for one in run["journal"]] == ["", "s1", "s2"]
        assert (run["row"]["journal_len"], run["row"]["updated_at"]) == (3, T0 + 10)
        assert (await row(store))["journal_len"] == await length(store) == 3

    @rule
    async def test_a_claim_counts_drivers_that_were_lost_without_progress(self, store: Store) -> None:
        counts = list[tuple[int, int]]()

        async def lose(at: int) -> None:
            """The next driver takes it from one that has ended."""
            driver = f"d{at}"
            await live(store, driver, lease=10, now=T0 + at)
            (run,) = (await store.claim(claim(driver, now=T0 + at)))["runs"]
            counts.append((run["row"]["lost"], run["row"]["lost_at"]))
            assert run["row"] == {**await row(store), "seed": run["row"]["seed"]}

        await live(store, "d0", lease=10)
        await store.create([new_run("a", owner="d0")])
        for at in (10, 20, 30):
            await lose(at)
        assert counts == [(1, 1), (2, 1), (3, 1)]
        more = commit(owner="d30", epoch=4, entries=[entry("s1")], at=T0 + 35)
        assert await commit_one(store, more) == APPLIED
        await lose(40)
        await lose(50)
        assert counts[3:] == [(1, 2), (2, 2)]
        rest = commit(owner="d50", epoch=6, length=2, next=waiting("timer", ready_at=T0 + 60), at=T0 + 55)
        assert await commit_one(store, rest) == APPLIED
        (run,) = (await store.claim(claim("bob", now=T0 + 60)))["runs"]
        # A pause is no loss, and no progress either.
        assert (run["was"], run["row"]["lost"], run["row"]["lost_at"]) == ("waiting", 2, 2)
        # What a paused run waited for is kept until it pauses again.
        assert list(run["row"]["waits"]) == ["timer"]

    @rule
    async def test_a_poison_run_never_starves_others(self, store: Store) -> None:
        # Drivers die over the first run again and again; the others still get their turn.
        await live(store, "cyd", lease=1)
        await store.create([new_run("poison", owner="cyd")])
        await store.create([new_run(f"r{n}", at=T0 + n) for n in range(1, 6)])
        taken = list[str]()
        for n in range(6):
            await live(store, f"driver{n}", lease=5, now=T0 + 1_000 + n)
            taken += ids(await store.claim(claim(f"driver{n}", now=T0 + 1_000 + n, limit=1, turn=n)))
            await store.retire(f"driver{n}", T0 + 1_000 + n)
        assert taken == ["poison", "r1", "r2", "poison", "r3", "r4"]

    @rule
    async def test_due_rows_of_unknown_workflows_block_nobody(self, store: Store) -> None:
        await store.create([new_run(f"old{n}", workflow="gone", now=T0 - 1_000 + n) for n in range(300)])
        await store.create([new_run("a", workflow="known")])
        claimed = await store.claim(claim(lanes=[lane("known")], limit=1))
        assert (ids(claimed), claimed["more"]) == (["a"], False)

    @rule
    async def test_due_rows_of_one_kind_block_no_other(self, store: Store) -> None:
        await live(store, "cyd", lease=50)
        await store.create([new_run(f"lost{n}", owner="cyd") for n in range(50)])
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
    async def test_unread_messages_weigh_as_much_as_journals(self, store: Store) -> None:
        await store.create([new_run(name, input=b"", at=T0 + n) for n, name in enumerate("abc")])
        for name in "abc":
            await send(store, message(name, payload=b"x" * 400))
        claimed = await store.claim(claim(now=T0 + 10, max_bytes=800, warm=[("a", 1)]))
        assert (ids(claimed), claimed["more"]) == (["a", "b"], True)
        assert [seqs(run["inbox"]) for run in claimed["runs"]] == [[1], [1]]

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
    async def test_the_next_due_time_is_the_least_of_live_runs_of_the_lanes(self, store: Store) -> None:
        async def next_due(*names: str) -> int | None:
            asked = await store.next_due({"lanes": [lane(name) for name in names], "now": T0 + 5})
            assert asked["now"] == T0 + 5
            return asked["ready_at"]

        assert await next_due("w") is None
        await store.create([new_run("a", at=T0 + 90), new_run("x", workflow="x", at=T0 + 10)])
        assert await next_due("w") == T0 + 90
        await pause(store, "b", "timer", ready_at=T0 + 80)
        await pause(store, "c", "event:go")
        assert await next_due("w") == T0 + 80
        await live(store, "cyd", lease=70)
        await store.create([new_run("d", owner="cyd")])
        assert await next_due("w") == T0 + 70
        assert await next_due("w", "x") == T0 + 10
        outcome = await commit_one(store, commit("d", "cyd", next=finished(), entries=[entry("")]))
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
