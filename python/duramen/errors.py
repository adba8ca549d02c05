"""Every error Duramen raises, as one tree under `DuramenError`.

A message says what happened, where, and what to do about it. Every class can be copied and pickled: what was
given to the constructor stands in `args`, and the text is made from it on demand.

Two classes stand outside of the tree on purpose: `RunEvicted` and `ContinueAsNew` are `BaseException`s, like
`asyncio.CancelledError`, because a handler's `except Exception` must not catch the unwinding of a coroutine
that is being dropped from memory, or that makes way for its run's next generation.

>>> try:
...     raise UnknownRun("order:42")
... except DuramenError as error:
...     print(error)
there is no run 'order:42' in this store: check the id and the store's URL
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from typing_extensions import override

if TYPE_CHECKING:
    from duramen._handlers.mapping import MapResult

__all__ = [
    "ApprovalConflict",
    "ChildCancelled",
    "ChildConflict",
    "ChildFailed",
    "ChildTerminated",
    "ContinueAsNew",
    "DeserializationError",
    "DuplicateWorkflow",
    "DuramenError",
    "EventRejected",
    "Fatal",
    "ForkedProcess",
    "InboxFull",
    "InvalidArgument",
    "InvalidHistory",
    "InvalidId",
    "InvalidToken",
    "MapFailed",
    "NotADurableContext",
    "NotDurableError",
    "PayloadTooLarge",
    "QueryFailed",
    "RecordedError",
    "ReplayDiverged",
    "RunCancelled",
    "RunEvicted",
    "RunFailed",
    "RunFinished",
    "RunIdConflict",
    "RunStuck",
    "RunTerminated",
    "RunTimedOut",
    "RunUndone",
    "RuntimeClosed",
    "RuntimeNotOpen",
    "SerializationError",
    "SignalRefused",
    "StepFailed",
    "StepTimeout",
    "StoreClosed",
    "StoreCorrupt",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreNewer",
    "StoreReadOnly",
    "StoreUnavailable",
    "StoreUnmigrated",
    "StreamTruncated",
    "TokenConflict",
    "TokenExpired",
    "TokenFailed",
    "TokenRejected",
    "TransactionsUnsupported",
    "UnknownQuery",
    "UnknownRun",
    "UnknownSchedule",
    "UnknownWorkflow",
    "UnusableConnection",
    "UpdateFailed",
    "UpdateRejected",
    "UpdateTimeout",
    "WorkflowDefinitionError",
    "WrongDatabase",
]


@dataclass(frozen=True, slots=True)
class RecordedError:
    """An exception as the store keeps it: facts about it, never the object itself.

    >>> print(RecordedError("builtins.ValueError", "no such card"))
    ValueError: no such card
    """

    type_name: str
    """Module-qualified name of the class, for instance ``builtins.ValueError``."""
    message: str
    """``str()`` of the exception."""
    traceback: str = ""
    """The formatted traceback, its oldest frames dropped when it was too long."""
    cause: RecordedError | None = None
    """What it was raised from (`__cause__`, else a context that was not suppressed)."""
    notes: tuple[str, ...] = ()
    """Notes added with `BaseException.add_note`."""
    args: tuple[Any, ...] | None = None
    """The constructor's arguments if all of them are plain JSON values, else None."""
    attributes: dict[str, Any] | None = None
    """The instance's attributes as far as they are plain JSON values, else None."""
    exceptions: tuple[RecordedError, ...] = ()
    """The members of an exception group."""
    registered: str | None = None
    """The name by which `register_exception` knew its class when it was recorded, ``""`` if it did not.

    None for a built-in class, and where a version of Duramen recorded it that did not say.
    """

    @property
    def short_name(self) -> str:
        """The class name without its module."""
        return self.type_name.rpartition(".")[2]

    @override
    def __str__(self) -> str:
        return f"{self.short_name}: {self.message}" if self.message else self.short_name


