"""Workers of two builds on one store."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from duramen import Runtime
from duramen.store import NewMessage, OwnerRow, RunRow, Store
from duramen.testing import open_store
from tests.versions.app import WORKFLOWS
from tests.versions.builds import newer_package
from tests.workers.conftest import Shop
from tests.workers.fleets import Fleet

T = TypeVar("T")


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What comes first in `PYTHONPATH` of a newer build."""
    began = time.monotonic()
    folder = newer_package(tmp_path_factory.mktemp("newer"))
    print(f"the newer build took {time.monotonic() - began:.0f} s")
    return folder


class Street(Shop):
    """A store with workers of this build, the older one, and of a newer one."""

    def __init__(self, folder: Path, url: str, newer: Path) -> None:
        super().__init__(folder, url)
        self.gate = folder / "gate"
        self._newer = newer

    def older_worker(self) -> Fleet:
        """Start a worker of this build."""
        return self._worker()

    def newer_worker(self) -> Fleet:
        """Start a worker of the newer build."""
        return self._worker(PYTHONPATH=str(self._newer))

    def _worker(self, **environment: str) -> Fleet:
        options = ("--processes", "1", "--concurrency", "8")
        app = "tests.versions.app:make"
        return self.fleet(*options, app=app, APP_GATE=str(self.gate), **environment).ready(1)

    def open_gate(self) -> None:
        """Let held steps end."""
        self.gate.touch()

    def here(self, work: Callable[[Runtime], Awaitable[T]]) -> T:
        """Do something with a runtime of this build."""

        async def do() -> T:
            async with Runtime(self.url, workflows=WORKFLOWS) as runtime:
                return await work(runtime)

        return asyncio.run(do())

    def in_store(self, work: Callable[[Store], Awaitable[T]]) -> T:
        """Do something with the store itself."""

        async def do() -> T:
            store = open_store(self.url)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(do())

    def rows(self) -> dict[str, RunRow]:
        """Every run's row."""

        async def look(store: Store) -> dict[str, RunRow]:
            return {row["run_id"]: row for row in (await store.list({}, 1000, None))["rows"]}

        return self.in_store(look)

    def owners(self) -> dict[str, OwnerRow]:
        """Every owner by its name."""

        async def look(store: Store) -> dict[str, OwnerRow]:
            return {owner["owner"]: owner for owner in await store.owners()}

        return self.in_store(look)

    def send_newer(self, run_id: str, name: str = "news", message_id: str = "m") -> str:
        """Send a message of a newer client; gives what became of it."""
        message: NewMessage = {
            "run_id": run_id,
            "message_id": message_id,
            "kind": "event",
            "name": name,
            "payload": b'"later"',
            "fingerprint": None,
            "encoding": 2,
            "now": None,
        }

        async def send(store: Store) -> str:
            (delivered,) = await store.deliver([message])
            return delivered["result"]

        return self.in_store(send)

    def history(self, run_id: str) -> Any:
        """The run as it is exported."""
        return self.here(lambda runtime: runtime.export(run_id))

    def done_by(self, run_id: str) -> dict[str, str]:
        """Which build did each step of a run."""
        found = dict[str, str]()
        for line in self.lines:
            build, _, rest = line.partition(" ")
            run, _, step = rest.rpartition("/")
            if run == run_id:
                assert step not in found, f"{step} of {run_id} was done twice: {self.lines}"
                found[step] = build
        return found


@pytest.fixture
def street(tmp_path: Path, url: str, newer: Path) -> Iterator[Street]:
    street = Street(tmp_path, url, newer)
    try:
        yield street
    finally:
        for fleet in street.fleets:
            fleet.clear()
