"""Where the bars of a timeline begin and end."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console

from duramen import Event, RecordedError
from duramen.cli.timeline import bar, draw, tracks

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def entry(kind: str, seconds: float, op: str = "", **more: Any) -> Event:
    return Event("run", 0, kind, at(seconds), op, **more)


JOURNAL = [
    entry("run_created", 0),
    entry("step_attempt_failed", 1, "pay", error=RecordedError("x.Busy", "try later"), retry_at=at(3)),
    entry("step_completed", 4, "pay", attempt=2),
    entry("wait_opened", 4, "sleep-1", wait="timer"),
    entry("timer_fired", 8, "sleep-1"),
    entry("step_failed", 10, "mail", error=RecordedError("x.Gone", "nobody there")),
    entry("run_failed", 10, error=RecordedError("x.Gone", "nobody there")),
]


def spans(journal: list[Event], now: float) -> dict[str, list[tuple[float, float]]]:
    return {
        track.op: [
            ((part.begin - START).total_seconds(), (part.end - START).total_seconds())
            for part in track.segments
        ]
        for track in tracks(journal, at(now))
    }


def test_a_retried_step_has_a_bar_for_each_attempt_with_the_pause_between() -> None:
    assert spans(JOURNAL, 99)["pay"] == [(0, 1), (3, 4)]


def test_a_wait_begins_when_it_was_opened_and_a_step_where_the_handler_moved_last() -> None:
    assert spans(JOURNAL, 99)["sleep-1"] == [(4, 8)]
    assert spans(JOURNAL, 99)["mail"] == [(8, 10)]


def test_what_a_step_tells_of_its_progress_is_its_remark_until_it_ends() -> None:
    told = entry("step_progress", 2, "pay", data={"rows": 7})
    journal = [JOURNAL[0], told, entry("step_progress", 3, "pay", data="x" * 200), JOURNAL[2]]
    (track,) = tracks(journal[:2], at(5))
    assert track.remark == "has told {'rows': 7}"
    assert spans(journal[:2], 5)["pay"] == [(0, 5)]
    (track,) = tracks(journal[:3], at(5))
    assert len(track.remark) < 80
    assert spans(journal, 99)["pay"] == [(0, 4)]


def test_what_has_not_ended_reaches_to_now() -> None:
    assert spans(JOURNAL[:4], 7)["sleep-1"] == [(4, 7)]
    assert spans(JOURNAL[:2], 2)["pay"] == [(0, 1)]
    assert spans(JOURNAL[:2], 5)["pay"] == [(0, 1), (3, 5)]


def test_an_update_lasts_from_its_acceptance_to_its_end() -> None:
    journal = [
        entry("run_created", 0),
        entry("update_accepted", 2, "update-1", wait="update:deposit"),
        entry("step_completed", 3, "book"),
        entry("update_finished", 5, "update-1"),
        entry("update_accepted", 6, "update-2", wait="update:deposit"),
        entry("update_finished", 7, "update-2", error=RecordedError("x.Gone", "nobody there")),
        entry("update_accepted", 8, "update-3", wait="update:close"),
    ]
    found = spans(journal, 9)
    assert found == {"update-1": [(2, 5)], "book": [(2, 3)], "update-2": [(6, 7)], "update-3": [(8, 9)]}
    remarks = [track.remark for track in tracks(journal, at(9))]
    assert remarks == ["update deposit", "", "update deposit failed: Gone: nobody there", "update close"]


def test_every_bar_can_be_seen() -> None:
    (track,) = tracks([entry("run_created", 0), entry("step_completed", 0, "quick")], at(100))
    assert bar(track.segments, at(0), at(100), 20).plain.strip() == "━"


def test_the_drawing_keeps_its_width() -> None:
    for width in (80, 100, 140):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(draw(JOURNAL, at(99), width=width))
        lines = console.export_text().splitlines()
        assert max(map(len, lines)) <= width
        assert any("10.0 s" in line for line in lines)
        assert any("nobody there" in line for line in lines)
