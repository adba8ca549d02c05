"""The Rust engine. Only `duramen._bridge` imports this module."""

from collections.abc import Callable, Sequence
from typing import Any, Final, final

__all__ = [
    "ENCODING",
    "Advance",
    "Answer",
    "Apply",
    "Cancel",
    "Change",
    "ChildEnded",
    "Clock",
    "Completed",
    "Created",
    "Deliver",
    "Delivered",
    "Detail",
    "Drive",
    "DueSchedules",
    "Engine",
    "Entry",
    "Evict",
    "Failed",
    "Fired",
    "Halted",
    "InvalidIdError",
    "LogEvent",
    "Lost",
    "Newer",
    "Offer",
    "OpenRuns",
    "OwnerRow",
    "Page",
    "Received",
    "Refused",
    "Reply",
    "Resume",
    "Row",
    "Run",
    "ScheduleRow",
    "Schema",
    "Seal",
    "SqlFailed",
    "SqliteConnection",
    "Start",
    "Started",
    "Store",
    "StoreFailed",
    "StoreRequest",
    "StreamItem",
    "StreamPage",
    "Swept",
    "SweptRun",
    "TimeOut",
    "TimedOut",
    "__version__",
    "set_log_levels",
    "take_logs",
    "wake_logs",
]

__version__: Final[str]
ENCODING: Final[int]  # the highest encoding of entries and messages that it reads

@final
class LogEvent:
    """Something that the engine or a store has to tell."""

    logger: str
    level: int  # as in `logging`
    message: str
    at: float  # seconds since the epoch
    fields: list[tuple[str, str]]

def wake_logs(fd: int) -> None:
    """Have that descriptor written to when there is something to take."""

def take_logs() -> tuple[list[LogEvent], int]:
    """Take what is to be told, oldest first, and how many events were lost because nobody took them."""

def set_log_levels(levels: dict[str, int]) -> None:
    """Say the least level that each logger tells."""

# What `Engine.drain` gives. The classes from here to `Halted` are made by the engine alone, and never change.

@final
class Drive:
    """A claimed run, to be driven from its journal."""

    ticket: int
    run: Run

    __match_args__ = ("ticket", "run")

@final
class Resume:
    """A paused run kept warm was claimed again: advance it."""

    ticket: int

    __match_args__ = ("ticket",)

@final
class Evict:
    """Drop a paused run that was kept warm."""

    ticket: int

    __match_args__ = ("ticket",)

@final
class Advance:
    """Go on. `driven` says that the run left these hands, and how: completed, failed, cancelled, stuck,
    paused or lost."""

    ticket: int
    driven: str | None

    __match_args__ = ("ticket", "driven")

@final
class Lost:
    """Stop at once, write nothing. `error` is a (kind, message)."""

    ticket: int
    error: tuple[str, str] | None

    __match_args__ = ("ticket", "error")

@final
class Newer:
    """Runs of the workflows served here need a build that reads a higher encoding than `reads`."""

    reads: int

    __match_args__ = ("reads",)

@final
class Reply:
    """The outcome of a call. `error` is a (kind, message)."""

    token: int
    value: Any
    error: tuple[str, str] | None

    __match_args__ = ("token", "value", "error")

@final
class StoreRequest:
    """For a store written in Python; see `Engine.answer`."""

    request: int
    method: str
    arguments: tuple[Any, ...]

    __match_args__ = ("request", "method", "arguments")

# What `Run.turn` and `Run.accept` give; instants are in ms.

@final
class Deliver:
    """What the handler waits for in a slot is there."""

    slot: int
    outcome: ChildEnded | Completed | Failed | Fired | Received | TimedOut
    at: int

    __match_args__ = ("slot", "outcome", "at")

@final
class Offer:
    """A message: decode it, then `accept` or `refuse`."""

    slot: int
    payload: bytes

    __match_args__ = ("slot", "payload")

@final
class Apply:
    """An update was accepted: apply it by the function that takes it, then call `update_done`. `payload` is
    None for the value just accepted."""

    taker: int
    slot: int
    payload: bytes | None
    at: int

    __match_args__ = ("taker", "slot", "payload", "at")

@final
class Start:
    """Begin an attempt (from 1) of the step in a slot."""

    slot: int
    attempt: int

    __match_args__ = ("slot", "attempt")

@final
class Seal:
    """The result given to `seal` is sealed: carry the change out, then call `sealed`."""

    slot: int
    change: Change

    __match_args__ = ("slot", "change")

