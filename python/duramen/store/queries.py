"""What people and drivers ask without changing anything."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the hints of TypedDicts are read at run time
from typing import NotRequired, TypedDict

from .inbox import Message  # noqa: TC001
from .runs import Entry, RunRow, Status  # noqa: TC001

__all__ = ["Cursor", "Filter", "OpenRuns", "Page", "RunDetail", "Schema", "Standing", "WorkflowKey"]


class Schema(TypedDict):
    """What a store knows of its schema; a store without one answers 0, 0 and an empty list."""

    found: int
    """Number of the newest migration applied; 0 before the first."""
    needed: int
    """Number of the newest migration that this version of the store has."""
    applied: list[str]
    """Names of the migrations that this call applied."""


class WorkflowKey(TypedDict):
    """A workflow by name and version."""

    name: str
    version: str


class RunDetail(TypedDict):
    """A run as people see it."""

    row: RunRow
    input: bytes
    """That of the present generation: the payload of the entry at `journal_start`."""
    end: Entry | None
    """The newest journal entry if the run is final."""
    state: bytes | None
    memo: bytes | None
    refused: list[tuple[Message, str]]
    """Messages that were set aside, newest last, with the reason."""


class Standing(TypedDict):
    """Where a run stands right now, and nothing more."""

    status: Status
    seed: Sequence[int]
    owner: str | None
    epoch: int
    journal_len: int
    """Exact, also of a running run."""
    generation: int
    ready_at: int | None


class Filter(TypedDict):
    """Which runs to list or count; what is absent, None or an empty list matches all."""

    workflow: NotRequired[str | None]
    version: NotRequired[str | None]
    queue: NotRequired[str | None]
    status: NotRequired[list[Status]]
    tag: NotRequired[str | None]
    waiting_for: NotRequired[str | None]
    """A wait key, such as ``event:payment-received``."""
    parent: NotRequired[str | None]
    root: NotRequired[str | None]
    """A run id: only what that run started."""
    created_after: NotRequired[int | None]
    """Later than this instant; not at it."""
    created_before: NotRequired[int | None]
    finished_before: NotRequired[int | None]
    """Only runs that have ended, and did so earlier than this instant."""
    id_prefix: NotRequired[str | None]


class Cursor(TypedDict):
    """The place after a page's last row."""

    created_at: int
    run_id: str


class OpenRuns(TypedDict):
    """The runs of one lane and status that have not ended, counted."""

    workflow: str
    version: str
    queue: str
    format: int
    status: Status
    count: int
    oldest: Cursor
    """The run among them that was created first; of several the one with the least id."""


class Page(TypedDict):
    """Rows by `created_at` descending, then by `run_id` descending."""

    rows: list[RunRow]
    next: Cursor | None
    """Where the next page begins; None on the last."""
