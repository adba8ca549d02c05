"""The failing wire itself, with another client than ours."""

import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.postgres.wire import Wire, wire
from tests.regressions.support import wait_until


@pytest.fixture
def proxy(postgres_server: str) -> Iterator[Wire]:
    with wire(urlsplit(postgres_server).port or 5432) as proxy:
        yield proxy


@pytest.fixture
def table(postgres_server: str) -> Iterator[str]:
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS cut")
        connection.execute("CREATE TABLE cut (n int)")
        yield "cut"
        connection.execute("DROP TABLE cut")


def through(proxy: Wire, url: str, **options: str) -> psycopg.Connection[tuple[int]]:
    parts = urlsplit(url)
    there = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
    return psycopg.connect(parts._replace(netloc=there).geturl(), autocommit=True, **options)


def rows(url: str) -> list[tuple[int]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT n FROM cut ORDER BY n").fetchall()


@pytest.mark.parametrize("sslmode", ["disable", "prefer"])
def test_it_passes_everything_on_and_counts_requests(proxy: Wire, postgres_server: str, sslmode: str) -> None:
    with through(proxy, postgres_server, sslmode=sslmode) as connection:
        assert connection.execute("SELECT %s::int * 7", (6,)).fetchall() == [(42,)]
        big = connection.execute("SELECT repeat('x', 3000000)").fetchall()
        assert len(str(big)) > 3_000_000
    assert proxy.requests == 2
    assert proxy.log == ["SELECT $1::int * 7", "SELECT repeat('x', 3000000)"]


@pytest.mark.parametrize(("side", "kept"), [("before", []), ("after", [(1,)])])
@pytest.mark.parametrize("values", [(), (1,)], ids=["simple", "extended"])
def test_a_cut_is_before_or_after_the_server_saw_the_request(
    proxy: Wire, postgres_server: str, table: str, side: str, kept: list[tuple[int]], values: tuple[int]
) -> None:
    connection = through(proxy, postgres_server)
    connection.execute("SELECT 1")
    proxy.cut(1, "before" if side == "before" else "after")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("INSERT INTO cut VALUES (%s)" if values else "INSERT INTO cut VALUES (1)", values)
    assert proxy.cut_happened
    assert rows(postgres_server) == kept
    with through(proxy, postgres_server) as another:
        assert another.execute("SELECT 1").fetchall() == [(1,)]


def test_what_was_held_arrives_though_its_sender_gave_up(
    proxy: Wire, postgres_server: str, table: str
) -> None:
    connection = through(proxy, postgres_server)
    connection.execute("SELECT 1")
    proxy.stall()
    connection.pgconn.send_query(b"INSERT INTO cut VALUES (1)")
    connection.pgconn.flush()
    wait_until(lambda: proxy.requests == 2)
    connection.pgconn.finish()
    assert rows(postgres_server) == []
    proxy.resume()
    wait_until(lambda: rows(postgres_server) == [(1,)])


def test_a_vanished_server_is_silent(proxy: Wire, postgres_server: str) -> None:
    connection = through(proxy, postgres_server)
    connection.execute("SELECT 1")
    proxy.vanish()
    connection.pgconn.send_query(b"SELECT 1")
    connection.pgconn.flush()
    time.sleep(0.2)
    connection.pgconn.consume_input()  # would raise if the connection were closed
    assert connection.pgconn.is_busy()
    connection.pgconn.finish()
    with through(proxy, postgres_server) as another:
        assert another.execute("SELECT 1").fetchall() == [(1,)]
