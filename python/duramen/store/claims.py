"""Owners and their leases, and the claims by which they get runs."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

from .inbox import Message  # noqa: TC001 - the hints of TypedDicts are read at run time
from .runs import Entry, RunRow, Status  # noqa: TC001

__all__ = [
    "ENDED_OWNERS_KEPT",
    "Beat",
    "Claim",
    "Claimed",
    "ClaimedRun",
    "Due",
    "DueAsk",
    "Heartbeat",
    "NextDue",
    "OwnerRow",
]

ENDED_OWNERS_KEPT = 24 * 60 * 60 * 1_000
"""How long owners that have ended, and hold nothing any more, are kept for people to see."""

Due: TypeAlias = Literal["recovery", "wake", "queued", "any"]
"""``recovery``: running, and the owner has ended; ``wake``: waiting; ``queued``; ``any`` of the three."""


class Heartbeat(TypedDict):
    """A sign of life of an owner: one incarnation of one process. The first one registers it."""

    owner: str
    lease: int
    """How long the lease lasts from now on."""
    label: str | None
    """For people: host and process."""
    serves: list[str]
    """For people: what it serves."""
    format: int
    """The highest encoding that it reads."""
    succeeds: str | None
    """The incarnation before this one: what it still holds passes to this owner, with epochs as they are, and
    it has ended from now on, even if its lease has not."""
    now: int | None


class Beat(TypedDict):
    """The answer to a heartbeat."""

    now: int
    alive: bool
    """False when the owner had ended before: it never comes back, and needs a new name."""
    inherited: list[tuple[str, int]]
    """What came from the one that it succeeds: run ids with their epochs, by run id."""


class OwnerRow(TypedDict):
    """An owner as people see it."""

    owner: str
    label: str | None
    serves: list[str]
    format: int
    started_at: int
    seen_at: int
    """Its last sign of life."""
    lease_until: int
    ended_at: int | None
    """When it was found to have ended, or was retired or succeeded."""
    held: int
    """How many runs it has in hand."""


class Claim(TypedDict):
    """A request for runs to drive."""

    owner: str
    now: int | None
    due: Due
    limit: int
    lanes: list[str]
    """Only runs of these lanes (see `RunRow`); an empty list claims nothing."""
    run_id: str | None
    """Only this run."""
    warm: list[tuple[str, int]]
    """Runs whose journal of that length the claimer still has: they come without it."""
    turn: int
    """Due runs stand in lines: for each of `lanes`, in their order and each once, those whose owner has
    ended, those that wait and those that are queued, as far as `due` asks for them. The line with this
    number, modulo their count, comes first, the others behind it in order. The first run of each line is
    taken before the second of any. Within a line of waiting or queued runs the lower priority comes first,
    then the earliest due, then the lesser run id; runs of ended owners come by run id."""
    max_bytes: int | None
    """Stop before the payloads of what comes along exceed this (at least one run comes): of a journal those
    of the present generation, none if it is warm, and of an inbox `RunRow.unread_bytes`, but no more than
    `INBOX_PAGE_BYTES`."""


class ClaimedRun(TypedDict):
    """A run with all that its driver needs."""

    row: RunRow
    """After the claim; its `journal_len` is exact."""
    was: Status
    """Before the claim."""
    journal: list[Entry] | None
    """From `journal_start` on; None when the claim said that it is warm."""
    inbox: list[Message]
    """The first page of its unread messages, seen or not: see `InboxPage`."""
    inbox_more: bool
    """Whether there are more behind them: they come by `Store.inbox`."""


class Claimed(TypedDict):
    """Claimed runs, in the order in which they were taken: see `Claim.turn`."""

    now: int
    """The instant that the decision used."""
    runs: list[ClaimedRun]
    more: bool
    """Whether a limit ended the claim, so that more may be due."""
    lapsed: bool
    """The owner has ended, or never was registered: nothing was looked for."""


class DueAsk(TypedDict):
    """A question for the next instant at which a claim could find something."""

    lanes: list[str]
    now: int | None


class NextDue(TypedDict):
    """When something may be due."""

    now: int
    """The store's time."""
    ready_at: int | None
    """The least `ready_at` of runs of these lanes, and the least end of a lease of owners that hold some of
    them (`now` itself for one that has ended)."""
