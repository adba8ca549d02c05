"""Driving one run here until it ends, pauses, or the time is up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from duramen._values.checks import check_count
from duramen._values.durations import duration_ms

from .driver import Collector
from .views import RunResult

if TYPE_CHECKING:
    from datetime import timedelta

    from .lifecycle import Lifecycle
    from .queries import Queries
    from .starting import Starting
    from .taking import Taking
    from .views import ResultKind, RunRequest, RunView

__all__ = ["Running"]

_YIELD_GRACE = 1.0
"""How long, in seconds, is waited beyond the budget for the steps in flight."""


class Running:
    """The call that creates a run and drives it."""

    def __init__(self, lifecycle: Lifecycle, queries: Queries, starting: Starting, taking: Taking) -> None:
        self._lifecycle = lifecycle
        self._queries = queries
        self._starting = starting
        self._taking = taking

    async def run(
        self, request: RunRequest, *, max_duration: timedelta | float | None, max_events: int
    ) -> RunResult[Any]:
        """See `Runtime.run`."""
        self._lifecycle.ready  # noqa: B018 - raises if no calls are possible
        limit = None if max_duration is None else duration_ms(max_duration, "max_duration") / 1000
        collector = Collector(check_count("max_events", max_events, least=0))
        row = self._starting.new_row(request)
        wanted = row[0]
        driver = self._lifecycle.driver
        driver.collect(wanted, collector)
        if limit is not None:
            driver.budgets[wanted] = (time.monotonic() + limit, 0.0)
        left = driver.watch(wanted)
        try:
            if limit is None:
                handle, mine = await self._starting.start_row(row)
                here = handle.created and mine is not None
            else:
                # Not by `start`, after which the engine goes on with the run whenever it is due.
                await self._starting.create([row])
                here = False
            end = None if limit is None else time.monotonic() + limit
            driven: str | None = None
            while here or await self._taking.claim(wanted) or left.done():
                rest = None if end is None else end - time.monotonic()
                driven = await self._taking.until_left(wanted, left, rest)
                if driven is None and limit is not None:
                    driver.yield_run(wanted)
                    driven = await self._taking.until_left(wanted, left, _YIELD_GRACE)
                if driven != "continued" or (end is not None and end <= time.monotonic()):
                    break
                # Its next generation is as much what was asked for.
                here = False
                left = driver.watch(wanted)
                if end is not None:
                    driver.budgets[wanted] = (end, 0.0)
        finally:
            driver.unwatch(wanted, left)
            driver.uncollect(wanted, collector)
            driver.budgets.pop(wanted, None)
        view = await self._queries.get(wanted)
        return RunResult(
            _kind(view, driven),
            wanted,
            view,
            view.output,
            view.error,
            tuple(collector.events),
            collector.count,
            collector.count > len(collector.events),
        )


def _kind(view: RunView, driven: str | None) -> ResultKind:
    """How the drive ended that left a run so; `driven` is how the run left these hands, if it did."""
    kind: Any = view.status.value
    if view.finished or kind == "stuck":
        return kind
    if driven == "paused":
        return "paused"
    return "not_claimable" if kind in {"waiting", "queued"} else "running"
