"""Lists that fit the width of the terminal without breaking or cutting what identifies a line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Column", "lines"]

GAP = 2
"""Blanks between two columns."""

LEAST = 24
"""Columns that the last column is worth showing in."""

SHORTEST = 8
"""Columns that a column may be shortened to."""

QUIET = "bright_black"


@dataclass
class Column:
    """A column with all its cells."""

    title: str
    cells: list[Text]
    right: bool = False
    needed: bool = False
    """It is shown however narrow the terminal is."""
    shrinks: bool = False
    """It may be shortened where there is little room."""

    @property
    def width(self) -> int:
        """Columns of the terminal that its widest cell takes."""
        return max([cell_len(cell.plain) for cell in self.cells] + [len(self.title)])


def lines(width: int, key: Column, columns: Sequence[Column], last: Column) -> Iterator[Text]:
    """Lay a list out; print the lines with `soft_wrap`.

    If there is room, each row is a line. If not, what `last` has goes beneath the row, and columns are
    shortened or left out. If even `key` and what is needed do not fit, `key` stands alone on its line. It is
    never shortened.

    Args:
        width: columns of the terminal.
        key: what identifies a row.
        columns: the others, in order.
        last: what there is to say about a row; may be empty, and is shortened to the room there is.
    """
    room = width - key.width - sum(GAP + column.width for column in columns)
    if room - GAP >= min(last.width, LEAST):
        every = [(column, column.width) for column in (key, *columns)]
        every.append((last, room - GAP))
        yield _heading(every)
        yield from (_row(every, at) for at in range(len(key.cells)))
        return
    chosen = _chosen(width - key.width, columns)
    if chosen is not None:
        yield _heading([(key, key.width), *chosen])
    beneath = [(column, column.width) for column in columns if column.needed]
    for at, name in enumerate(key.cells):
        if chosen is not None:
            yield _row([(key, key.width), *chosen], at)
        else:
            yield name
            yield Text("  ") + _row(_chosen(width - GAP, columns) or beneath, at)
        if last.cells[at].plain:
            told = Text("  ") + last.cells[at]
            told.truncate(width, overflow="ellipsis")
            yield told


def _chosen(room: int, columns: Sequence[Column]) -> list[tuple[Column, int]] | None:
    """The columns that fit, each with its width, or None if those that are needed do not."""
    room -= sum(GAP + column.width for column in columns if column.needed)
    if room < 0:
        return None
    chosen: list[tuple[Column, int]] = []
    for column in columns:
        wanted = 0 if column.needed else column.width + GAP
        if wanted > room and column.shrinks and room >= SHORTEST + GAP:
            wanted = room
        if wanted <= room:
            room -= wanted
            chosen.append((column, wanted - GAP if wanted else column.width))
    return chosen


def _heading(columns: Sequence[tuple[Column, int]]) -> Text:
    return _line([(Text(column.title, QUIET), width, column.right) for column, width in columns])


def _row(columns: Sequence[tuple[Column, int]], at: int) -> Text:
    return _line([(column.cells[at], width, column.right) for column, width in columns])


def _line(cells: Sequence[tuple[Text, int, bool]]) -> Text:
    line = Text()
    for cell, width, right in cells:
        shown = cell.copy()
        shown.truncate(width, overflow="ellipsis")
        blanks = " " * (width - cell_len(shown.plain))
        if line.plain:
            line.append(" " * GAP)
        if right:
            line.append(blanks)
        line.append_text(shown)
        if not right:
            line.append(blanks)
    line.rstrip()
    return line
