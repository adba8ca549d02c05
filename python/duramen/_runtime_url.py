"""Where a runtime's store is: a URL, or a store object written in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from .errors import InvalidArgument

__all__ = ["Target", "parse_target"]

_FORMS = "memory://, memory://name, sqlite:///relative/path.db, sqlite:////absolute/path.db"


@dataclass(frozen=True, slots=True)
class Target:
    """What the engine needs to open a store."""

    scheme: str
    """``memory``, ``sqlite`` or ``python``."""
    location: str
    """A name to share, or a path."""
    store: Any = None
    """The store object, for ``python``."""

    @property
    def migrates_itself(self) -> bool:
        """A missing or older schema is brought up to date when the store is opened, unless told otherwise."""
        return self.scheme != "python"

    def __str__(self) -> str:
        if self.scheme == "python":
            return f"<{type(self.store).__name__}>"
        return f"sqlite:///{self.location}" if self.scheme == "sqlite" else f"memory://{self.location}"


def parse_target(url: Any) -> Target:
    """Read a store's URL.

    Raises:
        InvalidArgument: it is no URL of a store; passwords in it are not repeated in the message.

    >>> print(parse_target("sqlite:///app.db").location, parse_target("sqlite:////var/app.db").location)
    app.db /var/app.db
    >>> parse_target("mysql://u:secret@host/db")
    Traceback (most recent call last):
    duramen.errors.InvalidArgument: 'mysql://' is no store: use memory://, memory://name, ...
    """
    if isinstance(url, Path):
        raise InvalidArgument(f"{str(url)!r} is a path: write it as a URL, 'sqlite:///{url}'")
    if not isinstance(url, str):
        if url is None or not hasattr(url, "commit"):
            raise InvalidArgument(f"{url!r} is no store: give a URL ({_FORMS}) or an object that is a Store")
        return Target("python", "", url)
    if "\0" in url:
        raise InvalidArgument("the store's URL contains a NUL character: remove it")
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise InvalidArgument(f"the store's URL has no scheme: use {_FORMS}")
    if scheme == "memory":
        return Target("memory", unquote(rest.strip("/")))
    if scheme == "sqlite":
        return Target("sqlite", _sqlite_path(url, rest))
    if scheme in {"postgresql", "postgres"}:
        raise InvalidArgument(f"{scheme}:// stores are not part of this version: use {_FORMS}")
    raise InvalidArgument(f"{scheme + '://'!r} is no store: use {_FORMS}")


def _sqlite_path(url: str, rest: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError as error:  # square brackets with no address in them
        raise InvalidArgument(f"the sqlite URL cannot be read ({error}): use {_FORMS}") from None
    if not rest.startswith("/"):
        name = parts.netloc.rpartition("@")[2]  # what stands before it may be a password
        raise InvalidArgument(
            f"sqlite://{name}… has two slashes: write sqlite:///{name} for a relative path, "
            "sqlite:////… for an absolute one"
        )
    if parts.query or parts.fragment:
        raise InvalidArgument(
            "a sqlite URL takes no ?options or #fragment: give options to Runtime(), and write %3F or %23 "
            "for those characters in a file's name"
        )
    path = unquote(rest[1:])
    if not path or path == ":memory:":
        raise InvalidArgument("the sqlite URL names no file: use sqlite:///app.db, or memory:// for no file")
    if "\0" in path:
        raise InvalidArgument("the sqlite URL's path contains a NUL character: remove it")
    return path
