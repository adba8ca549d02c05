"""Where a runtime's store is: a URL, or a store object written in Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from duramen.errors import InvalidArgument

from .postgres_url import read

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Target", "parse_target"]

_FORMS = (
    "memory://, memory://name, sqlite:///relative.db, sqlite:////absolute.db, postgresql://user@host/database"
)

_OTHERS = (
    "mysql",
    "mariadb",
    "mssql",
    "oracle",
    "mongodb",
    "redis",
    "rediss",
    "http",
    "https",
    "file",
    "sqlite3",
)
"""What may be repeated of a URL that is no store's: what stands there may be anything, a password too."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the engine needs to open a store."""

    scheme: str
    """``memory``, ``sqlite``, ``postgres`` or ``python``."""
    location: str = field(repr=False)
    """A name to share, a path, or a URL, which may hold a password."""
    store: Any = None
    """The store object, for ``python``."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """What the URL says beside the place."""
    place: str = ""
    """For ``postgres``: user, hosts and database, for people."""

    @property
    def migrates_itself(self) -> bool:
        """A missing or older schema is brought up to date when the store is opened, unless told otherwise."""
        return self.scheme in {"memory", "sqlite"}

    def __str__(self) -> str:
        if self.scheme == "python":
            return f"<{type(self.store).__name__}>"
        if self.scheme == "postgres":
            schema = f"?schema={quote(self.options['schema'])}" if "schema" in self.options else ""
            return f"{self.place}{schema}"
        return f"sqlite:///{self.location}" if self.scheme == "sqlite" else f"memory://{self.location}"


def parse_target(url: Any) -> Target:
    """Read a store's URL.

    Raises:
        InvalidArgument: it is no URL of a store; passwords in it are not repeated, neither in the message nor
            in a local variable that the traceback leads to.

    >>> print(parse_target("sqlite:///app.db").location, parse_target("sqlite:////var/app.db").location)
    app.db /var/app.db
    >>> parse_target("mysql://u:secret@host/db")
    Traceback (most recent call last):
    duramen.errors.InvalidArgument: 'mysql://' is no store: use memory://, memory://name, ...
    """
    try:
        return _parsed(url)
    except InvalidArgument as error:
        refused = str(error)
    del url
    raise InvalidArgument(refused)


def _parsed(url: Any) -> Target:
    if isinstance(url, Path):
        shown = "…" if set(str(url)) & set("@:") else str(url)  # somebody may have made one of a Postgres URL
        raise InvalidArgument(f"a path is no URL: write it as one, 'sqlite:///{shown}'")
    if not isinstance(url, str):
        if url is None or not hasattr(url, "commit"):
            # What it says of itself may be a URL with its password.
            raise InvalidArgument(
                f"an object of {type(url).__qualname__!r} is no store: give a URL ({_FORMS}) or "
                "an object that is a Store"
            )
        return Target("python", "", url)
    if "\0" in url:
        raise InvalidArgument("the store's URL contains a NUL character: remove it")
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise InvalidArgument(f"the store's URL has no scheme: use {_FORMS}")
    if scheme == "memory":
        return Target("memory", unquote(rest.strip("/")))
    if scheme == "sqlite":
        return Target("sqlite", _sqlite_path(rest))
    if scheme in {"postgresql", "postgres"}:
        return _postgres(rest)
    if scheme.startswith(("postgresql+", "postgres+")):
        raise InvalidArgument("the store's URL names a driver: write postgresql:// alone")
    named = f"{scheme + '://'!r}" if scheme in _OTHERS else "the URL's scheme"
    raise InvalidArgument(f"{named} is no store: use {_FORMS}")


def _sqlite_path(rest: str) -> str:
    if not rest.startswith("/"):
        name = rest.partition("/")[0]
        if set(name) & set("@:?#[]"):  # parts of a password may be among it
            name = "…"
        raise InvalidArgument(
            f"sqlite://{name} has two slashes: write sqlite:///{name} for a relative path, "
            "sqlite:////… for an absolute one"
        )
    if "?" in rest or "#" in rest:
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


def _postgres(rest: str) -> Target:
    """Separate our parameters from those that the server's client reads.

    >>> target = _postgres("ann:secret@db.example/app?schema=jobs&sslmode=verify-full")
    >>> print(target)
    postgresql://ann@db.example:5432/app?schema=jobs
    >>> target.options
    {'schema': 'jobs', 'tls': 'host'}
    """
    url = read(rest)
    return Target("postgres", url.location, options=_checked(url.options), place=url.place)


def _checked(options: Mapping[str, str]) -> dict[str, Any]:
    """The options of a URL as `Runtime` takes them."""
    checked: dict[str, Any] = dict(options)
    for name in ("pool_size", "store_timeout"):
        if name in checked:
            text = checked[name]
            if not text.isascii() or not text.isdigit() or len(text) > 9:
                raise InvalidArgument(f"{name} in the URL is no whole number")
            checked[name] = int(text)
    if "store_timeout" in checked:
        checked["store_timeout"] *= 1000
    if "notify" in checked:
        if checked["notify"] not in {"on", "off"}:
            raise InvalidArgument("notify in the URL is none of its values: write on or off")
        checked["notify"] = checked["notify"] == "on"
    return checked
