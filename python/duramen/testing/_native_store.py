"""One of our own stores as a `duramen.store.Store`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from duramen._bridge import NativeStore as _Native
from duramen._bridge import StoreFailed, native_error
from duramen._stores.url import parse_target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        StreamAppend,
        StreamAsk,
        StreamPage,
        Unsent,
        UnsentAsk,
    )

__all__ = ["NativeStore", "open_store"]


def open_store(url: str, **options: Any) -> NativeStore:
    """Open one of our stores by its URL, to compare another with it or to look into it.

    Args:
        url: as for `duramen.Runtime`.
        options: for sqlite: ``migrate`` (bool), ``synchronous`` (``"full"`` or ``"normal"``),
        ``busy_timeout``
            (milliseconds) and ``max_pages`` (the file grows to no more pages of 4 KiB). For postgresql:
            ``migrate``, and what `duramen.Runtime` takes.

    Raises:
        InvalidArgument: it is no URL of a store.
        StoreError: the store cannot be opened.

    >>> import asyncio
    >>> store = open_store("memory://")
    >>> asyncio.run(store.count({"status": ["queued"]}))
    0
    """
    target = parse_target(url)
    try:
        return NativeStore(_Native(target.scheme, target.location, {**target.options, **options}))
    except StoreFailed as error:
        raise _public(error) from None


def _public(error: StoreFailed) -> Exception:
    kind, message = error.args
    return native_error((kind, message))


class NativeStore:
    """See `open_store`. Each call waits in a thread of the event loop's default executor."""

    def __init__(self, native: _Native) -> None:
        self._native = native
        self.in_thread = True
        """False makes calls block the event loop: an `Environment` wants the same order each time."""

    async def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        try:
            return await asyncio.to_thread(method, *args) if self.in_thread else method(*args)
        except StoreFailed as error:
            raise _public(error) from None

    async def migrate(self) -> Schema:
        """See `duramen.store.Store`, as for all methods."""
        return await self._call(self._native.migrate)

    async def schema(self) -> Schema:
        return await self._call(self._native.schema)

    async def create(self, batch: Sequence[NewRun], /) -> Sequence[Created]:
        return await self._call(self._native.create, batch)

    async def commit(self, batch: Sequence[RunCommit], /) -> Sequence[CommitOutcome]:
        return await self._call(self._native.commit, batch)

    async def intervene(self, batch: Sequence[Intervention], /) -> Sequence[Intervened]:
        return await self._call(self._native.intervene, batch)

    async def unsent(self, ask: UnsentAsk, /) -> Sequence[Unsent]:
        return await self._call(self._native.unsent, ask)

    async def sent(self, items: Sequence[Unsent], /) -> None:
        await self._call(self._native.sent, items)

    async def heartbeat(self, beat: Heartbeat, /) -> Beat:
        return await self._call(self._native.heartbeat, beat)

    async def retire(self, owner: str, now: int | None, /) -> None:
        await self._call(self._native.retire, owner, now)

    async def owners(self) -> Sequence[OwnerRow]:
        return await self._call(self._native.owners)

    async def held(self, owner: str, after: str | None, limit: int, /) -> Sequence[tuple[str, int]]:
        return await self._call(self._native.held, owner, after, limit)

    async def claim(self, claim: Claim, /) -> Claimed:
        return await self._call(self._native.claim, claim)

    async def next_due(self, ask: DueAsk, /) -> NextDue:
        return await self._call(self._native.next_due, ask)

    async def deliver(self, batch: Sequence[NewMessage], /) -> Sequence[Delivered]:
        return await self._call(self._native.deliver, batch)

    async def unread(self, owner: str, told: Sequence[tuple[str, int]], /) -> Sequence[Message]:
        return await self._call(self._native.unread, owner, told)

    async def inbox(self, run_id: str, behind: int, /) -> InboxPage:
        return await self._call(self._native.inbox, run_id, behind)

    async def receipts(self, messages: Sequence[tuple[str, str]], /) -> Sequence[Receipt | None]:
        return await self._call(self._native.receipts, messages)

    async def append(self, batch: Sequence[StreamAppend], /) -> Sequence[Appended]:
        return await self._call(self._native.append, batch)

    async def stream(self, ask: StreamAsk, /) -> StreamPage | None:
        return await self._call(self._native.stream, ask)

    async def get(self, run_ids: Sequence[str], /) -> Sequence[RunDetail | None]:
        return await self._call(self._native.get, run_ids)

    async def standing(self, run_ids: Sequence[str], /) -> Sequence[Standing | None]:
        return await self._call(self._native.standing, run_ids)

    async def load(self, run_id: str, start: int, limit: int, /) -> Sequence[Entry]:
        return await self._call(self._native.load, run_id, start, limit)

    async def list(self, filter: Filter, limit: int, cursor: Cursor | None, /) -> Page:  # noqa: A002
        return await self._call(self._native.list, filter, limit, cursor)

    async def count(self, filter: Filter, /) -> int:  # noqa: A002
        return await self._call(self._native.count, filter)

    async def census(self) -> Sequence[OpenRuns]:
        return await self._call(self._native.census)

    async def change_schedules(self, batch: Sequence[ScheduleChange], /) -> Sequence[bool]:
        return await self._call(self._native.change_schedules, batch)

    async def get_schedules(self, ids: Sequence[str], /) -> Sequence[ScheduleRow | None]:
        return await self._call(self._native.get_schedules, ids)

    async def list_schedules(self, after: str | None, limit: int, /) -> Sequence[ScheduleRow]:
        return await self._call(self._native.list_schedules, after, limit)

    async def due_schedules(self, ask: ScheduleAsk, /) -> DueSchedules:
        return await self._call(self._native.due_schedules, ask)

    async def close(self) -> None:
        await self._call(self._native.close)