@final
class Cancel:
    """Cancel the handler. `reason` is a payload."""

    reason: bytes
    at: int

    __match_args__ = ("reason", "at")

@final
class TimeOut:
    """The run's own time is over: cancel the handler."""

    at: int

    __match_args__ = ("at",)

@final
class Completed:
    """A step's result. None: the live value, which the host has in memory."""

    payload: bytes | None

    __match_args__ = ("payload",)

@final
class Failed:
    """A step's recorded error."""

    error: bytes

    __match_args__ = ("error",)

@final
class Fired:
    """A timer has fired."""

    __match_args__ = ()

@final
class Received:
    """A message. None: the value just accepted."""

    payload: bytes | None

    __match_args__ = ("payload",)

@final
class TimedOut:
    """A wait's deadline has passed."""

    __match_args__ = ()

@final
class ChildEnded:
    """How a child ended: ``completed`` … with its output, recorded error or reason."""

    how: str
    payload: bytes

    __match_args__ = ("how", "payload")

# What calls of the engine are answered with.

@final
class Started:
    """`workflow` is that of the run that is there; without a ticket it is not driven here by this call."""

    created: bool
    workflow: str
    status: str
    ticket: int | None

@final
class Created:
    """`workflow` is that of the run that is there."""

    created: bool
    workflow: str
    status: str

@final
class Delivered:
    """What became of a message: delivered, buffered, duplicate, not_found or finished. `fingerprint` is that
    of the first message of its id."""

    result: str
    fingerprint: str | None

@final
class Answer:
    """What became of a message that was waited for: answered (with `reply`), refused (`why` is the reason) or
    unanswered (`why` is the run's status, None if it is not there)."""

    how: str
    reply: bytes | None
    why: str | None

@final
class Row:
    """A run as it stands in the store; instants are in ms."""

    run_id: str
    workflow: str
    version: str
    queue: str
    priority: int
    status: str
    created_at: int
    started_at: int | None
    updated_at: int
    finished_at: int | None
    ready_at: int | None
    owner: str | None
    epoch: int
    format: int
    journal_start: int
    journal_len: int
    generation: int
    inbox_len: int
    inbox_seen: int
    unread: int
    unread_bytes: int
    timeout: int | None
    deadline: int | None
    lost: int
    lost_at: int
    waits: list[str]
    tags: list[str]
    seed: bytes
    note: str | None
    parent: str | None
    root: str | None
    origin: str | None

@final
class Entry:
    """A journal entry. `meta` is JSON."""

    kind: str
    op: str
    meta: str | None
    payload: bytes
    at: int
    encoding: int

@final
class Refused:
    """A message that the run has set aside."""

    message_id: str
    kind: str
    name: str
    payload: bytes
    encoding: int
    at: int
    reason: str

@final
class Detail:
    """A run with what belongs to it. `end` is the entry that ended it."""

    row: Row
    input: bytes
    end: Entry | None
    state: bytes | None
    memo: bytes | None
    refused: list[Refused]

@final
class OwnerRow:
    """A process that drives runs, or did; instants are in ms. `held`: runs in hand."""

    owner: str
    label: str | None
    serves: list[str]
    format: int
    started_at: int
    seen_at: int
    lease_until: int
    ended_at: int | None
    held: int

@final
class OpenRuns:
    """The runs of one lane and status that have not ended. `oldest` (created_at, run_id)."""

    workflow: str
    version: str
    queue: str
    format: int
    status: str
    count: int
    oldest: tuple[int, str]

@final
class Page:
    """Some rows of a longer answer. `next` (created_at, run_id) is where the next page begins."""

    rows: list[Row]
    next: tuple[int, str] | None

@final
class StreamItem:
    """An item of a stream."""

    seq: int
    writer: str
    index: int
    attempt: int
    at: int
    payload: bytes

@final
class StreamPage:
    """Items of a stream, and where their run stood when they were read."""

    seed: bytes
    status: str
    items: list[StreamItem]

@final
class ScheduleRow:
    """A schedule as it stands in the store; instants are in ms."""

    id: str
    version: int
    workflow: str
    next_at: int | None
    definition: bytes
    state: bytes

@final
class DueSchedules:
    """What of schedules is due. `next_at`: when somebody has to look at the next one behind these."""

    now: int
    rows: list[ScheduleRow]
    next_at: int | None

