"""A run's journal drawn as bars: one line for each operation, time from left to right.

The journal has when things ended, and for waits when they began. A step's bar begins where the handler moved
last before its outcome, which for steps that ran side by side is later than the truth; who knows better
passes `attempts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from textwrap import shorten
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from .output import harmless, one_line, words
from .times import span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duramen import Event

__all__ = ["Segment", "draw", "tracks"]

ENDS = {
    "run_finished": "completed",
    "run_failed": "failed",
    "run_cancelled": "cancelled",
    "run_terminated": "terminated",
}

REMARK = 36
"""Columns for what is said beside a bar, if there is room."""


@dataclass(frozen=True)
class Segment:
    """A stretch of time in which an operation did something."""

    begin: datetime
    end: datetime
    style: str
    dotted: bool = False
    """Waiting, not working."""


@dataclass
class Track:
    """One operation."""

    op: str
    segments: list[Segment] = field(default_factory=list[Segment])
    remark: str = ""
    style: str = ""
    open: bool = True


def _goes_on(track: Track, entry: Event, begin: datetime) -> datetime | None:
    """From when on an operation is open behind an entry; None: the entry is its end."""
    match entry.kind:
        case "wait_opened" | "approval_requested":
            track.remark = f"waits for {entry.wait}" if entry.wait else "waits"
            return begin if (entry.wait or "").startswith("child:") else entry.at
        case "update_accepted":
            track.remark = (entry.wait or "update:").replace(":", " ", 1)
        case "step_attempt_failed":
            track.segments.append(Segment(begin, entry.at, "red"))
            track.remark = f"attempt {entry.attempt or 1} failed: {entry.error}"
            return entry.retry_at or entry.at
        case "step_progress":
            track.remark = f"has told {shorten(str(entry.data), 60, placeholder='…')}"
            return begin
        case "child_started":
            track.remark = f"runs as {entry.run}"
        case _:
            return None
    return entry.at


def _ends(track: Track, entry: Event, begin: datetime) -> None:
    """An operation ends with an entry."""
    match entry.kind:
        case "update_finished":
            track.segments.append(Segment(begin, entry.at, "red" if entry.error else "green"))
            if entry.error:
                track.remark, track.style = f"{track.remark} failed: {entry.error}", "red"
        case "step_failed":
            track.segments.append(Segment(begin, entry.at, "red"))
            track.remark, track.style = f"failed: {entry.error}", "red"
        case "step_completed":
            track.segments.append(Segment(begin, entry.at, "green"))
            attempt = entry.attempt or 1
            track.remark = f"{ordinal(attempt)} attempt" if attempt > 1 else ""
        case "child_finished":
            style = "red" if entry.ended else "green"
            track.segments.append(Segment(begin, entry.at, style, dotted=True))
            track.remark = f"child {entry.ended or 'completed'}"
            track.style = "red" if entry.ended else ""
        case "message_sent":
            track.segments.append(Segment(begin, entry.at, "yellow"))
            track.remark = f"{entry.wait or 'cancellation'} to {entry.run}"
        case _:
            track.segments.append(Segment(begin, entry.at, "yellow", dotted=True))
            track.remark = entry.kind.replace("_", " ")


def tracks(journal: Iterable[Event], now: datetime) -> list[Track]:
    """Put a journal's entries together by operation, in the order in which these appear.

    Args:
        journal: the entries, from the first on.
        now: where the bars of what has not ended end.
    """
    found: dict[str, Track] = {}
    began: dict[str, datetime] = {}
    cursor = now
    for entry in journal:
        if not entry.op or entry.kind in {"value_recorded", "stream_written"}:
            cursor = entry.at
            continue
        track = found.setdefault(entry.op, Track(entry.op))
        begin = began.pop(entry.op, min(cursor, entry.at))
        if (begun := _goes_on(track, entry, begin)) is not None:
            began[entry.op] = begun
            if entry.kind in {"update_accepted", "step_attempt_failed"}:
                cursor = entry.at
            continue
        _ends(track, entry, begin)
        track.open = False
        cursor = entry.at
    for op, begin in began.items():
        if found[op].open and begin < now:
            found[op].segments.append(Segment(begin, now, "yellow", dotted=True))
    return list(found.values())


def ordinal(number: int) -> str:
    """A number as one says it.

    >>> ordinal(2), ordinal(11), ordinal(23)
    ('2nd', '11th', '23rd')
    """
    ending = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def draw(
    journal: Sequence[Event],
    now: datetime,
    *,
    width: int = 100,
    attempts: dict[str, list[Segment]] | None = None,
    remarks: dict[str, str] | None = None,
) -> Table:
    """Draw a journal.

    Args:
        journal: the entries, from the first on; at least one.
        now: the right end, if the run has not ended.
        width: columns of the whole picture.
        attempts: for operations whose real times are known: what to draw instead.
        remarks: for operations about which more is known: what to say instead.
    """
    ended = next((entry for entry in reversed(journal) if entry.kind in ENDS), None)
    lines = tracks(journal, ended.at if ended else now)
    for track in lines:
        track.segments = (attempts or {}).get(track.op, track.segments)
        track.remark = (remarks or {}).get(track.op, track.remark)
    edges = [entry.at for entry in journal] + [
        edge for track in lines for part in track.segments for edge in (part.begin, part.end)
    ]
    first, last = min(edges), max(edges) if ended else now
    names = max([len(harmless(track.op)) for track in lines] + [len("operation")])
    names = min(names, 28)
    # Beside the bars and the remarks: names, how long it took, and the blanks and edges of four columns.
    free = width - names - 10 - 12
    remark = max(10, min(REMARK, free - 20))
    room = max(20, free - remark)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("operation", width=names, no_wrap=True, overflow="ellipsis")
    table.add_column(axis(room, (last - first).total_seconds()), width=room, no_wrap=True)
    table.add_column("took", width=10, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, overflow="ellipsis", width=remark)
    for track in lines:
        took = (track.segments[-1].end - track.segments[0].begin).total_seconds() if track.segments else 0
        table.add_row(
            words(track.op, track.style),
            bar(track.segments, first, last, room),
            span(took),
            Text(one_line(track.remark), style=track.style or "bright_black"),
        )
    return table


def axis(room: int, seconds: float) -> Text:
    """The scale above the bars."""
    right = span(seconds)
    return Text("0" + right.rjust(room - 1), style="bright_black")


def bar(segments: Sequence[Segment], first: datetime, last: datetime, room: int) -> Text:
    """The bar of one operation: thick where it worked, dotted where it waited."""
    whole = max((last - first).total_seconds(), 1e-9)
    cells = [" "] * room
    styles = [""] * room
    for part in segments:
        begin = int((part.begin - first).total_seconds() / whole * room)
        end = round((part.end - first).total_seconds() / whole * room)
        begin = min(max(begin, 0), room - 1)
        for cell in range(begin, min(max(end, begin + 1), room)):
            cells[cell] = "┈" if part.dotted else "━"
            styles[cell] = part.style
    text = Text()
    for cell, style in zip(cells, styles, strict=True):
        text.append(cell, style=style)
    return text
