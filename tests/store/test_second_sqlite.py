"""Another copy of SQLite on a file that a store of this process has open is told about, once."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import aiosqlite
import pytest
import sqlalchemy

from duramen import Runtime, sqlite
from duramen._stores.url import parse_target


def by_name(path: Path) -> None:
    sqlite3.connect(path).close()


def by_keyword(path: Path) -> None:
    sqlite3.connect(database=str(path)).close()


def by_bytes(path: Path) -> None:
    sqlite3.connect(os.fsencode(path)).close()


def by_uri(path: Path) -> None:
    sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True).close()


def by_short_uri(path: Path) -> None:
    sqlite3.connect(f"file:{path}?mode=ro", uri=True).close()


def by_dbapi2(path: Path) -> None:
    sqlite3.dbapi2.connect(path).close()


def by_another_name(path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    sqlite3.connect(link).close()


def by_sqlalchemy(path: Path) -> None:
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    engine.connect().close()
    engine.dispose()


def by_aiosqlite(path: Path) -> None:
    async def main() -> None:
        async with aiosqlite.connect(path):
            pass

    asyncio.run(main())


WAYS = [
    by_name, by_keyword, by_bytes, by_uri, by_short_uri, by_dbapi2, by_another_name, by_sqlalchemy,
    by_aiosqlite,
]  # fmt: skip


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if "second copy" in each.getMessage()]


@pytest.mark.parametrize("way", WAYS)
def test_it_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, way: Callable[[Path], None]
) -> None:
    path = tmp_path / "app.db"
    runtime = Runtime(f"sqlite:///{path}")
    runtime.sync.open()
    try:
        way(path)
        assert len(warnings_of(caplog)) == 1
        assert "duramen.sqlite.connect()" in warnings_of(caplog)[0]
        by_name(path)
        assert len(warnings_of(caplog)) == 1
    finally:
        runtime.sync.close()


def test_what_does_no_harm_is_not_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, other = tmp_path / "app.db", tmp_path / "other.db"
    runtime = Runtime(f"sqlite:///{path}")
    runtime.sync.open()
    try:
        by_name(other)
        sqlite3.connect(":memory:").close()
        with closing(sqlite.connect(path)) as connection:
            connection.execute("SELECT 1")
        child = os.fork()
        if child == 0:
            by_name(path)
            os._exit(len(warnings_of(caplog)))
        assert os.waitpid(child, 0)[1] == 0
    finally:
        runtime.sync.close()
    by_name(path)
    assert not warnings_of(caplog)


def test_the_replaced_function_is_as_before(tmp_path: Path) -> None:
    runtime = Runtime(f"sqlite:///{tmp_path / 'app.db'}")
    runtime.sync.open()
    runtime.sync.close()
    with closing(sqlite3.connect(tmp_path / "other.db", timeout=1, isolation_level=None)) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(TypeError):
        sqlite3.connect()
    with pytest.raises(sqlite3.OperationalError):
        sqlite3.connect(tmp_path / "nowhere" / "app.db")


def test_two_runtimes_on_one_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The last one's end is the end of the watch."""
    path = tmp_path / "app.db"
    one, two = Runtime(f"sqlite:///{path}"), Runtime(f"sqlite:///{path}")
    one.sync.open()
    two.sync.open()
    one.sync.close()
    try:
        by_name(path)
        assert len(warnings_of(caplog)) == 1
    finally:
        two.sync.close()


def test_the_level(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runtime = Runtime(f"sqlite:///{tmp_path / 'app.db'}")
    runtime.sync.open()
    by_name(Path(parse_target(f"sqlite:///{tmp_path / 'app.db'}").location))
    runtime.sync.close()
    assert {each.levelno for each in caplog.records if "second copy" in each.getMessage()} == {
        logging.WARNING
    }
