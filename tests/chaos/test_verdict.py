"""The verdict finds what must not happen: each case has one thing wrong with it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.verdict import INSTANT, judge

RUN = "order:1"
GOOD = [
    "10 begin order:1 first f -",
    "11 end order:1 first f -",
    "20 begin order:1 left l f",
    "21 begin order:1 right r f",
    "22 end order:1 right r f",
    "23 end order:1 left l f",
    "30 begin order:1 last z l+r+word",
    "31 end order:1 last z l+r+word",
    "40 begin order:1 end e z",
    "41 end order:1 end e z",
]
OUTPUT = ["f", "l", "r", "word", "z", "e"]


class Case:
    """What the ledger and the store say; by itself nothing is wrong."""

    def __init__(self) -> None:
        self.words = {RUN: "word"}
        self.outputs: dict[str, list[str] | None] = {RUN: list(OUTPUT)}
        self.statuses = {RUN: "completed"}
        self.lines: dict[str, list[str]] = {"7": list(GOOD)}
        self.continued: dict[int, list[int]] = {}

    def wrong(self, folder: Path) -> list[str]:
        """Which rows of the table do not hold."""
        for pid, lines in self.lines.items():
            (folder / pid).write_text("".join(f"{line}\n" for line in lines))
        verdict = judge(self.words, self.outputs, self.statuses, folder, self.continued)
        assert verdict.holds == (not any(verdict.wrong.values()))
        assert ("WRONG" in str(verdict)) == (not verdict.holds)
        return [name for name, cases in verdict.wrong.items() if cases]


def lost(case: Case) -> None:
    case.statuses.clear()


def unknown(case: Case) -> None:
    case.statuses["order:2"] = "completed"


def stuck(case: Case) -> None:
    case.statuses[RUN] = "stuck"


def event(case: Case) -> None:
    case.words[RUN] = "another"


def invented(case: Case) -> None:
    case.outputs[RUN] = [*OUTPUT[:5], "nobody"]


def two_histories(case: Case) -> None:
    # A former owner's result was taken in place of the one that a step behind it had been given.
    case.lines["8"] = ["15 begin order:1 first g -", "16 end order:1 first g -"]
    case.outputs[RUN] = ["g", *OUTPUT[1:]]


def again(case: Case) -> None:
    case.lines["8"] = ["25 begin order:1 first g -", "26 end order:1 first g -"]


@pytest.mark.parametrize(
    ("spoil", "row"),
    [
        (lost, "runs lost"),
        (unknown, "runs that nobody started"),
        (stuck, "runs that did not end, or not well"),
        (event, "events lost or altered"),
        (invented, "results that no attempt came to"),
        (two_histories, "attempts that were given another history"),
        (again, "steps run again after their result was recorded"),
    ],
)
def test_each_row_of_the_table_can_be_wrong(tmp_path: Path, spoil: Callable[[Case], None], row: str) -> None:
    case = Case()
    spoil(case)
    assert case.wrong(tmp_path) == [row]


def test_attempts_that_were_cut_short_are_nothing_wrong(tmp_path: Path) -> None:
    case = Case()
    case.lines["8"] = ["12 begin order:1 first g -", "24 begin order:1 left m f", "25 end order:1 left m f"]
    assert case.wrong(tmp_path) == []


def test_only_the_instant_in_which_a_stopped_worker_goes_on_is_excused(tmp_path: Path) -> None:
    for at, excused in ((25, True), (25 - INSTANT, False), (26, False)):
        case = Case()
        again(case)
        case.continued = {8: [at]}
        assert (case.wrong(tmp_path) == []) == excused
    case.continued = {7: [25]}
    assert case.wrong(tmp_path) != []
