"""What a store has to do: write one for any database, and give it to `Runtime` in place of a URL.

A store keeps runs. A run is a row (who drives it, when it needs attention), a journal that only grows, and an
inbox of messages. The engine decides everything else; it asks a store for batches, and a run changes only
through `Store.create`, `Store.claim`, `Store.commit`, `Store.deliver` and `Store.intervene`.

Rules for all methods:

- They are called on the runtime's event loop, several at a time. One that blocks belongs into a thread.
- Requests and answers are plain dicts and lists, in the forms below. Times and spans are integers, in
  milliseconds (since 1970-01-01 UTC). Payloads are bytes that no store looks into.
- A batch is answered element by element, in its order: a conflict fails its own element, never its
  neighbours.
- An element takes place whole or not at all, even when the caller gives up and the call is cancelled, and an
  answer says that what it speaks of is safe on the disk.
- ``now`` is None for the store's own clock; tests give an instant. Every process that works on one store
  should have the same clock, so a database server's is the best one.
- Ids are 1 to 255 characters without control characters; an `duramen.errors.InvalidArgument` refuses others.
  They are compared character by character: case matters, nothing is normalised.
- What goes wrong is raised as a subclass of `duramen.errors.StoreError`; `StoreUnavailable`, `StoreLocked`
  and `StoreFull` tell the engine that the same call may succeed later. Any other exception is reported as a
  plain `StoreError`, with its text.

`duramen.testing.StoreContract` tests all of it:

>>> from duramen.testing import StoreContract, open_store
>>> class TestMyStore(StoreContract):
...     async def open_store(self, place):
...         return open_store(f"sqlite:///{place}/runs.db")  # your own store here

A store is also easily wrapped, since its methods are few:

>>> import asyncio
>>> class Counted:
...     def __init__(self, inner):
...         self.inner, self.commits = inner, 0
...
...     def __getattr__(self, method):
...         return getattr(self.inner, method)
...
...     async def commit(self, batch):
...         self.commits += len(batch)
...         return await self.inner.commit(batch)
>>> async def main():
...     store = Counted(open_store("memory://"))
...     outcomes = await store.commit([a_commit])
...     await store.close()
...     return store.commits, outcomes
>>> a_commit = {
...     "run_id": "order:42",
...     "owner": "me",
...     "epoch": 1,
...     "expected_len": 1,
...     "entries": [],
...     "read": [],
...     "inbox_seen": 0,
...     "next": {"kind": "running"},
...     "state": None,
...     "at": 1_700_000_000_000,
... }
>>> asyncio.run(main())
(1, [{'kind': 'fenced'}])
"""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the hints of TypedDicts are read at run time
from typing import Literal, NotRequired, Protocol, TypeAlias, TypedDict

__all__ = [
    "Applied",
    "Beat",
    "Blocked",
    "Claim",
    "Claimed",
    "ClaimedRun",
    "CommitOutcome",
    "Created",
    "Cursor",
    "Delete",
    "Delivered",
    "Delivery",
    "Due",
    "Entry",
    "Fenced",
    "Filter",
    "Finished",
    "Heartbeat",
    "Intervened",
    "Intervention",
    "Leased",
    "Message",
    "MessageKind",
    "NewMessage",
    "NewRun",
    "Next",
    "NextDue",
    "Page",
    "Queued",
    "ReadMessage",
    "Rejected",
    "Reopen",
    "RunCommit",
    "RunDetail",
    "RunRow",
    "Running",
    "Schema",
    "Start",
    "Status",
    "Store",
    "Stuck",
    "Terminate",
    "Waiting",
    "WorkflowKey",
]

Status: TypeAlias = Literal[
    "queued", "running", "waiting", "completed", "failed", "cancelled", "terminated", "stuck"
]
"""The first three are live; ``completed`` to ``terminated`` are final; ``stuck`` is neither."""

Due: TypeAlias = Literal["recovery", "wake", "queued", "any"]
"""``recovery``: running, and the lease has ended; ``wake``: waiting; ``queued``; ``any`` of the three."""

