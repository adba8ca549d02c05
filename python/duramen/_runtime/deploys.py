"""What is told of runs and the code that they need: views for those who change it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from .views import RunStatus

__all__ = ["CheckReport", "OldestRun", "PatchReport", "PatchView", "ProblemKind", "RunProblem", "VersionView"]

ProblemKind = Literal["stuck", "unreadable", "no_code", "newer", "fails", "hangs"]
"""Why a run would not go on with the code that is here.

``stuck``: the code does not fit its journal; ``unreadable``: the code cannot read its input or a value that
is recorded; ``no_code``: its version is not registered; ``newer``: a later version of Duramen wrote to it;
``fails``: the handler raises behind the end of the journal, before any operation; ``hangs``: the handler does
not come to rest.
"""


@dataclass(frozen=True, slots=True)
class OldestRun:
    """The run that was created first among some."""

    run_id: str
    status: RunStatus
    created_at: datetime


@dataclass(frozen=True, slots=True)
class VersionView:
    """A version of a workflow: the runs that still need its code, and who has that."""

    workflow: str
    version: str
    counts: dict[str, int]
    """Runs that have not ended, by status; a status without any is left out."""
    oldest: dict[str, OldestRun]
    """Of each of these statuses the run that was created first."""
    queues: tuple[str, ...]
    """Where they stand."""
    newer: int
    """How many of them only a later version of Duramen can drive, which wrote to them."""
    registered: bool
    """This runtime has the code."""
    current: bool
    """This runtime starts new runs with this version."""
    workers: tuple[str, ...]
    """Owners alive that serve it."""

    @property
    def runs(self) -> int:
        """How many runs need it."""
        return sum(self.counts.values())

    @property
    def served(self) -> bool:
        """A process that is alive serves it."""
        return bool(self.workers)

    @property
    def removable(self) -> bool:
        """It is registered here as a previous version, and no run that is there needs it.

        Whoever still starts runs of it, or wants to retry one that failed, needs it all the same.
        """
        return self.registered and not self.current and not self.runs


@dataclass(frozen=True, slots=True)
class RunProblem:
    """A run that would not go on with the code that is here."""

    run_id: str
    workflow: str
    version: str
    status: RunStatus
    created_at: datetime
    kind: ProblemKind
    reason: str
    """A sentence; of ``stuck`` and ``unreadable`` the one that a parked run has as its note."""
    index: int | None = None
    """The place in the journal where code and journal part."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a look at open runs with the code that is here has found."""

    checked: int
    """How many runs were looked at."""
    total: int
    """How many there were when it began."""
    fits: int
    """How many of them the code fits as far as their journals go."""
    problems: tuple[RunProblem, ...]
    """The others, up to the first thousand."""
    counts: dict[str, int]
    """How many have which kind of problem."""
    stuck_before: int
    """How many of those with a problem are stuck already: this code harms them no more."""
    mended: int
    """How many runs that are stuck the code fits: `Runtime.retry` lets them go on."""

    @property
    def ok(self) -> bool:
        """No run that can go on now would be held up by this code."""
        return sum(self.counts.values()) == self.stuck_before

    @property
    def complete(self) -> bool:
        """It was no sample."""
        return self.checked >= self.total


@dataclass(frozen=True, slots=True)
class PatchView:
    """A patch of a version of a workflow (`Context.patched`), and the runs that know it or do not."""

    workflow: str
    version: str
    patch: str
    marked: int
    """Runs with the mark: they follow the changed code."""
    older: int
    """Runs that the code tells no: they follow the older branch, and need it."""
    ahead: int
    """Runs that have not come to the question: they will be told yes."""
    unknown: int
    """Runs without the mark of which nobody can tell, because no code that fits them is here."""
    oldest: OldestRun | None = None
    """The oldest run that is told no."""

    @property
    def retirable(self) -> bool:
        """No run that was looked at needs the older branch: question and branch can go."""
        return self.older == 0 and self.unknown == 0


@dataclass(frozen=True, slots=True)
class PatchReport:
    """What a look at open runs has found out about patches."""

    patches: tuple[PatchView, ...]
    """Those with a mark in a journal, or that a run was asked about."""
    checked: int
    total: int
    problems: dict[str, int] = field(default_factory=dict[str, int])
    """How many runs could not be replayed, by the kind of problem (see `CheckReport.counts`)."""

    @property
    def complete(self) -> bool:
        """All runs were looked at: what is retirable is so for all."""
        return self.checked >= self.total
