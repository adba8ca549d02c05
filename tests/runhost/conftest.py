from typing import Any

import pytest

from tests.runhost.harness import Harness


@pytest.fixture(params=["memory", "sqlite"])
def scheme(request: Any) -> str:
    return request.param


@pytest.fixture(params=["warm", "cold"])
def warm(request: Any) -> int:
    return 1000 if request.param == "warm" else 0


@pytest.fixture
def harness(scheme: str, warm: int, tmp_path: Any) -> Harness:
    """One on each store, with paused runs kept in memory or dropped at once."""
    location = str(tmp_path / "runs.db") if scheme == "sqlite" else ""
    return Harness(scheme, location, warm)


@pytest.fixture
def memory() -> Harness:
    return Harness()
