"""Durations and instants become whole milliseconds, never early, and mistakes are refused."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duramen._values.durations import MAX_DURATION_MS, duration_ms, from_ms, instant_ms
from duramen.errors import InvalidArgument


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (0, 0),
        (0.0, 0),
        (-0.0, 0),
        (1, 1000),
        (1.5, 1500),
        (0.3, 300),
        (0.0001, 1),
        (1e-8, 1),
        (2.0004, 2001),
        (2.3, 2300),
        (timedelta(0), 0),
        (timedelta(microseconds=1), 1),
        (timedelta(milliseconds=250), 250),
        (timedelta(days=30), 2_592_000_000),
        (timedelta(days=36525), MAX_DURATION_MS),
        (MAX_DURATION_MS // 1000, MAX_DURATION_MS),
    ],
    ids=repr,
)
def test_durations_are_rounded_up_to_milliseconds(value: Any, milliseconds: int) -> None:
    assert duration_ms(value) == milliseconds


@pytest.mark.parametrize(
    "value",
    [
        *(-1, -0.001, -1e-12, timedelta(microseconds=-1), True, False, "5", None, 1j),
        *(
            float("nan"),
            float("inf"),
            float("-inf"),
            1e300,
            10**30,
            timedelta.max,
            timedelta.min,
            timedelta(days=36526),
        ),
    ],
    ids=repr,
)
def test_mistaken_durations_are_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^timeout is "):
        duration_ms(value, "timeout")


@given(st.integers(0, MAX_DURATION_MS))
def test_milliseconds_given_as_seconds_come_back_exactly(milliseconds: int) -> None:
    assert duration_ms(timedelta(milliseconds=milliseconds)) == milliseconds
    assert duration_ms(milliseconds / 1000) == milliseconds


@given(st.floats(0, 1e9))
def test_a_duration_is_never_shorter_than_asked_and_longer_by_a_millisecond_at_most(seconds: float) -> None:
    assert seconds * 1000 - 1e-3 <= duration_ms(seconds) <= seconds * 1000 + 1.001


@given(
    st.datetimes(timezones=st.sampled_from([UTC, ZoneInfo("Europe/Zurich"), timezone(timedelta(hours=-11))]))
)
def test_instants_come_back_as_the_same_instant_rounded_up(value: datetime) -> None:
    again = from_ms(instant_ms(value))
    assert again.tzinfo is UTC
    assert timedelta(0) <= again - value < timedelta(milliseconds=1)


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_milliseconds_of_the_store_come_back_exactly(milliseconds: int) -> None:
    assert instant_ms(from_ms(milliseconds)) == milliseconds


@pytest.mark.parametrize("value", [datetime(2026, 1, 1), date(2026, 1, 1), 0, "2026-01-01", None])  # noqa: DTZ001
def test_instants_without_a_zone_are_refused_by_name(value: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^start_at is .*time zone"):
        instant_ms(value, "start_at")


@pytest.mark.parametrize("milliseconds", [10**18, -(10**18), 10**40])
def test_times_that_no_datetime_can_hold_are_refused(milliseconds: int) -> None:
    with pytest.raises(InvalidArgument, match="datetime"):
        from_ms(milliseconds)