@final
class Schema:
    """How far a store's schema is."""

    found: int
    needed: int
    applied: list[str]

@final
class SweptRun:
    """How a run left a sweep's hands: as `Advance.driven`, or running."""

    run_id: str
    kind: str

@final
class Swept:
    """What a sweep did."""

    recovered: list[SweptRun]
    timers: list[SweptRun]
    queued: list[SweptRun]
    deadline_reached: bool
    more: bool

class Halted(BaseException):
    """The run may not go on here (diverged, lost, evicted): abandon its coroutine."""

class InvalidIdError(ValueError):
    """An id or name was refused; the text says why."""

class SqlFailed(Exception):
    """A statement of the user's failed; args = (SQLite's extended result code | None, message)."""

class StoreFailed(Exception):
    """Opening the store failed; args = (kind, message)."""

@final
class Store:
    """One of the engine's stores by itself. Methods block; they take and answer what
    `duramen.store.Store` does.

    What goes wrong in the store raises `StoreFailed`."""

    # options: as for Engine; and max_pages: int, sqlite: the file grows to no more pages of 4 KiB
    def __new__(cls, scheme: str, location: str, options: dict[str, Any]) -> Store: ...
    def migrate(self) -> Any: ...
    def schema(self) -> Any: ...
    def create(self, batch: Any) -> Any: ...
    def commit(self, batch: Any) -> Any: ...
    def intervene(self, batch: Any) -> Any: ...
    def unsent(self, ask: Any) -> Any: ...
    def sent(self, items: Any) -> Any: ...
    def heartbeat(self, beat: Any) -> Any: ...
    def retire(self, owner: str, now: int | None) -> Any: ...
    def owners(self) -> Any: ...
    def held(self, owner: str, after: str | None, limit: int) -> Any: ...
    def claim(self, claim: Any) -> Any: ...
    def next_due(self, ask: Any) -> Any: ...
    def deliver(self, batch: Any) -> Any: ...
    def unread(self, owner: str, told: Any) -> Any: ...
    def inbox(self, run_id: str, behind: int) -> Any: ...
    def receipts(self, messages: Any) -> Any: ...
    def get(self, run_ids: Sequence[str]) -> Any: ...
    def append(self, batch: Any) -> Any: ...
    def stream(self, ask: Any) -> Any: ...
    def standing(self, run_ids: Sequence[str]) -> Any: ...
    def load(self, run_id: str, start: int, limit: int) -> Any: ...
    def list(self, filter: Any, limit: int, cursor: Any) -> Any: ...
    def count(self, filter: Any) -> Any: ...
    def census(self) -> Any: ...
    def change_schedules(self, batch: Any) -> Any: ...
    def get_schedules(self, ids: Sequence[str]) -> Any: ...
    def list_schedules(self, after: str | None, limit: int) -> Any: ...
    def due_schedules(self, ask: Any) -> Any: ...
    def close(self) -> Any: ...

@final
class Clock:
    """Virtual time for tests: it stands still until it is moved. Engines may share one.

    `seed` makes the values that runs draw (`uuid`, `random`, jitter) the same in each repetition."""

    def __new__(cls, now: int, seed: int) -> Clock: ...
    def now(self) -> int: ...  # ms
    def next(self) -> int | None: ...  # the next instant that an engine under it waits for, ms
    def advance(self, to: int) -> None: ...  # ms; never back. What was waited for happens in the next drain

