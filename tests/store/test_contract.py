"""The one contract, on each of our stores and on one written in Python."""

from pathlib import Path

from duramen.store import Store
from duramen.testing import StoreContract, open_store
from tests.store.python_store import PythonStore


class TestMemory(StoreContract):
    durable = False

    async def open_store(self, place: Path) -> Store:
        return open_store(f"memory://{place.name}")


class TestSqlite(StoreContract):
    async def open_store(self, place: Path) -> Store:
        return open_store(f"sqlite:///{place / 'runs.db'}")


class TestPython(StoreContract):
    async def open_store(self, place: Path) -> Store:
        return PythonStore(place / "runs.db")
