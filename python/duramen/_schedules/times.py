"""`every` and `cron`: when a schedule fires, as what people write and as what the store keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from duramen._values.durations import duration_ms, from_ms
from duramen.errors import InvalidArgument

from .cron import CronTimes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta

__all__ = ["Cron", "Every", "When", "cron", "every", "iso", "when_of"]


class When(ABC):
    """When a schedule fires; made by `cron` and `every`. Instants are milliseconds since the epoch."""

    __slots__ = ()

    @abstractmethod
    def after(self, at: int) -> int | None:
        """The first fire time after an instant; None if there is none."""

    @abstractmethod
    def before(self, at: int) -> int | None:
        """The last fire time before an instant; None if there is none."""

    @abstractmethod
    def kept(self) -> dict[str, Any]:
        """As it stands in the store."""

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, When) and self.kept() == other.kept()

    @override
    def __hash__(self) -> int:
        return hash(str(self.kept()))

    def between(self, after: int, until: int) -> Iterator[int]:
        """All fire times in ``after < … <= until``."""
        at = self.after(after)
        while at is not None and at <= until:
            yield at
            at = self.after(at)


class Every(When):
    """See `every`."""

    __slots__ = ("_offset", "_period")

    def __init__(self, period: int, offset: int) -> None:
        self._period = period
        self._offset = offset % period

    @override
    def after(self, at: int) -> int | None:
        return at - (at - self._offset) % self._period + self._period

    @override
    def before(self, at: int) -> int | None:
        return at - 1 - (at - 1 - self._offset) % self._period

    @override
    def kept(self) -> dict[str, Any]:
        return {"every": self._period, "offset": self._offset}

    @override
    def __repr__(self) -> str:
        offset = f", offset={_seconds(self._offset)}" if self._offset else ""
        return f"every.seconds({_seconds(self._period)}{offset})"


class Cron(When):
    """See `cron`."""

    __slots__ = ("_expression", "_times", "_tz")

    def __init__(self, expression: str, tz: str) -> None:
        self._times = CronTimes(expression, tz)
        self._expression, self._tz = expression, tz

    @override
    def after(self, at: int) -> int | None:
        found = self._times.after(at // 1000)
        return None if found is None else found * 1000

    @override
    def before(self, at: int) -> int | None:
        found = self._times.before(-(-at // 1000))
        return None if found is None else found * 1000

    @override
    def kept(self) -> dict[str, Any]:
        return {"cron": self._expression, "tz": self._tz}

    @override
    def __repr__(self) -> str:
        return f"cron({self._expression!r}, tz={self._tz!r})"


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".")


class _EveryMaker:
    """`every`: periods that are counted from the beginning of 1970 in UTC, so that all machines agree.

    A period is one of elapsed time, which no time zone changes: use `cron` for "daily at nine".

    >>> from datetime import timedelta
    >>> every.minutes(15), every.hours(1, offset=timedelta(minutes=5))
    (every.seconds(900), every.seconds(3600, offset=300))
    """

    def seconds(self, n: float, *, offset: timedelta | float = 0) -> When:
        """Every `n` seconds; fractions count to the millisecond.

        Args:
            n: the period.
            offset: seconds or `timedelta` by which all fire times are later.

        Raises:
            InvalidArgument: the period is not positive, or longer than a hundred years.
        """
        return _every(n, 1, "seconds", offset)

    def minutes(self, n: float, *, offset: timedelta | float = 0) -> When:
        """Every `n` minutes; as `seconds`."""
        return _every(n, 60, "minutes", offset)

    def hours(self, n: float, *, offset: timedelta | float = 0) -> When:
        """Every `n` hours; as `seconds`."""
        return _every(n, 3600, "hours", offset)

    def days(self, n: float, *, offset: timedelta | float = 0) -> When:
        """Every `n` days of 24 hours, at midnight UTC unless there is an offset; as `seconds`."""
        return _every(n, 86400, "days", offset)


every = _EveryMaker()


def _every(n: float, unit: int, name: str, offset: timedelta | float) -> When:
    if isinstance(n, bool) or not isinstance(n, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"every.{name} is given {n!r}: give a number")
    period = duration_ms(n * unit, f"the period of every.{name}")
    if period < 1:
        raise InvalidArgument(f"every.{name} is given {n!r}: a period must be longer than nothing")
    return Every(period, duration_ms(offset, "offset"))


def cron(expression: str, *, tz: str = "UTC") -> When:
    """Fire when the clock of a time zone shows what a cron expression says.

    A time that the clock skips (in spring, as a rule) fires once, right after the gap. A time that it shows
    twice fires once, the first time; unless the hour is ``*``, which means each hour that passes.

    Args:
        expression: five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday); six:
            seconds first. Lists ``1,2``, ranges ``1-5``, steps ``*/15`` and names (``JAN``, ``MON-FRI``) will
            do, ``L`` for the last day of a month, ``MON#2`` for its second Monday, ``5L`` for its last
            Friday. If both days are given, one of them is enough, as cron has always had it.
        tz: an IANA zone.

    Raises:
        InvalidArgument: there is no such zone, or the expression cannot be read or never fires.

    >>> cron("0 9 * * MON", tz="Europe/Zurich")
    cron('0 9 * * MON', tz='Europe/Zurich')
    """
    if not isinstance(expression, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"a cron expression is {expression!r}: give a text such as '0 9 * * MON'")
    return _cron(expression, tz) if isinstance(tz, str) else Cron(expression, tz)  # pyright: ignore[reportUnnecessaryIsInstance]


@lru_cache(maxsize=10_000)
def _cron(expression: str, tz: str) -> Cron:
    """One object for all schedules that say the same: what it has parsed is not parsed again."""
    return Cron(" ".join(expression.split()), tz)


def when_of(kept: dict[str, Any]) -> When:
    """Read what `When.kept` gave.

    Raises:
        InvalidArgument: this build does not know it.
    """
    match kept:
        case {"cron": str(expression), "tz": str(tz)}:
            return cron(expression, tz=tz)
        case {"every": int(period), "offset": int(offset)} if period > 0:
            return Every(period, offset)
        case _:
            raise InvalidArgument(
                f"this version of duramen does not know when {kept!r} fires: use a newer one"
            )


def iso(at: int) -> str:
    """An instant as it stands in run ids: UTC, to the second, with milliseconds only where there are some.

    >>> iso(0), iso(1_500)
    ('1970-01-01T00:00:00Z', '1970-01-01T00:00:01.500Z')
    """
    found = from_ms(at)
    return found.replace(tzinfo=None).isoformat(timespec="milliseconds" if at % 1000 else "seconds") + "Z"
