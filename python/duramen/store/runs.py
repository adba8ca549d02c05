"""Runs: their rows, how they begin, change, and are changed from outside."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the hints of TypedDicts are read at run time
from typing import Literal, NotRequired, TypeAlias, TypedDict

__all__ = [
    "Applied",
    "Blocked",
    "CommitOutcome",
    "Continued",
    "Created",
    "Delete",
    "Entry",
    "Exists",
    "Fenced",
    "Finished",
    "Intervened",
    "Intervention",
    "Leased",
    "Made",
    "NewRun",
    "Next",
    "Outgoing",
    "OutgoingKind",
    "Paused",
    "Queued",
    "ReadMessage",
    "Rejected",
    "Reopen",
    "RunCommit",
    "RunRow",
    "Running",
    "Start",
    "Status",
    "StreamWrite",
    "Stuck",
    "Terminate",
    "UnknownKind",
    "Unsent",
    "UnsentAsk",
    "Waiting",
    "lane_key",
]

Status: TypeAlias = Literal[
    "queued", "running", "waiting", "completed", "failed", "cancelled", "terminated", "stuck", "paused"
]
"""The first three are live; ``completed`` to ``terminated`` are final; ``stuck`` and ``paused`` are
neither."""

OutgoingKind: TypeAlias = Literal["start", "message", "inquiry"]
"""A run to create, a message to another run, a question to a child about its end."""

Intervened: TypeAlias = Literal["done", "not_found", "not_allowed", "blocked"]
"""``not_allowed``: the run's status, or its journal's length, does not allow it; ``blocked``: others hold the
run for longer than neighbours should wait, nothing was changed, and it may be asked for again."""


class UnknownKind(TypedDict):
    """A kind that a newer version gave to an entry or a message, to be kept as it is."""

    unknown: int


class Entry(TypedDict):
    """A journal entry. Its index is its place in the journal."""

    encoding: int
    """0 to 255: the least encoding that can read it (see `RunRow.format`); 1 in the entry 0 that a store
    makes."""
    kind: str | UnknownKind
    """Such as ``step_completed``; ``run_created`` in entry 0."""
    op: str
    """The operation's id; empty for entries of the run itself."""
    meta: str | None
    payload: bytes
    at: int


class RunRow(TypedDict):
    """A run's routing row.

    Its *lane* decides who may take it: the text ``queue␟workflow␟version␟format`` of its fields, separated by
    U+001F (``default␟order␟1␟1``), which `lane_key` makes. Claims name whole lanes; nothing looks inside of
    one.
    """

    run_id: str
    workflow: str
    version: str
    queue: str
    priority: int
    """0 to 9; the lower comes first."""
    status: Status
    created_at: int
    started_at: int | None
    """When it was first given to an owner, or what its creation says; never changes again."""
    updated_at: int
    """Of a running run: when it was claimed, or as its last commit that did more than append says."""
    finished_at: int | None
    ready_at: int | None
    """Queued: its start; waiting: its deadline, or None if only a message ends the wait; None otherwise: a
    running run has no time of its own but its owner's lease."""
    owner: str | None
    """Who drives it; None unless it is running."""
    epoch: int
    """Raised by each claim and each intervention: the fencing token."""
    format: int
    """0 to 255: the least encoding that can read its journal and inbox. It never falls; when it rises, the
    run stands in another lane."""
    journal_start: int
    """The index at which the journal of the present generation begins."""
    journal_len: int
    """The index after the last entry. Of a running run it may lag behind: see `RunCommit`."""
    generation: int
    """How often it was continued as new."""
    inbox_len: int
    """How many messages it ever got: the highest `seq` given out."""
    inbox_seen: int
    """The highest `seq` that a driver has taken note of."""
    unread: int
    """How many messages are neither consumed nor set aside."""
    unread_bytes: int
    """The lengths of their payloads, added up."""
    timeout: int | None
    """How long each generation may take."""
    deadline: int | None
    """When the present one times out."""
    lost: int
    """How many drivers in a row were lost while the journal was `lost_at` long. A claim that takes a running
    run (its owner has ended) counts: one more if the journal still has that length, else 1, and `lost_at` is
    its length. Reopening and continuing begin anew with 0 and 0; nothing else changes them."""
    lost_at: int
    waits: list[str]
    """Keys of what a waiting or paused run waits for. A running one keeps those of its last pause; others
    have none."""
    tags: list[str]
    seed: Sequence[int]
    """16 bytes as integers, to be kept; they tell this life of an id from others."""
    note: str | None
    """Why a stuck run is stuck, or a paused one paused; None for all others."""
    parent: str | None
    """The run that started this one."""
    root: str | None
    """The first of that family."""
    origin: str | None
    """What started it if no program did, such as ``schedule:nightly``."""


