"""`duramen backup`: a copy of a SQLite store while others write to it."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import tempfile
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote, unquote

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from duramen import Runtime
from duramen.errors import InvalidArgument, StoreCorrupt, StoreError, StoreFull, StoreUnavailable

from .options import AsJson  # noqa: TC001 - typer reads the hint
from .output import print_json, stdout

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["backup", "copy_store"]

PAGES = 2000
"""So many pages are copied between two signs of progress."""

BUSY = 30.0
"""Seconds to wait for a lock; readers of a store in WAL mode hardly ever need one."""

MARK = "duramen_schema_migrations"
"""The table that every store has."""

BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite may have beside a database file, and takes for a part of it."""


def backup(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="URL of a SQLite store, for instance sqlite:///app.db.", show_default=False
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The copy to make.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace a file of that name.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy a SQLite store into one file, as it was at one instant, while workers go on.

    The copy is checked and on the disk before it gets its name.
    """
    source = _source(url)
    console = stdout()
    columns = (BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=as_json or not console.is_terminal
    ) as bar:
        task = bar.add_task("")

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        with _ending_in_order():
            size, runs = copy_store(source, target, force=force, show=show)
    if as_json:
        print_json({"file": str(target), "bytes": size, "runs": runs})
    else:
        console.print(f"{runs} runs, {size} bytes, checked: {target}", soft_wrap=True)


@contextmanager
def _ending_in_order() -> Generator[None]:
    """Let a signal that asks for the end be an exception, as Ctrl-C is: what is half done is removed."""

    def end(number: int, _frame: object) -> None:
        raise typer.Exit(128 + number)

    before = {
        number: signal.signal(number, end)
        for name in ("SIGTERM", "SIGHUP")
        # Under nohup it is ignored, and goes on being so.
        if (number := getattr(signal, name, None)) and signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _source(url: str) -> Path:
    if not url.startswith("sqlite:"):
        raise InvalidArgument("only SQLite stores are copied by this command: for Postgres use pg_dump")
    Runtime(url)  # refuses what is no URL of a store
    return Path(unquote(url.removeprefix("sqlite:///")))


def copy_store(
    source: Path, target: Path, *, force: bool, show: Callable[[int, int], None]
) -> tuple[int, int]:
    """Copy a store's file; gives the size of the copy in bytes and the number of its runs.

    This uses Python's own SQLite, and the process must not have the store open through Duramen: closing a
    file drops *all* locks that a process has on it (POSIX), whichever library took them, so two copies of
    SQLite in one process could undo each other's. `duramen backup` opens no runtime and, for the same reason,
    opens the source's file in no other way while the connection lives. Towards the workers, which are other
    processes, it is a reader like any other.

    Raises:
        InvalidArgument: `target` exists, is the source, or cannot be written.
        StoreUnavailable: the source is not there, or cannot be read.
        StoreCorrupt: it is no store of Duramen, or the copy does not pass the check.
        StoreFull: there is no room.
    """
    if not os.path.isfile(source):  # noqa: PTH113 - unlike Path's it takes any name
        raise StoreUnavailable(f"there is no file {str(source)!r}: check the URL")
    if os.stat(source).st_nlink > 1:  # noqa: PTH116 - the same
        raise StoreUnavailable(
            f"{str(source)!r} has several names (hard links): what was committed last stands in a log that "
            "is named after one of them; remove the others"
        )
    fresh: Path | None = None
    try:
        _check_target(source, target, force=force)
        # Its name is nobody else's: not that of a process of another machine or container either. Nobody else
        # may read it before it has the rights of the original.
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".duramen-", suffix=".part")
        os.close(descriptor)
        fresh = Path(name)
        _copy(source, fresh, show)
        runs = _checked(fresh)
        fresh.chmod(source.stat().st_mode & 0o777)
        _sync(fresh)
        _name(fresh, target, force=force)
        return target.stat().st_size, runs
    except sqlite3.Error as error:
        raise _explained(error, source) from None
    except OSError as error:
        said = f"{str(target)!r} cannot be written: {error.strerror}"
        raise (StoreFull if error.errno == errno.ENOSPC else InvalidArgument)(said) from None
    finally:
        for end in ("", *BESIDE) if fresh is not None else ():
            with suppress(OSError):
                Path(f"{fresh}{end}").unlink()


def _check_target(source: Path, target: Path, *, force: bool) -> None:
    if target.is_dir():
        raise InvalidArgument(f"{str(target)!r} is a folder: name the file to make")
    if not target.parent.is_dir():
        raise InvalidArgument(f"there is no folder {str(target.parent)!r}")
    if target.exists() or target.is_symlink():
        if target.exists() and target.samefile(source):
            raise InvalidArgument("the copy and the store are the same file")
        if target.exists() and not target.is_file():
            raise InvalidArgument(f"{str(target)!r} is no file that could be replaced: name another one")
        if not force:
            raise InvalidArgument(f"{str(target)!r} exists: name another file, or replace it with --force")
    for end in BESIDE:
        if Path(f"{target}{end}").exists():
            raise InvalidArgument(
                f"{f'{target}{end}'!r} exists and would be taken for a part of the copy: remove it, or name "
                "another file"
            )


def _copy(source: Path, fresh: Path, show: Callable[[int, int], None]) -> None:
    # rw: not made if it is missing, and a reader in WAL mode writes to the -shm file. (On a folder that
    # cannot be written to SQLite falls back to reading by itself.)
    store = f"file:{quote(str(source.absolute()))}?mode=rw"
    with (
        closing(sqlite3.connect(store, uri=True, isolation_level=None, timeout=BUSY)) as reader,
        closing(sqlite3.connect(fresh, isolation_level=None)) as writer,
    ):
        # A transaction of reading, held until the end: the copy is what was committed at this instant.
        # Without it each write of another process would make the copying begin anew.
        reader.execute("BEGIN")
        tables = reader.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (MARK,)).fetchone()
        if tables != (1,):
            raise StoreCorrupt(f"{str(source)!r} is no store of Duramen: it has no table {MARK}")
        (size,) = reader.execute("PRAGMA page_size").fetchone()
        # Synced as a whole afterwards.
        writer.execute("PRAGMA synchronous = OFF")
        reader.backup(
            writer,
            pages=PAGES,
            progress=lambda _, left, total: show((total - left) * size, total * size),
        )


def _checked(fresh: Path) -> int:
    """Check a copy; gives the number of its runs."""
    # immutable: read as it is, with no -wal made beside it.
    with closing(sqlite3.connect(f"file:{quote(str(fresh.absolute()))}?immutable=1", uri=True)) as copy:
        (verdict,) = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if verdict != "ok":
            raise StoreCorrupt(f"the copy does not pass SQLite's check, the store may be damaged: {verdict}")
        copy.execute(f"SELECT count(*) FROM {MARK}").fetchone()  # noqa: S608 - a constant
        (runs,) = copy.execute("SELECT count(*) FROM runs").fetchone()
        return int(runs)


def _name(fresh: Path, target: Path, *, force: bool) -> None:
    """Give the copy its name, and keep that over a power cut."""
    if force:
        fresh.replace(target)
    else:
        # Unlike a rename this does not replace what somebody made meanwhile.
        try:
            os.link(fresh, target)
        except FileExistsError:
            raise InvalidArgument(
                f"{str(target)!r} exists: name another file, or replace it with --force"
            ) from None
        except OSError:  # a file system without links
            fresh.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _explained(error: sqlite3.Error, source: Path) -> StoreError:
    name = getattr(error, "sqlite_errorname", "") or ""
    said = f"{str(source)!r} cannot be copied: {error}"
    if name.startswith("SQLITE_FULL"):
        return StoreFull(said)
    if name.startswith(("SQLITE_NOTADB", "SQLITE_CORRUPT")):
        return StoreCorrupt(said)
    return StoreUnavailable(said)
