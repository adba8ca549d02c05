"""Passwords from a file, as libpq has them in ``~/.pgpass``: ``host:port:database:user:password``."""

from __future__ import annotations

import stat
import sys
from typing import TYPE_CHECKING

from duramen._logging import logger
from duramen.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["password_for"]

_log = logger("duramen")


def password_for(path: Path, servers: Sequence[tuple[str, str]], database: str, user: str) -> str | None:
    """The password for a user of a database on all of the servers, or None if the file has none.

    Args:
        path: the file; it need not be there.
        servers: host (a name, an address, a socket's folder) and port of each.
        database: the database's name.
        user: the user's name.

    Raises:
        InvalidArgument: the file has different passwords for the servers: a store has one.
    """
    lines = list(_lines(path))
    found = {_first(lines, (host, port, database, user)) for host, port in servers}
    if len(found) > 1:
        raise InvalidArgument(
            f"{str(path)!r} has different passwords for the hosts of the store: give all of them one password"
        )
    return found.pop() if found else None


def _lines(path: Path) -> Iterator[list[str]]:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            return
        if sys.platform != "win32" and mode & 0o077:
            _log.warning("%s is ignored: others can read it; chmod 0600 it", path)
            return
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        _log.warning("%s cannot be read (%s)", path, type(error).__name__)
        return
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield _fields(line)


def _fields(line: str) -> list[str]:
    """Fields as they are written: the wildcard is a bare ``*``, so escapes are undone only when compared."""
    fields = [""]
    characters = iter(line)
    for each in characters:
        if each == "\\":
            fields[-1] += each + next(characters, "")
        elif each == ":" and len(fields) < 5:
            fields.append("")
        else:
            fields[-1] += each
    return fields


def _first(lines: list[list[str]], wanted: tuple[str, ...]) -> str | None:
    for fields in lines:
        if len(fields) == 5 and all(
            field == "*" or _plain(field) == value for field, value in zip(fields[:4], wanted, strict=True)
        ):
            return _plain(fields[4])
    return None


def _plain(field: str) -> str:
    text = ""
    characters = iter(field)
    for each in characters:
        text += next(characters, each) if each == "\\" else each
    return text
