"""A new file is its owner's alone; a look leaves files as they are."""

import asyncio
import hashlib
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from duramen import Runtime
from duramen.errors import DuramenError

OPEN = """
import asyncio, os, sys
from duramen import Runtime
os.umask(int(sys.argv[2], 8))
async def main():
    async with Runtime("sqlite:///" + sys.argv[1]) as runtime:
        await runtime.count()
        for name in sorted(os.listdir(os.path.dirname(os.path.realpath(sys.argv[1])))):
            at = os.path.join(os.path.dirname(os.path.realpath(sys.argv[1])), name)
            print(name, oct(os.stat(at).st_mode & 0o777))
asyncio.run(main())
"""


def modes(path: Path, umask: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(path), umask], capture_output=True, text=True, check=True, timeout=60
    )
    return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("umask", "mode"), [("022", "0o600"), ("000", "0o600"), ("077", "0o600"), ("177", "0o600")]
)
def test_a_new_file_and_what_is_beside_it(tmp_path: Path, umask: str, mode: str) -> None:
    found = modes(tmp_path / "app.db", umask)
    assert found == dict.fromkeys(("app.db", "app.db-shm", "app.db-wal"), mode)


def test_a_stricter_umask_is_respected(tmp_path: Path) -> None:
    """Without leave to write it there is no store, as root alone can try."""
    if os.geteuid() != 0:
        pytest.skip("only root can open it then")
    assert modes(tmp_path / "app.db", "277")["app.db"] == "0o400"


def test_a_file_behind_links(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "second.db").symlink_to("there/app.db")
    (tmp_path / "first.db").symlink_to(tmp_path / "second.db")
    assert modes(tmp_path / "first.db", "022")["app.db"] == "0o600"


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o600])
def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "app.db"
    path.touch()
    path.chmod(mode)
    assert modes(path, "022")["app.db"] == oct(mode)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def empty(path: Path) -> None:
    path.touch()


def of_others(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE account (id)")


def of_others_with_a_log(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE account (id)")


def with_a_header_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 7")


def no_database(path: Path) -> None:
    path.write_text("just some words\n" * 100)


@pytest.mark.parametrize("make", [empty, of_others, of_others_with_a_log, with_a_header_alone, no_database])
def test_a_look_changes_nothing(tmp_path: Path, make: object) -> None:
    path = tmp_path / "app.db"
    assert callable(make)
    make(path)
    before = hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, path.stat().st_mode

    async def look() -> None:
        async with Runtime(f"sqlite:///{path}", migrate=False):
            raise AssertionError("it is no store")

    for _ in range(2):
        with pytest.raises(DuramenError):
            asyncio.run(look())
    assert before == (
        hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, path.stat().st_mode
    )  # fmt: skip
    assert [each.name for each in tmp_path.iterdir()] == ["app.db"]


def test_a_look_for_a_file_that_is_not_there_makes_none(tmp_path: Path) -> None:
    async def look() -> None:
        async with Runtime(f"sqlite:///{tmp_path / 'app.db'}", migrate=False):
            raise AssertionError("it is no store")

    with pytest.raises(DuramenError):
        asyncio.run(look())
    assert not list(tmp_path.iterdir())
