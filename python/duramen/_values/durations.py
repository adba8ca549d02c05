"""Durations and instants as the store keeps them: whole milliseconds, instants since the epoch in UTC.

Whatever lies beyond a hundred years is taken for a mistake (milliseconds given as seconds, most often), and
so is a duration of NaN, infinity, True, or less than nothing.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from duramen.errors import InvalidArgument

__all__ = ["MAX_DURATION_MS", "duration_ms", "from_ms", "instant_ms"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

MAX_DURATION_MS = 100 * 36525 * 864_000
"""A hundred years of 365.25 days, in milliseconds."""


def duration_ms(value: timedelta | float, what: str = "duration") -> int:
    """Give a duration in milliseconds, rounded up, so that nothing ever happens too early.

    Args:
        value: a `timedelta`, or seconds as an int or float.
        what: names the value in an error, for instance ``"timeout"``.

    Raises:
        InvalidArgument: negative, NaN, infinite, over 100 years, a bool, or no number at all.

    >>> duration_ms(timedelta(minutes=1)), duration_ms(0.5), duration_ms(0)
    (60000, 500, 0)
    """
    if isinstance(value, timedelta):
        whole, rest = divmod(value, _MILLISECOND)
        milliseconds = whole + 1 if rest and whole >= 0 else whole
    elif isinstance(value, bool) or not isinstance(value, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"{what} is {value!r}: give a timedelta, or seconds as a number")
    elif isinstance(value, int):
        milliseconds = value * 1000
    elif not math.isfinite(value):
        raise InvalidArgument(f"{what} is {value!r}: it must be finite; leave it out (None) for no limit")
    else:
        # What a float misses of a millisecond by its own step does not count: 2.3 s are 2300 ms and not 2301.
        exact = value * 1000
        milliseconds = math.ceil(exact - max(1e-6, 2 * math.ulp(exact))) if value > 0 else math.floor(exact)
    if milliseconds < 0:
        raise InvalidArgument(f"{what} is {value!r}: it must not be negative")
    if milliseconds > MAX_DURATION_MS:
        raise InvalidArgument(
            f"{what} is {value!r}: that is more than 100 years; numbers are seconds, not milliseconds"
        )
    return milliseconds


def instant_ms(value: datetime, what: str = "instant") -> int:
    """Give an instant in milliseconds since the epoch (UTC), rounded up.

    Args:
        value: an aware `datetime`.
        what: names the value in an error, for instance ``"start_at"``.

    Raises:
        InvalidArgument: it is naive, or no datetime.

    >>> instant_ms(datetime(2026, 1, 1, tzinfo=UTC))
    1767225600000
    """
    if not isinstance(value, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"{what} is {value!r}: give a datetime with a time zone")
    if value.utcoffset() is None:
        raise InvalidArgument(
            f"{what} is {value!r}, without a time zone: use datetime.now(UTC), or .replace(tzinfo=…)"
        )
    # Not .timestamp(): a float would lose the last digits.
    return -((_EPOCH - value) // _MILLISECOND)


def from_ms(milliseconds: int) -> datetime:
    """Give the instant of a time in the store, as an aware `datetime` in UTC.

    Raises:
        InvalidArgument: it lies outside the years 1 to 9999.

    >>> from_ms(1767225600000)
    datetime.datetime(2026, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    try:
        return _EPOCH + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise InvalidArgument(
            f"{milliseconds} ms since the epoch is not a time a datetime can hold"
        ) from None