@final
class Run:
    """One run in the hands of this process. Use it on the loop's thread only."""

    run_id: str
    workflow: str
    version: str
    input: bytes
    created_at: int
    started_at: int
    deadline: int | None
    tick: tuple[str, int, int | None] | None  # schedule, fire time, the one before it
    epoch: int
    generation: int  # how often it was continued as new
    scope: str  # what no other run and no other generation of it has before the ids of its operations
    seed: bytes
    tags: list[str]
    ticket: int
    @property
    def sweep(self) -> int | None: ...  # the token of the `Engine.sweep` that took it up, new with each claim
    def step(
        self, id: str, retry: tuple[int, int, int, int, bool] | None, checkpoint: int, alone: bool
    ) -> int | tuple[bool, bytes, int]:
        """retry = (attempts, backoff 0 constant/1 linear/2 exponential, base ms, cap ms, jitter).
        checkpoint 0 durable, 1 lazy, 2 sealed; 4 more if the run is paused when the step fails for good.
        An int is the slot of a pending operation; (ok, payload, at_ms) is a recorded result, at once."""
    def poll(
        self,
        id: str,
        retry: tuple[int, int, int, int, bool] | None,
        checkpoint: int,
        rule: tuple[int, int, int, int | None],
        alone: bool,
    ) -> int | tuple[bool, bytes, int]:
        """rule = (every ms, growth in thousandths, cap ms, timeout ms); the rest is as in `step`."""

    def timer(self, stem: int, deadline: int) -> int: ...  # stem 0: ctx.sleep, 1: the loop's own timers
    def event(self, name: str, id: str | None, deadline: int | None) -> int: ...
    def approval(self, id: str | None, request: bytes, deadline: int | None) -> tuple[int, str]: ...
    def value(
        self, kind: int
    ) -> bytes: ...  # 0 now (int ms as JSON), 1 uuid (JSON string), 2 random (JSON number)
    def token(self, id: str | None, deadline: int | None) -> tuple[int, str]: ...  # slot, the token's id
    def updates(self, name: str) -> int: ...  # takes them from now on; the slot is the taker of `Apply`
    def update_done(self, slot: int, ok: bool, payload: bytes) -> None: ...  # the slot of `Apply`
    def patched(self, id: str) -> bool: ...
    # Operation and run id of a child; run id, workflow, version, input, tags, memo, timeout
    def start_child(
        self,
        id: str | None,
        child: tuple[str | None, str, str, bytes, list[str], bytes | None, int | None],
    ) -> tuple[str, str]: ...
    # 0 completed, 1 failed, 2 stuck: what is started if that is what the run comes to next
    def set_hook(
        self, on: int, run: tuple[str | None, str, str, bytes, list[str], bytes | None, int | None]
    ) -> None: ...
    def child_end(self, op: str, run_id: str) -> int: ...
    def send_event(self, to: str, name: str, payload: bytes) -> None: ...
    def send_cancel(self, to: str, reason: bytes) -> None: ...
    def write(self, stream: str, keep: int | None, item: bytes) -> None: ...
    def writer(self, op: str) -> str: ...  # as whom the step of that id writes to streams
    def append(
        self, token: int, items: list[tuple[str, str, int, int, int | None, bytes, int]]
    ) -> None: ...  # (stream, writer, index, attempt, keep, payload, at); tuple[str, str | None]
    def last_op(self) -> str: ...  # id of the operation requested last
    def cancel_op(self, slot: int) -> bool: ...  # True: a step in flight, stop it
    # None: idle; commits went on their way
    def turn(self) -> Deliver | Offer | Apply | Start | Seal | Cancel | TimeOut | None: ...
    def accept(self) -> Deliver | Offer | Apply | Start | Seal | Cancel | TimeOut | None: ...
    def refuse(self, reason: str) -> None: ...
    def step_ok(self, slot: int, payload: bytes) -> None: ...
    def step_not_yet(self, slot: int) -> None: ...  # of a poll: the look has found nothing
    def step_failed(self, slot: int, error: bytes, retryable: bool) -> int | None:
        """Give the milliseconds until the next attempt, if there is to be one."""

    def step_progress(self, slot: int, progress: bytes) -> bool:
        """An attempt tells of its progress. False if it is not recorded, now or at all."""

    def progress(self, slot: int) -> bytes | None:
        """The last that a step told of its progress, in whichever attempt."""

    # in a transaction of the user's: its function has returned; False: roll back, nobody waits for it
    def seal(self, slot: int, payload: bytes) -> bool: ...
    def sealed(self, applied: bool) -> None: ...  # the transaction took place; False: refused, or not known
    def durable_len(self) -> int: ...  # journal entries that are durable
    def undone(self) -> None: ...  # before `finish`: what the run had done was undone
    # 0 completed, 1 failed, 2 cancelled, 3 continued; word: a failure's operation, a continuation's version
    def finish(self, kind: int, payload: bytes, word: str | None) -> None: ...
    def cannot_read(self, op: str, why: str) -> None: ...  # of what was just delivered: parks the run
    def set_state(self, state: bytes) -> None: ...
    def yield_now(self) -> None: ...
    def abandon(self) -> None: ...
    def holds_lease(self) -> bool: ...  # as far as is known here; asked again before a late start
    def now(self) -> int: ...  # logical clock, ms
    def wall(self) -> int: ...  # the clock that decisions use, ms
    def journal_len(self) -> int: ...
    @property
    def replaying(self) -> bool: ...
    @property
    def driving(self) -> bool: ...
    @property
    def cancelled(self) -> bool: ...
    @property
    def timed_out(self) -> bool: ...
    def divergence(self) -> str | None: ...
    def divergence_index(self) -> int | None: ...  # the journal index where code and journal part

