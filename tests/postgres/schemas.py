"""Stores in schemas of their own on one server, and a look into their tables."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg import sql

from duramen.testing import open_store

OURS = {"schema", "isolation", "pool_size", "statement_cache", "store_timeout", "notify", "flavour"}
"""Parameters of a store's URL that libpq does not know."""


IN_PARTS = Path(__file__).parents[2] / "crates/duramen-store-postgres/tests/suite/in_parts.sql"
"""Makes the tables of runs into partitioned ones; they are empty."""


def new_schema(url: str) -> str:
    """The URL of a store in a schema that does not exist yet."""
    return in_schema(url, f"t_{secrets.token_hex(6)}")


def in_schema(url: str, schema: str) -> str:
    parts = urlsplit(url)
    query = [
        *((name, value) for name, value in parse_qsl(parts.query) if name != "schema"),
        ("schema", schema),
    ]
    return parts._replace(query=urlencode(query)).geturl()


def without_schema(url: str) -> tuple[str, str]:
    """A URL as libpq takes it, and the schema that it named."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query)
    schema = dict(query).get("schema", "duramen")
    rest = urlencode([(name, value) for name, value in query if name not in OURS])
    return parts._replace(query=rest).geturl(), schema


def migrate(url: str) -> None:
    """Make a store's tables; unlike others a Postgres store does not do so when a runtime opens it."""
    open_store(url, migrate=True)._native.close()  # without an event loop: one may be running


def put_in_parts(url: str) -> None:
    """Make a store's tables, and of those of runs tables in parts by run id."""
    migrate(url)
    with connected(url) as connection:
        connection.execute(IN_PARTS.read_bytes())


@contextmanager
def connected(url: str, **options: Any) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a store's database that finds its tables without naming the schema."""
    base, schema = without_schema(url)
    options = {"autocommit": True, "connect_timeout": 10, **options}
    with psycopg.connect(base, options=f"-c search_path={schema}", **options) as connection:
        yield connection


def drop(url: str) -> None:
    base, schema = without_schema(url)
    with psycopg.connect(base, autocommit=True, connect_timeout=10) as connection:
        # A transaction that a test left open holds its tables: that is a defect, and no reason to hang.
        connection.execute("SET lock_timeout = '10s'")
        connection.execute("SET client_min_messages = 'warning'")
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))


def empty(url: str) -> None:
    """Delete every run of a store."""
    with connected(url) as connection:
        for name in tables(url):
            if "migrations" not in name:
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))


def tables(url: str) -> list[str]:
    with connected(url) as connection:
        found = connection.execute(
            "SELECT table_name FROM information_schema.tables "
            "WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY 1"
        )
        return [name for (name,) in found]
