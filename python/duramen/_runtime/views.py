"""What calls answer with: frozen pictures of runs, journals and passes, with instants as aware `datetime`s.

A view never changes after it was made and holds no connection to its store. `RunHandle` is the exception that
its name says: it remembers which runtime it came from, so that one can ask on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from typing_extensions import override

from duramen._handlers.inputs import NO_INPUT
from duramen.errors import RecordedError

from .differences import Difference

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from datetime import timedelta

    from duramen.runtime import Runtime

__all__ = [
    "Event",
    "Page",
    "PauseResult",
    "RefusedSignal",
    "ResultKind",
    "ResumeResult",
    "RunHandle",
    "RunRequest",
    "RunResult",
    "RunStatus",
    "RunView",
    "ScheduleView",
    "SchemaView",
    "SignalResult",
    "StreamItem",
    "SweepResult",
    "SweptRun",
    "TimelineEntry",
    "WorkerView",
]

T = TypeVar("T")
OutputT = TypeVar("OutputT")

ResultKind = Literal[
    "completed",
    "paused",
    "failed",
    "cancelled",
    "terminated",
    "running",
    "stuck",
    "not_found",
    "not_claimable",
    "duplicate",
]
"""How a drive of a run ended.

``running``: its budget ran out, or another process drives it; ``not_claimable``: nothing of it is due.
"""


class RunStatus(StrEnum):
    """Where a run stands in the store.

    >>> RunStatus.WAITING == "waiting", RunStatus.WAITING.is_final
    (True, False)
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"
    STUCK = "stuck"
    PAUSED = "paused"

    @property
    def is_final(self) -> bool:
        """The run has ended: no message reaches it any more. A stuck or paused one has not."""
        return self in _FINAL


_FINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TERMINATED})


class SignalResult(StrEnum):
    """What became of a signal or of a decision about an approval."""

    DELIVERED = "delivered"
    """Kept, and the run waited for it: it is due now."""
    BUFFERED = "buffered"
    """Kept until the run asks for it."""
    DUPLICATE = "duplicate"
    """One with that id was there already; nothing changed."""
    NOT_FOUND = "not_found"
    """There is no such run."""
    FINISHED = "finished"
    """The run has ended; nothing was kept."""
    FULL = "full"
    """Of `signal_many`: the run has as many unread messages as it may have; nothing was kept. (`signal`
    raises `InboxFull`.)"""
    BLOCKED = "blocked"
    """Of `signal_many`: a transaction of somebody else's holds the run; nothing was kept, send it again.
    (`signal` raises `StoreLocked`.)"""


class PauseResult(StrEnum):
    """What became of a run that was to be paused."""

    PAUSED = "paused"
    """Nobody drove it: it is paused now."""
    PAUSING = "pausing"
    """Nothing new of it starts; it is paused as soon as its steps in flight have ended. (A stuck run: as
    soon as it is retried.)"""
    ALREADY_PAUSED = "already_paused"
    NOT_FOUND = "not_found"
    FINISHED = "finished"
    """It has ended."""


class ResumeResult(StrEnum):
    """What became of a run that was to be resumed."""

    RESUMED = "resumed"
    """It is due now (one that nobody had begun: at its start time), or its pause was taken back in time."""
    NOT_PAUSED = "not_paused"
    NOT_FOUND = "not_found"
    FINISHED = "finished"
    """It has ended."""


