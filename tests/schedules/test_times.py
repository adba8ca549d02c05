"""Fire times: by hand where clocks do odd things, and by a walk over all minutes for all else there is."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from duramen import cron, every
from duramen._schedules.cron import CronTimes
from duramen._schedules.times import When, when_of
from duramen.errors import InvalidArgument

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def ms(text: str) -> int:
    return round((datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH).total_seconds() * 1000)


def shown(at: int | None) -> str:
    assert at is not None
    return f"{EPOCH + timedelta(milliseconds=at):%Y-%m-%d %H:%M}"


def fires(when: When, after: str, until: str) -> list[str]:
    return [shown(at) for at in when.between(ms(after), ms(until))]


@pytest.mark.parametrize(
    ("expression", "tz", "after", "until", "expected"),
    [
        # One hour forward at 01:00, one hour back at 02:00 (01:00 UTC, both).
        ("30 1 * * *", "Europe/Lisbon", "2026-03-28", "2026-03-30", ["2026-03-28 01:30", "2026-03-29 01:00"]),
        ("30 1 * * *", "Europe/Lisbon", "2026-10-24", "2026-10-26", ["2026-10-24 00:30", "2026-10-25 00:30"]),
        ("*/30 1 * * *", "Europe/Lisbon", "2026-03-29", "2026-03-29 23:00", ["2026-03-29 01:00"]),
        ("30 * * * *", "Europe/Lisbon", "2026-10-25", "2026-10-25 03:00",
         ["2026-10-25 00:30", "2026-10-25 01:30", "2026-10-25 02:30"]),
        ("0 2 * * *", "Europe/Lisbon", "2026-03-28 12:00", "2026-03-30", ["2026-03-29 01:00"]),
        # Half an hour: forward at 02:00 (15:30 UTC), back at 02:00 (15:00 UTC).
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-02 16:00", "2026-10-04 16:00",
         ["2026-10-03 15:30", "2026-10-04 15:15"]),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-03 16:00", "2026-04-05 16:00",
         ["2026-04-04 14:45", "2026-04-05 15:15"]),
        # 14 hours ahead of UTC; the last day of 1994 was not there.
        ("0 0 * * *", "Pacific/Kiritimati", "2026-01-01 09:00", "2026-01-02 11:00",
         ["2026-01-01 10:00", "2026-01-02 10:00"]),
        ("0 12 31 12 *", "Pacific/Kiritimati", "1994-12-01", "1995-12-01", ["1994-12-31 10:00"]),
        # Its summer time is the standard one: an hour back for Ramadan, forward after it.
        ("30 2 * * *", "Africa/Casablanca", "2026-02-14", "2026-02-16",
         ["2026-02-14 01:30", "2026-02-15 01:30"]),
        ("30 2 * * *", "Africa/Casablanca", "2026-03-21", "2026-03-23",
         ["2026-03-21 02:30", "2026-03-22 02:00"]),
        # 30 December 2011 was skipped.
        ("0 9 * * *", "Pacific/Apia", "2011-12-28 20:00", "2012-01-01",
         ["2011-12-29 19:00", "2011-12-30 10:00", "2011-12-30 19:00", "2011-12-31 19:00"]),
        ("0 9 30 12 *", "Pacific/Apia", "2011-01-01", "2013-01-01", ["2011-12-30 10:00", "2012-12-29 19:00"]),
        # Both kinds of days: one is enough, unless one is a star.
        ("0 0 13 * FRI", "UTC", "2026-02-08", "2026-02-21", ["2026-02-13 00:00", "2026-02-20 00:00"]),
        ("0 0 L * *", "UTC", "2028-02-01", "2028-04-01", ["2028-02-29 00:00", "2028-03-31 00:00"]),
        ("0 0 * * MON#2", "UTC", "2026-01-01", "2026-03-01", ["2026-01-12 00:00", "2026-02-09 00:00"]),
        ("0 0 * JAN,MAR sun", "UTC", "2026-01-20", "2026-03-02", ["2026-01-25 00:00", "2026-03-01 00:00"]),
        ("0 0 29 2 *", "UTC", "2026-01-01", "2033-01-01", ["2028-02-29 00:00", "2032-02-29 00:00"]),
    ],
)  # fmt: skip
def test_where_clocks_do_odd_things(
    expression: str, tz: str, after: str, until: str, expected: list[str]
) -> None:
    when = cron(expression, tz=tz)
    assert fires(when, after, until) == expected
    back, at = [], ms(until) + 1
    while (at := when.before(at) or 0) > ms(after):
        back.append(shown(at))
    assert back[::-1] == expected


def test_seconds_stand_first() -> None:
    found = list(cron("*/20 59 23 * * *").between(ms("2026-01-01 23:58"), ms("2026-01-02 12:00")))
    assert found == [ms("2026-01-01 23:59:00"), ms("2026-01-01 23:59:20"), ms("2026-01-01 23:59:40")]


@pytest.mark.parametrize(
    ("expression", "tz", "words"),
    [
        ("", "UTC", "wrong number of fields"),
        ("* * * *", "UTC", "wrong number of fields"),
        ("60 * * * *", "UTC", "bad minute"),
        ("* * * * MOON", "UTC", "bad day-of-week"),
        ("5-1 * * * *", "UTC", "bad minute"),
        ("*/0 * * * *", "UTC", "bad minute"),
        ("0 0 30 2 *", "UTC", "bad day-of-month"),
        ("0 0 31 2 MON#5", "UTC", None),
        ("* * * * *", "Europe/Zürich", "give the name of a time zone"),
        ("* * * * *", "../etc/passwd", "give the name of a time zone"),
        ("* * * * *", "", "give the name of a time zone"),
        ("* * * * *", None, "give the name of a time zone"),
    ],
)
def test_what_cannot_be_read_is_refused(expression: str, tz: str, words: str | None) -> None:
    if words is None:
        assert cron(expression, tz=tz).after(0) is not None
        return
    with pytest.raises(InvalidArgument, match=words):
        cron(expression, tz=tz)


def test_a_period_is_counted_from_1970_whatever_its_unit() -> None:
    assert fires(every.minutes(15), "2026-01-01 00:01", "2026-01-01 00:45") == [
        "2026-01-01 00:15",
        "2026-01-01 00:30",
        "2026-01-01 00:45",
    ]
    assert every.hours(1) == every.minutes(60) == every.seconds(3600) != every.hours(1, offset=60)
    assert fires(every.days(1, offset=timedelta(hours=3)), "2026-01-01", "2026-01-02") == ["2026-01-01 03:00"]
    assert every.seconds(0.25).after(100) == 250
    for wrong in (0, -1, True, "1", float("nan")):
        with pytest.raises(InvalidArgument):
            every.seconds(wrong)  # type: ignore[arg-type]


@given(st.integers(1, 10**9), st.integers(-(10**12), 10**12), st.integers(0, 10**9))
def test_a_period_has_one_fire_time_in_each_window_of_its_length(period: int, at: int, offset: int) -> None:
    when = every.seconds(period / 1000, offset=offset / 1000)
    following, previous = when.after(at), when.before(at)
    assert following is not None
    assert previous is not None
    assert previous < at < following
    assert following - previous in {period, 2 * period}
    assert when.before(following) in {at, previous}
    assert when_of(when.kept()) == when


# -- a walk over the minutes ---------------------------------------------------------------------------------

DAYS = [
    ("Europe/Lisbon", "2026-03-28"),
    ("Europe/Lisbon", "2026-10-24"),
    ("Australia/Lord_Howe", "2026-04-04"),
    ("Australia/Lord_Howe", "2026-10-03"),
    ("Pacific/Kiritimati", "1994-12-30"),
    ("Pacific/Kiritimati", "2026-03-01"),
    ("Africa/Casablanca", "2026-02-14"),
    ("Africa/Casablanca", "2026-03-21"),
    ("Pacific/Apia", "2011-12-29"),
    ("Pacific/Apia", "2012-03-31"),
    ("America/St_Johns", "2006-10-28"),  # at one minute past midnight
    ("America/St_Johns", "2006-04-01"),
    ("Pacific/Kwajalein", "1969-09-29"),  # 23 hours back
    ("Pacific/Kwajalein", "1993-08-20"),  # 24 hours forward
    ("Europe/Dublin", "2026-10-24"),
    ("Antarctica/Troll", "2026-03-28"),  # two hours
    ("Antarctica/Troll", "2026-10-24"),
    ("America/Caracas", "2016-04-30"),
    ("UTC", "2026-01-01"),
]
MINUTE = timedelta(minutes=1)


def field(low: int, high: int, *more: str) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        st.sampled_from(["*", *more]),
        number.map(str),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}"),
        st.tuples(number, number).map(lambda both: f"{both[0]},{both[1]}"),
    )


def numbers(text: str, low: int, high: int) -> set[int]:
    """The numbers that a field of an expression stands for."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, last = (low, high) if span == "*" else (int(span.split("-")[0]), int(span.split("-")[-1]))
        found |= set(range(first, last + 1, int(step or 1)))
    return found


