"""What the tests of several folders share: a Postgres server, and the stores that a test runs on."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres.schemas import drop, empty, migrate, new_schema
from tests.postgres.server import URL_VARIABLE, server

# A shell ignores SIGINT for what it starts in the background, `nohup` SIGHUP, and programs that tests start
# would inherit that. A function is not inherited: what is started has the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a database on the server that all tests share: the one given, or one started for them."""
    given = os.environ.get(URL_VARIABLE)
    if given:
        yield given
        return
    with server() as pg:
        yield pg.new_database("tests")


@pytest.fixture
def new_postgres_url(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Gives URLs of empty stores, each in a schema of its own, with its tables."""
    made: list[str] = []

    def make() -> str:
        url = new_schema(request.getfixturevalue("postgres_server"))
        made.append(url)
        migrate(url)
        return url

    yield make
    for url in made:
        drop(url)


@pytest.fixture
def postgres_url(new_postgres_url: Callable[[], str]) -> str:
    """The URL of an empty store on Postgres."""
    return new_postgres_url()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the SQLite file of this test is."""
    return tmp_path / "runs.db"


@pytest.fixture
def sqlite_url(file: Path) -> str:
    return f"sqlite:///{file}"


@pytest.fixture
def memory_url() -> str:
    return "memory://"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty store that outlives a process; the test runs on each kind."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def any_url(request: pytest.FixtureRequest) -> str:
    """An empty store; the test runs on each kind."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture(params=["sqlite", "postgres"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Gives the URL of an empty store that outlives a process; what was in the last one may be gone."""
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")

        def emptied() -> str:
            empty(url)  # a hundredth of the work that new tables are
            return url

        return emptied
    numbers = iter(range(10**9))
    return lambda: f"sqlite:///{tmp_path}/{next(numbers)}.db"