@final
class Change:
    """A change for a transaction that the user holds."""

    @staticmethod
    def create(
        engine: Engine,
        run: tuple[str, str, str, bytes, int | None, list[str], bytes | None, int | None],
    ) -> Change: ...  # as `Engine.create`; answers (created: bool, workflow: str)
    @staticmethod
    def deliver(
        engine: Engine, message: tuple[str, str, str, str, bytes, str | None]
    ) -> Change: ...  # as `Engine.deliver`; answers (result, fingerprint | None)
    @staticmethod
    def identify() -> Change: ...  # no change; answers (identity,), see `Engine.identity`
    def script(self, engine: Engine) -> list[tuple[str, list[int | str | bytes | None], int]]:
        """(sql with $1 …, values, rows: 0 mean nothing, 1 none is a refusal, 2 the first is the answer).

        Raises `StoreFailed` for a store that cannot be written to from outside."""

@final
class SqliteConnection:
    """A connection to a SQLite file through this module's SQLite, the only one that may open a store's file
    in a process that has it open. A statement's failure raises `SqlFailed`."""

    def __new__(cls, path: str, synchronous: str, busy_timeout: int) -> SqliteConnection: ...  # ms
    @property
    def in_transaction(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    def begin(self, wait: bool, managed: bool) -> bool: ...  # False: another has the write lock
    def end(self, commit: bool, managed: bool) -> bool: ...  # False: a managed one was over already
    def abort(self) -> None: ...  # roll a managed one back, from any thread, also within a statement
    def execute(
        self, sql: str, values: Any
    ) -> tuple[list[str], list[tuple[Any, ...]], int, int]: ...  # columns, rows, changes, last row id
    def execute_script(self, sql: str) -> None: ...
    def close(self) -> None: ...
    def apply(self, change: Change) -> tuple[Any, ...] | None: ...  # its answer; None: refused

@final
class Engine:
    def __new__(
        cls,
        scheme: str,  # "memory" | "sqlite" | "postgres" | "python"
        location: str,  # memory: a name to share, or ""; sqlite: a path; postgres: a URL
        *,
        owner: str,
        lease: int,
        hold: int,
        warm: int,
        wake_fd: int | None,
        wake: Callable[[], None] | None,
        options: dict[str, Any],  # sqlite: migrate: bool, synchronous: "full"|"normal", busy_timeout: int ms
        label: str | None = None,  # for people: host and process
        serves: list[str] = ...,  # for people: names of workflows
        store: object | None = None,  # a Store written in Python, or one of this module, opened before
        clock: Clock | None = None,  # virtual time: tasks of the engine run in `drain`, and no thread is made
    ) -> Engine: ...
    def applied_on_open(self) -> list[str]: ...
    def register(
        self, workflows: Sequence[tuple[str, str]]
    ) -> None: ...  # (name, version) that may be claimed
    def drain(self) -> list[Drive | Resume | Evict | Advance | Lost | Newer | Reply | StoreRequest]: ...
    def flush(self) -> None: ...  # call at the end of each callback that touched runs
    def now(self) -> int: ...
    def owner(self) -> str: ...
    def active(self) -> int: ...
    def stats(self) -> dict[str, int]: ...  # commits, transactions, claims ... counted
    # Calls: the outcome comes as a `Reply` with the token.
    def migrate(self, token: int) -> None: ...  # Schema
    def watch_end(self, token: int, run_id: str) -> None: ...  # str | None: how it ended; None: no such run
    def unwatch_end(self, token: int) -> None: ...  # nobody waits for that reply any more
    def watch_answer(self, token: int, run_id: str, message_id: str) -> None: ...  # Answer
    def receipt(self, token: int, run_id: str, message_id: str) -> None: ...  # Answer, by now
    def unwatch_answer(self, token: int) -> None: ...  # nobody waits for that reply any more
    def read(
        self, token: int, run_id: str
    ) -> None: ...  # Run | None: a copy whose turns end with its journal
    def identity(self, token: int) -> None: ...  # str | None: tells the store's database from others
    def schema(self, token: int) -> None: ...  # Schema
    def start(
        self,
        token: int,
        run_id: str,
        workflow: str,
        version: str,
        input: bytes,
        tags: list[str],
        memo: bytes | None,
        timeout: int | None,
    ) -> None:
        """Creates leased: Started.

        `Drive` comes before the reply.
        """
    def create(
        self,
        token: int,
        runs: list[tuple[str, str, str, bytes, int | None, list[str], bytes | None, int | None]],
    ) -> None:
        """(run_id, workflow, version, input, start at ms, tags, memo, timeout ms).

        The reply: list[Created].
        """
    def fork(
        self,
        token: int,
        run: tuple[str, str, str, bytes, int | None, list[str], bytes | None, int | None],
        queue: str,
        priority: int,
        origin: str,
        entries: list[tuple[int, str, str, str | None, bytes, int]],
        started_at: int | None,
    ) -> None:
        """As `create`, of one run that brings entries: (encoding, kind, operation, meta, payload, at).

        `started_at` is where their clock began. The reply: list[Created].
        """
    def take(
        self, token: int, run_id: str, now: int | None
    ) -> None: ...  # claims that run if it is due: ticket | None
    def adopt(
        self, token: int, run_id: str
    ) -> None: ...  # the same, and goes on with it as with one that was started here
    def deliver(self, token: int, messages: list[tuple[str, str, str, str, bytes, str | None]]) -> None:
        """(run_id, message_id, kind as in `duramen.store.MessageKind`, name, payload, fingerprint)
        -> list[Delivered]"""
    def terminate(
        self, token: int, run_id: str, reason: bytes
    ) -> None: ...  # "done" | "not_found" | "not_allowed"
    def reopen(self, token: int, run_id: str, version: str | None) -> None: ...  # the same
    def skip(self, token: int, run_id: str, op: str, result: bytes) -> None: ...  # the same
    def delete(self, token: int, run_id: str, force: bool) -> None: ...  # the same
    def get(self, token: int, run_ids: list[str]) -> None: ...  # list[Detail | None]
    def load(self, token: int, run_id: str, start: int, limit: int) -> None: ...  # list[Entry]
    def stream(
        self, token: int, run_id: str, stream: str, start: int, limit: int
    ) -> None: ...  # StreamPage | None
    def owners(self, token: int) -> None: ...  # list[OwnerRow]
    def statuses(self, token: int, run_ids: list[str]) -> None: ...  # list[str | None]
    def create_scheduled(
        self,
        token: int,
        runs: list[
            tuple[
                tuple[str, str, str, bytes, int | None, list[str], bytes | None, int | None],
                str,
                int,
                int | None,
            ]
        ],
    ) -> None: ...  # the run, the schedule, the fire time, the one before it; list[Created]
    def change_schedules(
        self,
        token: int,
        changes: list[tuple[str, int | None, tuple[int, str, int | None, bytes, bytes] | None]],
    ) -> None: ...  # id, expected version, version, workflow, next_at, definition, state; list[bool]
    def get_schedules(self, token: int, ids: list[str]) -> None: ...  # list[ScheduleRow | None]
    def list_schedules(self, token: int, after: str | None, limit: int) -> None: ...  # list[ScheduleRow]
    def due_schedules(
        self, token: int, workflows: list[str], after: tuple[int, str] | None, limit: int, now: int | None
    ) -> None: ...  # DueSchedules
    def list(
        self, token: int, filter: dict[str, Any], limit: int, cursor: tuple[int, str] | None
    ) -> None: ...  # Page
    def count(self, token: int, filter: dict[str, Any]) -> None: ...
    def census(self, token: int) -> None: ...  # list[OpenRuns]
    def sweep(self, token: int, options: dict[str, Any]) -> None:
        """options: limit, max_recovered, max_timers, max_queued: int; deadline: int | None (absolute ms);
        min_remaining: int ms; now: int | None; max_bytes: int | None
        -> Swept"""
    def work(
        self, concurrency: int, poll_min: int, poll_max: int
    ) -> None: ...  # claims from now on, in the background
    def stop_work(self) -> None: ...  # claims nothing more
    def yield_all(
        self,
    ) -> None: ...  # every active run is released as soon as its steps in flight are recorded
    def nudge(self) -> None: ...  # something may be due: look now
    def close(self, token: int) -> None: ...
    def answer(
        self, request: int, value: object, error: tuple[str, str] | None
    ) -> None: ...  # for stores in Python
