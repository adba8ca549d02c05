"""What a runtime tells of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._calls import Calls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from datetime import timedelta

    from typing_extensions import Unpack

    from duramen._runtime.filters import RunFilters
    from duramen._runtime.history import History
    from duramen._runtime.views import Event, Page, RunView, WorkerView

__all__ = ["QueryCalls"]

_List = list
"""The built-in one, where the class has a method of that name."""


class QueryCalls(Calls):
    """See `Runtime`."""

    async def get(self, run_id: str) -> RunView:
        """Read a run with its input, output or error, state, memo and refused signals.

        Raises:
            UnknownRun: there is none of that id.
        """
        return await self._services.here(self._services.queries.get, run_id)

    async def get_many(self, run_ids: Iterable[str]) -> _List[RunView | None]:
        """Read many runs at once, in the order asked for; None for those that do not exist."""
        return await self._services.here(self._services.queries.get_many, [*run_ids])

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
        return await self._services.here(self._services.results.result, run_id, timeout)

    async def list(
        self, *, limit: int = 100, cursor: str | None = None, **filters: Unpack[RunFilters]
    ) -> Page[RunView]:
        """List runs, newest first; runs created meanwhile do not move the pages that follow.

        Args:
            limit: rows a page, at most 1000.
            cursor: the `cursor` of the page before.
            filters: which runs: `workflow`, `version`, `status`, `tag`, `waiting_for`, `created_after`,
                `created_before`, `parent`, `root`, `id_prefix`; see `RunFilters`. A run has to pass all
                that are given.

        Raises:
            InvalidArgument: an argument makes no sense.
        """
        return await self._services.here(self._services.queries.page, filters, limit=limit, cursor=cursor)

    async def count(self, **filters: Unpack[RunFilters]) -> int:
        """Count runs; the filters are those of `list`."""
        return await self._services.here(self._services.queries.count, filters)

    async def workers(self) -> _List[WorkerView]:
        """Read who drives runs on this store, or did in the last day: those alive first, the newest first.

        Every open runtime that took up a run is among them, whether or not it works.
        """
        return await self._services.here(self._services.queries.workers)

    async def timeline(self, run_id: str, *, from_index: int = 0, limit: int | None = None) -> _List[Event]:
        """Read a run's journal: what happened, in the order in which it counts.

        Of a run that was continued as new it is that of its present generation, whose indices go on from
        those of the one before.

        Args:
            run_id: which run.
            from_index: the first entry.
            limit: how many entries at most; None: all.

        Raises:
            UnknownRun: there is no such run.
        """
        return await self._services.here(
            self._services.queries.timeline, run_id, from_index=from_index, limit=limit
        )

    async def export(self, run_id: str) -> History:
        """Read a run's row and its whole journal as plain JSON, for instance for `duramen.testing.replay`.

        Payloads are in it to the byte, as the serializer wrote them. Messages that the run has not taken yet
        are not, nor are former generations.

        Raises:
            UnknownRun: there is no such run, or it was deleted meanwhile.
        """
        return await self._services.here(self._services.queries.export, run_id)

    async def events(
        self, run_id: str, from_index: int = 0, follow: bool = True, *, live: bool = True
    ) -> AsyncGenerator[Event]:
        """Give a run's journal entries, then those to come until it has ended or is stuck.

        The run may be driven anywhere. To resume, pass the index of the last entry seen plus one. When it
        continues as new, the entries of its next generation follow; a reader that is slow may miss the last
        ones of the generation before.

        Args:
            run_id: which run.
            from_index: the first entry.
            follow: False stops at the end of what there is.
            live: also give live events: those of `ctx.emit` while the run is driven in this process, and the
                changes of `ctx.state` wherever it is driven (once durable, if that is elsewhere).

        Raises:
            UnknownRun: there is no such run, or it was deleted meanwhile.
        """
        found = self._services.following.events(run_id, from_index, follow, live=live)
        events = self._services.items_here(found)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()