MessageKind: TypeAlias = Literal["event", "approval", "cancel"]
"""Its wait key is ``event:NAME`` or ``approval:NAME``; a ``cancel`` ends any wait."""

Delivery: TypeAlias = Literal["delivered", "buffered", "duplicate", "not_found", "finished"]
"""``delivered``: kept, and the run was waiting for it and is due now (or it is a cancellation of a live run);
``buffered``: kept; ``duplicate``: the run has a message with that id, and nothing changed."""

Intervened: TypeAlias = Literal["done", "not_found", "not_allowed"]
"""``not_allowed``: the run's status, or its journal's length, does not allow it."""


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


class Entry(TypedDict):
    """A journal entry. Its index is its place in the journal."""

    encoding: int
    """A small number to keep as it is; 1 in entry 0, which the store makes itself."""
    kind: str
    """Such as ``step_completed``; ``run_created`` in entry 0."""
    op: str
    """The operation's id; empty for entries of the run itself."""
    meta: str | None
    payload: bytes
    at: int


class RunRow(TypedDict):
    """A run's routing row."""

    run_id: str
    workflow: str
    version: str
    status: Status
    created_at: int
    started_at: int | None
    """When it was first leased; never changes again."""
    updated_at: int
    finished_at: int | None
    ready_at: int | None
    """Queued: its start; running: the end of its lease; waiting: its deadline; None otherwise."""
    owner: str | None
    """Who drives it; None unless it is running."""
    epoch: int
    """Raised by each claim and each intervention: the fencing token."""
    journal_len: int
    inbox_len: int
    """How many messages it ever got: the highest `seq` given out."""
    inbox_seen: int
    """The highest `seq` that a driver has taken note of."""
    deadline: int | None
    waits: list[str]
    """Keys of what a waiting run waits for. A running one keeps those of its last pause; others have none."""
    tags: list[str]
    seed: Sequence[int]
    """16 bytes as integers, to be kept."""
    note: str | None
    """Why a stuck run is stuck. Of a running run whose lease had ended when it was claimed, set by that
    claim: ``LENGTH@EPOCH``, its journal's length and the epoch before the claim; left as it is when it began
    with that length already. None otherwise."""


class Queued(TypedDict):
    """Left for any sweep or worker, from an instant on (None: at once)."""

    kind: Literal["queued"]
    at: int | None


class Leased(TypedDict):
    """Leased to its creator from the beginning: running, epoch 1, `started_at` set."""

    kind: Literal["leased"]
    owner: str
    lease: int


Start: TypeAlias = Queued | Leased
"""How a new run begins."""


class NewRun(TypedDict):
    """A run to create."""

    run_id: str
    workflow: str
    version: str
    input: bytes
    """The payload of journal entry 0."""
    start: Start
    tags: list[str]
    memo: bytes | None
    timeout: int | None
    """The run's deadline, counted from its creation, or from its start if that is later."""
    seed: Sequence[int]
    now: int | None


class Created(TypedDict):
    """The answer to one creation."""

    created: bool
    """False when the id existed; nothing was changed then."""
    row: RunRow


class Claim(TypedDict):
    """A request for runs to drive."""

    owner: str
    lease: int
    now: int | None
    due: Due
    limit: int
    workflows: list[WorkflowKey]
    """Only runs of these; an empty list claims nothing."""
    run_id: str | None
    """Only this run."""
    warm: list[tuple[str, int]]
    """Runs whose journal of that length the claimer still has: they come without it."""
    turn: int
    """Due runs stand in lines: for each of `workflows`, in their order and each once, those that are running
    (their lease has ended), waiting and queued, as far as `due` asks for them. The line with this number,
    modulo their count, comes first, the others behind it in order. The first run of each line is taken
    before the second of any; within a line the earliest due comes first, ties by run id."""
    max_bytes: int | None
    """Stop before the payloads of the journals brought exceed this (at least one run comes)."""


class Message(TypedDict):
    """A message in an inbox."""

    run_id: str
    seq: int
    """1 for the run's first message, then 2, 3 and so on."""
    message_id: str
    kind: MessageKind
    name: str
    payload: bytes
    at: int


