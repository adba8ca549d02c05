"""The kit of each driver, on an empty store with a table of words beside it."""

import asyncio

import pytest

from duramen import Runtime
from tests.transactions.kits import DRIVERS, Kit, make


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=DRIVERS)
def kit(request: pytest.FixtureRequest) -> Kit:
    store = "sqlite" if request.param.startswith("sqlite") else "postgres"
    made = make(request.param, request.getfixturevalue(f"{store}_url"))
    asyncio.run(Runtime(made.url).migrate())
    made.create()
    return made
