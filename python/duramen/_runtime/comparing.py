"""Where two runs part, and what their operations came to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .journals import NOTES, in_force

if TYPE_CHECKING:
    from .queries import Queries

    # ruff: noqa: TC004 - a dataclass names it, and nothing asks it what it is
    from .views import Event

__all__ = ["Comparing", "OperationDiff", "RunDiff"]

_WIDTH = 40


@dataclass(frozen=True, slots=True)
class OperationDiff:
    """An operation, and what it came to in each of two runs."""

    op: str
    """Its id; empty for the run itself: its input, or its end."""
    one: Event | None
    """The entry of its outcome in the first run; None if it has none there."""
    other: Event | None
    """The same in the second run."""

    @property
    def same(self) -> bool:
        """Whether it came to the same in both."""
        return _told(self.one) == _told(self.other)

    def words(self) -> tuple[str, str, str]:
        """The operation and its two outcomes in a few words."""
        return self.op or "(the run)", _shown(self.one), _shown(self.other)


@dataclass(frozen=True, slots=True)
class RunDiff:
    """How two runs differ. Its text is a table for people."""

    one: str
    """Id of the first run."""
    other: str
    """Id of the second run."""
    parting: OperationDiff | None
    """The first place at which the journals tell their handlers different things; None if they never do."""
    operations: tuple[OperationDiff, ...]
    """Every operation of either run, in the order of the first run, then of the second."""

    @property
    def same(self) -> bool:
        """Whether the handlers were told the same, in the same order."""
        return self.parting is None

    @property
    def differences(self) -> tuple[OperationDiff, ...]:
        """The operations that came to something else, or that one of the runs does not have."""
        return tuple(each for each in self.operations if not each.same)

    def __str__(self) -> str:
        if self.parting is None:
            return f"{self.one} and {self.other} do not differ"
        rows = [("", self.one, self.other)]
        rows += [each.words() for each in self.differences]
        first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
        lines = [f"{row[0]:<{first}}  {row[1]:<{second}}  {row[2]}".rstrip() for row in rows]
        parting = self.parting
        place = f"they part at {parting.op!r}" if parting.op else "they part at the run's own entry"
        return "\n".join([f"{place}: {_shown(parting.one)}, {_shown(parting.other)}", *lines])


class Comparing:
    """The call that compares two runs."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    async def diff(self, one: str, other: str) -> RunDiff:
        """See `Runtime.diff`."""
        first = _outcomes(await self._queries.timeline(one))
        second = _outcomes(await self._queries.timeline(other))
        parting: OperationDiff | None = None
        for place in range(max(len(first), len(second))):
            mine = first[place] if place < len(first) else None
            theirs = second[place] if place < len(second) else None
            if _told(mine) != _told(theirs):
                parting = OperationDiff(mine.op if mine is not None else _op(theirs), mine, theirs)
                break
        by_op = [{_key(event): event for event in events} for events in (first, second)]
        keys = dict.fromkeys([*by_op[0], *by_op[1]])
        operations = tuple(OperationDiff(key[0], by_op[0].get(key), by_op[1].get(key)) for key in keys)
        return RunDiff(one, other, parting, operations)


def _op(event: Event | None) -> str:
    return "" if event is None else event.op


def _key(event: Event) -> tuple[str, str]:
    """What belongs together: outcomes of an operation, whatever they are; the run's beginning, its end."""
    if not event.op:
        return "", "end" if event.kind.startswith("run_") and event.kind != "run_created" else event.kind
    return event.op, "patch" if event.kind == "patch_marked" else ""


def _outcomes(events: list[Event]) -> list[Event]:
    """The entries in force that tell the handler something."""
    counting = in_force([event.kind for event in events], [event.cause for event in events])
    return [events[place] for place in counting if events[place].kind not in NOTES]


def _told(event: Event | None) -> Any:
    if event is None:
        return None
    error = event.error
    return event.kind, event.op, event.data, None if error is None else (error.type_name, error.message)


def _shown(event: Event | None) -> str:
    if event is None:
        return "-"
    kind = event.kind.removeprefix("step_").removeprefix("run_")
    text = "" if event.data is None else repr(event.data)
    if event.error is not None:
        text = str(event.error)
    told = f"{kind} {text}".strip().replace("\n", " ")
    return told if len(told) <= _WIDTH else f"{told[: _WIDTH - 1]}…"