class DuramenError(Exception):
    """Base of every error that Duramen raises."""

    def __init__(self, *args: Any) -> None:
        # Not super().__init__: where a subclass is a TimeoutError too, the next class in line is OSError,
        # whose constructor takes the arguments for an errno and a file name and cuts `args` short.
        Exception.__init__(self)
        self.args = args

    @override
    def __str__(self) -> str:
        return " ".join(str(part) for part in self.args)

    @override
    def __reduce__(self) -> tuple[Any, ...]:
        # OSError brings a __reduce__ of its own, so the plain one is spelled out for all. Only what was added
        # by hand (notes, for instance) needs to travel beside the arguments: the constructor makes the rest.
        fresh = type(self)(*self.args).__dict__
        extra = {key: value for key, value in self.__dict__.items() if key not in fresh}
        return (type(self), self.args, extra) if extra else (type(self), self.args)


# -- definitions and arguments -------------------------------------------------------------------------------


class WorkflowDefinitionError(DuramenError, TypeError):
    """A workflow, step or schedule is declared in a way that cannot work."""


class DuplicateWorkflow(WorkflowDefinitionError):
    """Two workflows were registered under one name and version."""

    def __init__(self, name: str, version: str = "", where: str = "") -> None:
        super().__init__(name, version, where)
        self.name = name
        self.version = version
        self.where = where

    @override
    def __str__(self) -> str:
        version = f" version {self.version!r}" if self.version else ""
        where = f" (also defined at {self.where})" if self.where else ""
        return f"workflow {self.name!r}{version} is registered twice{where}: give one another name or version"


class InvalidArgument(DuramenError, ValueError):
    """A value given to a call cannot be used (a negative duration, a naive datetime, a limit of zero…)."""


class InvalidId(InvalidArgument):
    """An id is empty, longer than 255 characters, holds a NUL, or is otherwise unusable."""


class UnusableConnection(InvalidArgument):
    """A connection, or a source of connections, cannot be used with Duramen; the message says why."""


class WrongDatabase(UnusableConnection):
    """A connection leads to another database or file than the one that holds the store."""

    def __init__(self, store: str) -> None:
        super().__init__(store)
        self.store = store

    @override
    def __str__(self) -> str:
        return (
            f"the connection is to another database (or file, or schema) than {self.store}, and both must be "
            "in one transaction: give one to the store's database"
        )


class TransactionsUnsupported(DuramenError):
    """The store is of a kind that cannot take part in a transaction of the user's."""

    def __init__(self, store: str) -> None:
        super().__init__(store)
        self.store = store

    @override
    def __str__(self) -> str:
        return (
            f"{self.store} cannot take part in a transaction of yours: use a store in Postgres or in a "
            "SQLite file, or ctx.step with an idempotency key"
        )


class UnknownWorkflow(DuramenError, LookupError):
    """No workflow of that name (and version) is registered."""

    def __init__(self, name: str, version: str | None = None) -> None:
        super().__init__(name, version)
        self.name = name
        self.version = version

    @override
    def __str__(self) -> str:
        version = f" version {self.version!r}" if self.version else ""
        return f"no workflow {self.name!r}{version} is registered: add it to Runtime(workflows=[…])"


class UnknownRun(DuramenError, LookupError):
    """The store has no run with that id."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    @override
    def __str__(self) -> str:
        return f"there is no run {self.run_id!r} in this store: check the id and the store's URL"


class StreamTruncated(DuramenError, LookupError):
    """Items of a stream are gone, for it keeps only so many; `first` is the first that is left."""

    def __init__(self, run_id: str, stream: str, wanted: int, first: int) -> None:
        super().__init__(run_id, stream, wanted, first)
        self.run_id = run_id
        self.stream = stream
        self.wanted = wanted
        self.first = first

    @override
    def __str__(self) -> str:
        return (
            f"stream {self.stream!r} of run {self.run_id!r} has no item {self.wanted} any more, because it "
            f"keeps only so many: read on with from_seq={self.first} (what is between is lost), or let it "
            "keep more (stream(name, keep=…))"
        )


class UnknownSchedule(DuramenError, LookupError):
    """The store has no schedule with that id."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(schedule_id)
        self.schedule_id = schedule_id

    @override
    def __str__(self) -> str:
        return f"there is no schedule {self.schedule_id!r} in this store: check the id and the store's URL"


