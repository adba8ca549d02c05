"""The one reader of Postgres URLs. What it makes of one is handed on in a form that has one meaning only.

A password is between ``user:`` and ``@``, and a character of it that has a meaning in URLs must be
percent-encoded. Readers of URLs disagree about those that are not, so such a URL is refused, and no part of
it is repeated: which part is the password is not known then.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from duramen.errors import InvalidArgument

from .libpq import TAKEN, UNSUPPORTED, Parameters, default_passfile, resolve
from .pgpass import password_for

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PostgresUrl", "read"]

OWN = ("schema", "pool_size", "statement_cache", "isolation", "store_timeout", "notify", "flavour")
"""Parameters that are this library's."""

_ENCODE = (
    "percent-encode special characters in its user, password and options "
    "(urllib.parse.quote(password, safe='') does)"
)
_ESCAPES = re.compile(r"%(?![0-9A-Fa-f]{2})")
_VERIFYING = {"verify-ca": "authority", "verify-full": "host"}
_SOCKETS = ("/var/run/postgresql", "/run/postgresql", "/tmp")  # noqa: S108 - where servers put theirs
_PASSED = (
    "user", "password", "dbname", "hostaddr", "channel_binding", "connect_timeout", "options",
    "application_name", "keepalives", "keepalives_idle", "keepalives_interval", "sslnegotiation",
    "load_balance_hosts",
)  # fmt: skip
_SESSIONS = {"primary": "read-write", "standby": "read-only"}
"""A store has to write: the server that it needs is the same by either name."""


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """A URL that was read."""

    location: str = field(repr=False)
    """For the engine: every value is a parameter, encoded. It holds the password."""
    place: str
    """For people: user, hosts, database."""
    options: dict[str, str]
    """This library's parameters, and how the server's certificate is checked."""


def read(rest: str) -> PostgresUrl:
    """Read what stands behind ``postgresql://``.

    Raises:
        InvalidArgument: it cannot be read in one way only, or asks for what is not supported.

    >>> read("ann:s%40cret@db.example/app").place
    'postgresql://ann@db.example:5432/app'
    >>> read("ann:s@cret@db.example/app")
    Traceback (most recent call last):
    duramen.errors.InvalidArgument: the postgresql URL cannot be read in one way only: percent-encode ...
    """
    given, own = _split(rest)
    found = resolve(given)
    values = found.values
    values.setdefault("user", _login())
    values.setdefault("dbname", values["user"])
    servers = _servers(found)
    if "password" not in values:
        path = Path(values["passfile"]) if "passfile" in values else default_passfile()
        # A server in its usual folder is `localhost` in that file.
        named = [("localhost" if host in _SOCKETS else host, port) for host, port in servers]
        password = password_for(path, named, values["dbname"], values["user"])
        if password:
            values["password"] = password
    hosts = ",".join(f"{_shown(host)}:{port}" for host, port in servers)
    place = f"postgresql://{quote(values['user'], safe='')}@{hosts}/{quote(values['dbname'], safe='')}"
    options = {**own, **_tls(found)}
    return PostgresUrl(_location(found, servers), place, options)


def _shown(host: str) -> str:
    if ":" in host:
        return f"[{quote(host, safe=':%')}]"
    return quote(host, safe="")


# -- splitting -----------------------------------------------------------------------------------------------


def _ambiguous() -> InvalidArgument:
    return InvalidArgument(f"the postgresql URL cannot be read in one way only: {_ENCODE}")


def _split(rest: str) -> tuple[dict[str, str], dict[str, str]]:
    """The URL's parameters: libpq's, and this library's."""
    end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    authority, tail = rest[:end], rest[end:]
    users, at, hosts = authority.rpartition("@")
    if (
        "@" in users
        or users.count(":") > 1
        or "@" in tail
        or "#" in tail
        or any(each.isspace() or not each.isprintable() for each in rest)
        or _ESCAPES.search(rest)
    ):
        raise _ambiguous()
    path, _, query = tail.partition("?")
    if "?" in query:
        raise _ambiguous()
    found: dict[str, str] = {}
    if at:
        user, _, password = users.partition(":")
        found["user"], found["password"] = _decoded(user), _decoded(password)
    found |= _hosts(hosts)
    found["dbname"] = _decoded(path[1:])
    given = _query(query)
    own = {name: value for name, value in given.items() if name in OWN}
    found |= {name: value for name, value in given.items() if name not in OWN}
    return found, own


