"""What a handler that a schedule started knows of its fire time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

__all__ = ["ScheduleTick"]


@dataclass(frozen=True, slots=True)
class ScheduleTick:
    """A fire time of a schedule. It stands in the run's journal, whatever becomes of the schedule."""

    id: str
    """Of the schedule."""
    fire_time: datetime
    """When the run was to be started (UTC), without jitter. Of a trigger: when it was given."""
    previous: datetime | None
    """The fire time before it that started a run, if there was one. Of a backfill: the one before it."""
