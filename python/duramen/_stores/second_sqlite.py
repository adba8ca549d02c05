"""Notices that Python's `sqlite3` opens a file that a store of this process has open.

POSIX locks belong to a process, and go when it closes any descriptor of the file: two copies of SQLite in one
process do not see each other's locks, and end them. So `sqlite3.connect`, by which Django, SQLAlchemy and
aiosqlite connect too, looks at the file's identity from the first store on. (An audit hook would see all of
it, and would slow down every frame that is looked at, everywhere.)
"""

from __future__ import annotations

import functools
import os
import sqlite3
import threading
from collections import Counter
from pathlib import Path
from sqlite3 import dbapi2 as sqlite3_dbapi2
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from duramen._logging import logger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SECOND_SQLITE", "Watch"]

_log = logger("duramen")

SECOND_SQLITE = (
    "sqlite3, aiosqlite and SQLAlchemy open the file with another copy of SQLite than Duramen's. Two copies "
    "in one process do not see each other's locks and damage the file (https://sqlite.org/howtocorrupt.html, "
    "2.2.1): use duramen.sqlite.connect()"
)

_File = tuple[int, int, int]
"""Process, device and number: a forked child has locks of its own."""

_lock = threading.Lock()
_open: Counter[_File] = Counter()
_told: set[_File] = set()


class Watch:
    """A store has the file open until the watch ends.

    Args:
        path: the file, which is there.
    """

    def __init__(self, path: str) -> None:
        self._file = _identity(path)
        if self._file is None:
            return
        with _lock:
            _open[self._file] += 1
            _look_at_connections()

    def end(self) -> None:
        """The store has let go of it. More than once is as good as once."""
        file, self._file = self._file, None
        if file is None:
            return
        with _lock:
            _open[file] -= 1
            if _open[file] <= 0:
                del _open[file]
                _told.discard(file)


def _identity(path: Any) -> _File | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - bytes are paths here, too
    except (OSError, ValueError, TypeError):
        return None
    # Without a number, as on some file systems of Windows, files cannot be told from each other.
    return (os.getpid(), found.st_dev, found.st_ino) if found.st_ino else None


def _look_at_connections() -> None:
    for module in (sqlite3, sqlite3_dbapi2):
        connect: Any = getattr(module, "connect")  # noqa: B009 - pyright knows its type
        if not hasattr(connect, "__duramen__"):
            setattr(module, "connect", _looking(connect))  # noqa: B010 - the same


def _looking(connect: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(connect)
    def looks(*args: Any, **kwargs: Any) -> Any:
        # Before it is opened: closing it again would do the damage.
        if _open:
            _look(args[0] if args else kwargs.get("database"))
        return connect(*args, **kwargs)

    setattr(looks, "__duramen__", True)  # noqa: B010 - pyright knows its type
    return looks


def _look(database: Any) -> None:
    file = _identity(_path(database))
    if file is None or isinstance(database, int):
        return
    with _lock:
        if file not in _open or file in _told:
            return
        _told.add(file)
    _log.warning(
        "a file that Duramen has open in this process (%s) is opened by a second copy of SQLite: %s",
        Path(os.fsdecode(_path(database))).name,
        SECOND_SQLITE,
        stack_info=True,
    )


def _path(database: Any) -> Any:
    """The path of a database, which may be a URI."""
    if isinstance(database, str) and database.startswith("file:"):
        path = database.removeprefix("file:").partition("?")[0].partition("#")[0]
        if path.startswith("//"):
            path = "/" + path[2:].partition("/")[2]
        return unquote(path)
    return database
