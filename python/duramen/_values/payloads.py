"""Payloads that are not a user's value: failures with what belongs to them, decisions, reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pydantic_core import from_json, to_json

from duramen.errors import (
    ChildCancelled,
    ChildConflict,
    ChildFailed,
    ChildTerminated,
    DeserializationError,
    MapFailed,
    RecordedError,
    StepFailed,
    StepTimeout,
)

from .exceptions import cause_of, members_of
from .serializer import CodecSerializer, dump_error, load_error, rebuild_error

if TYPE_CHECKING:
    from .serializer import Serializer

_MAX_CHAIN = 32


def encode(serializer: Serializer, data: bytes) -> bytes:
    """Take bytes made without the serializer through its codecs, if it has any."""
    return serializer.encode(data) if isinstance(serializer, CodecSerializer) else data


def decode(serializer: Serializer, data: bytes) -> bytes:
    """Undo `encode`."""
    return serializer.decode(data) if isinstance(serializer, CodecSerializer) else data


def dump_failure(
    serializer: Serializer, error: BaseException, *, attempts: int | None = None, timed_out: bool = False
) -> bytes:
    """Give the payload of an exception that ends a step's attempt or a run.

    Args:
        serializer: its codecs are applied.
        error: the exception.
        attempts: how many attempts of the step there were.
        timed_out: the step ran into its timeout.
    """
    data = dump_error(error)
    if any(isinstance(link, StepFailed | ChildFailed) for link in chain(error)):
        data = _with_recorded_causes(error, data)
    if attempts is not None:
        # Fields beside those of the error, which whoever reads only the error passes over.
        late = b',"timed_out":true' if timed_out else b""
        data = b'%b,"attempts":%d%b}' % (data[:-1], attempts, late)
    return encode(serializer, data)


def with_attempts(data: bytes, attempts: int) -> bytes:
    """Add what belongs to a step's failure to a payload of `dump_error`."""
    return b'%b,"attempts":%d}' % (data[:-1], attempts)


def chain(error: BaseException) -> list[BaseException]:
    """The exception, then what it came from: causes, contexts, members of groups; nearest first."""
    found: list[BaseException] = []
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue and len(found) < _MAX_CHAIN:
        link = queue.pop(0)
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        found.append(link)
        queue.extend(members_of(link))
        queue.append(cause_of(link))
    return found


def _with_recorded_causes(error: BaseException, data: bytes) -> bytes:
    """Put what was recorded of a step's or a child's exception under the one that reports it.

    The exception itself is there only if its class could be made again, and without its traceback.
    """
    record: dict[str, Any] = from_json(data)
    link: BaseException | None = error
    place: dict[str, Any] | None = record
    while link is not None and place is not None:
        if isinstance(link, StepFailed | ChildFailed) and isinstance(link.error, RecordedError):  # pyright: ignore[reportUnnecessaryIsInstance]
            place["cause"] = _plain(link.error)
            break
        link = cause_of(link)
        place = place.get("cause")
    try:
        return to_json(record)
    except Exception:  # noqa: BLE001 - a user made up the error, of things that are not JSON
        return data


def _plain(recorded: RecordedError) -> dict[str, Any]:
    record: dict[str, Any] = {"type": recorded.type_name, "message": recorded.message}
    if recorded.traceback:
        record["traceback"] = recorded.traceback
    if recorded.cause is not None:
        record["cause"] = _plain(recorded.cause)
    if recorded.notes:
        record["notes"] = list(recorded.notes)
    if recorded.args is not None:
        record["args"] = list(recorded.args)
    if recorded.attributes:
        record["attributes"] = recorded.attributes
    if recorded.exceptions:
        record["exceptions"] = [_plain(member) for member in recorded.exceptions]
    if recorded.registered is not None:
        record["registered"] = recorded.registered
    return record


def load_recorded(serializer: Serializer, data: bytes) -> RecordedError:
    """Read what `dump_failure` wrote, as the error alone.

    Raises:
        DeserializationError: it is no such payload.
    """
    return load_error(decode(serializer, data))


def step_failure(serializer: Serializer, op: str, data: bytes) -> StepFailed:
    """Make the exception that a handler gets for the recorded failure of a step.

    What the step raised is its cause if that class is built in or registered.

    Raises:
        DeserializationError: it is no recorded failure, a codec's key is missing here, or a class that was
            registered when it was recorded.
    """
    data = decode(serializer, data)
    recorded = load_error(data)
    extra: dict[str, Any] = from_json(data)
    cls = StepTimeout if extra.get("timed_out") else StepFailed
    attempts = extra.get("attempts", 1)
    failure = cls(op, attempts if isinstance(attempts, int) else 1, recorded)
    failure.__cause__ = rebuild_error(recorded, as_recorded=True)
    return failure


