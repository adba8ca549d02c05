"""The part of `Runtime` that reads: runs, results, journals."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from duramen._bridge import ENCODING
from duramen._handlers.step import waits_for
from duramen._values.checks import (
    check_choice,
    check_count,
    check_id,
    check_text,
    check_wait_key,
    pack_cursor,
    unpack_cursor,
)
from duramen._values.durations import duration_ms, from_ms, instant_ms
from duramen._values.payloads import load_reason
from duramen._values.serializer import rebuild_error
from duramen.errors import (
    InvalidArgument,
    RunCancelled,
    RunFailed,
    RunStuck,
    RunTerminated,
    RuntimeClosed,
    RunTimedOut,
    StoreClosed,
    StoreNewer,
    UnknownRun,
)

from .core import RuntimeCore
from .driver import NOT_HERE, Collector, Left
from .history import make_history
from .rows import event_of, read_error, read_payload, view_of, worker_of
from .views import Event, Page, RunStatus, RunView, WorkerView

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from datetime import datetime, timedelta

    from duramen._bridge import Detail, Entry, OwnerRow, Row
    from duramen._bridge import Page as EnginePage

    from .history import History

__all__ = ["Queries", "ended"]

_PAGE = 1000
_FIRST_POLL, _LAST_POLL = 0.005, 0.25
_ON = frozenset({"paused", "continued", "lost"})
"""How a run leaves a process's hands without having ended."""

_STATUSES = tuple(status.value for status in RunStatus)