@dataclass(frozen=True, slots=True)
class RefusedSignal:
    """A signal that did not fit what the run waited for; it was set aside, and the run goes on waiting."""

    name: str
    signal_id: str
    kind: str
    """``event``, ``approval`` or ``cancel``."""
    reason: str
    at: datetime
    payload: Any


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as it stood when it was read.

    Views from `Runtime.list` have only what stands in the run's row: there `detailed` is False, and `input`,
    `output`, `error`, `reason`, `state`, `memo` and `refused` are empty. `Runtime.get` reads them too.
    """

    run_id: str
    workflow: str
    version: str
    status: RunStatus
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    """When it was first driven."""
    finished_at: datetime | None = None
    ready_at: datetime | None = None
    """When it needs attention next; None if that takes a message, or if it is running, final or stuck. Of a
    paused run: when it would."""
    deadline: datetime | None = None
    """When the whole run times out."""
    owner: str | None = None
    """Who drives it, or did last."""
    epoch: int = 0
    """How often it was claimed, reopened or ended from outside: the number that fences late writers off."""
    journal_start: int = 0
    """The index at which the journal of its present generation begins; what stood before is gone."""
    journal_len: int = 0
    """The index behind the last entry of its journal. Of a running run: when it was taken up, or since."""
    generation: int = 0
    """How often it was continued as new."""
    unread: int = 0
    """Messages that no driver has taken note of yet."""
    waits: tuple[str, ...] = ()
    """What it waits for: ``timer``, ``event:NAME``, ``approval:ID``, ``child:RUN``, ``retry:STEP``,
    ``poll:ID``, ``exhausted:STEP``, ``update:NAME``."""
    tags: tuple[str, ...] = ()
    note: str | None = None
    """Why a stuck run is stuck, or who has paused a paused one and why; `updated_at` says since when."""
    parent: str | None = None
    """The run that started this one."""
    root: str | None = None
    """The first run of that family."""
    children: tuple[str, ...] = ()
    """Ids of the runs that it started, the newest 100, oldest first; ``list(parent=…)`` has all. Lists leave
    it empty."""
    input: Any = None
    output: Any = None
    error: RecordedError | None = None
    """Why it failed; of a run that is paused for a step: why that failed."""
    reason: str | None = None
    """Why it was cancelled or terminated."""
    state: Any = None
    """The last durable value of `ctx.state`."""
    memo: Any = None
    refused: tuple[RefusedSignal, ...] = ()
    detailed: bool = False

    @property
    def finished(self) -> bool:
        """The run has ended (a stuck or paused one has not)."""
        return self.status.is_final

    @property
    def difference(self) -> Difference | None:
        """Of a stuck run: where its journal and the code part, and how; None if `note` has another reason."""
        return Difference.of_note(self.note) if self.status == "stuck" else None

    @property
    def waiting_events(self) -> tuple[str, ...]:
        """Names of the events it waits for."""
        return self._waits("event:")

    @property
    def waiting_approvals(self) -> tuple[str, ...]:
        """Ids of the approvals it waits for, as `Runtime.approve` takes them."""
        return self._waits("approval:")

    @property
    def exhausted_steps(self) -> tuple[str, ...]:
        """Ids of the steps that have failed for good and for which the run is paused; see `Runtime.skip`."""
        return self._waits("exhausted:")

    def _waits(self, prefix: str) -> tuple[str, ...]:
        return tuple(wait.removeprefix(prefix) for wait in self.waits if wait.startswith(prefix))


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a run's journal, or (``emitted``, ``state_changed``) a live event that is not recorded.

    `Runtime.timeline` gives the entries there are, `Runtime.events` goes on with those to come.
    """

    run_id: str
    index: int | None
    """Its place in the journal, to resume with ``from_index=last.index + 1``. None for live events."""
    kind: str
    """``run_created``, ``step_completed``, ``step_failed``, ``step_attempt_failed``, ``step_progress``,
    ``wait_opened``, ``event_received``, ``timer_fired``, ``approval_requested``, ``approval_resolved``,
    ``value_recorded``, ``stream_written``, ``cancel_requested``, ``run_finished``, ``run_failed``,
    ``run_cancelled``, ``run_terminated``, ``run_reopened``, …; live ones: ``emitted`` (by `Context.emit`) and
    ``state_changed``, whose `data` are the operations of a JSON patch (RFC 6902) on what the same listener
    was told before. The first one replaces the whole."""
    at: datetime
    op: str = ""
    """Id of the operation it belongs to; empty for entries of the run itself. For live events: their name."""
    data: Any = None
    """The payload as plain JSON; None where it is an error."""
    error: RecordedError | None = None
    attempt: int | None = None
    """Of a step: the attempt that ended so, 1 for the first."""
    retry_at: datetime | None = None
    wait: str | None = None
    """What is waited for, as in `RunView.waits`."""
    deadline: datetime | None = None
    message_id: str | None = None
    """Id of the signal that was consumed."""
    cause: int | None = None
    """Index of the failure that ended the run, or that was taken back."""
    run: str | None = None
    """The other run: the child that was started or has ended, or whom a message went to."""
    ended: str | None = None
    """How a child ended that has not completed: ``failed``, ``cancelled``, ``terminated``, ``conflict`` or
    ``deleted``."""
    exhausted: bool = False
    """Of a failed attempt: there is no other, and the run is paused for it."""
    undone: bool = False
    """Of the end of a run: what it had done was undone before (`Context.compensate`)."""
    skipped: bool = False
    """Of a result: somebody gave it to the step (`Runtime.skip`)."""


