"""The base of stores that stand before another one: every call goes through one method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from duramen.store import (
        Appended,
        Beat,
        Claim,
        Claimed,
        CommitOutcome,
        Created,
        Cursor,
        Delivered,
        DueAsk,
        DueSchedules,
        Entry,
        Filter,
        Heartbeat,
        InboxPage,
        Intervened,
        Intervention,
        Message,
        NewMessage,
        NewRun,
        NextDue,
        OpenRuns,
        OwnerRow,
        Page,
        Receipt,
        RunCommit,
        RunDetail,
        ScheduleAsk,
        ScheduleChange,
        ScheduleRow,
        Schema,
        Standing,
        Store,
        StreamAppend,
        StreamAsk,
        StreamPage,
        Unsent,
        UnsentAsk,
    )

__all__ = ["METHODS", "WrappedStore"]


class WrappedStore:
    """A `duramen.store.Store` that asks another one; `call` is where a derived class comes between."""

    def __init__(self, inner: Store) -> None:
        self.inner: Any = inner

    async def call(self, method: str, *args: Any) -> Any:
        """Pass a call on."""
        return await getattr(self.inner, method)(*args)

    async def migrate(self) -> Schema:
        """See `duramen.store.Store`, as for all methods."""
        return await self.call("migrate")

    async def schema(self) -> Schema:
        return await self.call("schema")

    async def create(self, batch: Sequence[NewRun], /) -> Sequence[Created]:
        return await self.call("create", batch)

    async def commit(self, batch: Sequence[RunCommit], /) -> Sequence[CommitOutcome]:
        return await self.call("commit", batch)

    async def intervene(self, batch: Sequence[Intervention], /) -> Sequence[Intervened]:
        return await self.call("intervene", batch)

    async def unsent(self, ask: UnsentAsk, /) -> Sequence[Unsent]:
        return await self.call("unsent", ask)

    async def sent(self, items: Sequence[Unsent], /) -> None:
        await self.call("sent", items)

    async def heartbeat(self, beat: Heartbeat, /) -> Beat:
        return await self.call("heartbeat", beat)

    async def retire(self, owner: str, now: int | None, /) -> None:
        await self.call("retire", owner, now)

    async def owners(self) -> Sequence[OwnerRow]:
        return await self.call("owners")

    async def held(self, owner: str, after: str | None, limit: int, /) -> Sequence[tuple[str, int]]:
        return await self.call("held", owner, after, limit)

    async def claim(self, claim: Claim, /) -> Claimed:
        return await self.call("claim", claim)

    async def next_due(self, ask: DueAsk, /) -> NextDue:
        return await self.call("next_due", ask)

    async def deliver(self, batch: Sequence[NewMessage], /) -> Sequence[Delivered]:
        return await self.call("deliver", batch)

    async def unread(self, owner: str, told: Sequence[tuple[str, int]], /) -> Sequence[Message]:
        return await self.call("unread", owner, told)

    async def inbox(self, run_id: str, behind: int, /) -> InboxPage:
        return await self.call("inbox", run_id, behind)

    async def receipts(self, messages: Sequence[tuple[str, str]], /) -> Sequence[Receipt | None]:
        return await self.call("receipts", messages)

    async def append(self, batch: Sequence[StreamAppend], /) -> Sequence[Appended]:
        return await self.call("append", batch)

    async def stream(self, ask: StreamAsk, /) -> StreamPage | None:
        return await self.call("stream", ask)

    async def get(self, run_ids: Sequence[str], /) -> Sequence[RunDetail | None]:
        return await self.call("get", run_ids)

    async def standing(self, run_ids: Sequence[str], /) -> Sequence[Standing | None]:
        return await self.call("standing", run_ids)

    async def load(self, run_id: str, start: int, limit: int, /) -> Sequence[Entry]:
        return await self.call("load", run_id, start, limit)

    async def list(self, filter: Filter, limit: int, cursor: Cursor | None, /) -> Page:  # noqa: A002
        return await self.call("list", filter, limit, cursor)

    async def count(self, filter: Filter, /) -> int:  # noqa: A002
        return await self.call("count", filter)

    async def census(self) -> Sequence[OpenRuns]:
        return await self.call("census")

    async def change_schedules(self, batch: Sequence[ScheduleChange], /) -> Sequence[bool]:
        return await self.call("change_schedules", batch)

    async def get_schedules(self, ids: Sequence[str], /) -> Sequence[ScheduleRow | None]:
        return await self.call("get_schedules", ids)

    async def list_schedules(self, after: str | None, limit: int, /) -> Sequence[ScheduleRow]:
        return await self.call("list_schedules", after, limit)

    async def due_schedules(self, ask: ScheduleAsk, /) -> DueSchedules:
        return await self.call("due_schedules", ask)

    async def close(self) -> None:
        await self.call("close")


METHODS = frozenset(name for name in vars(WrappedStore) if not name.startswith("_")) - {"call"}
"""The names of what a store does."""
