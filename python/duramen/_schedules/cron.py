"""Fire times of a cron expression in a time zone.

The expression is read, and matched against dates and clock times, by `cronsim`. Here is what a time zone
makes of a clock time, which that library is not asked:

- A time that the clock skips fires once, at the first moment after the gap; several of them, and one that
  stands there anyway, are one.
- A time that the clock shows twice fires once, the first time. Where the hour is ``*``, the expression
  means each hour that passes, and so it fires both times.

Instants are seconds since the epoch in UTC, clock times naive `datetime`s.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from duramen.errors import InvalidArgument

__all__ = ["CronTimes", "zone"]

_EPOCH = datetime.fromisoformat("1970-01-01")
_SECOND = timedelta(seconds=1)
_ANY = datetime.fromisoformat("2000-01-01")


def zone(name: object) -> ZoneInfo:
    """Find a zone of the IANA database.

    Raises:
        InvalidArgument: there is none of that name.
    """
    try:
        # A text only: whatever else ZoneInfo is given it takes for a path, or fails in its own way.
        if isinstance(name, str) and name:
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        pass
    raise InvalidArgument(f"tz is {name!r}: give the name of a time zone, such as 'Europe/Zurich' or 'UTC'")


class CronTimes:
    """The fire times of one expression in one zone.

    Raises:
        InvalidArgument: the expression cannot be read, or matches no time at all.
    """

    def __init__(self, expression: str, tz: str) -> None:
        self._zone = zone(tz)
        self._expression = expression
        try:
            fields = expression.split()
            self._every_hour = fields[-4:-3] == ["*"]
            next(CronSim(expression, _ANY))
        except CronSimError as error:
            raise InvalidArgument(
                f"{expression!r} is no cron expression ({str(error).lower()}): give five fields (minute, "
                "hour, day of month, month, day of week), or six with the seconds first"
            ) from None
        except StopIteration:
            raise InvalidArgument(f"{expression!r} never fires: there is no such day") from None

    # -- from one to the next --------------------------------------------------------------------------------

    def after(self, at: int) -> int | None:
        """The first fire time after an instant; None if there is none that a calendar can hold."""
        try:
            clock = self._clock(at)
            found = self._first(clock, at)
            if self._every_hour and self._is_twice(clock):
                again = self._first_again(clock, at)
                found = min((each for each in (found, again) if each is not None), default=None)
        except (OverflowError, ValueError):
            return None
        return found

    def _first(self, clock: datetime, at: int) -> int | None:
        # Clock times are gone through in their order, which is that of the instants they stand for. None that
        # is not later than what the clock shows at `at` stands for a later instant.
        for time in CronSim(self._expression, clock):
            if (instant := self._instant(time)) > at:
                return instant
        return None

    def _first_again(self, clock: datetime, at: int) -> int | None:
        """The first one that the clock shows for the second time."""
        first, second = self._offsets(clock)
        if self._instant(clock) == at:
            # Still the first pass: the second begins where the clock goes back.
            clock = _EPOCH + timedelta(seconds=self._change(at, at + first - second) + second) - _SECOND
        for time in CronSim(self._expression, clock):
            if not self._is_twice(time):
                return None
            if (instant := self._seconds(time) - second) > at:
                return instant
        return None

    def before(self, at: int) -> int | None:
        """The last fire time before an instant; None if there is none."""
        try:
            return self._last(at)
        except (OverflowError, ValueError):
            return None

    def _last(self, at: int) -> int | None:
        clock = self._clock(at)
        first, second = self._offsets(clock)
        if first > second and self._instant(clock) != at:
            # The second pass: of it, only where each hour counts; of the first, all that the clock has shown.
            begin = self._change(at - (first - second), at)
            if self._every_hour:
                for time in CronSim(self._expression, clock, reverse=True):
                    instant = self._seconds(time) - second
                    if instant < begin:
                        break
                    return instant
            clock = _EPOCH + timedelta(seconds=begin + first)
        for time in CronSim(self._expression, clock, reverse=True):
            if (instant := self._instant(time)) >= at:
                continue
            if self._every_hour and self._is_twice(time):
                again = self._seconds(time) - self._offsets(time)[1]
                return again if again < at else instant
            return instant
        return None

    # -- clock times and instants ----------------------------------------------------------------------------

    def _clock(self, at: int) -> datetime:
        """What the clock shows at an instant."""
        shown = (_EPOCH + timedelta(seconds=at)).replace(tzinfo=UTC).astimezone(self._zone)
        return shown.replace(tzinfo=None, fold=0)

    def _offsets(self, clock: datetime) -> tuple[int, int]:
        """How far the clock is ahead of UTC, when it shows that the first time and the second.

        Both are the same for nearly all times; the second is less for a time that is shown twice, and more
        for one that is skipped.
        """
        first, second = (
            clock.replace(tzinfo=self._zone, fold=fold).utcoffset() or timedelta() for fold in (0, 1)
        )
        return first // _SECOND, second // _SECOND

    def _is_twice(self, clock: datetime) -> bool:
        first, second = self._offsets(clock)
        return first > second

    def _instant(self, clock: datetime) -> int:
        """When the clock shows that for the first time, or the end of the gap in which it lies."""
        first, second = self._offsets(clock)
        seconds = self._seconds(clock)
        if first >= second:
            return seconds - first
        return self._change(seconds - second, seconds - first)

    def _change(self, low: int, high: int) -> int:
        """The first instant in ``low < … <= high`` that has the offset of `high`."""
        target = self._offset_at(high)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offset_at(middle) == target:
                high = middle
            else:
                low = middle
        return high

    def _offset_at(self, at: int) -> int:
        return self._seconds(self._clock(at)) - at

    @staticmethod
    def _seconds(clock: datetime) -> int:
        return (clock - _EPOCH) // _SECOND
