"""The one contract, on each of our stores and on one written in Python."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from duramen.store import Store
from duramen.testing import StoreContract, open_store
from tests.postgres.schemas import drop, new_schema, put_in_parts
from tests.store.python_store import PythonStore


class TestMemory(StoreContract):
    durable = False

    async def open_store(self, place: Path) -> Store:
        return open_store(f"memory://{place.name}")


class TestSqlite(StoreContract):
    async def open_store(self, place: Path) -> Store:
        return open_store(f"sqlite:///{place / 'runs.db'}")


class TestPostgres(StoreContract):
    @pytest.fixture(autouse=True)
    def _schemas(self, postgres_server: str) -> Iterator[None]:
        self.server = postgres_server
        self.urls: dict[Path, str] = {}
        yield
        for url in self.urls.values():
            drop(url)

    async def open_store(self, place: Path) -> Store:
        if place not in self.urls:
            self.urls[place] = new_schema(self.server)
        return open_store(self.urls[place], migrate=True)


class TestPostgresInParts(TestPostgres):
    """Over tables that are divided by run id, where each statement names one run."""

    async def open_store(self, place: Path) -> Store:
        if place not in self.urls:
            url = self.urls[place] = f"{new_schema(self.server)}&flavour=routed"
            put_in_parts(url)
        return open_store(self.urls[place])


class TestPython(StoreContract):
    async def open_store(self, place: Path) -> Store:
        return PythonStore(place / "runs.db")
