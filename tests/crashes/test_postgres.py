"""The crash tests and the suspend matrix over Postgres: runs go there as they go in memory."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from duramen.testing import crash_everywhere, open_store, suspend_matrix
from duramen.testing._wrapped_store import WrappedStore
from tests.crashes.scenarios import SCENARIOS
from tests.crashes.test_processes import CORE
from tests.postgres.schemas import empty


class Kept(WrappedStore):
    """Stays open: emptying its tables takes a hundredth of what new ones take."""

    async def close(self) -> None:
        pass


@pytest.fixture
def new_store(postgres_url: str) -> Iterator[Callable[[], Any]]:
    store = open_store(postgres_url)
    # Or the order of things would be another each time: an environment knows only of what is at once.
    store.in_thread = False

    def emptied() -> Kept:
        empty(postgres_url)
        return Kept(store)

    yield emptied
    asyncio.run(store.close())


@pytest.mark.slow
@pytest.mark.parametrize("name", CORE)
def test_a_crash_at_any_change_alters_nothing(name: str, new_store: Callable[[], Any]) -> None:
    scenario = SCENARIOS[name]
    report = asyncio.run(crash_everywhere(scenario.play, scenario.workflows, new_store=new_store))
    assert report.crashes >= 4 * len(report.changes) > 8
    print(f"{name}: {report.crashes} crashes")


@pytest.mark.parametrize("name", SCENARIOS)
def test_it_makes_no_difference_how_a_run_is_driven(name: str, new_store: Callable[[], Any]) -> None:
    scenario = SCENARIOS[name]
    in_memory = asyncio.run(suspend_matrix(scenario.play, scenario.workflows))
    report = asyncio.run(suspend_matrix(scenario.play, scenario.workflows, new_store=new_store))
    assert report.journals == in_memory.journals
    assert report.outcome == in_memory.outcome
