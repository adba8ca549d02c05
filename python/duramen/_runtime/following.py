"""Following a run's journal: what there is, then what is to come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from duramen._values.checks import check_count, check_id
from duramen._values.durations import from_ms

from .driver import Collector
from .results import ended
from .rows import read_payload

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from duramen._values.serializer import Serializer

    from .lifecycle import Lifecycle
    from .queries import Queries
    from .views import Event

__all__ = ["Following"]

_FIRST_POLL, _LAST_POLL = 0.005, 0.25
"""Pauses between two looks, in seconds."""

_MOST_LIVE = 10_000
"""So many live events are kept for a listener that does not take them."""


class Following:
    """The call that follows one run."""

    def __init__(self, lifecycle: Lifecycle, serializer: Serializer, queries: Queries) -> None:
        self._lifecycle = lifecycle
        self._serializer = serializer
        self._queries = queries

    async def events(
        self, run_id: str, from_index: int = 0, follow: bool = True, *, live: bool = True
    ) -> AsyncGenerator[Event]:
        """See `Runtime.events`."""
        check_id("run id", run_id)
        index = check_count("from_index", from_index, least=0, most=2**53)
        self._lifecycle.ready  # noqa: B018 - raises if no calls are possible
        driver = self._lifecycle.driver
        collector = Collector(_MOST_LIVE)
        driver.collect(run_id, collector)
        poll = _FIRST_POLL
        seen: bytes | None = None
        try:
            while True:
                collector.changed.clear()
                detail = await self._queries.detail(run_id)
                status = detail.row.status
                # The journal of a run that was continued as new begins there.
                index = max(index, detail.row.journal_start)
                events = await self._queries.load(run_id, index)
                state = detail.state
                if live and state and state != seen and not driver.drives(run_id):
                    # Driven here, what `collector` is told is ahead of what the store has.
                    seen = state
                    at = from_ms(detail.row.updated_at)
                    collector.add_state(run_id, at, read_payload(self._serializer, state))
                while collector.events:
                    event = collector.events.popleft()
                    if live:
                        yield event
                for event in events:
                    index += 1
                    yield event
                if events:
                    poll = _FIRST_POLL
                    continue
                if not follow or ended(status):
                    return
                poll = min(poll * 1.5, _LAST_POLL)
                try:
                    await asyncio.wait_for(collector.changed.wait(), poll)
                except TimeoutError:
                    pass
        finally:
            driver.uncollect(run_id, collector)