class ClaimedRun(TypedDict):
    """A run with all that its driver needs."""

    row: RunRow
    """After the claim."""
    was: Status
    """Before the claim."""
    journal: list[Entry] | None
    """None when the claim said that it is warm."""
    inbox: list[Message]
    """Unread messages in order of arrival, seen or not."""


class Claimed(TypedDict):
    """Claimed runs, in the order in which they were taken: see `Claim.turn`."""

    now: int
    """The instant that the decision used."""
    runs: list[ClaimedRun]
    more: bool
    """Whether a limit ended the claim, so that more may be due."""


class ReadMessage(TypedDict):
    """A message that was consumed (`refused` is None) or set aside, with the reason."""

    seq: int
    refused: str | None


class Running(TypedDict):
    """The run keeps its lease."""

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


Next: TypeAlias = Running | Waiting | Finished | Stuck
"""What becomes of a run with a commit."""


class RunCommit(TypedDict):
    """One atomic change of a run, by its driver."""

    run_id: str
    owner: str
    epoch: int
    expected_len: int
    """How long the journal is before it."""
    entries: list[Entry]
    read: list[ReadMessage]
    inbox_seen: int
    next: Next
    state: bytes | None
    """The run's state object, when it changed."""
    at: int
    """For `updated_at` and `finished_at`, and for `ready_at` of a run that is due at once."""


class Applied(TypedDict):
    """The commit took place."""

    kind: Literal["applied"]
    due: bool
    """The run was released and is due at once, because of messages that its driver had not seen."""


class Fenced(TypedDict):
    """Owner, epoch, status or journal length differ: another driver has the run. Nothing was written."""

    kind: Literal["fenced"]


class Blocked(TypedDict):
    """Others hold the run for longer than neighbours should wait. Nothing was written; it is sent again."""

    kind: Literal["blocked"]


class Rejected(TypedDict):
    """The store can never keep this commit. Nothing was written."""

    kind: Literal["rejected"]
    reason: str


CommitOutcome: TypeAlias = Applied | Fenced | Blocked | Rejected
"""The answer to one commit."""


class Heartbeat(TypedDict):
    """A renewal of all leases of an owner."""

    owner: str
    lease: int
    now: int | None


class Beat(TypedDict):
    """What the owner still holds."""

    now: int
    held: list[tuple[str, int]]
    """Run ids with their epochs."""


class NewMessage(TypedDict):
    """A message to put into a run's inbox."""

    run_id: str
    message_id: str
    """The dedupe key within the run, for ever."""
    kind: MessageKind
    name: str
    payload: bytes
    fingerprint: str | None
    """Kept with the message, and given back to the sender of a duplicate."""
    now: int | None


class Delivered(TypedDict):
    """What became of a message that was sent."""

    result: Delivery
    fingerprint: str | None
    """Of the first message with that id, for duplicates."""
    owner: str | None
    """Who holds the run's lease, if anybody does."""


class Terminate(TypedDict):
    """Ends a live or stuck run as terminated and appends `entry`, whose `at` is its `finished_at`."""

    kind: Literal["terminate"]
    run_id: str
    entry: Entry


class Reopen(TypedDict):
    """Makes a failed, cancelled, terminated or stuck run queued and due now, appending `entries`."""

    kind: Literal["reopen"]
    run_id: str
    expected_len: int
    entries: list[Entry]
    now: int | None


class Delete(TypedDict):
    """Removes a run and all that belongs to it; a live one only if `force`."""

    kind: Literal["delete"]
    run_id: str
    force: bool


Intervention: TypeAlias = Terminate | Reopen | Delete
"""A change from outside the driver. It raises the epoch, so that a driver is fenced off."""


class RunDetail(TypedDict):
    """A run as people see it."""

    row: RunRow
    input: bytes
    end: Entry | None
    """The newest journal entry if the run is final."""
    state: bytes | None
    memo: bytes | None
    refused: list[tuple[Message, str]]
    """Messages that were set aside, newest last, with the reason."""


