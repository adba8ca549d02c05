"""One of our own stores as a `duramen.store.Store`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from duramen._bridge import NativeStore as _Native
from duramen._bridge import StoreFailed, native_error
from duramen._runtime_url import parse_target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from duramen.store import (
        Beat,
        Claim,
        Claimed,
        CommitOutcome,
        Created,
        Cursor,
        Delivered,
        Entry,
        Filter,
        Heartbeat,
        Intervened,
        Intervention,
        Message,
        NewMessage,
        NewRun,
        NextDue,
        Page,
        RunCommit,
        RunDetail,
        Schema,
        WorkflowKey,
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

    async def claim(self, claim: Claim, /) -> Claimed:
        return await self._call(self._native.claim, claim)

    async def commit(self, batch: Sequence[RunCommit], /) -> Sequence[CommitOutcome]:
        return await self._call(self._native.commit, batch)

    async def heartbeat(self, beat: Heartbeat, /) -> Beat:
        return await self._call(self._native.heartbeat, beat)

    async def unread(self, owner: str, /) -> Sequence[Message]:
        return await self._call(self._native.unread, owner)

    async def deliver(self, batch: Sequence[NewMessage], /) -> Sequence[Delivered]:
        return await self._call(self._native.deliver, batch)

    async def intervene(self, batch: Sequence[Intervention], /) -> Sequence[Intervened]:
        return await self._call(self._native.intervene, batch)

    async def get(self, run_ids: Sequence[str], /) -> Sequence[RunDetail | None]:
        return await self._call(self._native.get, run_ids)

    async def load(self, run_id: str, start: int, limit: int, /) -> Sequence[Entry]:
        return await self._call(self._native.load, run_id, start, limit)

    async def list(self, filter: Filter, limit: int, cursor: Cursor | None, /) -> Page:  # noqa: A002
        return await self._call(self._native.list, filter, limit, cursor)

    async def count(self, filter: Filter, /) -> int:  # noqa: A002
        return await self._call(self._native.count, filter)

    async def next_due(self, workflows: Sequence[WorkflowKey], /) -> NextDue:
        return await self._call(self._native.next_due, workflows)

    async def close(self) -> None:
        await self._call(self._native.close)
