"""Schedules, as a store keeps them."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the hints of TypedDicts are read at run time
from typing import TypedDict

__all__ = ["DueSchedules", "ScheduleAsk", "ScheduleChange", "ScheduleRow"]


class ScheduleRow(TypedDict):
    """A schedule. A store knows when somebody has to look at it, and looks into nothing else of it."""

    id: str
    version: int
    """Drawn by whoever wrote the row last: no two states of it have the same."""
    workflow: str
    """What it starts runs of: those who know this workflow look at it."""
    next_at: int | None
    """When somebody has to look at it; None: never, until it is changed."""
    definition: bytes
    state: bytes


class ScheduleChange(TypedDict):
    """A change of a schedule, whole or not at all."""

    id: str
    expected: int | None
    """The version that it must have; None: there must be no such schedule."""
    row: ScheduleRow | None
    """What stands there afterwards; None: nothing."""


class ScheduleAsk(TypedDict):
    """Which schedules somebody has to look at now."""

    workflows: Sequence[str]
    after: tuple[int, str] | None
    """Only those behind this one, in the order of their times and ids."""
    limit: int
    now: int | None


class DueSchedules(TypedDict):
    """The answer to a `ScheduleAsk`."""

    now: int
    rows: Sequence[ScheduleRow]
    """By `next_at` and id."""
    next_at: int | None
    """When somebody has to look at the next one behind these; it may be due already."""
