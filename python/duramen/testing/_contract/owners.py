"""Owners: one lease each, which ends once."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from duramen.errors import InvalidArgument
from duramen.store import ENDED_OWNERS_KEPT

from .creation import raises
from .support import (
    APPLIED,
    FENCED,
    LEASE,
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
    lane,
    live,
    new_run,
    pause,
    row,
    rule,
)

if TYPE_CHECKING:
    from duramen.store import OwnerRow, Store


async def owner_row(store: Store, name: str) -> OwnerRow | None:
    """An owner as people see it, if it is kept."""
    return next((one for one in await store.owners() if one["owner"] == name), None)


async def ended_at(store: Store, name: str) -> int | None:
    """When an owner ended, if it has; it must be kept."""
    found = await owner_row(store, name)
    assert found is not None, f"there is no owner {name!r}"
    return found["ended_at"]


class OwnerRules(Rules):
    """Owners: one lease each, which ends once."""

    @rule
    async def test_the_first_sign_of_life_registers_and_the_next_ones_renew(self, store: Store) -> None:
        first = await beat(store, "cyd", 100, label="host:1", serves=["w 1", "x 2"])
        assert first == {"now": T0, "alive": True, "inherited": []}
        expected: dict[str, object] = {
            "owner": "cyd",
            "label": "host:1",
            "serves": ["w 1", "x 2"],
            "format": 1,
            "started_at": T0,
            "seen_at": T0,
            "lease_until": T0 + 100,
            "ended_at": None,
            "held": 0,
        }
        assert await owner_row(store, "cyd") == expected
        await store.create([new_run("a", owner="cyd")])
        assert (await beat(store, "cyd", 200, T0 + 60, serves=[], format=2))["alive"]
        expected |= {"label": None, "serves": list[str](), "format": 2, "held": 1}
        expected |= {"seen_at": T0 + 60, "lease_until": T0 + 260}
        assert await owner_row(store, "cyd") == expected

    @rule
    async def test_owners_are_listed_by_name(self, store: Store) -> None:
        await live(store, "zoe", "dan", "Dan", "d\u00e4n")
        names = [one["owner"] for one in await store.owners()]
        assert names == ["Dan", "ann", "bob", "dan", "d\u00e4n", "zoe"]

    @rule
    async def test_names_that_no_store_can_keep_are_refused(self, store: Store) -> None:
        for bad in ("", "a\0b", "a\x1fb", "x" * 256):
            assert await raises(InvalidArgument, beat(store, bad)), bad
        assert [one["owner"] for one in await store.owners()] == ["ann", "bob"]

    @rule
    async def test_a_sign_of_life_touches_no_run(self, store: Store) -> None:
        await live(store, "cyd", lease=LEASE)
        await store.create([new_run("a", owner="cyd"), new_run("b", owner="cyd"), new_run("c")])
        await pause(store, "d", "timer", ready_at=T0 + 50)
        before = [await detail(store, name) for name in "abcd"]
        assert (await beat(store, "cyd", LEASE, T0 + 100))["inherited"] == []
        assert [await detail(store, name) for name in "abcd"] == before
        # All that it holds is safe by that one row.
        asked = claim(now=T0 + LEASE + 99, due="recovery")
        assert ids(await store.claim(asked)) == []
        assert ids(await store.claim({**asked, "now": T0 + LEASE + 100})) == ["a", "b"]

    @rule
    async def test_a_lease_that_has_ended_is_never_renewed(self, store: Store) -> None:
        await live(store, "cyd", lease=100)
        await store.create([new_run("a", owner="cyd"), new_run("b")])
        assert await beat(store, "cyd", LEASE, T0 + 100) == {
            "now": T0 + 100,
            "alive": False,
            "inherited": [],
        }
        found = await owner_row(store, "cyd")
        assert found is not None
        assert (found["seen_at"], found["lease_until"], found["ended_at"]) == (T0, T0 + 100, T0 + 100)
        # Not by a clock that goes back either.
        assert not (await beat(store, "cyd", LEASE, T0 + 50))["alive"]
        claimed = await store.claim(claim("cyd", now=T0 + 50))
        assert (ids(claimed), claimed["more"], claimed["lapsed"]) == ([], False, True)
        assert await ended_at(store, "cyd") == T0 + 100
        assert (await row(store, "a"))["owner"] == "cyd"

    @rule
    async def test_a_claim_ends_whoever_let_a_lease_end(self, store: Store) -> None:
        await live(store, "cyd", lease=100)
        assert ids(await store.claim(claim("bob", now=T0 + 99))) == []
        assert await ended_at(store, "cyd") is None
        assert ids(await store.claim(claim("bob", now=T0 + 100))) == []
        assert await ended_at(store, "cyd") == T0 + 100
        # A heartbeat that was on its way, or whose clock is behind, comes too late.
        assert not (await beat(store, "cyd", LEASE, T0 + 90))["alive"]

    @rule
    async def test_a_claim_by_an_owner_without_a_lease_takes_nothing(self, store: Store) -> None:
        await store.create([new_run("a")])
        await live(store, "cyd", lease=100)
        before = await detail(store)
        for owner, now in (("nobody", T0), ("cyd", T0 + 100), ("cyd", T0 + 10**6)):
            claimed = await store.claim(claim(owner, now=now))
            assert claimed == {"now": now, "runs": [], "more": False, "lapsed": True}
        assert await detail(store) == before
        claimed = await store.claim(claim("bob", now=T0 + 100))
        assert (ids(claimed), claimed["lapsed"]) == (["a"], False)

    @rule
    async def test_a_run_is_not_created_in_the_hands_of_one_who_has_ended(self, store: Store) -> None:
        await live(store, "cyd", lease=100)
        await store.create([new_run("a", owner="nobody", timeout=700), new_run("b", owner="cyd")])
        late = new_run("c", owner="cyd", now=T0 + 100)
        (answer,) = await store.create([late])
        assert answer["kind"] == "created"
        for run_id, at in (("a", T0), ("c", T0 + 100)):
            got = await row(store, run_id)
            assert (got["status"], got["owner"], got["epoch"]) == ("queued", None, 0)
            assert (got["ready_at"], got["started_at"]) == (at, None)
        assert (await row(store, "a"))["deadline"] == T0 + 700
        assert (await row(store, "b"))["status"] == "running"

    @rule
    async def test_whoever_retires_leaves_its_runs_to_anybody_at_once(self, store: Store) -> None:
        await live(store, "cyd")
        await store.create([new_run("a", owner="cyd")])
        await store.retire("cyd", T0 + 5)
        assert await ended_at(store, "cyd") == T0 + 5
        await store.retire("cyd", T0 + 9)
        await store.retire("nobody", T0 + 9)
        assert await ended_at(store, "cyd") == T0 + 5
        assert await owner_row(store, "nobody") is None
        assert not (await beat(store, "cyd", LEASE, T0 + 6))["alive"]
        (run,) = (await store.claim(claim("bob", now=T0 + 6)))["runs"]
        assert (run["was"], run["row"]["owner"], run["row"]["epoch"]) == ("running", "bob", 2)

    @rule
    async def test_a_new_incarnation_takes_over_what_the_former_still_holds(self, store: Store) -> None:
        await live(store, "cyd", lease=100)
        await store.create([new_run(name, owner="cyd") for name in ("b", "c", "a")])
        await pause(store, "z", "event:go")
        assert ids(await store.claim(claim("bob", now=T0 + 100, run_id="c"))) == ["c"]
        taken = await beat(store, "cyd-2", LEASE, T0 + 110, succeeds="cyd")
        assert (taken["now"], taken["alive"]) == (T0 + 110, True)
        assert list(map(tuple, taken["inherited"])) == [("a", 1), ("b", 1)]
        for run_id in "ab":
            got = await row(store, run_id)
            assert (got["status"], got["owner"], got["epoch"], got["lost"]) == ("running", "cyd-2", 1, 0)
        assert await commit_one(store, commit("a", "cyd", entries=[entry("late")])) == FENCED
        assert await commit_one(store, commit("a", "cyd-2", entries=[entry("s")])) == APPLIED
        assert ids(await store.claim(claim("bob", now=T0 + 109 + LEASE))) == []
        assert sorted(ids(await store.claim(claim("bob", now=T0 + 110 + LEASE)))) == ["a", "b"]
        # Asked again, as after an answer that was lost: there is nothing left.
        assert (await beat(store, "cyd-3", LEASE, T0, succeeds="cyd"))["inherited"] == []

    @rule
    async def test_whoever_is_succeeded_has_ended_even_if_its_lease_has_not(self, store: Store) -> None:
        await live(store, "cyd")
        await store.create([new_run("a", owner="cyd")])
        taken = await beat(store, "cyd-2", LEASE, T0 + 5, succeeds="cyd")
        assert list(map(tuple, taken["inherited"])) == [("a", 1)]
        assert await ended_at(store, "cyd") == T0 + 5
        assert not (await beat(store, "cyd", LEASE, T0 + 6))["alive"]
        found = await owner_row(store, "cyd-2")
        assert found is not None
        assert found["held"] == 1

    @rule
    async def test_whoever_has_ended_succeeds_nobody(self, store: Store) -> None:
        await live(store, "cyd", "dan", lease=100)
        await store.create([new_run("a", owner="cyd")])
        late = await beat(store, "dan", LEASE, T0 + 100, succeeds="cyd")
        assert (late["alive"], late["inherited"]) == (False, [])
        assert (await row(store))["owner"] == "cyd"
        assert await ended_at(store, "cyd") is None

    @rule
    async def test_nobody_succeeds_oneself_or_one_that_never_was(self, store: Store) -> None:
        await live(store, "cyd")
        await store.create([new_run("a", owner="cyd")])
        for former in ("cyd", "nobody"):
            again = await beat(store, "cyd", LEASE, T0 + 1, succeeds=former)
            assert (again["alive"], again["inherited"]) == (True, [])
        assert (await row(store))["owner"] == "cyd"
        assert await ended_at(store, "cyd") is None

    @rule
    async def test_what_an_owner_holds_is_read_in_pages(self, store: Store) -> None:
        await store.create([new_run(name, owner="ann") for name in ("c", "a", "e", "b", "d")])
        await store.create([new_run("b2", owner="bob"), new_run("q")])
        await commit_one(store, commit("d", next=finished(), entries=[entry("")]))
        pages = [
            list(map(tuple, await store.held("ann", after, 2))) for after in (None, "b", "bb", "e", "zz")
        ]
        assert pages == [[("a", 1), ("b", 1)], [("c", 1), ("e", 1)], [("c", 1), ("e", 1)], [], []]
        assert list(await store.held("ann", None, 0)) == []
        assert list(await store.held("nobody", None, 10)) == []

    @rule
    async def test_owners_that_ended_a_day_ago_and_hold_nothing_are_forgotten(self, store: Store) -> None:
        await live(store, "cyd", "dan", "eve")
        await store.create([new_run("a", owner="dan")])
        await store.retire("cyd", T0)
        await store.retire("dan", T0)
        await store.retire("eve", T0 + 1)
        await live(store, "new", now=T0 + ENDED_OWNERS_KEPT - 1)
        await live(store, "ann", now=T0 + ENDED_OWNERS_KEPT)
        kept = [one["owner"] for one in await store.owners()]
        assert kept == ["ann", "bob", "cyd", "dan", "eve", "new"]
        await live(store, "newer", now=T0 + ENDED_OWNERS_KEPT)
        kept = [one["owner"] for one in await store.owners()]
        assert kept == ["ann", "bob", "dan", "eve", "new", "newer"]
        # Who is forgotten has never been.
        assert (await beat(store, "cyd", LEASE, T0 + ENDED_OWNERS_KEPT))["alive"]

    @rule
    async def test_the_end_of_a_lease_is_when_a_claim_could_find_its_runs(self, store: Store) -> None:
        async def next_due(now: int) -> int | None:
            return (await store.next_due({"lanes": [lane()], "now": now}))["ready_at"]

        await live(store, "cyd", lease=70)
        assert await next_due(T0) is None
        await store.create([new_run("a", owner="cyd"), new_run("b", at=T0 + 90)])
        assert await next_due(T0) == T0 + 70
        await live(store, "cyd", lease=75, now=T0 + 10)
        assert await next_due(T0 + 10) == T0 + 85
        # It has ended by the clock, though nobody has marked it yet.
        assert await next_due(T0 + 86) == T0 + 86
        await store.retire("cyd", T0 + 20)
        assert await next_due(T0 + 20) == T0 + 20
        assert ids(await store.claim(claim("bob", now=T0 + 20))) == ["a"]
        assert await next_due(T0 + 20) == T0 + 90
