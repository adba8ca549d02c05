"""Exceptions as payloads: facts about them out, and where it is safe the exception itself back in.

Nothing is imported by name when an error is read: only classes that were registered, and the built-in ones,
are made again. Everything else stays a `RecordedError`.
"""

from __future__ import annotations

import builtins
import traceback
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic_core import from_json, to_json

from duramen.errors import (
    DeserializationError,
    Fatal,
    InvalidArgument,
    RecordedError,
    StepFailed,
    StepTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

E = TypeVar("E", bound=BaseException)

_MAX_TEXT = 32 * 1024
_MAX_DATA = 16 * 1024
_MAX_CAUSES = 8
_MAX_MEMBERS = 32
_MAX_FRAMES = 60

_registry: dict[str, type[BaseException]] = {}


def _name(cls: type[BaseException]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def register_exception(cls: type[E]) -> type[E]:
    """Register an exception class, so that handlers catch it as itself. Usable as a decorator.

    It is made again as ``cls(*args)``, or without its constructor if that refuses, and gets its plain
    attributes back.

    Raises:
        InvalidArgument: it is no exception class.

    >>> @register_exception
    ... class OutOfStock(Exception): ...
    >>> type(rebuild_error(load_error(dump_error(OutOfStock("bolts"))))).__name__
    'OutOfStock'
    """
    if not (isinstance(cls, type) and issubclass(cls, BaseException)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"{cls!r} is not an exception class")
    _registry[_name(cls)] = cls
    return cls


register_exception(Fatal)

_STEP_FAILURES: dict[str, type[StepFailed]] = {_name(cls): cls for cls in (StepFailed, StepTimeout)}
"""A run that lets a step's failure pass ends with one of these: made again for the sake of its cause."""


def dump_error(error: BaseException, *, max_traceback: int = 16 * 1024) -> bytes:
    """Give the payload of an exception. It never fails and is never huge, whatever the exception holds.

    Its cause (or a context that was not suppressed) and the members of a group go with it.

    Args:
        error: the exception.
        max_traceback: the most characters of one traceback; its oldest frames go first. 0 records none.

    >>> print(load_error(dump_error(ValueError("no such card"))))
    ValueError: no such card
    """
    # Twice the limit for all tracebacks together, or a long chain of causes would multiply it.
    return to_json(_record(error, max_traceback, [2 * max_traceback], (id(error),)))


def _record(error: BaseException, limit: int, left: list[int], seen: tuple[int, ...]) -> dict[str, Any]:
    cls = type(error)
    record: dict[str, Any] = {"type": _clean(_name(cls)), "message": _message(error)}
    text = _traceback(error.__traceback__, min(limit, left[0]))
    if text:
        left[0] -= len(text)
        record["traceback"] = text
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list) and notes:
        record["notes"] = [_clean(str(note))[:_MAX_TEXT] for note in cast("list[Any]", notes)[:16]]
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        record["args"] = [_clean(group.message)]
        if len(seen) <= _MAX_CAUSES:
            record["exceptions"] = [
                _record(member, limit, left, (*seen, id(member)))
                for member in group.exceptions[:_MAX_MEMBERS]
                if id(member) not in seen
            ]
    elif (args := _plain(list(error.args))) is not None:
        record["args"] = args
    attributes = {
        key: plain
        for key, value in error.__dict__.items()
        if not key.startswith("__") and (plain := _plain([value])) is not None
    }
    if attributes:
        record["attributes"] = {key: plain[0] for key, plain in attributes.items()}
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and id(cause) not in seen and len(seen) <= _MAX_CAUSES:
        record["cause"] = _record(cause, limit, left, (*seen, id(cause)))
    return record


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as failure:  # noqa: BLE001 - a broken __str__ must not hide the error itself
        text = f"<its __str__ raised {type(failure).__name__}>"
    return _clean(text)[:_MAX_TEXT]


def _traceback(trace: TracebackType | None, limit: int) -> str:
    # The machinery's own frames lead to every step alike; they say nothing.
    while trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("duramen._"):
        trace = trace.tb_next
    if trace is None or limit <= 0:
        return ""
    try:
        lines = traceback.format_tb(trace, limit=-_MAX_FRAMES)
    except Exception as failure:  # noqa: BLE001 - it reads source files, and asks users' objects
        return f"<the traceback cannot be formatted: {type(failure).__name__}>"[:limit]
    size = 0
    for index in range(len(lines) - 1, -1, -1):
        size += len(lines[index])
        if size > limit:
            lines = lines[index + 1 :] or [lines[-1][-limit:]]
            break
    return _clean("".join(lines))


def _plain(values: list[Any]) -> list[Any] | None:
    """The values if they are plain JSON that comes back equal, and not too much of it; else None."""
    try:
        data = to_json(values)
        if len(data) <= _MAX_DATA and from_json(data, allow_inf_nan=False) == values:
            return values
    except Exception:  # noqa: BLE001, S110 - anything may be in there, and most of it is not JSON
        pass
    return None


def load_error(data: bytes) -> RecordedError:
    """Read a payload of `dump_error`. Fields of a later version are ignored.

    Raises:
        DeserializationError: it is no such payload.
    """
    try:
        return _recorded(from_json(data))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DeserializationError("$", f"this is not a recorded error: {error}") from None


def _recorded(record: dict[str, Any]) -> RecordedError:
    args = record.get("args")
    cause = record.get("cause")
    return RecordedError(
        type_name=str(record["type"]),
        message=str(record["message"]),
        traceback=str(record.get("traceback", "")),
        cause=None if cause is None else _recorded(cause),
        notes=tuple(record.get("notes", ())),
        args=None if args is None else tuple(args),
        attributes=record.get("attributes"),
        exceptions=tuple(_recorded(member) for member in record.get("exceptions", ())),
    )


def rebuild_error(recorded: RecordedError) -> BaseException | None:
    """Make the exception again if its class is registered or built in; else None.

    What it was recorded as is kept in its attribute ``__recorded__``, with the traceback of the original.

    >>> rebuild_error(load_error(dump_error(KeyError("card"))))
    KeyError('card')
    >>> rebuild_error(RecordedError("some.where.Else", "gone")) is None
    True
    """
    if (failure := _STEP_FAILURES.get(recorded.type_name)) is not None:
        return _step_failure(failure, recorded)
    cls = _registry.get(recorded.type_name)
    registered = cls is not None
    if cls is None:
        module, _, name = recorded.type_name.rpartition(".")
        builtin = getattr(builtins, name, None) if module == "builtins" else None
        if not (isinstance(builtin, type) and issubclass(builtin, Exception)):
            return None
        cls = builtin
    error = _instance(cls, recorded, registered=registered)
    if error is None:
        return None
    try:
        error.__dict__.update(recorded.attributes or {})
    except (AttributeError, TypeError):
        pass
    for note in recorded.notes:
        error.add_note(note)
    if recorded.cause is not None:
        error.__cause__ = rebuild_error(recorded.cause)
    error.__recorded__ = recorded  # pyright: ignore[reportAttributeAccessIssue]
    return error


def _step_failure(cls: type[StepFailed], recorded: RecordedError) -> StepFailed | None:
    facts = recorded.attributes or {}
    operation_id, attempts = facts.get("operation_id"), facts.get("attempts")
    if recorded.cause is None or not isinstance(operation_id, str) or not isinstance(attempts, int):
        return None
    error = cls(operation_id, attempts, recorded.cause)
    error.__cause__ = rebuild_error(recorded.cause)
    return error


def _instance(cls: type[BaseException], recorded: RecordedError, *, registered: bool) -> BaseException | None:
    make = cast("Callable[..., BaseException]", cls)
    args: tuple[Any, ...] = recorded.args if recorded.args is not None else (recorded.message,)
    group = issubclass(cls, BaseExceptionGroup)
    if group:
        members = [rebuild_error(member) for member in recorded.exceptions]
        if not members or None in members:
            return None
        args = (args[0], members)
    try:
        error = make(*args)
    except Exception:  # noqa: BLE001 - a constructor of its own that wants other arguments
        if not registered or group:
            return None
        error = BaseException.__new__(cls)
    if not group:
        # A constructor that words its message from its arguments would word it twice.
        error.args = args
    return error