class Queries(RuntimeCore):
    """See `Runtime`."""

    async def get(self, run_id: str) -> RunView:
        """Read a run with its input, output or error, state, memo and refused signals.

        Raises:
            UnknownRun: there is none of that id.
        """
        detail = await self._detail(run_id)
        return view_of(detail.row, detail, self.serializer, self._registry.types)

    async def _detail(self, run_id: str) -> Detail:
        check_id("run id", run_id)
        port = self._ready
        (detail,) = await port.call(port.engine.get, [run_id])
        if detail is None:
            raise UnknownRun(run_id)
        return detail

    async def get_many(self, run_ids: Iterable[str]) -> list[RunView | None]:
        """Read many runs at once, in the order asked for; None for those that do not exist."""
        ids = [check_id("run id", run_id) for run_id in run_ids]
        port = self._ready
        found: list[RunView | None] = []
        for start in range(0, len(ids), _PAGE):
            details = await port.call(port.engine.get, ids[start : start + _PAGE])
            found += [
                None if each is None else view_of(each.row, each, self.serializer, self._registry.types)
                for each in details
            ]
        return found

    # -- results ---------------------------------------------------------------------------------------------

    async def result(self, run_id: str, timeout: timedelta | float | None = None) -> Any:
        """Wait until a run has ended, in whatever process, and give its output.

        The output is decoded by the workflow's output type if that workflow is registered here.

        Args:
            run_id: which run.
            timeout: how long to wait; None: for ever. The run itself is not touched when it passes.

        Raises:
            UnknownRun: there is no such run.
            RunFailed: it failed; the cause is the handler's exception if its class is built in or registered.
            RunCancelled: it was cancelled.
            RunTerminated: it was terminated.
            RunStuck: its code no longer fits its journal.
            StoreNewer: a later version of Duramen ended it, in a form that this one cannot read.
            TimeoutError: the time passed (as `RunTimedOut`).
        """
        return await self._result(run_id, timeout, None)

    async def _result(self, run_id: str, timeout: timedelta | float | None, output_type: Any) -> Any:
        check_id("run id", run_id)
        limit = None if timeout is None else duration_ms(timeout, "timeout") / 1000
        until = None if limit is None else self._ready.loop.time() + limit
        while True:
            try:
                async with waits_for(run_id, self._is_begun):
                    found = await self._told(run_id, until)
            except StoreClosed:
                raise RuntimeClosed("the runtime was closed during the call") from None
            if found is None:
                raise RunTimedOut(run_id, f"no result within {limit:g} s; the run itself goes on")
            if isinstance(found, Left):
                known = found.output_type if output_type is None else output_type
                return self.serializer.loads(found.output or b"", known)
            if ended(found.row.status):
                return self._output(found, output_type)

    async def _is_begun(self, run_id: str) -> bool:
        return (await self._detail(run_id)).row.status != "queued"

    async def _told(self, run_id: str, until: float | None) -> Left | Detail | None:
        """Wait until a run is said to have ended: its output if it completed here, else how it stands.

        None if that instant of the loop's clock comes before.
        """
        left = await self._left_here(run_id, until)
        if left is None or left.output is not None:
            return left
        if left.how not in _ON:
            return await self._detail(run_id)
        return await self._told_anywhere(run_id, until)

    async def _left_here(self, run_id: str, until: float | None) -> Left | None:
        """Wait for as long as a run is driven here, and give how it left; None if that instant comes before.

        It cannot have ended meanwhile, and its end is told by one future: of a run that is started and waited
        for, as most are, the engine is asked nothing and says nothing beside its outcome.
        """
        port, driver = self._ready, self._driver
        how = NOT_HERE
        while driver.drives(run_id):
            left = driver.watch(run_id)
            try:
                if until is None:
                    await left
                elif not await _one_done(port.loop, until, left):
                    return None
            finally:
                driver.unwatch(run_id, left)
            how = left.result()
            if how.how not in _ON:
                break
        return how

    async def _told_anywhere(self, run_id: str, until: float | None) -> Left | Detail | None:
        port, driver = self._ready, self._driver
        # Before anything is read: an end that comes meanwhile must not be missed.
        left = driver.watch(run_id)
        token: int | None = None
        try:
            detail = await self._detail(run_id)
            if ended(detail.row.status):
                return detail
            # However many wait, the engine asks for all of them at once.
            token, ending = port.call_with_token(port.engine.watch_end, run_id)
            while not ending.done():
                if not await _one_done(port.loop, until, left, ending):
                    return None
                if left.done():
                    how = left.result()
                    if how.output is not None:
                        return how
                    if how.how not in _ON:
                        break
                    driver.unwatch(run_id, left)
                    left = driver.watch(run_id)
            else:
                ending.result()
            return await self._detail(run_id)
        finally:
            driver.unwatch(run_id, left)
            if token is not None:
                port.forget(token)
                port.engine.unwatch_end(token)

    def _output(self, detail: Detail, output_type: Any) -> Any:
        """The output of a run that has ended, or the error that it ended with."""
        row = detail.row
        run_id, status = row.run_id, row.status
        if status == "stuck":
            raise RunStuck(run_id, row.note or "no reason was recorded")
        if detail.end is not None and detail.end.encoding > ENCODING:
            raise StoreNewer(
                f"how run {run_id!r} ended is recorded in format {detail.end.encoding}, and this duramen "
                f"reads up to {ENCODING}: ask a newer one"
            )
        payload = b"" if detail.end is None else detail.end.payload
        if status == "completed":
            if output_type is None:
                output_type = self._registry.types(row.workflow, row.version)[1]
            return self.serializer.loads(payload, output_type)
        if status == "failed":
            recorded = read_error(self.serializer, payload)
            raise RunFailed(run_id, recorded) from rebuild_error(recorded)
        reason = load_reason(self.serializer, payload) if payload else ""
        raise (RunCancelled if status == "cancelled" else RunTerminated)(run_id, reason)

    # -- lists -----------------------------------------------------------------------------------------------

    async def list(
        self,
        *,
        workflow: Any = None,
        version: str | None = None,
        status: str | Iterable[str] | None = None,
        tag: str | None = None,
        waiting_for: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[RunView]:
        """List runs, newest first; runs created meanwhile do not move the pages that follow.

        Args:
            workflow: a workflow or its name.
            version: of the workflow.
            status: one status, or several of which any will do.
            tag: a tag the run has.
            waiting_for: an event's name, ``timer``, ``approval:ID`` or ``retry:STEP``.
            created_after: instant, aware; exclusive.
            created_before: instant, aware; exclusive.
            id_prefix: how the run id begins.
            limit: rows a page, at most 1000.
            cursor: the `cursor` of the page before.

        Raises:
            InvalidArgument: an argument makes no sense.
        """
        wanted = _filter(
            workflow, version, status, tag, waiting_for, created_after, created_before, id_prefix
        )
        check_count("limit", limit, most=_PAGE)
        port = self._ready
        page: EnginePage = await port.call(port.engine.list, wanted, limit, unpack_cursor(cursor))
        types = self._registry.types
        return Page(
            tuple(view_of(row, None, self.serializer, types) for row in page.rows),
            pack_cursor(page.next),
        )

    async def count(
        self,
        *,
        workflow: Any = None,
        version: str | None = None,
        status: str | Iterable[str] | None = None,
        tag: str | None = None,
        waiting_for: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        id_prefix: str | None = None,
    ) -> int:
        """Count runs; the filters are those of `list`."""
        wanted = _filter(
            workflow, version, status, tag, waiting_for, created_after, created_before, id_prefix
        )
        port = self._ready
        return await port.call(port.engine.count, wanted)

    async def workers(self) -> _List[WorkerView]:
        """Read who drives runs on this store, or did in the last day: those alive first, the newest first.

        Every open runtime that took up a run is among them, whether or not it works.
        """
        port = self._ready
        found: _List[OwnerRow] = await port.call(port.engine.owners)
        now = port.engine.now()
        workers = [worker_of(row, now) for row in found]
        return sorted(workers, key=lambda worker: (not worker.alive, -worker.started_at.timestamp()))

    # -- journals --------------------------------------------------------------------------------------------

    async def timeline(self, run_id: str, *, from_index: int = 0, limit: int | None = None) -> _List[Event]:
        """Read a run's journal: what happened, in the order in which it counts.

        Args:
            run_id: which run.
            from_index: the first entry.
            limit: how many entries at most; None: all.

        Raises:
            UnknownRun: there is no such run.
        """
        check_id("run id", run_id)
        index = check_count("from_index", from_index, least=0, most=2**53)
        left = 2**53 if limit is None else check_count("limit", limit, most=2**53)
        found: _List[Event] = []
        while left > 0:
            wanted = min(left, _PAGE)
            events = await self._load(run_id, index, wanted)
            found += events
            index += len(events)
            left -= len(events)
            if len(events) < wanted:
                break
        if not found:
            await self._detail(run_id)
        return found

    async def export(self, run_id: str) -> History:
        """Read a run's row and its whole journal as plain JSON, for instance for `duramen.testing.replay`.

        Payloads are in it to the byte, as the serializer wrote them. Messages that the run has not taken yet
        are not.

        Raises:
            UnknownRun: there is no such run, or it was deleted meanwhile.
        """
        detail = await self._detail(run_id)
        while True:
            row = detail.row
            entries = await self._entries(run_id, row)
            if row.status != "running":
                return make_history(detail, entries)
            # The row of a running run lags behind its journal: both are of one driver if it has it still.
            detail = await self._detail(run_id)
            now = detail.row
            if (now.status, now.epoch, now.seed) == (row.status, row.epoch, row.seed):
                return make_history(detail, entries)

    async def _entries(self, run_id: str, row: Row) -> _List[Entry]:
        """What the row counts of a journal, which only grows; of a running run all that there is."""
        wanted: int | None = None if row.status == "running" else row.journal_len
        port = self._ready
        entries: _List[Entry] = []
        while wanted is None or len(entries) < wanted:
            limit = _PAGE if wanted is None else min(_PAGE, wanted - len(entries))
            found = await port.call(port.engine.load, run_id, len(entries), limit)
            entries += found
            if wanted is None and len(found) < limit:
                break
            if not found:
                raise UnknownRun(run_id)
        if not entries:
            raise UnknownRun(run_id)
        return entries

    async def _load(self, run_id: str, index: int, limit: int = _PAGE) -> _List[Event]:
        port = self._ready
        entries = await port.call(port.engine.load, run_id, index, limit)
        return [event_of(run_id, at, entry, self.serializer) for at, entry in enumerate(entries, start=index)]

    async def events(
        self, run_id: str, from_index: int = 0, follow: bool = True, *, live: bool = True
    ) -> AsyncGenerator[Event]:
        """Give a run's journal entries, then those to come until it has ended or is stuck.

        The run may be driven anywhere. To resume, pass the index of the last entry seen plus one.

        Args:
            run_id: which run.
            from_index: the first entry.
            follow: False stops at the end of what there is.
            live: also give live events: those of `ctx.emit` while the run is driven in this process, and the
                changes of `ctx.state` wherever it is driven (once durable, if that is elsewhere).

        Raises:
            UnknownRun: there is no such run, or it was deleted meanwhile.
        """
        check_id("run id", run_id)
        index = check_count("from_index", from_index, least=0, most=2**53)
        driver = self._driver if self._ready else None
        assert driver is not None  # noqa: S101 - _ready raises instead
        collector = Collector(10_000)
        driver.collect(run_id, collector)
        poll = _FIRST_POLL
        seen: bytes | None = None
        try:
            while True:
                collector.changed.clear()
                detail = await self._detail(run_id)
                status = detail.row.status
                events = await self._load(run_id, index)
                state = detail.state
                if live and state and state != seen and not driver.drives(run_id):
                    # Driven here, what `collector` is told is ahead of what the store has.
                    seen = state
                    at = from_ms(detail.row.updated_at)
                    collector.add_state(run_id, at, read_payload(self.serializer, state))
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


def ended(status: str) -> bool:
    """Whether a run will not go on by itself."""
    return status in {"completed", "failed", "cancelled", "terminated", "stuck"}


async def _one_done(
    loop: asyncio.AbstractEventLoop, until: float | None, *futures: asyncio.Future[Any]
) -> bool:
    """Wait until one of them is done; false if that instant of the loop's clock comes before."""
    pause = None if until is None else max(0.0, until - loop.time())
    done, _ = await asyncio.wait(futures, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


_List = list
"""The built-in one, where the class has a method of that name."""


def _filter(
    workflow: Any,
    version: str | None,
    status: str | Iterable[str] | None,
    tag: str | None,
    waiting_for: str | None,
    created_after: datetime | None,
    created_before: datetime | None,
    id_prefix: str | None,
) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    if workflow is not None:
        wanted["workflow"] = check_id("workflow", workflow if isinstance(workflow, str) else workflow.name)
    if version is not None:
        wanted["version"] = check_id("version", version)
    if status is not None:
        statuses = [status] if isinstance(status, str) else list(status)
        if not statuses:
            raise InvalidArgument("status is empty: name at least one, or leave it out for all")
        wanted["status"] = [check_choice("status", str(each), _STATUSES) for each in statuses]
    if tag is not None:
        wanted["tag"] = check_id("tag", tag)
    if waiting_for is not None:
        wanted["waiting_for"] = check_wait_key(waiting_for)
    if created_after is not None:
        wanted["created_after"] = instant_ms(created_after, "created_after")
    if created_before is not None:
        wanted["created_before"] = instant_ms(created_before, "created_before")
    if id_prefix:
        wanted["id_prefix"] = check_text("id_prefix", id_prefix)
    return wanted