class RunIdConflict(DuramenError):
    """The run id asked for belongs to a run of another workflow."""

    def __init__(self, run_id: str, wanted: str, existing: str) -> None:
        super().__init__(run_id, wanted, existing)
        self.run_id = run_id
        self.wanted = wanted
        self.existing = existing

    @override
    def __str__(self) -> str:
        return (
            f"run id {self.run_id!r} belongs to a run of workflow {self.existing!r}, so it cannot start "
            f"{self.wanted!r}: choose another run id"
        )


# -- payloads ------------------------------------------------------------------------------------------------


class _PathError(DuramenError):
    """Base of the payload errors that can name the offending part."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    @override
    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class SerializationError(_PathError, ValueError):
    """A value cannot be turned into a payload; `path` names the part that is to blame."""


class DeserializationError(_PathError, ValueError):
    """A payload does not have the shape of the type expected; `path` names the part that is to blame."""


class PayloadTooLarge(DuramenError, ValueError):
    """A payload is longer than the limit for one entry (sizes in bytes)."""

    def __init__(self, size: int, limit: int, where: str = "") -> None:
        super().__init__(size, limit, where)
        self.size = size
        self.limit = limit
        self.where = where

    @override
    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        return (
            f"{where}the payload has {self.size:,} bytes and the limit is {self.limit:,}: keep large data "
            "elsewhere and pass a reference, use an offloading codec, or raise the serializer's max_bytes"
        )


class InvalidHistory(_PathError, ValueError):
    """It is no exported history, or one of a later form; `path` names the part that is to blame."""


# -- steps ---------------------------------------------------------------------------------------------------


class StepFailed(DuramenError):
    """A step failed for good; `error` is what was recorded of the last attempt's exception."""

    def __init__(self, operation_id: str, attempts: int, error: RecordedError) -> None:
        super().__init__(operation_id, attempts, error)
        self.operation_id = operation_id
        self.attempts = attempts
        self.error = error

    @override
    def __str__(self) -> str:
        tries = "1 attempt" if self.attempts == 1 else f"{self.attempts} attempts"
        return f"step {self.operation_id!r} failed after {tries}: {self.error}"


class StepTimeout(StepFailed, TimeoutError):
    """A step failed for good because it ran into its timeout."""


class Fatal(DuramenError):
    """Raise it in a step to fail the step at once, whatever its retry policy says."""


# -- children ------------------------------------------------------------------------------------------------


class ChildFailed(DuramenError):
    """A child did not complete; `error` is what was recorded of why.

    Its subclasses say how else it ended than with an error of its own.
    """

    _how = "failed"

    def __init__(self, run_id: str, operation_id: str, error: RecordedError) -> None:
        super().__init__(run_id, operation_id, error)
        self.run_id = run_id
        self.operation_id = operation_id
        self.error = error

    @override
    def __str__(self) -> str:
        return f"child {self.run_id!r} {self._how}: {self.error}"


class _ChildStopped(ChildFailed):
    """Base of the ways in which a child ends by somebody else's will."""

    @property
    def reason(self) -> str:
        """The reason that was given."""
        return self.error.message

    @override
    def __str__(self) -> str:
        return f"child {self.run_id!r} {self._how}{': ' if self.reason else ''}{self.reason}"


class ChildCancelled(_ChildStopped):
    """A child was cancelled, by its parent or by somebody else."""

    _how = "was cancelled"


class ChildTerminated(_ChildStopped):
    """Somebody has terminated a child, or deleted it before it had ended."""

    _how = "was terminated"


class ChildConflict(_ChildStopped):
    """A child could not be started: its run id is that of another run, which was left alone."""

    _how = "was not started"


