"""What of a journal is in force: entries that a `retry` took back are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ENDS", "NOTES", "in_force"]

ENDS = frozenset({"run_finished", "run_failed", "run_cancelled", "run_terminated"})
"""Kinds that end a journal."""

NOTES = frozenset({"step_attempt_failed", "wait_opened", "approval_requested"})
"""Kinds that tell the handler nothing: they say how an operation stands that has no outcome yet."""


def in_force(kinds: Sequence[str], causes: Sequence[int | None]) -> list[int]:
    """The places of entries that count.

    A ``run_reopened`` takes back everything from its cause on, and tells nothing itself.

    >>> kinds = ["run_created", "step_completed", "step_failed", "run_failed", "run_reopened"]
    >>> in_force(kinds, [None, None, None, 2, 2])
    [0, 1]
    """
    kept: list[int] = []
    for place, (kind, cause) in enumerate(zip(kinds, causes, strict=True)):
        if kind != "run_reopened":
            kept.append(place)
            continue
        first = max(1, place if cause is None else cause)
        while kept and kept[-1] >= first:
            kept.pop()
        while len(kept) > 1 and kinds[kept[-1]] in ENDS:
            kept.pop()
    return kept
