"""Parameters of a connection to Postgres, by the names and with the defaults that libpq has for them.

A parameter is looked for in the URL, then in the service that the URL or ``PGSERVICE`` names, then in its
environment variable. What this library cannot do is refused by name, unless it is asked for by a variable
that other programs may need: that is a warning then. Values are not repeated in messages: a part of a
password may have got among them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from duramen._logging import logger
from duramen.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TAKEN", "UNSUPPORTED", "Parameters", "resolve"]

_log = logger("duramen")

TAKEN: Mapping[str, str | None] = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "service": "PGSERVICE",
    "servicefile": "PGSERVICEFILE",
    "channel_binding": "PGCHANNELBINDING",
    "connect_timeout": "PGCONNECT_TIMEOUT",
    "options": "PGOPTIONS",
    "application_name": "PGAPPNAME",
    "fallback_application_name": None,
    "keepalives": None,
    "keepalives_idle": None,
    "keepalives_interval": None,
    "keepalives_count": None,
    "tcp_user_timeout": None,
    "sslmode": "PGSSLMODE",
    "sslnegotiation": "PGSSLNEGOTIATION",
    "sslrootcert": "PGSSLROOTCERT",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "load_balance_hosts": "PGLOADBALANCEHOSTS",
}
"""Parameters that have their effect, and their variables."""


@dataclass(frozen=True, slots=True)
class _Unsupported:
    variable: str | None
    advice: str
    harmless: frozenset[str] = frozenset()
    """Values that ask for what is so anyway."""
    strict: bool = False
    """It asks for safety: whoever set the variable must not get a connection without it."""


def _no(variable: str | None, advice: str, *harmless: str, strict: bool = False) -> _Unsupported:
    return _Unsupported(variable, advice, frozenset(harmless), strict)


_NO_CERTIFICATES = "client certificates are not supported: let the server ask for a password"
_NO_LISTS = (
    "lists of revoked certificates are not supported: replace sslrootcert when a certificate is revoked"
)
_NO_GSSAPI = "GSSAPI is not supported: let the server ask for a password"
_NO_OAUTH = "OAuth is not supported: let the server ask for a password"
_NO_KEYS = "give the password itself"

UNSUPPORTED: Mapping[str, _Unsupported] = {
    "require_auth": _no("PGREQUIREAUTH", "use channel_binding=require with sslmode=require", strict=True),
    "client_encoding": _no(
        "PGCLIENTENCODING", "Duramen speaks UTF-8 with every server: leave it out",
        "utf8", "utf-8", "unicode", "auto",
    ),
    "replication": _no(None, "a store is no replica: leave it out", "false", "off", "no", "0"),
    "gssencmode": _no("PGGSSENCMODE", "encrypt with sslmode=require", "disable", "prefer", strict=True),
    "krbsrvname": _no("PGKRBSRVNAME", _NO_GSSAPI),
    "gsslib": _no("PGGSSLIB", _NO_GSSAPI),
    "gssdelegation": _no("PGGSSDELEGATION", _NO_GSSAPI, "0"),
    "requiressl": _no("PGREQUIRESSL", "write sslmode=require", "0", strict=True),
    "sslcompression": _no("PGSSLCOMPRESSION", "no server compresses any more: leave it out", "0"),
    "sslcert": _no("PGSSLCERT", _NO_CERTIFICATES),
    "sslkey": _no("PGSSLKEY", _NO_CERTIFICATES),
    "sslpassword": _no(None, _NO_CERTIFICATES),
    "sslcertmode": _no("PGSSLCERTMODE", _NO_CERTIFICATES, "disable", "allow", strict=True),
    "sslkeylogfile": _no(None, "keys are not written down: leave it out"),
    "sslcrl": _no("PGSSLCRL", _NO_LISTS, strict=True),
    "sslcrldir": _no("PGSSLCRLDIR", _NO_LISTS, strict=True),
    "sslsni": _no("PGSSLSNI", "the host's name is always sent: leave it out", "1"),
    "requirepeer": _no("PGREQUIREPEER", "connect by TCP with sslmode=verify-full", strict=True),
    "ssl_min_protocol_version": _no(
        "PGSSLMINPROTOCOLVERSION",
        "TLS 1.2 and 1.3 are spoken: leave it out, and set the server's ssl_min_protocol_version",
        "tlsv1", "tlsv1.1", "tlsv1.2",
        strict=True,
    ),
    "ssl_max_protocol_version": _no(
        "PGSSLMAXPROTOCOLVERSION",
        "TLS 1.2 and 1.3 are spoken: leave it out, and set the server's ssl_max_protocol_version",
        "tlsv1.3",
    ),
    "min_protocol_version": _no(
        "PGMINPROTOCOLVERSION", "version 3.0 of the protocol is spoken: leave it out", "3.0", strict=True
    ),
    "max_protocol_version": _no(
        "PGMAXPROTOCOLVERSION", "version 3.0 of the protocol is spoken: leave it out", "3.0", "3.2", "latest"
    ),
    "scram_client_key": _no(None, _NO_KEYS),
    "scram_server_key": _no(None, _NO_KEYS),
    "oauth_issuer": _no(None, _NO_OAUTH),
    "oauth_client_id": _no(None, _NO_OAUTH),
    "oauth_client_secret": _no(None, _NO_OAUTH),
    "oauth_scope": _no(None, _NO_OAUTH),
}  # fmt: skip
"""Parameters that are known and cannot be given what they ask for."""

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "sslnegotiation": ("postgres", "direct"),
    "channel_binding": ("disable", "prefer", "require"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby"),
    "load_balance_hosts": ("disable", "random"),
}

_NUMBERS = (
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
    "tcp_user_timeout",
)  # fmt: skip

_SESSION_VARIABLES = ("PGDATESTYLE", "PGTZ", "PGGEQO")
"""They set what a session begins with; nothing of the store's depends on it."""

