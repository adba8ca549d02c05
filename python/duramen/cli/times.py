"""Instants and durations for people."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["age", "ago", "span"]


def span(seconds: float) -> str:
    """A duration in two figures or so.

    >>> span(0.0042), span(1.234), span(75), span(7300), span(200000)
    ('4 ms', '1.2 s', '1 min 15 s', '2 h 1 min', '2 d 7 h')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, name, smaller, below in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {name}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """How long ago an instant was, or how far off it is.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> ago(noon, noon.replace(minute=5)), ago(noon.replace(hour=14), noon), ago(noon, noon), ago(None)
    ('5 min ago', 'in 2 h', 'now', '')
    """
    if at is None:
        return ""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    if abs(seconds) < 0.05:
        return "now"
    return f"{span(seconds)} ago" if seconds > 0 else f"in {span(-seconds)}"


def age(at: datetime, now: datetime) -> str:
    """How long ago an instant was, in one figure, for lists.

    >>> noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    >>> age(noon, noon.replace(hour=14, minute=5)), age(noon, noon.replace(second=8)), age(noon, noon)
    ('2 h ago', '8 s ago', 'now')
    """
    seconds = int(max(0.0, (now - at).total_seconds()))
    for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds // size} {name} ago"
    return "now"