def failed_operation(error: BaseException) -> str | None:
    """The id of the operation whose failure led to this exception, if one did."""
    for link in chain(error):
        if isinstance(link, MapFailed):
            return None  # its failures are of operations of its chunks
        if isinstance(link, StepFailed | ChildFailed):
            return link.operation_id
    return None


def child_failure(serializer: Serializer, op: str, run_id: str, how: str, data: bytes) -> ChildFailed:
    """Make the exception that a handler gets for a child that has not completed.

    What the child raised is its cause if that class is built in or registered.

    Raises:
        DeserializationError: as `step_failure`.
    """
    if how == "failed":
        recorded = load_recorded(serializer, data)
        failure = ChildFailed(run_id, op, recorded)
        failure.__cause__ = rebuild_error(recorded, as_recorded=True)
        return failure
    if how == "conflict":
        text = "there is another run of that id, which this run did not start; give the child another run_id="
        return ChildConflict(run_id, op, RecordedError("duramen.errors.RunIdConflict", text))
    if how == "deleted":
        text = "it was deleted before it had ended"
        return ChildTerminated(run_id, op, RecordedError("duramen.errors.RunTerminated", text))
    cls, name = (ChildCancelled, "RunCancelled") if how == "cancelled" else (ChildTerminated, "RunTerminated")
    reason = load_reason(serializer, data) if data else ""
    return cls(run_id, op, RecordedError(f"duramen.errors.{name}", reason))


_FAILURES: dict[str, type[StepFailed | ChildFailed]] = {
    cls.__name__: cls
    for cls in (StepFailed, StepTimeout, ChildFailed, ChildCancelled, ChildTerminated, ChildConflict)
}


def failure_record(error: StepFailed | ChildFailed) -> dict[str, Any]:
    """The exception of a step or a child as JSON, to be a part of a payload."""
    if isinstance(error, StepFailed):
        facts: dict[str, Any] = {"attempts": error.attempts}
    else:
        facts = {"run_id": error.run_id}
    return {"how": type(error).__name__, "op": error.operation_id, **facts, "error": _plain(error.error)}


def recorded_failure(record: dict[str, Any]) -> StepFailed | ChildFailed:
    """Undo `failure_record`. What was raised is its cause if that class is built in or registered.

    Raises:
        DeserializationError: it is no such record, or a class that was registered then is not here.
    """
    try:
        cls: Any = _FAILURES[record["how"]]
        error = load_error(to_json(record["error"]))
        if issubclass(cls, StepFailed):
            failure = cls(record["op"], record["attempts"], error)
        else:
            failure = cls(record["run_id"], record["op"], error)
    except (KeyError, TypeError) as wrong:
        raise DeserializationError("$", f"this is not a recorded failure: {wrong!r}") from None
    if failure.__class__ in (StepFailed, StepTimeout, ChildFailed):
        failure.__cause__ = rebuild_error(error, as_recorded=True)
    return failure


class Decision(NamedTuple):
    """What an approval's message says."""

    approved: bool
    feedback: str | None
    by: str | None
    at: int
    """UTC milliseconds."""


def load_decision(serializer: Serializer, data: bytes) -> Decision:
    """Read an approval's message.

    Raises:
        DeserializationError: it is no such payload.
    """
    value = load_lenient(serializer, data)
    if not isinstance(value, dict):
        raise DeserializationError("$", "a decision is an object")
    fields = cast("dict[str, Any]", value)
    approved, at = fields.get("approved"), fields.get("at")
    if not isinstance(approved, bool):
        raise DeserializationError("$.approved", "a decision says true or false")
    if not isinstance(at, int):
        raise DeserializationError("$.at", "a decision has its time in milliseconds")
    feedback, by = fields.get("feedback"), fields.get("by")
    for name, text in (("feedback", feedback), ("by", by)):
        if text is not None and not isinstance(text, str):
            raise DeserializationError(f"$.{name}", "a text, or null")
    return Decision(approved, feedback, by, at)


def load_lenient(serializer: Serializer, data: bytes) -> Any:
    """Read JSON that came with or without the codecs: a client without workflow code has none of them.

    Raises:
        DeserializationError: it is neither.
    """
    try:
        return serializer.loads(data)
    except DeserializationError:
        try:
            return from_json(data, allow_inf_nan=False)
        except ValueError:
            pass
        raise


def load_reason(serializer: Serializer, data: bytes) -> str:
    """Read a cancellation's reason. It never fails: what cannot be read is no reason."""
    try:
        reason = load_lenient(serializer, data)
    except DeserializationError:
        return ""
    return reason if isinstance(reason, str) else ""
