"""However runs are kept, dropped or fed: the same outcome, and the same journal to the byte."""

import asyncio

import pytest

from duramen.testing import suspend_matrix
from tests.crashes.scenarios import SCENARIOS


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_makes_no_difference_how_a_run_is_driven(name: str) -> None:
    scenario = SCENARIOS[name]
    report = asyncio.run(suspend_matrix(scenario.play, scenario.workflows))
    assert all(journal[0][0] == "run_created" for journal in report.journals.values())
    print(f"{name}: taken up {report.tenures}")
