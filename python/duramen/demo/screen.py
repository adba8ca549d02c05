"""What the demonstration shows: the progress while it runs, the proof at its end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .conductor import Happened
    from .proof import Claim

__all__ = ["Screen", "proof_table"]

# In the order in which a run goes through them.
STYLES = {
    "completed": "green",
    "failed": "red",
    "stuck": "bold red",
    "paused": "bold yellow",
    "running": "cyan",
    "waiting": "yellow",
    "queued": "bright_black",
}


class Screen:
    """The progress: alive on a terminal, a line for each incident elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        )
        self._noted = 0
        self._said = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, happened: Happened) -> None:
        """Show how far it is."""
        for at, text in happened.notes[self._noted :]:
            self._console.print(incident(at, text), soft_wrap=True)
        self._noted = len(happened.notes)
        if self._live:
            self._live.update(progress(happened, self._console.width), refresh=True)
        elif time.monotonic() - self._said > 3:
            self._said = time.monotonic()
            self._console.print(legend(happened), soft_wrap=True)


def incident(at: float, text: str) -> Text:
    """A line of what happened; `at` in seconds."""
    return Text.assemble((f"{at:6.1f} s  ", "bright_black"), text)


def legend(happened: Happened) -> Text:
    """How many runs are in each status."""
    line = Text(f"{time.time() - happened.started:6.1f} s  ", style="bright_black")
    for status, style in STYLES.items():
        count = happened.counts.get(status, 0)
        if count or status in {"completed", "running", "waiting", "queued"}:
            line.append(f"{status} {count:<5}", style=style)
    return line


def progress(happened: Happened, width: int) -> RenderableType:
    """One bar of all runs, a colour for each status, and its legend."""
    total = max(1, len(happened.orders))
    room = max(20, min(width, 100) - 2)
    bar = Text(" ")
    drawn = seen = 0
    for status, style in STYLES.items():
        seen += happened.counts.get(status, 0)
        upto = round(room * min(1, seen / total))
        bar.append("━" * (upto - drawn), style=style)
        drawn = upto
    return Group(bar, legend(happened))


def proof_table(claims: Sequence[Claim]) -> Table:
    """The claims as a table, with what contradicts the ones that do not hold."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("")
    table.add_column("what was checked, in the journals and in the warehouse's books")
    table.add_column("expected", justify="right")
    table.add_column("found", justify="right")
    for claim in claims:
        mark = Text("✓", style="bold green") if claim.holds else Text("✗", style="bold red")
        table.add_row(mark, claim.text, claim.expected, claim.found)
        if not claim.holds:
            for detail in claim.details[:10]:
                table.add_row("", Text(detail, style="red"), "", "")
            if len(claim.details) > 10:
                table.add_row("", Text(f"… and {len(claim.details) - 10} more", style="red"), "", "")
    return table
