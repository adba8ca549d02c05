"""The methods of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .claims import Beat, Claim, Claimed, DueAsk, Heartbeat, NextDue, OwnerRow
    from .inbox import Delivered, InboxPage, Message, NewMessage, Receipt
    from .queries import Cursor, Filter, OpenRuns, Page, RunDetail, Schema, Standing
    from .runs import (
        CommitOutcome,
        Created,
        Entry,
        Intervened,
        Intervention,
        NewRun,
        RunCommit,
        Unsent,
        UnsentAsk,
    )
    from .schedules import DueSchedules, ScheduleAsk, ScheduleChange, ScheduleRow
    from .streams import Appended, StreamAppend, StreamAsk, StreamPage

__all__ = ["Store"]


class Store(Protocol):
    """A place that keeps runs. See `duramen.store` for the rules that all methods share."""

    # -- the place -------------------------------------------------------------------------------------------

    async def migrate(self) -> Schema:
        """Apply missing migrations; safe to call from several processes at once."""
        ...

    async def schema(self) -> Schema:
        """Read the schema's version; changes nothing."""
        ...

    async def close(self) -> None:
        """End background work and release files. Later calls raise `duramen.errors.StoreClosed`."""
        ...

    # -- runs ------------------------------------------------------------------------------------------------

    async def create(self, batch: Sequence[NewRun], /) -> Sequence[Created]:
        """Create runs, each with journal entry 0 (``run_created``, the input) and the entries that it brings.

        An id that exists keeps its first input and is answered with its row. A new row has epoch 0 (1 if it
        is leased), `journal_len` of what it begins with, and `ready_at` at its start (None if it is leased).
        """
        ...

    async def commit(self, batch: Sequence[RunCommit], /) -> Sequence[CommitOutcome]:
        """Apply run commits, if the run is running and life, owner, epoch and journal length are those named.

        `inbox_seen` never goes back and never beyond `inbox_len`. A pause, an end, a stuck run and one that
        is continued are given out of their owner's hands. A consumed message is never given to a driver
        again, and remains a dedupe key with its reply; its payload need not be kept. A message keeps its
        first fate. That the owner's lease has ended does not matter, as long as nobody took the run.
        """
        ...

    async def intervene(self, batch: Sequence[Intervention], /) -> Sequence[Intervened]:
        """Terminate, reopen or delete runs, whoever holds them. Entries go behind the journal's real end."""
        ...

    async def unsent(self, ask: UnsentAsk, /) -> Sequence[Unsent]:
        """Find what commits left to be carried out, by `at`, then `run_id`, `entry` and `number`."""
        ...

    async def sent(self, items: Sequence[Unsent], /) -> None:
        """Take items out that were carried out. One that is gone already is passed over."""
        ...

    # -- owners and claims -----------------------------------------------------------------------------------

    async def heartbeat(self, beat: Heartbeat, /) -> Beat:
        """Register an owner, or move the end of its lease to ``now + lease``.

        An owner whose lease has ended (``lease_until <= now``) has ended for good, whatever a clock says
        later: its heartbeat is answered with `Beat.alive` False and changes nothing but `OwnerRow.ended_at`.
        One row is written, however many runs are held. The registration of a new name forgets owners that
        ended `ENDED_OWNERS_KEPT` ago or earlier and hold nothing.
        """
        ...

    async def retire(self, owner: str, now: int | None, /) -> None:
        """End an owner: its runs are anybody's. One that is not known, or has ended, is passed over."""
        ...

    async def owners(self) -> Sequence[OwnerRow]:
        """Read all owners that are kept, by name."""
        ...

    async def held(self, owner: str, after: str | None, limit: int, /) -> Sequence[tuple[str, int]]:
        """Read which runs an owner holds, with their epochs, by run id, behind the run id `after`."""
        ...

    async def claim(self, claim: Claim, /) -> Claimed:
        """Give due runs to an owner, if its lease lasts; otherwise the answer is `Claimed.lapsed`.

        Due are queued and waiting runs with ``ready_at <= now``, and running ones whose owner has ended. A
        claim first marks every owner whose lease has ended as ended, so that none of them is renewed while
        its runs are taken; a name that stands in a run and is not known has ended too. Each run gets status
        running, the owner, an epoch one higher, no `ready_at`, the exact `journal_len`, and `started_at` if
        it had none; `waits` stay. Of two claims at once only one gets a run.
        """
        ...

    async def next_due(self, ask: DueAsk, /) -> NextDue:
        """Find the next instant at which a claim could find something."""
        ...

    # -- messages --------------------------------------------------------------------------------------------

    async def deliver(self, batch: Sequence[NewMessage], /) -> Sequence[Delivered]:
        """Put messages into inboxes; a waiting run whose waits have the message's key becomes due.

        A cancellation makes a queued or waiting run due whatever it waits for. `ready_at` only ever comes
        nearer by a message. What one element of a batch changes is seen by the next. A duplicate is answered
        as one before anything else, also when the run has ended or its inbox is full.
        """
        ...

    async def unread(self, owner: str, told: Sequence[tuple[str, int]], /) -> Sequence[Message]:
        """Read what the runs that an owner holds have not seen: unread messages beyond `inbox_seen`.

        Of each run a page at the most; of one that stands in `told` only those beyond that number as well.
        """
        ...

    async def inbox(self, run_id: str, behind: int, /) -> InboxPage:
        """Read a page of a run's unread messages, seen or not, beyond a number. An unknown run has none."""
        ...

    async def receipts(self, messages: Sequence[tuple[str, str]], /) -> Sequence[Receipt | None]:
        """Look up what became of messages, by run id and message id; None where there is no such message."""
        ...

    # -- streams ---------------------------------------------------------------------------------------------

    async def append(self, batch: Sequence[StreamAppend], /) -> Sequence[Appended]:
        """Append what steps have written, if the run is running and life, owner and epoch are those named.

        An item gets the next number of its stream, from 1 without a gap, here as with `commit`. A number must
        not be visible before a lower one: writers of one run exclude each other. Of a stream with items the
        last one is always kept. What `keep` leaves over goes with the write, up to `MOST_PRUNED` items.
        """
        ...

    async def stream(self, ask: StreamAsk, /) -> StreamPage | None:
        """Read items of a stream, in order; None where there is no such run. Nothing is locked."""
        ...

    # -- questions -------------------------------------------------------------------------------------------

    async def get(self, run_ids: Sequence[str], /) -> Sequence[RunDetail | None]:
        """Look runs up; None where there is no such run."""
        ...

    async def standing(self, run_ids: Sequence[str], /) -> Sequence[Standing | None]:
        """Look up where runs stand, at little cost; None where there is no such run."""
        ...

    async def load(self, run_id: str, start: int, limit: int, /) -> Sequence[Entry]:
        """Read a journal from an index on, in order, so many places of it.

        There are no entries of an unknown run, and none from an index of a former generation.
        """
        ...

    async def list(self, filter: Filter, limit: int, cursor: Cursor | None, /) -> Page:  # noqa: A002
        """List rows, newest first; a run created meanwhile neither repeats nor hides another."""
        ...

    async def count(self, filter: Filter, /) -> int:  # noqa: A002
        """Count the runs that a filter matches."""
        ...

    async def census(self) -> Sequence[OpenRuns]:
        """Count the runs that have not ended by lane and status.

        By workflow, version, queue, format and status (in the order of their numbers). However many runs have
        ended, it should cost no more than those that have not.
        """
        ...

    # -- schedules -------------------------------------------------------------------------------------------

    async def change_schedules(self, batch: Sequence[ScheduleChange], /) -> Sequence[bool]:
        """Write or remove schedules, each only if it has the version that is expected; False if it has not.

        What one element of a batch changes is seen by the next.
        """
        ...

    async def get_schedules(self, ids: Sequence[str], /) -> Sequence[ScheduleRow | None]:
        """Look schedules up; None where there is no such schedule."""
        ...

    async def list_schedules(self, after: str | None, limit: int, /) -> Sequence[ScheduleRow]:
        """Read schedules by id, behind the id `after`."""
        ...

    async def due_schedules(self, ask: ScheduleAsk, /) -> DueSchedules:
        """Find the schedules of some workflows with ``next_at <= now``, and when the next one is due."""
        ...
