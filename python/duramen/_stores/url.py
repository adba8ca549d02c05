"""Where a runtime's store is: a URL, or a store object written in Python."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from duramen.errors import InvalidArgument

__all__ = ["Target", "parse_target"]

_FORMS = (
    "memory://, memory://name, sqlite:///relative.db, sqlite:////absolute.db, postgresql://user@host/database"
)

_POSTGRES_OPTIONS = (
    "schema",
    "pool_size",
    "statement_cache",
    "isolation",
    "store_timeout",
    "notify",
    "flavour",
    "sslrootcert",
)
"""Parameters of a Postgres URL that are this library's own; all others are libpq's."""

_VERIFYING = {"verify-ca": "authority", "verify-full": "host"}


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

    @property
    def migrates_itself(self) -> bool:
        """A missing or older schema is brought up to date when the store is opened, unless told otherwise."""
        return self.scheme in {"memory", "sqlite"}

    def __str__(self) -> str:
        if self.scheme == "python":
            return f"<{type(self.store).__name__}>"
        if self.scheme == "postgres":
            parts = urlsplit(self.location)
            user = f"{parts.username}@" if parts.username else ""
            place = parts.netloc.rpartition("@")[2]
            schema = f"?schema={quote(self.options['schema'])}" if "schema" in self.options else ""
            return f"postgresql://{user}{place}{parts.path}{schema}"
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
        return _postgres(rest)
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


def _postgres(rest: str) -> Target:
    """Separate our parameters from those that the server's client reads.

    >>> target = _postgres("ann:secret@db.example/app?schema=jobs&sslmode=verify-full")
    >>> print(target)
    postgresql://ann@db.example/app?schema=jobs
    >>> target.options
    {'schema': 'jobs', 'tls': 'host'}
    """
    try:
        parts = urlsplit(f"postgresql://{rest}")
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:  # its words may quote a password
        raise InvalidArgument(
            "the postgresql URL cannot be read: percent-encode special characters in its user, password "
            "and options"
        ) from None
    if parts.fragment:
        raise InvalidArgument("the postgresql URL has a '#': write %23 for one in the password")
    options: dict[str, Any] = {}
    passed: list[tuple[str, str]] = []
    for name, value in pairs:
        if name in _POSTGRES_OPTIONS:
            options[name] = value
        elif name == "sslmode" and value in _VERIFYING:
            options["tls"] = _VERIFYING[value]
            passed.append((name, "require"))
        elif name == "sslmode" and value == "allow":
            passed.append((name, "prefer"))
        elif name == "sslmode" and value not in {"disable", "prefer", "require"}:
            raise InvalidArgument(
                f"sslmode={value!r} in the URL: write disable, allow, prefer, require, verify-ca "
                "or verify-full"
            )
        else:
            passed.append((name, value))
    query = urlencode(passed, quote_via=quote)
    location = f"postgresql://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")
    return Target("postgres", location, options=_checked(options))


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a URL as `Runtime` takes them."""
    checked = dict(options)
    for name in ("pool_size", "store_timeout"):
        if name in checked:
            text = checked[name]
            if not text.isascii() or not text.isdigit():
                raise InvalidArgument(f"{name}={text!r} in the URL is no whole number")
            checked[name] = int(text)
    if "store_timeout" in checked:
        checked["store_timeout"] *= 1000
    if "notify" in checked:
        if checked["notify"] not in {"on", "off"}:
            raise InvalidArgument(f"notify={checked['notify']!r} in the URL: write on or off")
        checked["notify"] = checked["notify"] == "on"
    return checked