class MapFailed(DuramenError):
    """Items of a `Context.map` have failed, more than were tolerated; `result` has what is known of each.

    Its cause is the failure of the first of them.
    """

    def __init__(self, operation_id: str, result: MapResult[Any]) -> None:
        super().__init__(operation_id, result)
        self.operation_id = operation_id
        self.result = result

    @override
    def __str__(self) -> str:
        which = f"map {self.operation_id!r}" if self.operation_id else "the map"
        text = f"{which}: {self.result}"
        for index, failure in self.result.failures.items():
            return f"{text}; item {index}: {failure.error} (tolerate= lets some fail)"
        return text


# -- runs ----------------------------------------------------------------------------------------------------


class RunFailed(DuramenError):
    """The run ended with an error; `error` is what was recorded of it."""

    def __init__(self, run_id: str, error: RecordedError) -> None:
        super().__init__(run_id, error)
        self.run_id = run_id
        self.error = error

    @override
    def __str__(self) -> str:
        return f"run {self.run_id!r} failed: {self.error}"


class _RunEnded(DuramenError):
    """Base of the ways in which a run ends from outside, with the reason that was given."""

    _what = "ended"

    def __init__(self, run_id: str, reason: str = "") -> None:
        super().__init__(run_id, reason)
        self.run_id = run_id
        self.reason = reason

    @override
    def __str__(self) -> str:
        return f"run {self.run_id!r} {self._what}{': ' if self.reason else ''}{self.reason}"


class RunCancelled(_RunEnded):
    """The run was cancelled."""

    _what = "was cancelled"


class RunTerminated(_RunEnded):
    """The run was terminated without a chance to clean up."""

    _what = "was terminated"


class RunTimedOut(_RunEnded, TimeoutError):
    """The run did not finish within its workflow's timeout, or a caller's wait for it ran out of time."""

    _what = "timed out"


class RunStuck(DuramenError):
    """The run is parked: its code no longer fits its journal, and `note` shows the difference."""

    def __init__(self, run_id: str, note: str) -> None:
        super().__init__(run_id, note)
        self.run_id = run_id
        self.note = note

    @override
    def __str__(self) -> str:
        return (
            f"run {self.run_id!r} is stuck: {self.note} (nothing is lost: deploy code that fits the journal, "
            "then call retry)"
        )


class RunUndone(InvalidArgument):
    """The run's undos have run before it ended: there is nothing left that a retry could go on with."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    @override
    def __str__(self) -> str:
        return (
            f"run {self.run_id!r} has undone what it had done before it ended, so it cannot be retried: "
            "start a new run with its input"
        )


class ReplayDiverged(DuramenError):
    """A workflow's code does not do what a history has recorded.

    Deployed like this it would park such runs. Give it a new version and keep the old code in `previous=`.
    """

    def __init__(self, run_id: str, difference: str, index: int, journal: str = "", code: str = "") -> None:
        super().__init__(run_id, difference, index, journal, code)
        self.run_id = run_id
        self.difference = difference
        """What was expected (recorded), and what was found."""
        self.index = index
        """The place in the journal where they part."""
        self.journal = journal
        """The journal around that place, one entry a line."""
        self.code = code
        """The workflow, its version, and where it is defined."""

    @override
    def __str__(self) -> str:
        code = f" under {self.code}" if self.code else ""
        journal = f"\n{self.journal}" if self.journal else ""
        place = f"entry {self.index}"
        where = "" if place in self.difference else f" ({place})"
        return f"run {self.run_id!r} does not replay{code}: {self.difference}{where}{journal}"


class ApprovalConflict(DuramenError):
    """The approval was already decided, and differently."""

    def __init__(self, run_id: str, approval_id: str) -> None:
        super().__init__(run_id, approval_id)
        self.run_id = run_id
        self.approval_id = approval_id

    @override
    def __str__(self) -> str:
        return (
            f"approval {self.approval_id!r} of run {self.run_id!r} was already decided the other way, "
            "and the first decision stands"
        )


class SignalRefused(DuramenError):
    """A signal's name or target is not allowed; nothing was delivered."""


