"""Fleets on an application with a ledger of its effects."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from duramen import RunRequest, Runtime
from tests.workers.fleets import Fleet


class Shop:
    """A store, a ledger of what steps did, and the fleets that were started on them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.fleets: list[Fleet] = []
        self._ledger = folder / "ledger"
        self._ledger.touch()
        asyncio.run(self._migrate())

    async def _migrate(self) -> None:
        await Runtime(self.url).migrate()

    def fleet(self, *options: str, app: str = "tests.workers.app:make", **environment: str) -> Fleet:
        """Start a fleet."""
        environment = {"APP_URL": self.url, "APP_LEDGER": str(self._ledger), **environment}
        fleet = Fleet(self.folder, app, options, environment)
        self.fleets.append(fleet)
        return fleet

    def enqueue(self, workflow: Any, count: int, given: Any = None, prefix: str = "") -> list[str]:
        """Create runs; their ids."""
        ids = [f"{prefix or workflow.name}:{n}" for n in range(count)]

        async def enqueue() -> None:
            async with Runtime(self.url, workflows=[workflow]) as runtime:
                await runtime.enqueue_many([RunRequest(workflow, given, run_id=run_id) for run_id in ids])

        asyncio.run(enqueue())
        return ids

    def signal(self, run_ids: Iterable[str], name: str) -> None:
        """Send each of them an event."""

        async def send() -> None:
            async with Runtime(self.url) as runtime:
                await asyncio.gather(*(runtime.signal(run_id, name, None) for run_id in run_ids))

        asyncio.run(send())

    def runs(self) -> dict[str, str]:
        """Every run with its status."""

        async def look() -> dict[str, str]:
            async with Runtime(self.url) as runtime:
                return {run.run_id: str(run.status) for run in await runtime.list(limit=1000)}

        return asyncio.run(look())

    def all_are(self, ids: Iterable[str], status: str) -> bool:
        """Whether all of them have that status."""
        runs = self.runs()
        return all(runs[run_id] == status for run_id in ids)

    @property
    def lines(self) -> list[str]:
        """What steps did, in order."""
        return self._ledger.read_text("utf-8").split("\n")[:-1]

    @property
    def ledger(self) -> Counter[str]:
        """What steps did, each line as often as it was written."""
        return Counter(self.lines)

    def ran_again_after_its_record(self) -> list[str]:
        """Steps of `quick` that began although a later one of their run had: what was recorded then."""
        furthest: dict[str, str] = {}
        again = list[str]()
        for line in self.lines:
            kind, _, rest = line.partition(" ")
            run_id, _, name = rest.rpartition("/")
            if kind == "begins":
                if name < furthest.get(run_id, ""):
                    again.append(rest)
                furthest[run_id] = max(name, furthest.get(run_id, ""))
        return again


def open_shop(folder: Path, url: str) -> Iterator[Shop]:
    shop = Shop(folder, url)
    try:
        yield shop
    finally:
        for fleet in shop.fleets:
            fleet.clear()


# What a test shows does not depend on the store as a rule: most run on one, so that all take half the time.
@pytest.fixture
def shop(tmp_path: Path, sqlite_url: str) -> Iterator[Shop]:
    yield from open_shop(tmp_path, sqlite_url)


@pytest.fixture
def postgres_shop(tmp_path: Path, postgres_url: str) -> Iterator[Shop]:
    """For tests that stop a process at any moment: on SQLite it may hold the lock of the file then."""
    yield from open_shop(tmp_path, postgres_url)


@pytest.fixture
def any_shop(tmp_path: Path, url: str) -> Iterator[Shop]:
    yield from open_shop(tmp_path, url)
