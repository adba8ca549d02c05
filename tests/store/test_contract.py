"""The one contract, on each of our stores."""

from pathlib import Path

from duramen.store import Store
from duramen.testing import StoreContract, open_store


class TestMemory(StoreContract):
    durable = False

    async def open_store(self, place: Path) -> Store:
        return open_store(f"memory://{place.name}")


class TestSqlite(StoreContract):
    async def open_store(self, place: Path) -> Store:
        return open_store(f"sqlite:///{place / 'runs.db'}")