_warned: set[str] = set()


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters that were found, and where each is from."""

    values: dict[str, str]
    origins: dict[str, str]

    def refusal(self, name: str, words: str) -> InvalidArgument:
        """The error for a parameter, which says where it is from and not what it is."""
        return InvalidArgument(f"{self.origins.get(name, name)} {words}")


def resolve(given: Mapping[str, str]) -> Parameters:
    """Complete the parameters of a URL, and check them all.

    Raises:
        InvalidArgument: one is not supported, or makes no sense.
    """
    values = {name: value for name, value in given.items() if value}
    origins = {name: f"{name} in the URL" for name in given}
    for name, value in _service(values).items():
        if value and name not in values:
            values[name], origins[name] = value, f"{name} of the service"
    for name, variable in TAKEN.items():
        if variable and name not in values and (value := os.environ.get(variable)):
            values[name], origins[name] = value, f"the variable {variable}"
    for name, rule in UNSUPPORTED.items():
        if rule.variable and name not in values and (value := os.environ.get(rule.variable)):
            if value.lower() in rule.harmless:
                continue
            if not rule.strict:
                _warn(rule.variable, rule.advice)
                continue
            values[name], origins[name] = value, f"the variable {rule.variable}"
    for variable in _SESSION_VARIABLES:
        if os.environ.get(variable):
            _warn(variable, "the store's sessions do not depend on it")
    found = Parameters(values, origins)
    _check(found)
    return found


def _warn(variable: str, advice: str) -> None:
    if variable not in _warned:
        _warned.add(variable)
        _log.warning("the variable %s is set and has no effect on the store: %s", variable, advice)


def _check(found: Parameters) -> None:
    for name, value in list(found.values.items()):
        if "\0" in value or any("\ud800" <= each <= "\udfff" for each in value):
            raise found.refusal(name, "has a character that no server takes: remove it")
        if name in UNSUPPORTED:
            rule = UNSUPPORTED[name]
            if value.lower() not in rule.harmless:
                raise found.refusal(name, f"is not supported: {rule.advice}")
            del found.values[name]
        elif name in _CHOICES and value not in _CHOICES[name]:
            raise found.refusal(name, f"is none of its values: write {', '.join(_CHOICES[name])}")
        elif name in _NUMBERS and not _is_number(value):
            raise found.refusal(name, "is no whole number")


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 10


# -- services ------------------------------------------------------------------------------------------------


def _service(given: Mapping[str, str]) -> dict[str, str]:
    """The parameters of the service that is named, from the first file that has it."""
    name = given.get("service") or os.environ.get("PGSERVICE")
    if not name:
        return {}
    tried: list[Path] = []
    for path in _service_files(given):
        tried.append(path)
        try:
            lines = path.read_text("utf-8").splitlines()
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise InvalidArgument(
                f"the service file {str(path)!r} cannot be read ({type(error).__name__})"
            ) from None
        section = _section(path, lines, name)
        if section is not None:
            return section
    raise InvalidArgument(
        f"the service that service= or PGSERVICE names is in none of {', '.join(map(str, tried))}"
    )


def _service_files(given: Mapping[str, str]) -> list[Path]:
    named = given.get("servicefile") or os.environ.get("PGSERVICEFILE")
    files = [Path(named) if named else _home() / ".pg_service.conf"]
    if folder := os.environ.get("PGSYSCONFDIR"):
        files.append(Path(folder) / "pg_service.conf")
    return files


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # a process without one
        return Path("~")


def _section(path: Path, lines: list[str], name: str) -> dict[str, str] | None:
    section: dict[str, str] | None = None
    for number, line in enumerate(map(str.strip, lines), 1):
        if line.startswith("["):
            if section is not None:
                break
            if line == f"[{name}]":
                section = {}
        elif section is not None and line and not line.startswith("#"):
            key, separator, value = line.partition("=")
            known = key in TAKEN or key in UNSUPPORTED
            if not separator or not known or key in {"service", "servicefile"}:
                raise InvalidArgument(
                    f"line {number} of the service file {str(path)!r} is no parameter that is known: write "
                    "name=value, without blanks"
                )
            section.setdefault(key, value)
    return section


def default_passfile() -> Path:
    """Where libpq looks for passwords."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", "")) / "postgresql" / "pgpass.conf"
    return _home() / ".pgpass"