class Filter(TypedDict):
    """Which runs to list or count; what is absent, None or an empty list matches all."""

    workflow: NotRequired[str | None]
    version: NotRequired[str | None]
    status: NotRequired[list[Status]]
    tag: NotRequired[str | None]
    waiting_for: NotRequired[str | None]
    """A wait key, such as ``event:payment-received``."""
    created_after: NotRequired[int | None]
    """Later than this instant; not at it."""
    created_before: NotRequired[int | None]
    id_prefix: NotRequired[str | None]


class Cursor(TypedDict):
    """The place after a page's last row."""

    created_at: int
    run_id: str


class Page(TypedDict):
    """Rows by `created_at` descending, then by `run_id` descending."""

    rows: list[RunRow]
    next: Cursor | None
    """Where the next page begins; None on the last."""


class NextDue(TypedDict):
    """When something may be due."""

    now: int
    """The store's time."""
    ready_at: int | None


class Store(Protocol):
    """A place that keeps runs. See the module's head for the rules that all methods share."""

    async def migrate(self) -> Schema:
        """Apply missing migrations; safe to call from several processes at once."""
        ...

    async def schema(self) -> Schema:
        """Read the schema's version; changes nothing."""
        ...

    async def create(self, batch: Sequence[NewRun], /) -> Sequence[Created]:
        """Create runs, each with journal entry 0 (``run_created``, the input).

        An id that exists keeps its first input and is answered with its row. A new row has epoch 0 (1 if it
        is leased), `journal_len` 1 and `ready_at` at its start or its lease's end.
        """
        ...

    async def claim(self, claim: Claim, /) -> Claimed:
        """Lease runs that are due (``ready_at <= now``) to an owner, earliest first.

        Each gets status running, the owner, an epoch one higher, `ready_at` at the end of the lease, and
        `started_at` if it had none. Of two claims at once only one gets a run.
        """
        ...

    async def commit(self, batch: Sequence[RunCommit], /) -> Sequence[CommitOutcome]:
        """Apply run commits, if the run is running and owner, epoch and journal length are those of its row.

        `inbox_seen` never goes back and never beyond `inbox_len`. A pause, an end and a stuck run give up the
        lease. A consumed message is never given to a driver again, and remains a dedupe key.
        """
        ...

    async def heartbeat(self, beat: Heartbeat, /) -> Beat:
        """Move the end of every lease that the owner holds to ``now + lease``."""
        ...

    async def unread(self, owner: str, /) -> Sequence[Message]:
        """Unread messages beyond `inbox_seen` of the runs that an owner holds."""
        ...

    async def deliver(self, batch: Sequence[NewMessage], /) -> Sequence[Delivered]:
        """Put messages into inboxes; a waiting run whose waits have the message's key becomes due.

        A cancellation makes a queued or waiting run due whatever it waits for. `ready_at` only ever comes
        nearer by a message. What one element of a batch changes is seen by the next.
        """
        ...

    async def intervene(self, batch: Sequence[Intervention], /) -> Sequence[Intervened]:
        """Terminate, reopen or delete runs, whoever holds them."""
        ...

    async def get(self, run_ids: Sequence[str], /) -> Sequence[RunDetail | None]:
        """Look runs up; None where there is no such run."""
        ...

    async def load(self, run_id: str, start: int, limit: int, /) -> Sequence[Entry]:
        """Read a journal from an index on, in order. An unknown run has none."""
        ...

    async def list(self, filter: Filter, limit: int, cursor: Cursor | None, /) -> Page:  # noqa: A002
        """List rows, newest first; a run created meanwhile neither repeats nor hides another."""
        ...

    async def count(self, filter: Filter, /) -> int:  # noqa: A002
        """Count the runs that a filter matches."""
        ...

    async def next_due(self, workflows: Sequence[WorkflowKey], /) -> NextDue:
        """Find the least `ready_at` of live runs of these workflows, leases included."""
        ...

    async def close(self) -> None:
        """End background work and release files. Later calls raise `duramen.errors.StoreClosed`."""
        ...
