"""Reading runs and their journals."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from duramen._values.checks import check_count, check_id, pack_cursor, unpack_cursor
from duramen.errors import UnknownRun

from .filters import engine_filter
from .history import make_history
from .rows import event_of, view_of, worker_of
from .views import Page

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duramen._bridge import Detail, Entry, OwnerRow, Row
    from duramen._bridge import Page as EnginePage
    from duramen._values.serializer import Serializer
    from duramen.errors import RecordedError

    from .filters import RunFilters
    from .history import History
    from .lifecycle import Lifecycle
    from .registry import Registry
    from .views import Event, RunView, WorkerView

__all__ = ["Queries"]

_CHILDREN = 100
"""So many children stand in a view."""

_PAGE = 1000
"""The most rows or entries of one request to the store."""


class Queries:
    """The calls that read and do not wait."""

    def __init__(self, lifecycle: Lifecycle, registry: Registry, serializer: Serializer) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._serializer = serializer

    # -- runs ------------------------------------------------------------------------------------------------

    async def get(self, run_id: str) -> RunView:
        """See `Runtime.get`."""
        detail = await self.detail(run_id)
        view = view_of(detail.row, detail, self._serializer, self._registry.types)
        steps = view.exhausted_steps
        if view.status == "paused" and steps:
            view = replace(view, error=await self._failure_of(view, steps[0]))
        port = self._lifecycle.ready
        children: EnginePage = await port.call(port.engine.list, {"parent": run_id}, _CHILDREN, None)
        if not children.rows:
            return view
        return replace(view, children=tuple(row.run_id for row in reversed(children.rows)))

    async def _failure_of(self, view: RunView, step: str) -> RecordedError | None:
        """Why a step failed for good, for which its run is paused: its record is not far from the end."""
        for event in reversed(await self.load(view.run_id, max(0, view.journal_len - _PAGE))):
            if event.exhausted and event.op == step:
                return event.error
        return None

    async def detail(self, run_id: str) -> Detail:
        """Read a run with what belongs to it, as the engine gives it.

        Raises:
            UnknownRun: there is none of that id.
        """
        check_id("run id", run_id)
        port = self._lifecycle.ready
        (detail,) = await port.call(port.engine.get, [run_id])
        if detail is None:
            raise UnknownRun(run_id)
        return detail

    async def get_many(self, run_ids: Iterable[str]) -> list[RunView | None]:
        """See `Runtime.get_many`."""
        ids = [check_id("run id", run_id) for run_id in run_ids]
        port = self._lifecycle.ready
        found: list[RunView | None] = []
        for start in range(0, len(ids), _PAGE):
            details = await port.call(port.engine.get, ids[start : start + _PAGE])
            found += [
                None if each is None else view_of(each.row, each, self._serializer, self._registry.types)
                for each in details
            ]
        return found

    async def page(self, filters: RunFilters, *, limit: int, cursor: str | None) -> Page[RunView]:
        """See `Runtime.list`."""
        wanted = engine_filter("list", filters)
        check_count("limit", limit, most=_PAGE)
        port = self._lifecycle.ready
        page: EnginePage = await port.call(port.engine.list, wanted, limit, unpack_cursor(cursor))
        types = self._registry.types
        return Page(
            tuple(view_of(row, None, self._serializer, types) for row in page.rows),
            pack_cursor(page.next),
        )

    async def count(self, filters: RunFilters) -> int:
        """See `Runtime.count`."""
        wanted = engine_filter("count", filters)
        port = self._lifecycle.ready
        return await port.call(port.engine.count, wanted)

    async def workers(self) -> list[WorkerView]:
        """See `Runtime.workers`."""
        port = self._lifecycle.ready
        found: list[OwnerRow] = await port.call(port.engine.owners)
        now = port.engine.now()
        workers = [worker_of(row, now) for row in found]
        return sorted(workers, key=lambda worker: (not worker.alive, -worker.started_at.timestamp()))

    # -- journals --------------------------------------------------------------------------------------------

    async def timeline(self, run_id: str, *, from_index: int = 0, limit: int | None = None) -> list[Event]:
        """See `Runtime.timeline`."""
        check_id("run id", run_id)
        index = check_count("from_index", from_index, least=0, most=2**53)
        left = 2**53 if limit is None else check_count("limit", limit, most=2**53)
        found: list[Event] = []
        while left > 0:
            wanted = min(left, _PAGE)
            events = await self.load(run_id, index, wanted)
            if not events and not found and (start := (await self.detail(run_id)).row.journal_start) > index:
                # What stood there was a former generation's.
                index = start
                continue
            found += events
            index += len(events)
            left -= len(events)
            if len(events) < wanted:
                break
        return found

    async def export(self, run_id: str) -> History:
        """See `Runtime.export`."""
        detail = await self.detail(run_id)
        while True:
            row = detail.row
            entries = await self._entries(run_id, row)
            if entries and row.status != "running":
                return make_history(detail, entries)
            # The row of a running run lags behind its journal: both are of one driver if it has it still.
            detail = await self.detail(run_id)
            now = detail.row
            if entries and (now.status, now.epoch, now.seed) == (row.status, row.epoch, row.seed):
                return make_history(detail, entries)
            if not entries and (now.generation, now.seed) == (row.generation, row.seed):
                raise UnknownRun(run_id)

    async def _entries(self, run_id: str, row: Row) -> list[Entry]:
        """What the row counts of a journal, which only grows; of a running run all that there is.

        None at all if it has gone meanwhile, with its run or with its generation.
        """
        start = row.journal_start
        wanted: int | None = None if row.status == "running" else row.journal_len - start
        port = self._lifecycle.ready
        entries: list[Entry] = []
        while wanted is None or len(entries) < wanted:
            limit = _PAGE if wanted is None else min(_PAGE, wanted - len(entries))
            found = await port.call(port.engine.load, run_id, start + len(entries), limit)
            entries += found
            if wanted is None and len(found) < limit:
                break
            if not found:
                return []
        return entries

    async def load(self, run_id: str, index: int, limit: int = _PAGE) -> list[Event]:
        """Read some entries of a journal; none if it is not that long, or there is no such run."""
        port = self._lifecycle.ready
        entries = await port.call(port.engine.load, run_id, index, limit)
        return [
            event_of(run_id, at, entry, self._serializer) for at, entry in enumerate(entries, start=index)
        ]