def lane_key(queue: str, workflow: str, version: str, format: int) -> str:  # noqa: A002 - as in rows
    r"""The lane of the runs that have these fields, see `RunRow`.

    >>> lane_key("default", "order", "1", 1)
    'default\x1forder\x1f1\x1f1'
    """
    return f"{queue}\x1f{workflow}\x1f{version}\x1f{format}"


class Queued(TypedDict):
    """Left for any sweep or worker, from an instant on (None: at once)."""

    kind: Literal["queued"]
    at: int | None


class Leased(TypedDict):
    """In the hands of its creator from the beginning: running, epoch 1, `started_at` set.

    If the lease of that owner has ended, the run is created queued and due at once instead.
    """

    kind: Literal["leased"]
    owner: str


Start: TypeAlias = Queued | Leased
"""How a new run begins."""


class NewRun(TypedDict):
    """A run to create."""

    run_id: str
    workflow: str
    version: str
    queue: str
    priority: int
    """0 to 9; an `duramen.errors.InvalidArgument` refuses others."""
    input: bytes
    """The payload of journal entry 0, …"""
    meta: NotRequired[str | None]
    """… and its `meta`, to be kept as it is."""
    entries: Sequence[Entry]
    """The beginning of a journal that it brings, behind entry 0. The highest `encoding` of them, at least 1,
    is the run's `format`."""
    started_at: int | None
    """With a journal that it brings: the run's `started_at` from the beginning."""
    start: Start
    tags: list[str]
    memo: bytes | None
    timeout: int | None
    """The run's deadline, counted from its creation, or from its start if it is queued for an instant."""
    seed: Sequence[int]
    parent: str | None
    root: str | None
    origin: str | None
    now: int | None


class Made(TypedDict):
    """The run was created by this call."""

    kind: Literal["created"]
    row: RunRow


class Exists(TypedDict):
    """The id existed; nothing was changed."""

    kind: Literal["exists"]
    row: RunRow


class Blocked(TypedDict):
    """Others hold the run for longer than neighbours should wait. Nothing was written; it is sent again."""

    kind: Literal["blocked"]


Created: TypeAlias = Made | Exists | Blocked
"""The answer to one creation."""


class ReadMessage(TypedDict):
    """A message that was consumed (`refused` is None) or set aside, with the reason."""

    seq: int
    refused: str | None
    reply: bytes | None
    """The answer to the sender of a message that was consumed, to be kept for `Store.receipts`."""


class Running(TypedDict):
    """The run keeps its owner."""

    kind: Literal["running"]


class Waiting(TypedDict):
    """The run pauses. If it has messages beyond `inbox_seen` it is due at once, whatever `ready_at` says."""

    kind: Literal["waiting"]
    ready_at: int | None
    waits: list[str]


class Finished(TypedDict):
    """The run ends: completed, failed or cancelled."""

    kind: Literal["finished"]
    status: Status


class Stuck(TypedDict):
    """The run is parked with a reason for people."""

    kind: Literal["stuck"]
    note: str


class Paused(TypedDict):
    """The run is released, and nobody claims it before a message frees it.

    If it has messages beyond `inbox_seen` it waits instead, due at once and without a note: one of them may
    be that message.
    """

    kind: Literal["paused"]
    ready_at: int | None
    waits: list[str]
    note: str


class Continued(TypedDict):
    """The next generation begins with the commit's last entry, which is ``run_created``.

    `journal_start` is the index of that entry, `generation` is one higher, and the run is queued from
    `ready_at` on under that version, with its `timeout` counted from there. Epoch, `started_at`, inbox, state
    and dedupe keys go on. What the journal had before goes with the same transaction, so that a run is no
    larger for having many generations.
    """

    kind: Literal["continued"]
    ready_at: int
    version: str


Next: TypeAlias = Running | Waiting | Finished | Stuck | Paused | Continued
"""What becomes of a run with a commit."""


