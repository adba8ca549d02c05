"""Stores as people write and use them: accepted in strict mode, and what does not fit is rejected."""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_type

from typing_extensions import override

from duramen import Runtime
from duramen.store import CommitOutcome, Created, NewRun, RunCommit, RunDetail, Store
from duramen.testing import NativeStore, StoreContract, open_store


class TestOurs(StoreContract):
    @override
    async def open_store(self, place: Path) -> Store:
        return open_store(f"sqlite:///{place}/runs.db", synchronous="normal")


class Counted(NativeStore):
    commits = 0

    @override
    async def commit(self, batch: Sequence[RunCommit], /) -> Sequence[CommitOutcome]:
        self.commits += len(batch)
        return await super().commit(batch)


class Incomplete:
    async def create(self, batch: Sequence[NewRun], /) -> list[Created]:
        return []


async def use(store: Store) -> None:
    (detail,) = await store.get(["a"])
    assert_type(detail, RunDetail | None)
    if detail is not None:
        assert_type(detail["row"]["journal_len"], int)
        print(detail["row"]["lenght"])  # pyright: ignore[reportGeneralTypeIssues, reportUnknownArgumentType]
    (outcome,) = await store.commit([])
    if outcome["kind"] == "applied":
        assert_type(outcome["due"], bool)
    elif outcome["kind"] == "rejected":
        assert_type(outcome["reason"], str)
    await store.count({"status": ["queued"], "tag": None})
    await store.count({"status": ["asleep"]})  # pyright: ignore[reportArgumentType]


_whole: Store = open_store("memory://")
_part: Store = Incomplete()  # pyright: ignore[reportAssignmentType]


def take(store: Counted) -> Runtime:
    return Runtime(store)


Runtime(_whole)
Runtime(Incomplete())  # pyright: ignore[reportArgumentType]
Runtime(42)  # pyright: ignore[reportArgumentType]
