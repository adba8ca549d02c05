"""Files that are missing, foreign, damaged, locked, full or not ours: typed errors, with a way out."""

import os
from pathlib import Path

import pytest

from duramen.errors import (
    InvalidArgument,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreUnavailable,
    StoreUnmigrated,
)
from duramen.testing import open_store
from duramen.testing._contract.support import claim, commit, entry, journal, live, new_run
from tests.store.helpers import hear, run, say, start, wait_for


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=r"no/such does not exist; create it"):
        open_store(f"sqlite:///{tmp_path}/no/such/runs.db")
    assert not (tmp_path / "no").exists()


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="it is a directory; name a file in it"):
        open_store(f"sqlite:///{tmp_path}")


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    diary = tmp_path / "runs.db"
    text = "This is a diary, and no database at all.\n" * 50
    diary.write_text(text)
    with pytest.raises(StoreCorrupt, match=r"runs\.db.*not a SQLite file"):
        open_store(f"sqlite:///{diary}")
    assert diary.read_text() == text


async def fill(file: Path) -> None:
    store = open_store(f"sqlite:///{file}")
    await live(store, "bob")
    await store.create([new_run(f"r{n}") for n in range(400)])
    await store.close()


def test_a_damaged_file_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    wait_for(fill(file))
    content = file.read_bytes()
    # The first page says that it is a database of ours.
    file.write_bytes(content[:4096] + b"\xa5" * (len(content) - 4096))
    with pytest.raises(StoreCorrupt, match=r"runs\.db.*backup"):
        open_store(f"sqlite:///{file}")


def test_damage_that_shows_later_is_an_error_of_those_calls(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    wait_for(fill(file))
    content = file.read_bytes()
    # The roots of the tables stay whole, what hangs below them does not.
    whole = 28 * 4096
    file.write_bytes(content[:whole] + b"\xa5" * (len(content) - whole))

    async def use() -> None:
        store = open_store(f"sqlite:///{file}")
        with pytest.raises(StoreCorrupt, match="backup"):
            await store.get([f"r{n}" for n in range(400)])
        with pytest.raises(StoreCorrupt, match="backup"):
            await store.claim(claim(limit=1_000))
        with pytest.raises(StoreCorrupt):
            await store.create([new_run(f"new{n}") for n in range(400)])
        await store.close()

    wait_for(use())


def test_a_truncated_file_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"

    async def use() -> None:
        store = open_store(f"sqlite:///{file}")
        try:
            await store.get([f"r{n}" for n in range(400)])
        finally:
            await store.close()

    wait_for(fill(file))
    os.truncate(file, 3 * 4096)
    with pytest.raises(StoreCorrupt):
        wait_for(use())


def test_a_lock_of_another_process_is_waited_for_and_then_an_error(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"

    async def write() -> None:
        store = open_store(f"sqlite:///{file}", busy_timeout=50)
        with start("lock", file) as other:
            assert hear(other) == "ready"
            with pytest.raises(StoreLocked, match=r"runs\.db.*busy_timeout"):
                await store.create([new_run("a")])
            # Readers are not held up by a writer.
            assert list(await store.get(["a"])) == [None]
            say(other)
        await store.create([new_run("a")])
        await store.close()

    wait_for(write())


def test_a_full_file_takes_no_more_and_keeps_what_it_has(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"

    async def use() -> None:
        store = open_store(f"sqlite:///{file}", max_pages=64)
        await live(store, "ann")
        await store.create([new_run("a", owner="ann")])
        length = 1
        full = None
        while full is None and length < 100:
            try:
                await store.commit([commit(length=length, entries=[entry("s", bytes(20_000))])])
                length += 1
            except StoreFull as error:
                full = error
        assert length > 1
        assert "free space" in str(full)
        # Whole or absent, and the store still answers.
        assert len(await journal(store)) == length
        (outcome,) = await store.commit([commit(length=length)])
        assert outcome["kind"] == "applied"
        await store.close()
        store = open_store(f"sqlite:///{file}")
        (outcome,) = await store.commit([commit(length=length, entries=[entry("s", bytes(20_000))])])
        assert outcome["kind"] == "applied"
        await store.close()

    wait_for(use())


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="users and modes are a matter of POSIX")
def test_a_file_that_may_only_be_read_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    file = place / "runs.db"

    wait_for(fill(file))
    before = file.read_bytes()
    file.chmod(0o444)
    place.chmod(0o555)
    answer = run("open_without_privileges", file)
    assert answer.startswith("StoreReadOnly ")
    assert "needs write access" in answer
    assert file.read_bytes() == before
    place.chmod(0o755)


def test_a_file_without_a_schema_is_refused_when_it_may_not_be_made(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    file.touch()
    with pytest.raises(StoreUnmigrated, match="duramen migrate"):
        open_store(f"sqlite:///{file}", migrate=False)
    with pytest.raises(StoreUnavailable):
        open_store(f"sqlite:///{tmp_path}/other.db", migrate=False)
    assert not (tmp_path / "other.db").exists()


def test_memory_is_no_file() -> None:
    with pytest.raises(InvalidArgument, match="memory://"):
        open_store("sqlite:///:memory:")


def test_stores_of_unknown_kinds_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="is no store"):
        open_store("mysql://u:secret@host/db")
