"""One bounded pass over what is due."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from duramen._values.checks import check_count
from duramen._values.durations import duration_ms, instant_ms

from .driver import Collector
from .views import Event, SweepResult, SweptRun

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from duramen._bridge import Swept

    from .lifecycle import Lifecycle
    from .scheduling import Looked, Scheduling

__all__ = ["Sweeping"]


class Sweeping:
    """The call that sweeps."""

    def __init__(self, lifecycle: Lifecycle, scheduling: Scheduling) -> None:
        self._lifecycle = lifecycle
        self._scheduling = scheduling

    async def sweep(
        self,
        *,
        limit: int | None,
        max_recovered: int,
        max_scheduled: int,
        max_timers: int,
        max_queued: int,
        max_duration: timedelta | float | None,
        deadline: datetime | None,
        min_remaining: timedelta | float,
        now: datetime | None,
        max_bytes: int | None,
        include_events: bool,
        max_events: int,
        publish: Callable[[Event], object] | None,
    ) -> SweepResult:
        """See `Runtime.sweep`."""
        port = self._lifecycle.ready
        least = duration_ms(min_remaining, "min_remaining")
        end = None if deadline is None else instant_ms(deadline, "deadline")
        if max_duration is not None:
            mine = port.engine.now() + duration_ms(max_duration, "max_duration")
            end = mine if end is None else min(end, mine)
        options: dict[str, Any] = {
            "max_recovered": check_count("max_recovered", max_recovered, least=0),
            "max_timers": check_count("max_timers", max_timers, least=0),
            "max_queued": check_count("max_queued", max_queued, least=0),
            "deadline": end,
            "min_remaining": least,
            "now": None if now is None else instant_ms(now, "now"),
            "max_bytes": None if max_bytes is None else check_count("max_bytes", max_bytes, most=2**53),
        }
        if limit is not None:
            options["limit"] = check_count("limit", limit)
        collector = Collector(check_count("max_events", max_events, least=0), publish)
        most = check_count("max_scheduled", max_scheduled, least=0)
        # First: what fires now is driven by this very pass.
        looked = await self._scheduling.look(limit=most, now=options["now"])
        driver = self._lifecycle.driver
        driver.collect("", collector)
        try:
            token, answer = port.call_with_token(port.engine.sweep, options)
            if end is not None:
                # What the sweep takes up comes in a later turn of the loop.
                left = max(0, end - port.engine.now()) / 1000
                driver.sweep_budgets[token] = (time.monotonic() + left, least / 1000)
                answer.add_done_callback(lambda _: driver.sweep_budgets.pop(token, None))
            # Whoever stops waiting for a sweep does not stop it: its runs keep to its budget.
            found = await asyncio.shield(answer)
        finally:
            driver.uncollect("", collector)
        return _swept(found, looked, collector, tuple(collector.events) if include_events else ())


def _swept(found: Swept, looked: Looked, collector: Collector, events: tuple[Event, ...]) -> SweepResult:
    groups = {
        group: tuple(SweptRun(run.run_id, run.kind) for run in runs)
        for group, runs in (
            ("recovered", found.recovered), ("timers", found.timers), ("queued", found.queued)
        )
    }  # fmt: skip
    # What schedules have started is among the queued ones, as far as it was driven.
    driven = {run.run_id: run for run in groups["queued"]}
    new = set(looked.started)
    groups["scheduled"] = tuple(driven.get(run_id, SweptRun(run_id, "queued")) for run_id in looked.started)
    groups["queued"] = tuple(run for run in groups["queued"] if run.run_id not in new)
    summary: dict[str, int] = {}
    for runs in groups.values():
        for run in runs:
            summary[run.kind] = summary.get(run.kind, 0) + 1
    summary["event_count"] = collector.count
    summary["returned_event_count"] = len(events)
    return SweepResult(
        **groups,
        summary=summary,
        deadline_reached=found.deadline_reached,
        remaining_may_exist=found.more
        or (looked.next_at is not None and looked.next_at <= looked.now)
        or any(run.kind == "queued" for run in groups["scheduled"]),
        events=events,
    )
