"""What the tests of several folders share: a Postgres server, and the stores that a test runs on."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.postgres.server import URL_VARIABLE, server


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
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a store with a schema of its own, which does not exist yet."""
    schema = f"t_{secrets.token_hex(6)}"
    yield f"{postgres_server}{'&' if '?' in postgres_server else '?'}schema={schema}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        # A transaction that a test left open holds its tables: that is a defect, and no reason to hang.
        connection.execute("SET lock_timeout = '10s'")
        connection.execute("SET client_min_messages = 'warning'")
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the SQLite file of this test is."""
    return tmp_path / "runs.db"


@pytest.fixture
def sqlite_url(file: Path) -> str:
    return f"sqlite:///{file}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """A durable store, empty; the test runs on each kind."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found
