"""The kit of each driver, on an empty store with a table of words beside it."""

import asyncio

import pytest

from duramen import Runtime
from tests.transactions.kits import DRIVERS, Kit, make


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def made_kit(request: pytest.FixtureRequest, driver: str) -> Kit:
    store = "sqlite" if driver.startswith("sqlite") else "postgres"
    made = make(driver, request.getfixturevalue(f"{store}_url"))
    asyncio.run(Runtime(made.url).migrate())
    made.create()
    return made


@pytest.fixture
def kit(made_kit: Kit) -> Kit:
    return made_kit