TimelineEntry = Event


@dataclass(frozen=True, slots=True)
class StreamItem(Generic[T]):
    """One item of a stream: see `Runtime.stream`."""

    seq: int
    """Its number in the stream, from 1 without a gap. To resume: ``from_seq=last.seq + 1``."""
    value: T
    index: int
    """Its place among what the same writer wrote, from 0. What that writer wrote there and behind before is
    void: a repeated attempt of a step begins at 0 again. With one writer that is
    ``parts[item.index:] = [item.value]`` and nothing else."""
    op: str | None
    """The step that wrote it, by its operation's id; None: the handler."""
    attempt: int | None
    """Of the step, from 1; None: the handler wrote it."""
    generation: int
    """How often the run had been continued as new when it was written. Each generation is another writer."""
    at: datetime

    @property
    def writer(self) -> tuple[int, str | None]:
        """Who wrote it: generation and step."""
        return self.generation, self.op


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One run for `Runtime.enqueue_many`; the fields mean what they mean for `Runtime.enqueue`."""

    workflow: Any
    """A workflow, or the name of one."""
    input: Any = NO_INPUT
    run_id: str | None = None
    start_at: datetime | None = None
    tags: tuple[str, ...] = ()
    memo: Any = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a longer answer, newest first; iterate over it, and pass `cursor` on for the next page."""

    items: tuple[T, ...]
    cursor: str | None = None
    """Opaque; None on the last page."""

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True)
class RunResult(Generic[OutputT]):
    """How `Runtime.run` left a run."""

    kind: ResultKind
    run_id: str
    run: RunView | None
    output: OutputT | None = None
    """What the handler returned, if `kind` is ``completed``."""
    error: RecordedError | None = None
    events: tuple[Event, ...] = ()
    """Live events (`ctx.emit`) of this drive, oldest first."""
    event_count: int = 0
    """How many there were, including those that `max_events` cut off."""
    events_truncated: bool = False


