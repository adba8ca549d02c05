"""A process may end before and after any change of a store, and another one takes over."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crashes import processes
from tests.crashes.scenarios import SCENARIOS
from tests.regressions.support import assert_no_recorded_step_ran_again, notes

CORE = [
    "gather", "retries", "event_late", "approval", "cancel_with_clean_up", "state", "recorded_values",
    "children", "cancel_with_a_child", "messages_between_runs",
]  # fmt: skip
"""Every primitive once; all scenarios have their crashes inside of one process."""


def outcome(ledger: Path) -> list[str]:
    return [line for line in notes(ledger) if line.startswith("outcome ")]


@pytest.mark.slow
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("name", CORE)
def test_another_process_takes_over(new_url: Callable[[], str], name: str, side: str, tmp_path: Path) -> None:
    assert name in SCENARIOS
    processes.expected(name, new_url(), tmp_path / "0.txt")
    (wanted,) = outcome(tmp_path / "0.txt")
    for at in itertools.count(1):
        url, ledger = new_url(), tmp_path / f"{at}.txt"
        died = processes.play(name, url, ledger, at, side, 0)
        if died:
            assert not outcome(ledger)
            assert not processes.play(name, url, ledger, 0, side, 1)
        assert outcome(ledger) == [wanted], f"died {side} change {at}"
        assert_no_recorded_step_ran_again(ledger)
        if not died:
            break
    assert at > 3
    print(f"{name}: {at - 1} processes died {side} a change")


@pytest.mark.slow
def test_a_scenario_ends_though_every_process_dies_after_a_few_changes(
    new_url: Callable[[], str], tmp_path: Path
) -> None:
    name = "several_runs"
    processes.expected(name, new_url(), tmp_path / "0.txt")
    url, ledger = new_url(), tmp_path / "1.txt"
    # Three changes of each life are calls that the caller makes again.
    for life in itertools.count():
        assert life < 40
        if not processes.play(name, url, ledger, 7, "after", life):
            break
    assert life > 3
    assert outcome(ledger) == outcome(tmp_path / "0.txt")
    assert_no_recorded_step_ran_again(ledger)