def walked(expression: str, tz: str, begin: datetime, end: datetime) -> list[int]:
    """All fire times between two instants, found by looking at what the clock shows at each minute."""
    minutes, hours, days, months, weekdays = (
        numbers(text, low, high)
        for text, (low, high) in zip(
            expression.split(), ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7)), strict=True
        )
    )
    both = any(text.startswith("*") for text in expression.split()[2::2])
    every_hour = expression.split()[1] == "*"

    def matches(clock: datetime) -> bool:
        if clock.minute not in minutes or clock.hour not in hours or clock.month not in months:
            return False
        by_day, by_week = clock.day in days, bool({clock.isoweekday(), clock.isoweekday() % 7} & weekdays)
        return (by_day and by_week) if both else (by_day or by_week)

    zone, fired, seen = ZoneInfo(tz), set[int](), set[datetime]()
    before: datetime | None = None
    at = begin - timedelta(days=2)  # what it has shown before counts
    while at <= end:
        clock = at.astimezone(zone).replace(tzinfo=None)
        skipped = clock if before is None else before + MINUTE
        while skipped < clock:
            if matches(skipped):
                fired.add(round(at.timestamp()))
            skipped += MINUTE
        if matches(clock) and (every_hour or clock not in seen):
            fired.add(round(at.timestamp()))
        seen.add(clock)
        before = clock
        at += MINUTE
    return sorted(one for one in fired if begin.timestamp() < one <= end.timestamp())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(DAYS),
    st.tuples(
        field(0, 59),
        field(0, 23, "0-3", "1", "2"),
        field(1, 31, "1,29,30,31"),
        st.just("*"),
        field(0, 7),
    ).map(" ".join),
    st.lists(st.integers(0, 2 * 86_400), max_size=10),
)
def test_it_fires_when_a_walk_over_the_minutes_says_so(
    day: tuple[str, str], expression: str, places: list[int]
) -> None:
    tz, date = day
    times = CronTimes(expression, tz)
    begin = datetime.fromisoformat(date).replace(tzinfo=UTC)
    end = begin + timedelta(days=2)
    first, last = round(begin.timestamp()), round(end.timestamp())
    expected = walked(expression, tz, begin, end)
    found, at = list[int](), times.after(first)
    while at is not None and at <= last:
        found.append(at)
        at = times.after(at)
    assert found == expected
    back, at = list[int](), times.before(last + 1)
    while at is not None and at > first:
        back.append(at)
        at = times.before(at)
    assert back[::-1] == expected
    for place in places:
        if later := [one for one in expected if one > first + place]:
            assert times.after(first + place) == later[0]
        if earlier := [one for one in expected if one < first + place]:
            assert times.before(first + place) == earlier[-1]
