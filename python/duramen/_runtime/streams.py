"""Reading the streams of runs: page by page, then what is to come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from duramen._values.checks import check_count, check_id
from duramen._values.durations import from_ms
from duramen.errors import StreamTruncated, UnknownRun

from .results import ended
from .views import StreamItem

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from duramen._bridge import StreamItem as Kept
    from duramen._bridge import StreamPage
    from duramen._values.serializer import Serializer

    from .lifecycle import Lifecycle

__all__ = ["Streams"]

_FIRST_POLL, _LAST_POLL = 0.005, 0.25
"""Pauses between two looks, in seconds; an item that is written in this process ends a pause."""

_PAGE = 500
"""So many items are read at once, at the most."""


class Streams:
    """The call that reads one stream."""

    def __init__(self, lifecycle: Lifecycle, serializer: Serializer) -> None:
        self._lifecycle = lifecycle
        self._serializer = serializer

    async def read(
        self,
        run_id: str,
        name: str,
        from_seq: int = 0,
        follow: bool = True,
        type: Any = None,  # noqa: A002
    ) -> AsyncGenerator[StreamItem[Any]]:
        """See `Runtime.stream`."""
        check_id("run id", run_id)
        check_id("stream's name", name)
        wanted = check_count("from_seq", from_seq, least=0, most=2**53)
        port = self._lifecycle.ready
        driver = self._lifecycle.driver
        bell = asyncio.Event()
        driver.read(run_id, bell)
        life: bytes | None = None
        poll = _FIRST_POLL
        try:
            while True:
                bell.clear()
                page: StreamPage | None = await port.call(port.engine.stream, run_id, name, wanted, _PAGE)
                if page is None or life not in {None, page.seed}:
                    raise UnknownRun(run_id)
                life = page.seed
                for kept in page.items:
                    if wanted not in {0, kept.seq}:
                        raise StreamTruncated(run_id, name, wanted, kept.seq)
                    wanted = kept.seq + 1
                    yield self._item(kept, type)
                if page.items:
                    poll = _FIRST_POLL
                    continue
                if not follow or ended(page.status):
                    return
                poll = min(poll * 1.5, _LAST_POLL)
                try:
                    await asyncio.wait_for(bell.wait(), poll)
                except TimeoutError:
                    pass
        finally:
            driver.unread(run_id, bell)

    def _item(self, kept: Kept, type: Any) -> StreamItem[Any]:  # noqa: A002
        op, _, generation = kept.writer.rpartition("##") if "##" in kept.writer else (kept.writer, "", "1")
        return StreamItem(
            seq=kept.seq,
            value=self._serializer.loads(kept.payload, type),
            index=kept.index,
            op=op or None,
            attempt=kept.attempt or None,
            generation=int(generation) - 1,
            at=from_ms(kept.at),
        )