class InboxFull(SignalRefused):
    """A run has as many unread messages as it may have (10,000, or 64 MiB); nothing was delivered.

    It takes more when its handler has waited for some of them: until then, slow its senders down. A
    cancellation reaches it all the same.
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id

    @override
    def __str__(self) -> str:
        return (
            f"run {self.run_id!r} has as many unread messages as it may have (10,000, or 64 MiB), so this "
            "one was not kept: send it again when the run has read some, or have its handler wait for these "
            "events"
        )


class EventRejected(DuramenError, ValueError):
    """An event's payload does not fit what the run waits for; nothing was consumed, and the run waits on."""

    def __init__(self, run_id: str, name: str, reason: str) -> None:
        super().__init__(run_id, name, reason)
        self.run_id = run_id
        self.name = name
        self.reason = reason

    @override
    def __str__(self) -> str:
        return f"event {self.name!r} for run {self.run_id!r} was refused: {self.reason}"


# -- updates and queries -------------------------------------------------------------------------------------


class RunFinished(DuramenError):
    """The run has ended, so it takes nothing more; `status` says how."""

    def __init__(self, run_id: str, status: str = "ended", what: str = "it takes nothing more") -> None:
        super().__init__(run_id, status, what)
        self.run_id = run_id
        self.status = status
        self.what = what

    @override
    def __str__(self) -> str:
        how = "has ended" if self.status == "ended" else f"has ended ({self.status})"
        return f"run {self.run_id!r} {how}: {self.what}"


class UpdateRejected(DuramenError, ValueError):
    """The run refused an update before it was accepted; nothing was changed. `reason` is its validator's."""

    def __init__(self, run_id: str, name: str, reason: str) -> None:
        super().__init__(run_id, name, reason)
        self.run_id = run_id
        self.name = name
        self.reason = reason

    @override
    def __str__(self) -> str:
        return f"update {self.name!r} of run {self.run_id!r} was refused: {self.reason}"


class UpdateFailed(DuramenError):
    """The function that applied an update raised; `error` is what was recorded of it."""

    def __init__(self, run_id: str, name: str, error: RecordedError) -> None:
        super().__init__(run_id, name, error)
        self.run_id = run_id
        self.name = name
        self.error = error

    @override
    def __str__(self) -> str:
        return f"update {self.name!r} of run {self.run_id!r} failed: {self.error}"


class UpdateTimeout(DuramenError, TimeoutError):
    """An update was not answered in time. It stays: ask again with the same `update_id` for its answer."""

    def __init__(self, run_id: str, name: str, update_id: str, taken: tuple[str, ...] | None = None) -> None:
        super().__init__(run_id, name, update_id, taken)
        self.run_id = run_id
        self.name = name
        self.update_id = update_id
        self.taken = taken
        """The names of the updates that the run takes, if it rested."""

    @override
    def __str__(self) -> str:
        text = (
            f"update {self.name!r} of run {self.run_id!r} was not answered in time; it is kept: ask again "
            f"with update_id={self.update_id!r}"
        )
        if self.taken is not None and self.name not in self.taken:
            text += f" (at the moment the run takes {', '.join(self.taken) or 'no updates'})"
        return text


