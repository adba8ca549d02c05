"""A crash before and after every change of the store, resumed by the same and by another worker."""

import asyncio
from collections.abc import Callable

import pytest

from duramen.testing import crash_everywhere
from tests.crashes.scenarios import SCENARIOS

Record = Callable[[str, object], None]

LEAST = 3
"""So many changes every scenario makes: its creation, a claim or a commit, its end."""


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_crash_at_any_change_alters_nothing(
    name: str, record_property: Callable[[str, object], None]
) -> None:
    scenario = SCENARIOS[name]
    report = asyncio.run(crash_everywhere(scenario.play, scenario.workflows))
    assert len(report.changes) >= LEAST
    # Before and after each change, resumed by two workers.
    assert report.crashes >= 4 * len(report.changes)
    record_property("crash points", 2 * len(report.changes))
    record_property("crashes", report.crashes)
    print(f"{name}: {2 * len(report.changes)} crash points, {report.crashes} crashes")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retries", "race_with_timeout", "cancel_with_clean_up", "recorded_values"])
def test_a_second_crash_at_any_change_of_the_recovery_alters_nothing(name: str) -> None:
    scenario = SCENARIOS[name]
    report = asyncio.run(
        crash_everywhere(scenario.play, scenario.workflows, workers=("another",), again=True)
    )
    pairs = report.crashes - 2 * len(report.changes)
    assert pairs > 4 * len(report.changes)
    print(f"{name}: {report.crashes} crashes")


@pytest.mark.parametrize("driving", ["evicting", "one-by-one"])
@pytest.mark.parametrize("name", ["gather", "threads_and_shield", "lazy_steps", "swallowed_cancellation"])
def test_it_makes_no_difference_how_the_runs_are_driven(name: str, driving: str) -> None:
    scenario = SCENARIOS[name]
    asyncio.run(crash_everywhere(scenario.play, scenario.workflows, driving=driving))
