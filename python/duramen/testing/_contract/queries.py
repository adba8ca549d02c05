"""Lists, counts and cursors."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

from typing import TYPE_CHECKING

from .support import (
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
    lane,
    length,
    message,
    new_run,
    pause,
    row,
    rule,
    send,
    unsent,
)

if TYPE_CHECKING:
    from duramen.store import Cursor, Filter, Store


async def found(store: Store, asked: Filter) -> str:
    """The ids that a filter finds, newest first; the count must agree."""
    page = await store.list(asked, 100, None)
    assert page["next"] is None
    assert await store.count(asked) == len(page["rows"])
    return " ".join(one["run_id"] for one in page["rows"])


class QueryRules(Rules):
    """Lists, counts and cursors."""

    @rule
    async def test_filters(self, store: Store) -> None:
        await store.create(
            [
                new_run("a1", workflow="x", tags=["red", "blue"], now=T0 + 1),
                new_run("a2", workflow="x", version="2", tags=["redder"], now=T0 + 2),
                new_run("b1", workflow="xy", owner="ann", now=T0 + 3),
                new_run("B2", owner="ann", now=T0 + 4),
            ]
        )
        await commit_one(store, commit("B2", entries=[entry("")], next=finished("failed")))
        cases: list[tuple[Filter, str]] = [
            ({}, "B2 b1 a2 a1"),
            ({"workflow": "x"}, "a2 a1"),
            ({"workflow": "x", "version": "2"}, "a2"),
            ({"version": "2"}, "a2"),
            ({"status": []}, "B2 b1 a2 a1"),
            ({"status": ["queued"]}, "a2 a1"),
            ({"status": ["running", "failed"]}, "B2 b1"),
            ({"status": ["stuck"]}, ""),
            ({"tag": "red"}, "a1"),
            ({"tag": "blue"}, "a1"),
            ({"tag": "re"}, ""),
            ({"tag": ""}, ""),
            ({"created_after": T0 + 2}, "B2 b1"),
            ({"created_before": T0 + 2}, "a1"),
            ({"created_after": T0 + 1, "created_before": T0 + 4}, "b1 a2"),
            ({"id_prefix": "a"}, "a2 a1"),
            ({"id_prefix": "b"}, "b1"),
            ({"id_prefix": "1"}, ""),
            ({"id_prefix": ""}, "B2 b1 a2 a1"),
            ({"id_prefix": "a1", "status": ["running"]}, ""),
            ({"workflow": None, "tag": None, "id_prefix": None, "created_after": None}, "B2 b1 a2 a1"),
        ]
        for asked, expected in cases:
            assert await found(store, asked) == expected, asked

    @rule
    async def test_what_runs_wait_for_is_found_exactly(self, store: Store) -> None:
        await pause(store, "a", "timer", "event:paid")
        await pause(store, "b", "event:pai")
        await pause(store, "c", "approval:paid")
        cases = {"event:paid": "a", "event:pai": "b", "approval:paid": "c", "timer": "a", "event": "", "": ""}
        for wait, expected in cases.items():
            assert await found(store, {"waiting_for": wait}) == expected
        await store.intervene([{"kind": "delete", "run_id": "b", "force": True}])
        await send(store, message("a", kind="cancel", name=""))
        assert ids(await store.claim(claim(now=T0 + 9))) == ["a"]
        assert await found(store, {"waiting_for": "timer"}) == "a"

    @rule
    async def test_a_run_that_runs_again_and_ends_waits_for_nothing(self, store: Store) -> None:
        await pause(store, "a", "timer", ready_at=T0 + 5)
        await store.claim(claim(now=T0 + 5))
        end = commit(owner="bob", epoch=2, entries=[entry("")], next=finished())
        await commit_one(store, end)
        assert await found(store, {"waiting_for": "timer"}) == ""
        assert list((await row(store))["waits"]) == []

    @rule
    async def test_signs_of_patterns_are_plain_characters(self, store: Store) -> None:
        names = ["a%b", "a_b", "axb", "a'b", 'a"b', "a\\b", "a*b", "\u00e9t\u00e9", "\U0001f600!"]
        await store.create([new_run(name, tags=[f"t{name}"], now=T0 + n) for n, name in enumerate(names)])
        for name in names:
            assert await found(store, {"id_prefix": name}) == name
            assert await found(store, {"tag": f"t{name}"}) == name
        assert await found(store, {"id_prefix": "a%"}) == "a%b"
        assert await found(store, {"id_prefix": "a_"}) == "a_b"
        assert await found(store, {"id_prefix": "\U0001f600"}) == "\U0001f600!"

    @rule
    async def test_lists_are_newest_first_and_ties_go_by_id(self, store: Store) -> None:
        await store.create([new_run("b"), new_run("a"), new_run("c"), new_run("old", now=T0 - 1)])
        await store.create([new_run("new", now=T0 + 1)])
        assert await found(store, {}) == "new c b a old"

    @rule
    async def test_pages_join_without_gap_or_repetition(self, store: Store) -> None:
        # Many runs of one instant: a cursor of the time alone would lose some of them.
        await store.create([new_run(f"r{n:02}", now=T0 + n // 7) for n in range(40)])
        seen, cursor = list[str](), None
        for _ in range(100):
            page = await store.list({}, 3, cursor)
            seen += [one["run_id"] for one in page["rows"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert seen == [f"r{n:02}" for n in reversed(range(40))]

    @rule
    async def test_a_page_that_just_suffices_is_the_last(self, store: Store) -> None:
        await store.create([new_run("a"), new_run("b")])
        page = await store.list({}, 2, None)
        assert ([one["run_id"] for one in page["rows"]], page["next"]) == (["b", "a"], None)
        page = await store.list({"workflow": "none"}, 2, None)
        assert (list(page["rows"]), page["next"]) == ([], None)

    @rule
    async def test_cursors_are_stable_while_runs_come_change_and_go(self, store: Store) -> None:
        await store.create([new_run(f"r{n}", owner="ann", now=T0 + n) for n in range(6)])
        first = await store.list({}, 2, None)
        assert [one["run_id"] for one in first["rows"]] == ["r5", "r4"]
        await store.create([new_run("newer", now=T0 + 100)])
        await commit_one(store, commit("r3", entries=[entry("")], next=finished(), at=T0 + 500))
        await store.intervene([{"kind": "delete", "run_id": "r4", "force": True}])
        second = await store.list({}, 2, first["next"])
        assert [one["run_id"] for one in second["rows"]] == ["r3", "r2"]
        third = await store.list({}, 2, second["next"])
        assert ([one["run_id"] for one in third["rows"]], third["next"]) == (["r1", "r0"], None)

    @rule
    async def test_a_cursor_may_be_any_place(self, store: Store) -> None:
        await store.create([new_run(name, now=T0 + n) for n, name in enumerate("abc")])
        cursor: Cursor = {"created_at": T0 + 1, "run_id": "zzz"}
        page = await store.list({}, 10, cursor)
        assert [one["run_id"] for one in page["rows"]] == ["b", "a"]

    @rule
    async def test_looking_up_answers_in_the_order_of_the_question(self, store: Store) -> None:
        await store.create([new_run("a"), new_run("b")])
        rows = await store.get(["b", "nobody", "a", "b"])
        assert [one and one["row"]["run_id"] for one in rows] == ["b", None, "a", "b"]

    @rule
    async def test_queries_change_nothing(self, store: Store) -> None:
        await store.create([new_run("a", owner="ann")])
        before = await detail(store)
        await store.list({"status": ["running"]}, 10, None)
        await store.count({})
        await store.load("a", 0, 10)
        await store.unread("ann", [])
        await store.inbox("a", 0)
        await store.receipts([("a", "m")])
        await store.standing(["a"])
        await store.held("ann", None, 9)
        await store.owners()
        await store.census()
        await unsent(store)
        await store.next_due({"lanes": [lane()], "now": T0 + 10**9})
        await store.schema()
        assert await detail(store) == before

    @rule
    async def test_queues_families_and_ends_are_found(self, store: Store) -> None:
        await store.create(
            [new_run("a", queue="slow", now=T0 + 1), new_run("b", parent="a", root="a", now=T0 + 2)]
        )
        await store.create(
            [new_run(name, owner="ann", parent="b", root="a", now=T0 + 3) for name in ("c", "d", "e")]
        )
        for name, at in (("c", 10), ("d", 20)):
            end = commit(name, entries=[entry("")], next=finished("failed"), at=T0 + at)
            await commit_one(store, end)
        await commit_one(store, commit("e", next={"kind": "stuck", "note": "why"}, at=T0 + 5))
        cases: list[tuple[Filter, str]] = [
            ({"queue": "slow"}, "a"),
            ({"queue": "slo"}, ""),
            ({"queue": "default"}, "e d c b"),
            ({"parent": "a"}, "b"),
            ({"parent": "b"}, "e d c"),
            ({"parent": "c"}, ""),
            ({"root": "a"}, "e d c b"),
            ({"root": "a", "parent": "b", "status": ["failed", "stuck"]}, "e d c"),
            ({"parent": "b", "status": ["failed", "stuck"], "created_after": T0}, "e d c"),
            ({"finished_before": T0 + 10}, ""),
            ({"finished_before": T0 + 11}, "c"),
            ({"finished_before": T0 + 10**6}, "d c"),
            ({"finished_before": T0 + 10**6, "status": ["completed"]}, ""),
            ({"queue": None, "parent": None, "finished_before": None}, "e d c b a"),
        ]
        for asked, expected in cases:
            assert await found(store, asked) == expected, asked

    @rule
    async def test_where_runs_stand_is_told_exactly(self, store: Store) -> None:
        await store.create([new_run("q", at=T0 + 50), new_run("r", owner="ann")])
        await pause(store, "w", "event:go")
        await commit_one(store, commit("r", entries=[entry("s"), entry("t")]))
        queued, nobody, running, waits, again = await store.standing(["q", "nobody", "r", "w", "q"])
        assert nobody is None
        assert queued == again
        assert queued is not None
        assert {**queued, "seed": list(queued["seed"])} == {
            "status": "queued",
            "seed": list(SEED),
            "owner": None,
            "epoch": 0,
            "journal_len": 1,
            "generation": 0,
            "ready_at": T0 + 50,
        }
        assert running is not None
        assert (running["status"], running["owner"], running["epoch"]) == ("running", "ann", 1)
        assert (running["journal_len"], running["ready_at"]) == (3, None)
        assert waits is not None
        assert (waits["status"], waits["owner"], waits["ready_at"]) == ("waiting", None, None)
        assert await length(store, "r") == 3

    @rule
    async def test_the_census_counts_what_has_not_ended(self, store: Store) -> None:
        assert list(await store.census()) == []
        await store.create(
            [
                new_run("q1", now=T0 + 9),
                new_run("q2", now=T0 + 8),
                new_run("q10", now=T0 + 8),
                new_run("other", version="2", queue="slow", now=T0 + 1),
                new_run("r", owner="ann", now=T0 + 5),
                *[new_run(each, owner="ann") for each in ("done", "failed", "stuck")],
            ]
        )
        await pause(store, "w1", "event:go")
        await pause(store, "w2", "timer", "event:go", ready_at=T0 + 99)
        await commit_one(store, commit("done", entries=[entry("")], next=finished()))
        await commit_one(store, commit("failed", entries=[entry("")], next=finished("failed")))
        await commit_one(store, commit("stuck", next={"kind": "stuck", "note": "why"}))
        counted = await store.census()
        told = [
            (one["version"], one["queue"], one["status"], one["count"], one["oldest"]["run_id"])
            for one in counted
        ]
        assert told == [
            # Of the same instant the lesser id.
            ("1", "default", "queued", 3, "q10"),
            ("1", "default", "running", 1, "r"),
            ("1", "default", "waiting", 2, "w1"),
            ("1", "default", "stuck", 1, "stuck"),
            ("2", "slow", "queued", 1, "other"),
        ]
        assert counted[0]["oldest"]["created_at"] == T0 + 8
        assert {(one["workflow"], one["format"]) for one in counted} == {("w", 1)}