class UnknownQuery(DuramenError, LookupError):
    """The run answers no query of that name; `known` are those that it answers."""

    def __init__(self, run_id: str, name: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(run_id, name, known)
        self.run_id = run_id
        self.name = name
        self.known = known

    @override
    def __str__(self) -> str:
        known = (
            f"it answers {', '.join(self.known)}" if self.known else "it answers none as far as it has come"
        )
        return f"run {self.run_id!r} answers no query {self.name!r}: {known}"


class QueryFailed(DuramenError):
    """The function that answers a query raised, or did what a query must not; its cause says what."""

    def __init__(self, run_id: str, name: str, reason: str) -> None:
        super().__init__(run_id, name, reason)
        self.run_id = run_id
        self.name = name
        self.reason = reason

    @override
    def __str__(self) -> str:
        return f"query {self.name!r} of run {self.run_id!r} failed: {self.reason}"


# -- completion tokens ---------------------------------------------------------------------------------------


class InvalidToken(DuramenError, ValueError):
    """A text is no completion token, or none of this store. It is not repeated here: it may be a secret."""

    def __init__(self, why: str = "it is no completion token of a run in this store") -> None:
        super().__init__(why)


class TokenExpired(InvalidToken):
    """The time of a completion token is over."""

    def __init__(
        self, why: str = "the time of the completion token is over: nothing waits for it any more"
    ) -> None:
        super().__init__(why)


class TokenConflict(DuramenError):
    """A completion token was used already, with another answer; the first one stands."""

    def __init__(self, run_id: str, token_id: str) -> None:
        super().__init__(run_id, token_id)
        self.run_id = run_id
        self.token_id = token_id

    @override
    def __str__(self) -> str:
        return (
            f"token {self.token_id!r} of run {self.run_id!r} was used already with another answer, and the "
            "first answer stands"
        )


class TokenRejected(DuramenError, ValueError):
    """A value does not fit what a completion token stands for; the run goes on waiting."""

    def __init__(self, run_id: str, token_id: str, reason: str) -> None:
        super().__init__(run_id, token_id, reason)
        self.run_id = run_id
        self.token_id = token_id
        self.reason = reason

    @override
    def __str__(self) -> str:
        return f"the value for token {self.token_id!r} of run {self.run_id!r} was refused: {self.reason}"


class TokenFailed(DuramenError):
    """What a handler gets from a completion token that somebody let fail (`Runtime.fail`)."""

    def __init__(self, token_id: str, reason: str) -> None:
        super().__init__(token_id, reason)
        self.token_id = token_id
        self.reason = reason

    @override
    def __str__(self) -> str:
        return f"token {self.token_id!r} failed: {self.reason}"


# -- stores --------------------------------------------------------------------------------------------------


class StoreError(DuramenError):
    """Base of everything that can be wrong with a store."""


class StoreUnavailable(StoreError, ConnectionError):
    """The store cannot be reached, or went away in the middle of a call."""


class StoreLocked(StoreError):
    """Another process holds the store's lock for longer than the busy timeout."""


class StoreReadOnly(StoreError):
    """The store can be read but not written to."""


class StoreFull(StoreError):
    """The store's disk or quota is full."""


class StoreCorrupt(StoreError):
    """The store's data is damaged, or it is not a Duramen store."""


class StoreUnmigrated(StoreError):
    """The store's schema is missing or older than this version needs: run `duramen migrate`."""


class StoreNewer(StoreError):
    """A newer version wrote the store's schema, or what was asked for, in a form that is not for this one.

    Upgrade Duramen.
    """


class StoreClosed(StoreError):
    """The store was closed before the call, or during it."""


# -- wrong place, wrong time ---------------------------------------------------------------------------------


class NotDurableError(DuramenError, RuntimeError):
    """A handler did something whose outcome cannot be recorded (I/O, threads, signals): put it in a step."""


class NotADurableContext(DuramenError, RuntimeError):
    """A durable call came from outside its handler: from a thread, a step, or after the handler ended."""


class ForkedProcess(DuramenError, RuntimeError):
    """The runtime was made before a fork and is used in the child: make a new one there."""


class RuntimeNotOpen(DuramenError, RuntimeError):
    """The runtime is used before `async with runtime:` (or `await runtime.open()`)."""


class RuntimeClosed(DuramenError, RuntimeError):
    """The runtime is used after it was closed."""


class ContinueAsNew(BaseException):
    """What `Context.continue_as_new` raises to end the handler: the run goes on in its next generation.

    It is no failure. Code that catches it, as ``except BaseException`` does, ought to raise it again; the run
    continues in any case, once its handler has ended.
    """


class RunEvicted(BaseException):
    """A paused run was dropped from memory and its coroutine tried a durable call while it unwound.

    It is a `BaseException`, as `asyncio.CancelledError` and `GeneratorExit` are: clean-up code that says
    ``except Exception`` must not mistake an eviction for a failure of the run, which goes on elsewhere from
    its journal.
    """