class Outgoing(TypedDict):
    """What leaves a run with a commit, to be carried out after it."""

    kind: OutgoingKind
    target: str
    """The id of the run that it is for."""
    body: bytes


class Unsent(TypedDict):
    """An item that nobody has reported as sent; the first three fields say which one it is."""

    run_id: str
    entry: int
    """`expected_len` of its commit."""
    number: int
    """Its place among the items of that commit, from 0."""
    kind: OutgoingKind
    target: str
    body: bytes
    at: int
    """`at` of its commit."""


class UnsentAsk(TypedDict):
    """A question for items that are still to be carried out."""

    before: int
    """Only items with this `at` or an earlier one."""
    run_id: str | None
    """Only items of this run."""
    limit: int


class StreamWrite(TypedDict):
    """An item as its writer brings it."""

    stream: str
    writer: str
    """Opaque: the handler or a step, of one generation."""
    index: int
    """Its place among what the writer wrote to the stream, from 0. The store only keeps it."""
    attempt: int
    keep: int | None
    """So many of the stream's items are kept, the last ones; at least 1. None: all."""
    payload: bytes
    at: int


class RunCommit(TypedDict):
    """One atomic change of a run, by its driver.

    One that *only appends* (`next` is running, `read` is empty, `inbox_seen` and `format` are None) need not
    write the run's row, and should not where rows are expensive to write: `journal_len` and `updated_at` stay
    as they are until a commit does more, or a claim or an intervention writes them. The fence and
    `Store.standing` always go by the real length of the journal.
    """

    run_id: str
    seed: Sequence[int]
    """That of the run's row: the id may have been deleted and created anew."""
    owner: str
    epoch: int
    expected_len: int
    """How long the journal is before it."""
    entries: Sequence[Entry]
    read: Sequence[ReadMessage]
    inbox_seen: int | None
    """None: as it was."""
    next: Next
    state: bytes | None
    """The run's state object, when it changed."""
    outgoing: Sequence[Outgoing]
    """What leaves the run, in this order; never without an entry, and no more than 10,000 items."""
    written: Sequence[StreamWrite]
    """What the handler wrote to streams, in this order; never more than `entries`."""
    format: int | None
    """Raises the row's `format` to this, and never lowers it."""
    at: int
    """For `updated_at` and `finished_at`, and for `ready_at` of a run that is due at once."""


class Applied(TypedDict):
    """The commit took place."""

    kind: Literal["applied"]
    due: bool
    """The run was released and is due at once, because of messages that its driver had not seen."""


class Fenced(TypedDict):
    """Life, owner, epoch, status or journal length differ: another driver has the run.

    Nothing was written now. (A commit that is sent again after its answer was lost gets this too.)
    """

    kind: Literal["fenced"]


class Rejected(TypedDict):
    """No store of this kind can ever keep this commit. Nothing was written.

    This is about the commit alone; a disk that is full, or a server that is away, is raised.
    """

    kind: Literal["rejected"]
    reason: str


CommitOutcome: TypeAlias = Applied | Fenced | Blocked | Rejected
"""The answer to one commit."""


class Terminate(TypedDict):
    """Ends a live, stuck or paused run as terminated and appends `entry`, whose `at` is its `finished_at`."""

    kind: Literal["terminate"]
    run_id: str
    entry: Entry
    outgoing: Sequence[Outgoing]
    """What leaves the run with it: kept as with a commit, with the entry's index and `at`."""


class Reopen(TypedDict):
    """Makes a failed, cancelled, terminated, stuck or paused run queued and due now, appending `entries`."""

    kind: Literal["reopen"]
    run_id: str
    expected_len: int
    entries: Sequence[Entry]
    outgoing: Sequence[Outgoing]
    """Likewise, with the index of the first entry and the `at` of the last; empty without entries."""
    version: str | None
    """Of a change to the code of another version: the run's version from now on. Then a waiting run may be
    reopened too, and a queued one, which keeps its `ready_at`."""
    now: int | None


class Delete(TypedDict):
    """Removes a run and all that belongs to it, unsent items too; a live or paused one only if `force`."""

    kind: Literal["delete"]
    run_id: str
    force: bool


Intervention: TypeAlias = Terminate | Reopen | Delete
"""A change from outside the driver. It raises the epoch, so that a driver is fenced off; the `encoding` of an
entry raises `format`."""
