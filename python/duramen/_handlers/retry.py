"""When a failed step is tried again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from duramen._bridge import BACKOFF_CODES
from duramen._values.durations import duration_ms
from duramen.errors import Fatal, InvalidArgument, PayloadTooLarge, SerializationError

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
        InvalidArgument: a number is out of range, a class is not an exception class.

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
    non_retryable: tuple[type[Exception], ...] = ()
    """Exceptions (and their subclasses) that fail the step at once."""
    retry_if: Callable[[Exception], bool] | None = None
    """Asked for each exception; False fails the step at once."""
    wire: tuple[int, int, int, int, bool] = field(init=False, repr=False, compare=False)
    """As the engine wants it; not for users."""

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"attempts is {self.attempts!r}: give a whole number")
        if not 1 <= self.attempts <= _MAX_ATTEMPTS:
            raise InvalidArgument(
                f"attempts is {self.attempts}: give how often to try at all, from 1 (no retry) up"
            )
        code = BACKOFF_CODES.get(self.backoff)
        if code is None:
            raise InvalidArgument(f"backoff is {self.backoff!r}: one of {', '.join(sorted(BACKOFF_CODES))}")
        base = duration_ms(self.base, "base")
        cap = max(_CAP, base) if self.cap is None else duration_ms(self.cap, "cap")
        if cap < base:
            raise InvalidArgument(f"cap ({cap / 1000:g} s) is shorter than base ({base / 1000:g} s)")
        for cls in self.non_retryable:
            if not (isinstance(cls, type) and issubclass(cls, Exception)):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidArgument(f"non_retryable holds {cls!r}, which is not an exception class")
        if self.retry_if is not None and not callable(self.retry_if):
            raise InvalidArgument(f"retry_if is {self.retry_if!r}: give a function of the exception")
        object.__setattr__(self, "wire", (self.attempts, code, base, cap, bool(self.jitter)))


def is_retryable(error: BaseException, retry: Retry | None) -> bool:
    """Whether the rules allow another attempt after this error (the engine counts them)."""
    if isinstance(error, _NEVER):
        return False
    if retry is None or not isinstance(error, Exception):
        return True
    if isinstance(error, retry.non_retryable):
        return False
    if retry.retry_if is None:
        return True
    try:
        return bool(retry.retry_if(error))
    except Exception as failure:  # noqa: BLE001 - a broken rule must not hide what it was asked about
        error.add_note(f"retry_if raised {failure!r}, so the step was not tried again")
        return False
