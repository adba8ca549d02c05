"""`duramen backup`: a copy made while others write, and what it refuses."""

import asyncio
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from duramen import Context, Runtime, workflow
from tests.cli.programs import COMMAND, LIMIT, environment, in_a_terminal, run, without_colours

WRITER = """
import asyncio, sys
from duramen import Runtime
from tests.cli.test_backup import pair

async def main() -> None:
    name = sys.argv[1]
    async with Runtime("sqlite:///app.db", workflows=[pair]) as runtime:
        work = asyncio.create_task(runtime.work(handle_signals=False))
        for number in range(1_000_000):
            run_id = f"{name}:{number}"
            await runtime.enqueue(pair, "x" * 2000, run_id=run_id)
            print(run_id, flush=True)  # acknowledged: it has to be in every copy that begins after this

asyncio.run(main())
"""


async def double(text: str) -> str:
    return text + text


@workflow
async def pair(ctx: Context, text: str) -> int:
    first = await ctx.step("first", double, text)
    await ctx.sleep(0.01)
    return len(await ctx.step("second", double, first))


def beside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir() if found.name.startswith((path.name, ".")))


def count(path: Path) -> int:
    return int(run(path.parent, "runs", "list", "--count", "-s", f"sqlite:///{path.name}").stdout)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A folder with a store in which runs have ended, and one has not."""

    async def fill() -> None:
        async with Runtime(f"sqlite:///{tmp_path}/app.db", workflows=[pair]) as runtime:
            for number in range(3):
                await runtime.enqueue(pair, "x", run_id=f"p:{number}")
            await runtime.sweep()

    asyncio.run(fill())
    return tmp_path


def test_a_copy_under_load_has_all_that_was_acknowledged_and_goes_on(tmp_path: Path) -> None:
    assert run(tmp_path, "migrate", "sqlite:///app.db").returncode == 0
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, name],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(PYTHONPATH=path),
        )
        for name in ("a", "b")
    ]
    copies = list[tuple[Path, set[str]]]()
    acknowledged = set[str]()
    try:
        for turn in range(3):
            for writer in writers:
                assert writer.stdout is not None
                acknowledged |= {writer.stdout.readline().strip() for _ in range(60)}
            copy = tmp_path / "backups" / f"copy{turn}.db"
            copy.parent.mkdir(exist_ok=True)
            known = set(acknowledged)
            ran = run(tmp_path, "backup", "sqlite:///app.db", str(copy), "--json")
            assert ran.returncode == 0, ran.stderr
            assert json.loads(ran.stdout)["runs"] >= len(known)
            copies.append((copy, known))
            assert all(writer.poll() is None for writer in writers), "the writers noticed nothing"
    finally:
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
    assert [found.name for found in (tmp_path / "backups").iterdir() if found.suffix != ".db"] == []

    async def restored(copy: Path, known: set[str]) -> None:
        async with Runtime(f"sqlite:///{copy}", workflows=[pair], lease=1) as runtime:
            found = await runtime.get_many(sorted(known))
            assert all(found), "what was acknowledged before is in the copy"
            worker = asyncio.create_task(runtime.work(handle_signals=False))
            for run_id in sorted(known):
                assert await runtime.result(run_id, timeout=LIMIT) == 8000
            worker.cancel()
            await asyncio.wait([worker])

    for copy, known in copies:
        asyncio.run(restored(copy, known))
        assert sqlite_says(copy) == "ok"
    # The store itself has come to no harm.
    assert sqlite_says(tmp_path / "app.db") == "ok"
    asyncio.run(restored(tmp_path / "app.db", acknowledged))


def sqlite_says(path: Path) -> str:
    """In a process of its own: this one has the file open through another SQLite."""
    check = "import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute('PRAGMA integrity_check'))"
    ran = subprocess.run(
        [sys.executable, "-c", check, path], capture_output=True, check=True, text=True, timeout=LIMIT
    )
    return ran.stdout.strip()[2:-3]


def test_one_file_with_the_rights_of_the_store(app: Path) -> None:
    (app / "app.db").chmod(0o640)
    ran = run(app, "backup", "sqlite:///app.db", "copy.db")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert ran.stdout.startswith(b"3 runs, ")
    assert beside(app / "copy.db") == ["copy.db"]
    assert stat.S_IMODE((app / "copy.db").stat().st_mode) == 0o640
    assert count(app / "copy.db") == 3


def test_an_existing_file_is_replaced_only_by_force(app: Path) -> None:
    copy = app / "copy.db"
    copy.write_text("mine")
    refused = run(app, "backup", "sqlite:///app.db", "copy.db")
    assert (refused.returncode, copy.read_text()) == (2, "mine")
    assert b"--force" in refused.stderr
    assert run(app, "backup", "sqlite:///app.db", "copy.db", "--force").returncode == 0
    assert count(copy) == 3
    # The store itself, by whatever name, is never replaced.
    (app / "link.db").symlink_to("app.db")
    for name in ("app.db", "link.db", "../" + app.name + "/app.db"):
        assert run(app, "backup", "sqlite:///app.db", name, "--force").returncode == 2
    assert count(app / "app.db") == 3


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_what_would_be_taken_for_a_part_of_the_copy_is_named(app: Path, end: str) -> None:
    (app / f"copy.db{end}").write_text("old")
    for options in ([], ["--force"]):
        ran = run(app, "backup", "sqlite:///app.db", "copy.db", *options)
        assert ran.returncode == 2
        assert f"copy.db{end}".encode() in ran.stderr
    assert beside(app / "copy.db") == [f"copy.db{end}"]


def foreign(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE runs (id)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("kind", ["another database", "a text", "nothing in it", "damaged"])
def test_what_is_no_store_is_not_copied(app: Path, kind: str) -> None:
    source = app / "source.db"
    if kind == "another database":
        foreign(source)
    elif kind == "a text":
        source.write_text("this is a text, and long enough to be looked at" * 100)
    elif kind == "nothing in it":
        source.touch()
    else:
        whole = bytearray((app / "app.db").read_bytes())
        for page in range(4096, len(whole), 4096):
            whole[page : page + 400] = b"\xa5" * 400
        source.write_bytes(whole)
    before = source.read_bytes()
    ran = run(app, "backup", "sqlite:///source.db", "copy.db")
    assert (ran.returncode, ran.stdout) == (4, b""), ran.stderr
    assert ran.stderr.count(b"\n") == 1
    assert beside(app / "copy.db") == []
    assert source.read_bytes() == before


def test_a_copy_that_is_broken_off_leaves_nothing_under_its_name(app: Path) -> None:
    # The most that a file may have, as a disk that is full: SQLite is told so in the midst of the copy.
    line = 'ulimit -f 24; exec "$@"'
    ran = subprocess.run(
        ["bash", "-c", line, "bash", *COMMAND, "backup", "sqlite:///app.db", "copy.db"],
        cwd=app,
        env=environment(),
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )
    assert ran.returncode in {2, 4}, ran.stderr
    assert ran.stderr.startswith(b"duramen: ")
    assert beside(app / "copy.db") == []


def in_a_name_space(app: Path, target: str) -> subprocess.Popen[bytes]:
    """A backup whose process has the same id as others of its kind, as in containers."""
    spaces = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    command = [*spaces, *COMMAND, "backup", "sqlite:///app.db", target]
    return subprocess.Popen(command, cwd=app, env=environment(), stderr=subprocess.PIPE)


def test_copies_made_at_once_by_processes_of_one_id_are_whole(app: Path) -> None:
    async def grow() -> None:
        async with Runtime(f"sqlite:///{app}/app.db", workflows=[pair]) as runtime:
            for number in range(100):
                await runtime.enqueue(pair, "x" * 100_000, run_id=f"q:{number}")

    asyncio.run(grow())
    copies = [(app / f"copy{number}.db", in_a_name_space(app, f"copy{number}.db")) for number in range(3)]
    for path, process in copies:
        try:
            said = process.communicate(timeout=LIMIT)[1]
        finally:
            process.kill()
        assert (process.returncode, said) == (0, b"")
        assert count(path) == 103
    assert not list(app.glob(".*"))


def test_what_is_no_file_is_not_replaced(app: Path) -> None:
    os.mkfifo(app / "pipe")
    (app / "dangling").symlink_to("/nowhere/copy.db")
    for name in ("pipe", "/dev/null"):
        for options in ([], ["--force"]):
            ran = run(app, "backup", "sqlite:///app.db", name, *options)
            assert (ran.returncode, ran.stderr.count(b"\n")) == (2, 1)
    assert (app / "pipe").is_fifo()
    assert run(app, "backup", "sqlite:///app.db", "dangling").returncode == 2


def test_a_store_with_two_names_is_not_copied(app: Path) -> None:
    """By the other name the log of those who write to it is not found."""
    os.link(app / "app.db", app / "other.db")
    for name in ("app.db", "other.db"):
        ran = run(app, "backup", f"sqlite:///{name}", "copy.db")
        assert ran.returncode == 4
        assert b"several names" in ran.stderr
    assert not (app / "copy.db").exists()


ENDED = """
import os, sys
from duramen.cli import backup, main

number, checked = int(sys.argv.pop()), backup._checked
backup._checked = lambda fresh: (os.kill(os.getpid(), number), checked(fresh))[1]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda each: each.name)
def test_a_signal_leaves_nothing_behind(app: Path, number: signal.Signals) -> None:
    before = sorted(app.iterdir())
    ran = subprocess.run(
        [sys.executable, "-c", ENDED, "backup", "sqlite:///app.db", "copy.db", str(number.value)],
        cwd=app,
        env=environment(),
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )
    assert (ran.returncode, ran.stderr) == (128 + number, b"")
    assert sorted(app.iterdir()) == before


def test_progress_is_for_terminals_alone(app: Path) -> None:
    code, shown = in_a_terminal(app, "backup", "sqlite:///app.db", "copy.db")
    assert code == 0
    assert "3 runs, " in without_colours(shown)
    assert b"\x1b" not in run(app, "backup", "sqlite:///app.db", "other.db").stdout
