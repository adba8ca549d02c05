"""The ways out of user code, and what each of them makes of an attempt or a run.

Whatever a step, a handler, a serializer, a codec, a rule of retries or an exception's own methods do, the
attempt that called them ends in one of these ways, and so does the run:

- **an outcome**: it is recorded. What cannot be recorded is a failure with the reason.
- **trouble**: a codec is out, as a store may be. Nothing is wrong with the value: it is kept, and tried again
  until the codec is back, this process closes or the run leaves it.
- **no outcome**: the program ended the attempt. The run is given back, and is due again for any process.

`KeyboardInterrupt` alone is the process's, not the run's: the run is given back, and it is raised on.
"""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING, Any

from duramen._handlers.retry import is_retryable
from duramen._values.payloads import dump_failure, failed_operation
from duramen._values.serializer import CodecSerializer, JsonSerializer, round_trip
from duramen.errors import DeserializationError, NotDurableError, SerializationError

if TYPE_CHECKING:
    from duramen._handlers.retry import Retry
    from duramen._logging import CarefulLogger
    from duramen._values.serializer import Serializer

__all__ = [
    "Trouble",
    "advised",
    "encoded",
    "failure_payload",
    "is_cancellation",
    "is_of_the_place",
    "may_retry",
    "name_of",
    "note",
    "operation_of",
    "plain_payload",
    "plain_value",
    "reading_trouble",
    "recorded",
    "say",
    "text_of",
]

_PLAIN = JsonSerializer(None)

_REFUSALS = (
    ValueError, TypeError, LookupError, AttributeError, NameError, ArithmeticError, AssertionError,
    NotImplementedError, RecursionError, ImportError,
)  # fmt: skip
"""What a codec raises that has something against the value, or is wrong itself: waiting would not help."""


class Trouble(Exception):
    """A codec does not work at the moment. Its cause says why."""


def is_of_the_place(error: BaseException) -> bool:
    """Whether an exception is about this place and time, so that the same may go well later."""
    cls = type(error)
    return issubclass(cls, Exception) and not issubclass(cls, _REFUSALS)


# -- writing


def recorded(serializer: Serializer, value: Any, annotation: Any) -> tuple[bytes, Any]:
    """Give the payload of a value, and the value as replays will see it.

    Raises:
        Trouble: it has one, but a codec is out.
        SerializationError, PayloadTooLarge, or whatever a serializer of the user's raises: it has none.
    """
    if type(serializer) is JsonSerializer:
        return serializer.round_trip(value, annotation)
    if isinstance(serializer, CodecSerializer):
        data, seen = round_trip(serializer.inner, value, annotation)
        return encoded(serializer, data), seen
    try:
        return round_trip(serializer, value, annotation)
    except OSError as error:  # a serializer that does the work of a codec
        raise Trouble from error


def plain_payload(serializer: Serializer, value: Any, annotation: Any) -> bytes:
    """Give the payload of a value as `encoded` wants it: that of the serializer without its codecs.

    Raises:
        Trouble, SerializationError, PayloadTooLarge: as `recorded`.
    """
    if isinstance(serializer, CodecSerializer):
        return serializer.inner.dumps(value, annotation)
    try:
        return serializer.dumps(value, annotation)
    except OSError as error:
        raise Trouble from error


def plain_value(serializer: Serializer, data: bytes) -> Any:
    """Read back what `plain_payload` gave, as plain JSON."""
    return (serializer.inner if isinstance(serializer, CodecSerializer) else serializer).loads(data, None)


def encoded(serializer: Serializer, data: bytes) -> bytes:
    """Take payload bytes through the serializer's codecs, if it has any.

    Raises:
        Trouble: a codec is out.
        SerializationError, PayloadTooLarge: the codecs refuse it.
    """
    if not isinstance(serializer, CodecSerializer):
        return data
    try:
        return serializer.encode(data)
    except SerializationError as refusal:
        cause = refusal.__cause__
        if cause is not None and is_of_the_place(cause):
            raise Trouble from cause
        raise


def failure_payload(serializer: Serializer, error: BaseException, **facts: Any) -> bytes:
    """Give the payload of an exception, whatever it is like.

    Raises:
        Trouble: a codec is out.
        SerializationError, PayloadTooLarge: the codecs refuse even a short text.
    """
    try:
        data = dump_failure(_PLAIN, error, **facts)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001 - it asks the user's object for what it is
        data = _instead(error, f"{name_of(failure)} was raised while it was read", facts)
    try:
        return encoded(serializer, data)
    except Trouble:
        raise
    except Exception as refusal:  # noqa: BLE001 - a shorter one may pass
        return encoded(serializer, _instead(error, text_of(refusal), facts))


def _instead(error: BaseException, why: str, facts: dict[str, Any]) -> bytes:
    text = f"the failure, a {name_of(error)}, cannot be recorded: {why[:500]}"
    return dump_failure(_PLAIN, SerializationError("$", text), **facts)


# -- reading


def reading_trouble(error: BaseException) -> BaseException | None:
    """What is out, if an exception of `Serializer.loads` is about that and not about the payload."""
    cls = type(error)
    if issubclass(cls, DeserializationError):
        cause = error.__cause__
        return cause if cause is not None and is_of_the_place(cause) else None
    return error if issubclass(cls, OSError) else None


# -- questions to the user's objects that must not go wrong


def may_retry(error: BaseException, retry: Retry | None) -> bool:
    """`is_retryable`, for rules that raise whatever they like."""
    try:
        return is_retryable(error, retry)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001 - a broken rule must not hide what it was asked about
        note(error, f"the rule of its retries raised {name_of(failure)}, so it was not tried again")
        return False


def operation_of(error: BaseException) -> str | None:
    """`failed_operation`, for exceptions that lie about themselves."""
    try:
        return failed_operation(error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001
        return None


def note(error: BaseException, text: str) -> None:
    """Add a note to an exception, if it takes one."""
    try:
        error.add_note(text)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001, S110 - an exception may refuse everything
        pass


def text_of(error: BaseException) -> str:
    """An exception as a text; its `__str__` may raise."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001
        text = f"<its __str__ raised {name_of(failure)}>"
    # Not its own `encode`: the text may be of a subclass of `str` that raises as well.
    return str.encode(text, "utf-8", "backslashreplace").decode()


def name_of(error: BaseException) -> str:
    """The name of an exception's class, past a metaclass that has its own ideas."""
    return type.__dict__["__name__"].__get__(type(error))


def say(log: CarefulLogger, what: str, error: BaseException) -> None:
    """Log an exception with its traceback, or as far as it lets itself be told."""
    try:
        log.logger.error("%s", what, exc_info=error)
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - a handler of the log asked it something
        log.error("%s: %s: %s", what, name_of(error), text_of(error))  # noqa: TRY400


# -- advice

_SHARED = ("is bound to a different event loop", "attached to a different loop")


def advised(error: BaseException) -> BaseException:
    """What a run fails with: instead of a message about event loops one that says what to write."""
    if type(error) is RuntimeError and any(text in text_of(error) for text in _SHARED):
        better = NotDurableError(
            "a handler waited for something that belongs to another event loop. If it is an asyncio.Lock, "
            "Semaphore, Event, Condition or Queue that runs share: make it inside of the handler, or use it "
            "in a step; what one run tells another is an event (ctx.wait_for_event, Runtime.signal). If it "
            "is a future or a task of the program: await it in a step"
        )
        better.__cause__ = error
        return better
    return error


def is_cancellation(error: BaseException) -> bool:
    """Whether it is `asyncio.CancelledError`, without asking the exception itself."""
    return issubclass(type(error), CancelledError)