@dataclass(frozen=True, slots=True)
class SweptRun:
    """One run that a sweep drove, and how that ended."""

    run_id: str
    kind: str
    """A `ResultKind`, or ``lost``: another process took the run over meanwhile."""


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What one bounded pass did."""

    recovered: tuple[SweptRun, ...] = ()
    """Runs whose process was gone."""
    scheduled: tuple[SweptRun, ...] = ()
    timers: tuple[SweptRun, ...] = ()
    """Runs with a timer that was due, or a message."""
    queued: tuple[SweptRun, ...] = ()
    summary: dict[str, int] = field(default_factory=dict[str, int])
    """How many runs by kind of result, plus ``event_count`` and ``returned_event_count``."""
    deadline_reached: bool = False
    remaining_may_exist: bool = False
    """A limit ended the pass: sweep again."""
    events: tuple[Event, ...] = ()

    @property
    def driven(self) -> tuple[SweptRun, ...]:
        """All runs of the pass, in the order in which it takes them."""
        return self.recovered + self.scheduled + self.timers + self.queued


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A process that drives runs, or did. A process whose lease lapsed goes on under another name."""

    owner: str
    """The name under which it holds runs, as in `RunView.owner`."""
    label: str | None
    """Where it runs: host and process id."""
    serves: tuple[str, ...]
    """The workflows that it takes up, with their versions, such as ``order 2``."""
    started_at: datetime
    seen_at: datetime
    """Its last sign of life."""
    lease_until: datetime
    """When others take over its runs if there is no further sign."""
    ended_at: datetime | None
    """When it left, or was found to be gone."""
    runs: int
    """How many runs it has in hand."""
    alive: bool
    """Whether its lease lasted when this was read."""


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule as it stood when it was read. Instants are in UTC."""

    id: str
    workflow: str
    when: str
    """As it would be written: ``cron('0 9 * * MON', tz='Europe/Zurich')``."""
    overlap: str = "skip"
    catch_up: str = "latest"
    """``none``, ``latest``, or the window in seconds."""
    jitter: float = 0.0
    """Seconds."""
    start: datetime | None = None
    end: datetime | None = None
    tags: tuple[str, ...] = ()
    declared: bool = False
    """By ``Runtime(schedules=…)``, and not by `upsert`."""
    paused: bool = False
    note: str | None = None
    """Why it is paused."""
    next_fire: datetime | None = None
    """None if it is paused, or fires no more."""
    next_look: datetime | None = None
    """When a process looks at it next: for a fire time, or for what it waits for."""
    last_fire: datetime | None = None
    """The last fire time that started a run."""
    last_run: str | None = None
    """The run that it started last."""
    running: tuple[str, ...] = ()
    """Runs of it that have not ended. In a list: that had not when it was looked at last."""
    waiting: tuple[datetime, ...] = ()
    """Fire times that are to be started as soon as it can be."""
    fired: int = 0
    """How many runs it has started."""
    skipped: int = 0
    """How many fire times it has passed over, for another run was under way."""
    error: str | None = None
    """Why it could not start a run when it was tried last."""
    failures: int = 0
    """How often in a row that was."""


@dataclass(frozen=True, slots=True)
class SchemaView:
    """Version of a store's schema."""

    found: int
    """Number of the newest migration applied; 0 for an empty store."""
    needed: int
    """Number of the newest migration that this build knows."""
    applied: tuple[str, ...] = ()
    """Names of the migrations that this call applied."""

    @property
    def current(self) -> bool:
        """No migration of this library is missing; a newer library may have applied more."""
        return self.found >= self.needed


class RunHandle(Generic[OutputT]):
    """A run and the runtime it was asked from. `created` is False if a run of that id existed already."""

    __slots__ = ("_result", "created", "run_id", "runtime", "workflow")

    def __init__(
        self,
        runtime: Runtime,
        run_id: str,
        workflow: str,
        *,
        created: bool = False,
        result: Callable[[timedelta | float | None], Coroutine[Any, Any, OutputT]],
    ) -> None:
        self.runtime = runtime
        self.run_id = run_id
        self.workflow = workflow
        self.created = created
        self._result = result

    @override
    def __repr__(self) -> str:
        return f"<RunHandle {self.run_id!r} of {self.workflow!r}{'' if self.created else ' (existed)'}>"

    async def result(self, timeout: timedelta | float | None = None) -> OutputT:
        """Wait for the end and give the output; see `Runtime.result`."""
        return await self._result(timeout)

    async def get(self) -> RunView:
        """See `Runtime.get`."""
        return await self.runtime.get(self.run_id)

    async def signal(self, name: str, payload: Any = None, *, signal_id: str | None = None) -> SignalResult:
        """See `Runtime.signal`."""
        return await self.runtime.signal(self.run_id, name, payload, signal_id=signal_id)

    async def approve(
        self,
        approval_id: str,
        approved: bool = True,
        *,
        feedback: str | None = None,
        by: str | None = None,
    ) -> SignalResult:
        """See `Runtime.approve`."""
        return await self.runtime.approve(self.run_id, approval_id, approved, feedback=feedback, by=by)

    async def cancel(self, reason: str = "") -> SignalResult:
        """See `Runtime.cancel`."""
        return await self.runtime.cancel(self.run_id, reason)

    async def terminate(self, reason: str = "") -> None:
        """See `Runtime.terminate`."""
        await self.runtime.terminate(self.run_id, reason)

    async def timeline(self) -> list[Event]:
        """See `Runtime.timeline`."""
        return await self.runtime.timeline(self.run_id)
