"""Schedules: rows that are changed by their version, and found by when somebody has to look at them."""

# ruff: noqa: S101 - asserting is what rules do

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from duramen.errors import InvalidArgument

from .creation import raises
from .support import T0, Rules, new_run, rule

if TYPE_CHECKING:
    from duramen.store import ScheduleRow, Store


def schedule(name: str, version: int = 1, **fields: Any) -> ScheduleRow:
    """A schedule of the workflow ``w`` that somebody has to look at at once."""
    row: Any = {
        "id": name,
        "version": version,
        "workflow": "w",
        "next_at": T0,
        "definition": b"\0d",
        "state": b"s",
    }
    return row | fields


async def put(store: Store, row: ScheduleRow, expected: int | None = None) -> bool:
    """Write one schedule."""
    (done,) = await store.change_schedules([{"id": row["id"], "expected": expected, "row": row}])
    return done


async def due(store: Store, now: int, *workflows: str, after: Any = None, limit: int = 10) -> Any:
    """The names of those that are due, and when the next one is."""
    names = workflows or ("w",)
    found = await store.due_schedules({"workflows": names, "after": after, "limit": limit, "now": now})
    assert found["now"] == now
    return [row["id"] for row in found["rows"]], found["next_at"]


class ScheduleRules(Rules):
    """Schedules: rows that are changed by their version, and found by when somebody has to look at them."""

    @rule
    async def test_a_schedule_is_kept_as_it_was_written(self, store: Store) -> None:
        rows = [
            schedule("a"),
            schedule("é", 2**61, next_at=None, workflow="x", definition=b"", state=b"\xff"),
        ]
        for row in rows:
            assert await put(store, row)
        found = await store.get_schedules(["é", "none", "a"])
        assert [None if row is None else _plain(row) for row in found] == [rows[1], None, rows[0]]

    @rule
    async def test_a_change_names_the_version_that_it_expects(self, store: Store) -> None:
        assert not await put(store, schedule("a"), expected=1), "there is none"
        assert await put(store, schedule("a"))
        assert not await put(store, schedule("a", 2)), "there is one"
        assert not await put(store, schedule("a", 3), expected=2)
        assert await put(store, schedule("a", 2, state=b"t"), expected=1)
        (row,) = await store.get_schedules(["a"])
        assert row is not None
        assert (row["version"], bytes(row["state"])) == (2, b"t")

    @rule
    async def test_one_is_removed_by_its_version(self, store: Store) -> None:
        await put(store, schedule("a"))
        gone: Any = [{"id": "a", "expected": 2, "row": None}, {"id": "a", "expected": 1, "row": None}]
        assert list(await store.change_schedules(gone)) == [False, True]
        assert list(await store.get_schedules(["a"])) == [None]
        assert not await put(store, schedule("a", 3), expected=1)
        assert await put(store, schedule("a", 3))

    @rule
    async def test_the_changes_of_a_batch_are_made_one_after_the_other(self, store: Store) -> None:
        batch: Any = [
            {"id": "a", "expected": None, "row": schedule("a")},
            {"id": "b", "expected": 7, "row": schedule("b")},
            {"id": "a", "expected": 1, "row": schedule("a", 2)},
            {"id": "a", "expected": 1, "row": schedule("a", 3)},
            {"id": "c", "expected": None, "row": schedule("c")},
        ]
        assert list(await store.change_schedules(batch)) == [True, False, True, False, True]
        assert [row["version"] for row in await store.list_schedules(None, 9)] == [2, 1]

    @rule
    async def test_of_changes_at_once_one_is_made(self, store: Store) -> None:
        await put(store, schedule("a"))
        done = await asyncio.gather(*(put(store, schedule("a", 10 + n), expected=1) for n in range(8)))
        assert sorted(done) == [False] * 7 + [True]
        (row,) = await store.get_schedules(["a"])
        assert row is not None
        assert row["version"] == 10 + done.index(True)

    @rule
    async def test_they_are_listed_by_their_ids(self, store: Store) -> None:
        for name in ("b", "a", "C", "é"):
            await put(store, schedule(name))
        assert [row["id"] for row in await store.list_schedules(None, 9)] == ["C", "a", "b", "é"]
        assert [row["id"] for row in await store.list_schedules("a", 1)] == ["b"]
        assert list(await store.list_schedules("é", 9)) == []

    @rule
    async def test_those_that_are_due_are_found_by_workflow_and_time(self, store: Store) -> None:
        for name, at, workflow in (
            ("late", T0 + 9, "w"),
            ("b", T0, "w"),
            ("a", T0, "w"),
            ("other", T0, "x"),
            ("paused", None, "w"),
            ("first", T0 - 5, "w"),
        ):
            await put(store, schedule(name, next_at=at, workflow=workflow))
        assert await due(store, T0 - 6) == ([], T0 - 5)
        assert await due(store, T0) == (["first", "a", "b"], T0 + 9)
        assert await due(store, T0, limit=1) == (["first"], T0)
        assert await due(store, T0, limit=0) == ([], T0 - 5)
        assert await due(store, T0, after=(T0, "a")) == (["b"], T0 + 9)
        assert await due(store, T0, "x") == (["other"], None)
        assert await due(store, T0, "x", "w", "x") == (["first", "a", "b", "other"], T0 + 9)
        assert await due(store, T0, "unknown") == ([], None)
        none = await store.due_schedules({"workflows": [], "after": None, "limit": 9, "now": T0})
        assert (list(none["rows"]), none["next_at"]) == ([], None)

    @rule
    async def test_a_change_moves_it_in_time(self, store: Store) -> None:
        await put(store, schedule("a"))
        await put(store, schedule("a", 2, next_at=T0 + 50), expected=1)
        assert await due(store, T0) == ([], T0 + 50)
        await put(store, schedule("a", 3, next_at=None), expected=2)
        assert await due(store, T0 + 99) == ([], None)

    @rule
    async def test_ids_that_no_store_can_keep_are_refused(self, store: Store) -> None:
        for bad in ("", "a\x1fb", "x" * 256):
            assert await raises(InvalidArgument, put(store, schedule(bad)))
            assert await raises(InvalidArgument, put(store, schedule("a", workflow=bad)))
        assert list(await store.list_schedules(None, 9)) == []

    @rule
    async def test_the_meta_of_a_creation_stands_in_the_first_entry(self, store: Store) -> None:
        tick = '{"tick":{"schedule":"a","at":5}}'
        with_meta: Any = new_run("r") | {"meta": tick}
        await store.create([with_meta, new_run("s")])
        assert [entry["meta"] for entry in await store.load("r", 0, 9)] == [tick]
        assert [entry["meta"] for entry in await store.load("s", 0, 9)] == [None]


def _plain(row: ScheduleRow) -> Any:
    return {**row, "definition": bytes(row["definition"]), "state": bytes(row["state"])}
