"""Checks of what callers give, before anything is written, and the ids that Duramen makes up itself."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from duramen.errors import InvalidArgument, InvalidId, SignalRefused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "check_choice",
    "check_count",
    "check_event_name",
    "check_id",
    "check_identifier",
    "check_signal_id",
    "check_tables",
    "check_tags",
    "check_text",
    "check_wait_key",
    "new_owner",
    "new_run_id",
    "pack_cursor",
    "unpack_cursor",
]

MAX_ID_CHARS = 255
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WAIT_PREFIXES = ("event:", "approval:", "child:", "retry:", "update:", "poll:", "exhausted:")

_SIGNAL_PREFIXES = (
    ("approval:", "decisions", "Runtime.approve to decide"),
    ("update:", "updates", "Runtime.update for an update"),
    ("__", "Duramen", "Runtime.complete to complete a token"),
)
"""Beginnings of the ids of messages that are no events, whose they are, and what sends them."""


def check_id(what: str, value: Any) -> str:
    """Give `value` back if a store can keep it as an id: 1 to 255 characters, no control character.

    >>> check_id("run id", "order:42")
    'order:42'
    >>> check_id("run id", "")
    Traceback (most recent call last):
    duramen.errors.InvalidId: the run id is empty: give it at least one character
    """
    if not isinstance(value, str):
        raise InvalidId(f"the {what} is {value!r}: give a string")
    if not value:
        raise InvalidId(f"the {what} is empty: give it at least one character")
    if len(value) > MAX_ID_CHARS:
        raise InvalidId(
            f"the {what} {value[:40]!r}… has {len(value)} characters: at most {MAX_ID_CHARS} are allowed"
        )
    if found := _CONTROL.search(value):
        raise InvalidId(f"the {what} {value!r} has a control character at {found.start()}: remove it")
    if found := _SURROGATE.search(value):
        raise InvalidId(f"the {what} {value!r} has half a character (a lone surrogate) at {found.start()}")
    return value


def check_text(what: str, value: Any) -> str:
    """Give `value` back if it is a text that can be stored (any length)."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{what} is {value!r}: give a string")
    if found := _SURROGATE.search(value):
        raise InvalidArgument(f"{what} has half a character (a lone surrogate) at {found.start()}")
    return value


def check_event_name(value: Any) -> str:
    """As `check_id`, and refuse names that begin with ``__``, which are Duramen's own.

    >>> check_event_name("__timer")
    Traceback (most recent call last):
    duramen.errors.SignalRefused: event names beginning with '__' are reserved, so '__timer' was not sent...
    """
    name = check_id("event name", value)
    if name.startswith("__"):
        raise SignalRefused(
            f"event names beginning with '__' are reserved, so {name!r} was not sent: choose another name"
        )
    return name


def check_signal_id(value: Any) -> str:
    """As `check_id`, and refuse ids of decisions: the first message with an id is the only one.

    >>> check_signal_id("approval:r/approval-1")
    Traceback (most recent call last):
    duramen.errors.SignalRefused: signal ids beginning with 'approval:' are those of decisions, so ...
    """
    signal_id = check_id("signal id", value)
    for prefix, whose, call in _SIGNAL_PREFIXES:
        if signal_id.startswith(prefix):
            raise SignalRefused(
                f"signal ids beginning with {prefix!r} are those of {whose}, so {signal_id!r} was not sent: "
                f"use {call}, or another id for an event"
            )
    return signal_id


def check_tags(tags: Any) -> list[str]:
    """Give a run's tags as a list without repeats, each of them a valid id.

    >>> check_tags(["eu", "vip", "eu"])
    ['eu', 'vip']
    """
    if tags.__class__ is tuple and not tags:
        return []  # as for nearly every start, which asks three times
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise InvalidArgument(f"tags is {tags!r}: give a list of strings")
    found: dict[str, None] = {}
    for tag in tags:  # pyright: ignore[reportUnknownVariableType]
        found[check_id("tag", tag)] = None
    if len(found) > 100:
        raise InvalidArgument(f"there are {len(found)} tags: at most 100 are allowed")
    return list(found)