def _decoded(text: str) -> str:
    """As libpq does: a plus sign is a plus sign."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidArgument(f"the postgresql URL has bytes that are no UTF-8: {_ENCODE}") from None


def _hosts(text: str) -> dict[str, str]:
    if not text:
        return {}
    hosts: list[str] = []
    ports: list[str] = []
    for each in text.split(","):
        match = re.fullmatch(r"(?:\[([^][]*)\]|([^][:]*))(?::([^:]*))?", each)
        if match is None:
            raise InvalidArgument(
                "the hosts of the postgresql URL cannot be read: write host:port, [IPv6 address]:port, and "
                f"%2F in a socket's folder; {_ENCODE}"
            )
        hosts.append(_decoded(match[1] or match[2] or ""))
        ports.append(_decoded(match[3] or ""))
    found = {"host": ",".join(hosts)} if any(hosts) else {}
    if any(ports):
        found["port"] = ",".join(port or "5432" for port in ports)
    return found


def _query(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, pair in enumerate(text.split("&") if text else (), 1):
        name, separator, value = pair.partition("=")
        name = _decoded(name)
        if not separator or "=" in value:
            raise InvalidArgument(
                f"parameter {number} behind the URL's '?' is not written as name=value: {_ENCODE}"
            )
        if name not in OWN and name not in TAKEN and name not in UNSUPPORTED:
            # The name may be what stands behind an `&` in a password.
            near = difflib.get_close_matches(name, [*OWN, *TAKEN], 1, 0.75)
            hint = f"did you mean {near[0]!r}?" if near else f"leave it out; {_ENCODE}"
            raise InvalidArgument(f"parameter {number} behind the URL's '?' is not known: {hint}")
        found[name] = _decoded(value)
    return found


# -- what follows from the parameters ------------------------------------------------------------------------


def _login() -> str:
    try:
        import pwd  # not there on Windows

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):
        name = os.environ.get("USERNAME")
    if not name:
        raise InvalidArgument("the postgresql URL names no user, and this process has no name: add one")
    return name


def _servers(found: Parameters) -> list[tuple[str, str]]:
    """Host and port of each server."""
    values = found.values
    hosts = values.get("host", "").split(",")
    addresses = values.get("hostaddr", "").split(",")
    if "host" in values and "hostaddr" in values and len(hosts) != len(addresses):
        raise found.refusal("hostaddr", "does not have as many entries as there are hosts")
    ports = values.get("port", "5432").split(",")
    if "host" not in values:
        hosts = addresses if "hostaddr" in values else [_here(ports[0])]
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise found.refusal("port", "does not have as many entries as there are hosts")
    for port in ports:
        if not port.isascii() or not port.isdigit() or not 1 <= int(port[:9]) <= 65535:
            raise found.refusal("port", "has an entry that is no number from 1 to 65535")
    if not all(hosts) or any("@" in host for host in hosts):
        raise found.refusal("host", "has an entry that is no host: write names, addresses or socket folders")
    return list(zip(hosts, ports, strict=True))


def _here(port: str) -> str:
    """Without a host: the server's socket on this machine, or its port."""
    return next((path for path in _SOCKETS if Path(path, f".s.PGSQL.{port}").exists()), "localhost")


def _tls(found: Parameters) -> dict[str, str]:
    values = found.values
    mode, roots = values.get("sslmode"), values.get("sslrootcert")
    if roots == "system":
        if mode not in {None, "verify-full"}:
            raise found.refusal("sslrootcert", "is the system's, which needs sslmode=verify-full")
        values["sslmode"] = mode = "verify-full"
        roots = None
    if values.get("sslnegotiation") == "direct" and mode not in {"require", *_VERIFYING}:
        raise found.refusal(
            "sslnegotiation", "is direct, which needs sslmode=require, verify-ca or verify-full"
        )
    options = {"tls": _VERIFYING[mode]} if mode in _VERIFYING else {}
    # As with libpq, authorities that are given are there to be used, whatever the mode.
    return options | ({"sslrootcert": roots} if roots else {})


def _location(found: Parameters, servers: list[tuple[str, str]]) -> str:
    values = found.values
    pairs = [(name, values[name]) for name in _PASSED if name in values]
    if "host" in values or "hostaddr" not in values:
        pairs += [("host", host) for host, _ in servers]
    pairs.append(("port", ",".join(port for _, port in servers)))
    pairs += _translated(values)
    return "postgresql:///?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)


def _translated(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Parameters that the engine's client has by other names or in other units."""
    pairs: list[tuple[str, str]] = []
    mode = values.get("sslmode", "prefer")
    pairs.append(("sslmode", "require" if mode in _VERIFYING else "prefer" if mode == "allow" else mode))
    if "application_name" not in values and "fallback_application_name" in values:
        pairs.append(("application_name", values["fallback_application_name"]))
    if "keepalives_count" in values:
        pairs.append(("keepalives_retries", values["keepalives_count"]))
    if "tcp_user_timeout" in values:  # milliseconds; the engine's are seconds
        pairs.append(("tcp_user_timeout", str(-(-int(values["tcp_user_timeout"]) // 1000))))
    if "target_session_attrs" in values:
        wanted = values["target_session_attrs"]
        pairs.append(("target_session_attrs", _SESSIONS.get(wanted, wanted)))
    return pairs
