"""The one place where Python meets the Rust engine.

Nothing else in the package imports `duramen._native`: what it calls its errors, its codes and its classes is
translated here, so a change over there is met by a change in this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ._native import (
    ENCODING,
    Advance,
    Cancel,
    Change,
    ChildEnded,
    Clock,
    Completed,
    Created,
    Deliver,
    Delivered,
    Detail,
    Drive,
    Engine,
    Entry,
    Evict,
    Failed,
    Fired,
    Halted,
    InvalidIdError,
    LogEvent,
    Lost,
    Newer,
    Offer,
    OwnerRow,
    Page,
    Received,
    Refused,
    Reply,
    Resume,
    Row,
    Run,
    Schema,
    Seal,
    SqlFailed,
    SqliteConnection,
    Start,
    Started,
    StoreFailed,
    StoreRequest,
    Swept,
    SweptRun,
    TimedOut,
    TimeOut,
    set_log_levels,
    take_logs,
    wake_logs,
)
from ._native import Store as NativeStore
from ._native import __version__ as native_version
from .errors import (
    DuramenError,
    ForkedProcess,
    InvalidArgument,
    InvalidId,
    StoreClosed,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreNewer,
    StoreReadOnly,
    StoreUnavailable,
    StoreUnmigrated,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BACKOFF_CODES",
    "CHECKPOINT_SEALED",
    "ENCODING",
    "FINISH_CANCELLED",
    "FINISH_COMPLETED",
    "FINISH_FAILED",
    "TIMER_LOOP",
    "TIMER_SLEEP",
    "VALUE_NOW",
    "VALUE_RANDOM",
    "VALUE_UUID",
    "Advance",
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
    "Engine",
    "Entry",
    "Evict",
    "Failed",
    "Fired",
    "Halted",
    "InvalidIdError",
    "LogEvent",
    "Lost",
    "NativeStore",
    "Newer",
    "Offer",
    "Outcome",
    "OwnerRow",
    "Page",
    "Received",
    "Refused",
    "Reply",
    "Resume",
    "Row",
    "Run",
    "RunEvent",
    "Schema",
    "Seal",
    "SqlFailed",
    "SqliteConnection",
    "Start",
    "Started",
    "StoreFailed",
    "StoreRequest",
    "Swept",
    "SweptRun",
    "TimeOut",
    "TimedOut",
    "Turn",
    "invalid_id",
    "native_error",
    "native_version",
    "set_log_levels",
    "take_logs",
    "wake_logs",
]

# The classes are final. On the path of every run they are told apart by `type(x) is C`: a chain of
# `isinstance` looks up `__class__` at each miss, and cost 1 % of all instructions of a run of ten steps.

RunEvent: TypeAlias = Drive | Resume | Evict | Advance | Lost
"""What the engine says of a run; beside these `Engine.drain` gives `Reply`, `StoreRequest` and `Newer`."""

Turn: TypeAlias = Deliver | Offer | Start | Seal | Cancel | TimeOut
"""What `Run.turn` and `Run.accept` give."""

Outcome: TypeAlias = ChildEnded | Completed | Failed | Fired | Received | TimedOut
"""How what a handler waits for came out; see `Deliver`."""

BACKOFF_CODES: Mapping[str, int] = {"constant": 0, "linear": 1, "exponential": 2}
"""How `Run.step` wants the shape of a back-off."""

CHECKPOINT_SEALED = 2
"""How `Run.step` is told that a step's result goes into a transaction of the user's. False (0) and True (1)
are durable and lazy results."""

TIMER_SLEEP, TIMER_LOOP = 0, 1
"""Who asks `Run.timer`: `ctx.sleep` and `ctx.sleep_until`, or the handler's own event loop."""

VALUE_NOW, VALUE_UUID, VALUE_RANDOM = 0, 1, 2
"""What `Run.value` is asked for."""

FINISH_COMPLETED, FINISH_FAILED, FINISH_CANCELLED = 0, 1, 2
"""What `Run.finish` is told."""

_ERRORS: Mapping[str, type[DuramenError]] = {
    "unavailable": StoreUnavailable,
    "locked": StoreLocked,
    "read_only": StoreReadOnly,
    "full": StoreFull,
    "corrupt": StoreCorrupt,
    "unmigrated": StoreUnmigrated,
    "newer": StoreNewer,
    "invalid": InvalidArgument,
    "closed": StoreClosed,
    "forked": ForkedProcess,
}


def native_error(error: tuple[str, str]) -> DuramenError:
    """Make the exception of a (kind, message) pair, as replies of the engine carry it.

    A kind that this version does not know is a plain `StoreError`, with the kind in its text.

    >>> native_error(("full", "database or disk is full"))
    StoreFull('database or disk is full')
    >>> native_error(("fenced", "the lease is another's"))
    StoreError("fenced: the lease is another's")
    """
    kind, message = error
    cls = _ERRORS.get(kind)
    if cls is not None:
        return cls(message)
    return StoreError(message if kind == "other" else f"{kind}: {message}")


def invalid_id(error: InvalidIdError) -> InvalidId:
    """Make the public exception of an id that the engine refused."""
    return InvalidId(str(error))
