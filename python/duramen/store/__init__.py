"""What a store has to do: write one for any database, and give it to `Runtime` in place of a URL.

A store keeps runs. A run is a row (who drives it, when it needs attention), a journal that only grows, and an
inbox of messages. The engine decides everything else; it asks a store for batches, and a run changes only
through `Store.create`, `Store.claim`, `Store.commit`, `Store.deliver` and `Store.intervene`. A run may
write streams too, whose items come with commits and with `Store.append`.

Beside the runs a store keeps *owners*: one row for each incarnation of each process, with the end of its
lease. A running run has an owner and an epoch, and no time of its own. An owner that let its lease end has
ended for good, and its runs are anybody's. Whether a driver may still write is decided by the *fence* of each
commit: the life of the run (`RunRow.seed`), its owner, its epoch and the length of its journal.

Schedules are rows, too, which the library reads and writes and a store only finds: by when somebody has to
look at them.

What commits leave to be done elsewhere (`Outgoing`) is kept beside the runs too, until somebody reports it as
sent.

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
- What goes wrong is raised as a subclass of `duramen.errors.StoreError`; `StoreUnavailable`, `StoreLocked`,
  `StoreReadOnly` and `StoreFull` tell the engine that the place is in trouble, and that the same call may
  succeed later. Any other exception is taken for such trouble too, and is reported as a plain `StoreError`,
  with its text. Trouble of the place is never an answer to one element, such as `Rejected`.

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
...     "seed": bytes(16),
...     "owner": "me",
...     "epoch": 1,
...     "expected_len": 1,
...     "entries": [],
...     "read": [],
...     "inbox_seen": None,
...     "next": {"kind": "running"},
...     "state": None,
...     "outgoing": [],
...     "written": [],
...     "format": None,
...     "at": 1_700_000_000_000,
... }
>>> asyncio.run(main())
(1, [{'kind': 'fenced'}])
"""

from __future__ import annotations

from .claims import (
    ENDED_OWNERS_KEPT,
    Beat,
    Claim,
    Claimed,
    ClaimedRun,
    Due,
    DueAsk,
    Heartbeat,
    NextDue,
    OwnerRow,
)
from .inbox import (
    INBOX_PAGE,
    INBOX_PAGE_BYTES,
    MAX_UNREAD,
    MAX_UNREAD_BYTES,
    Consumed,
    Delivered,
    Delivery,
    InboxPage,
    Message,
    MessageKind,
    NewMessage,
    Receipt,
    SetAside,
    Unread,
)
from .protocol import (
    Store,
)
from .queries import (
    Cursor,
    Filter,
    OpenRuns,
    Page,
    RunDetail,
    Schema,
    Standing,
    WorkflowKey,
)
from .runs import (
    Applied,
    Blocked,
    CommitOutcome,
    Continued,
    Created,
    Delete,
    Entry,
    Exists,
    Fenced,
    Finished,
    Intervened,
    Intervention,
    Leased,
    Made,
    NewRun,
    Next,
    Outgoing,
    OutgoingKind,
    Paused,
    Queued,
    ReadMessage,
    Rejected,
    Reopen,
    RunCommit,
    Running,
    RunRow,
    Start,
    Status,
    Stuck,
    Terminate,
    UnknownKind,
    Unsent,
    UnsentAsk,
    Waiting,
    lane_key,
)
from .schedules import DueSchedules, ScheduleAsk, ScheduleChange, ScheduleRow
from .streams import (
    MOST_PRUNED,
    STREAM_PAGE_BYTES,
    AppendApplied,
    Appended,
    AppendFenced,
    StreamAppend,
    StreamAsk,
    StreamItem,
    StreamPage,
    StreamWrite,
)

__all__ = [
    "ENDED_OWNERS_KEPT",
    "INBOX_PAGE",
    "INBOX_PAGE_BYTES",
    "MAX_UNREAD",
    "MAX_UNREAD_BYTES",
    "MOST_PRUNED",
    "STREAM_PAGE_BYTES",
    "AppendApplied",
    "AppendFenced",
    "Appended",
    "Applied",
    "Beat",
    "Blocked",
    "Claim",
    "Claimed",
    "ClaimedRun",
    "CommitOutcome",
    "Consumed",
    "Continued",
    "Created",
    "Cursor",
    "Delete",
    "Delivered",
    "Delivery",
    "Due",
    "DueAsk",
    "DueSchedules",
    "Entry",
    "Exists",
    "Fenced",
    "Filter",
    "Finished",
    "Heartbeat",
    "InboxPage",
    "Intervened",
    "Intervention",
    "Leased",
    "Made",
    "Message",
    "MessageKind",
    "NewMessage",
    "NewRun",
    "Next",
    "NextDue",
    "OpenRuns",
    "Outgoing",
    "OutgoingKind",
    "OwnerRow",
    "Page",
    "Paused",
    "Queued",
    "ReadMessage",
    "Receipt",
    "Rejected",
    "Reopen",
    "RunCommit",
    "RunDetail",
    "RunRow",
    "Running",
    "ScheduleAsk",
    "ScheduleChange",
    "ScheduleRow",
    "Schema",
    "SetAside",
    "Standing",
    "Start",
    "Status",
    "Store",
    "StreamAppend",
    "StreamAsk",
    "StreamItem",
    "StreamPage",
    "StreamWrite",
    "Stuck",
    "Terminate",
    "UnknownKind",
    "Unread",
    "Unsent",
    "UnsentAsk",
    "Waiting",
    "WorkflowKey",
    "lane_key",
]
