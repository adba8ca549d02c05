"""When a failed step is tried again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, cast

from duramen._bridge import BACKOFF_CODES
from duramen._values.durations import duration_ms
from duramen.errors import Fatal, InvalidArgument, PayloadTooLarge, SerializationError

from .callables import annotated, is_async_callable

Backoff = Literal["exponential", "linear", "constant"]

_NEVER = (Fatal, SerializationError, PayloadTooLarge)
"""What another attempt would only run into again, or what says so itself."""

_MAX_ATTEMPTS = 1_000_000
_CAP = 60_000


@dataclass(frozen=True)
class Retry:
    """How often a step is tried, and how long it waits in between.

    Attempts are counted in the store, so they survive crashes, and the wait between them is a durable timer
    that holds no worker.

    Raises:
        InvalidArgument: a number is out of range, a class is not an exception class, `retry_if` is async or
            takes something else than the exception.

    >>> Retry(attempts=5, base=0.5, cap=timedelta(minutes=1)).wire
    (5, 2, 500, 60000, True)
    >>> Retry(attempts=0)
    Traceback (most recent call last):
    duramen.errors.InvalidArgument: attempts is 0: give how often to try at all, from 1 (no retry) up
    >>> Retry(base=timedelta(hours=2)).wire
    (3, 2, 7200000, 7200000, True)
    >>> Retry(base=60, cap=10)
    Traceback (most recent call last):
    duramen.errors.InvalidArgument: cap (10 s) is shorter than base (60 s)
    """

    attempts: int = 3
    """How often the step is tried at all; 1 is no retry."""
    backoff: Backoff = "exponential"
    """How the wait grows: base·2ⁿ, base·n, or always base."""
    base: float | timedelta = 0.5
    """The first wait, in seconds."""
    cap: float | timedelta | None = None
    """The longest wait, in seconds. Default: a minute, or `base` if that is longer."""
    jitter: bool = True
    """Whether each wait is shortened by a random part, so that steps that failed together come apart."""
    non_retryable: type[Exception] | Iterable[type[Exception]] = ()
    """An exception class, or several, that fail the step at once, as do their subclasses; kept as a tuple."""
    retry_if: Callable[[Exception], bool] | None = None
    """Asked for each exception; False fails the step at once. One that raises does too, with a note."""
    wire: tuple[int, int, int, int, bool] = field(init=False, repr=False, compare=False)
    """As the engine wants it; not for users."""

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"attempts is {self.attempts!r}: give a whole number")
        if not 1 <= self.attempts <= _MAX_ATTEMPTS:
            raise InvalidArgument(
                f"attempts is {self.attempts}: give how often to try at all, from 1 (no retry) up"
                + (f" to {_MAX_ATTEMPTS:,}" if self.attempts > 1 else "")
            )
        code = BACKOFF_CODES.get(self.backoff) if isinstance(self.backoff, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        if code is None:
            raise InvalidArgument(f"backoff is {self.backoff!r}: one of {', '.join(sorted(BACKOFF_CODES))}")
        base = duration_ms(self.base, "base")
        cap = max(_CAP, base) if self.cap is None else duration_ms(self.cap, "cap")
        if cap < base:
            raise InvalidArgument(f"cap ({cap / 1000:g} s) is shorter than base ({base / 1000:g} s)")
        if not isinstance(self.jitter, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"jitter is {self.jitter!r}: True shortens waits at random, False does not")
        object.__setattr__(self, "non_retryable", _exception_classes(self.non_retryable))
        if self.retry_if is not None:
            _check_rule(self.retry_if)
        object.__setattr__(self, "wire", (self.attempts, code, base, cap, self.jitter))


def check_retry(retry: Any) -> Retry:
    """Give back what is a rule.

    >>> check_retry(3)
    Traceback (most recent call last):
    duramen.errors.InvalidArgument: retry is 3: give a rule, such as retry=Retry(attempts=3)
    """
    if isinstance(retry, Retry):
        return retry
    attempts = 3
    if isinstance(retry, int) and retry is not True:
        attempts = max(1, retry)
    raise InvalidArgument(f"retry is {retry!r}: give a rule, such as retry=Retry(attempts={attempts})")


def _exception_classes(given: Any) -> tuple[type[Exception], ...]:
    if isinstance(given, type):
        given = (given,)
    if isinstance(given, str | BaseException) or not isinstance(given, Iterable):
        raise InvalidArgument(
            f"non_retryable is {given!r}: give exception classes, such as non_retryable=(ValueError,)"
        )
    classes = tuple(cast("Iterable[Any]", given))
    for cls in classes:
        if not isinstance(cls, type):
            meant = type(cls).__name__ if isinstance(cls, BaseException) else "ValueError"
            raise InvalidArgument(
                f"non_retryable holds {cls!r}, which is not an exception class: give classes, such as "
                f"non_retryable=({meant},)"
            )
        if not issubclass(cls, Exception):
            raise InvalidArgument(
                f"non_retryable holds {cls.__name__}, which is not a subclass of Exception: leave it out"
            )
    return classes


def _check_rule(rule: Any) -> None:
    if not callable(rule):
        raise InvalidArgument(f"retry_if is {rule!r}: give a function of the exception")
    if is_async_callable(rule) or inspect.isasyncgenfunction(annotated(rule)):
        raise InvalidArgument(
            f"retry_if is {rule!r}, an async function, whose answer would not be awaited: give a `def` "
            "function that returns True or False"
        )
    if inspect.isgeneratorfunction(annotated(rule)):
        raise InvalidArgument(f"retry_if is {rule!r}, a generator: let it return True or False")
    try:
        signature = inspect.signature(rule)
    except (TypeError, ValueError):
        return  # of C: it does not say what it takes
    try:
        signature.bind(Exception())
    except TypeError:
        raise InvalidArgument(
            f"retry_if takes {signature}: give a function of one argument, the exception"
        ) from None


def is_retryable(error: BaseException, retry: Retry | None) -> bool:
    """Whether the rules allow another attempt after this error (the engine counts them).

    A rule that fails or gives no answer must not hide what it was asked about: then there is none, and a note
    on the error says why.
    """
    if isinstance(error, _NEVER):
        return False
    if retry is None or not isinstance(error, Exception):
        return True
    try:
        if isinstance(error, cast("tuple[type[Exception], ...]", retry.non_retryable)):
            return False
        return retry.retry_if is None or _answer(error, retry.retry_if)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # noqa: BLE001 - also SystemExit: it is the rule that failed, not the process
        _note(error, f"retry_if raised {failure!r}, so the step was not tried again")
        return False


def _answer(error: Exception, rule: Callable[[Exception], Any]) -> bool:
    answer = rule(error)
    if inspect.isawaitable(answer):
        if isinstance(answer, Coroutine):
            answer.close()
        _note(error, f"retry_if returned {answer!r} and not True or False, so the step was not tried again")
        return False
    if answer is None:
        _note(error, "retry_if returned None and not True or False, so the step was not tried again")
    return bool(answer)


def _note(error: BaseException, text: str) -> None:
    with suppress(Exception):  # a class with ideas of its own about notes: the outcome stands without
        error.add_note(text)
