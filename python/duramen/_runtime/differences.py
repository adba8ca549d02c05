"""What the note of a stuck run says, in parts."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Difference"]

# As the engine writes it. `tests/runtime/test_differences.py` holds both together.
_PARTED = re.compile(
    r"the code no longer fits the journal at entry (?P<index>\d+): "
    r"(?:expected \(recorded\) )?(?P<expected>.*?), found (?P<found>.*?)"
    r"\. Nothing was lost: (?P<advice>.*?)(?: \(run of version \"(?P<version>.*)\"\))?\Z",
    re.DOTALL,
)
_UNREADABLE = re.compile(
    r"journal entry (?P<index>\d+) cannot be replayed: (?P<found>.*?)"
    r"\. Nothing was lost: (?P<advice>.*?)(?: \(run of version \"(?P<version>.*)\"\))?\Z",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """How code and journal of a stuck run differ.

    >>> found = Difference.of_note(
    ...     "the code no longer fits the journal at entry 1: expected (recorded) step_completed of 'book', "
    ...     "found a handler that has not asked for it; it waits for a step 'pay'. Nothing was lost: deploy "
    ...     'code that fits, then `retry` the run (run of version "1")'
    ... )
    >>> found.index, found.expected, found.found, found.version
    (1, "step_completed of 'book'", "a handler that has not asked for it; it waits for a step 'pay'", '1')
    """

    index: int
    """The place in the journal where they part."""
    expected: str
    """What is recorded there, with the id of its operation."""
    found: str
    """What the code does instead."""
    advice: str
    """What to do."""
    version: str | None = None
    """The version of the code."""

    @staticmethod
    def of_note(note: str | None) -> Difference | None:
        """Read it from a note; None if that says something else, such as that drivers were lost."""
        if note is None:
            return None
        parted = _PARTED.match(note)
        match = parted or _UNREADABLE.match(note)
        if match is None:
            return None
        expected = match["expected"] if parted else "an entry that can be read"
        return Difference(int(match["index"]), expected, match["found"], match["advice"], match["version"])