def check_count(what: str, value: Any, *, least: int = 1, most: int = 1_000_000) -> int:
    """Give `value` back if it is a whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgument(f"{what} is {value!r}: give a whole number")
    if not least <= value <= most:
        raise InvalidArgument(f"{what} is {value}: it must be from {least} to {most:,}")
    return value


def check_choice(what: str, value: Any, choices: Sequence[str]) -> str:
    """Give `value` back if it is one of `choices`."""
    if value not in choices:
        raise InvalidArgument(f"{what} is {value!r}: choose one of {', '.join(choices)}")
    return str(value)


def check_wait_key(value: Any) -> str:
    """Give the key of a wait; a bare name is taken for an event's.

    >>> check_wait_key("payment"), check_wait_key("approval:a1"), check_wait_key("timer")
    ('event:payment', 'approval:a1', 'timer')
    """
    text = check_text("waiting_for", value)
    if not text or "\0" in text:
        raise InvalidArgument(f"waiting_for is {text!r}: give an event's name, 'timer' or 'approval:ID'")
    return text if text == "timer" or text.startswith(_WAIT_PREFIXES) else f"event:{text}"


# -- ids -----------------------------------------------------------------------------------------------------

_id_lock = threading.Lock()
_last_id = 0


def new_run_id() -> str:
    """Make up a run id: a UUID of version 7, so that ids sort by the time they were made, also within 1 ms.

    >>> from uuid import UUID
    >>> a, b = new_run_id(), new_run_id()
    >>> a < b, UUID(a).version
    (True, 7)
    """
    global _last_id  # noqa: PLW0603 - one sequence for the process is the point
    stamp = time.time_ns()
    # 48 bits of milliseconds, then 12 bits of the fraction (244 ns each), raised by one if that is too few.
    milliseconds, rest = divmod(stamp, 1_000_000)
    tick = (milliseconds << 12) | (rest << 12) // 1_000_000
    with _id_lock:
        tick = max(tick, _last_id + 1)
        _last_id = tick
    low = int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)
    # By hand: a `UUID` that is only printed costs as much as all of this.
    digits = f"{(tick >> 12) << 80 | 7 << 76 | (tick & 0xFFF) << 64 | 2 << 62 | low:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_owner(label: str | None) -> str:
    """Name this runtime for leases: never twice the same, whatever the label, or exclusion would be lost.

    >>> new_owner("web") != new_owner("web")
    True
    """
    name = check_id("owner", label) if label is not None else f"{socket.gethostname()[:100]}:{os.getpid()}"
    if len(name) > 200:
        raise InvalidId(f"the owner has {len(name)} characters: at most 200 are allowed")
    return f"{name}:{uuid4().hex[:12]}"


# -- cursors -------------------------------------------------------------------------------------------------


def pack_cursor(place: tuple[int, str] | None) -> str | None:
    """Make a page's end opaque.

    >>> unpack_cursor(pack_cursor((5, "run")))
    (5, 'run')
    """
    if place is None:
        return None
    return base64.urlsafe_b64encode(json.dumps([place[0], place[1]]).encode()).decode().rstrip("=")


def unpack_cursor(cursor: str | None) -> tuple[int, str] | None:
    """Read a cursor again.

    Raises:
        InvalidArgument: it was not made by `pack_cursor`.
    """
    if cursor is None:
        return None
    try:
        created_at, run_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if type(created_at) is int and -(2**63) <= created_at < 2**63:
            return created_at, check_id("cursor", run_id)
    except (ValueError, TypeError, AttributeError, RecursionError, InvalidArgument):
        pass
    raise InvalidArgument(f"{cursor!r} is no cursor: pass the `cursor` of a page unchanged")


TABLES = (
    "runs",
    "journal",
    "inbox",
    "run_data",
    "run_tags",
    "outgoing",
    "stream_items",
    "owners",
    "schedules",
    "journal_json",
    "duramen_schema_migrations",
)
"""The Postgres tables that may be called otherwise."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,52}", re.ASCII)


def check_identifier(what: str, name: object) -> str:
    """A name for the database: letters, digits and underscores, so that it needs no quoting anywhere."""
    if not isinstance(name, str) or _IDENTIFIER.fullmatch(name) is None:
        raise InvalidArgument(
            f"{what} is {name!r}: use 1 to 53 ASCII letters, digits and underscores, "
            "not beginning with a digit"
        )
    return name


def check_tables(tables: Mapping[str, str]) -> dict[str, str]:
    """Other names for tables: known ones, no two alike."""
    for table in tables:
        if table not in TABLES:
            raise InvalidArgument(
                f"tables= names {table!r}, which is no table: there are {', '.join(TABLES)}"
            )
    checked = {
        table: check_identifier(f"the name of table {table!r}", name) for table, name in tables.items()
    }
    names = [checked.get(table, table) for table in TABLES]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidArgument(f"tables= gives two tables the name {twice.pop()!r}: choose another")
    return checked
