"""Histories: a run's row and its whole journal as JSON, to keep, to read, and to replay.

`Runtime.export` makes one, `duramen.testing.replay` takes one. What comes from outside goes through
`read_history`, which takes the whole form or nothing.

Payloads are kept to the byte. One that is JSON in UTF-8 (or empty) stands there as that text, so that people
can read and search a history; any other, such as an encrypted one, stands there in base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypeAlias, cast, get_args

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from duramen._bridge import ENCODING
from duramen.errors import InvalidHistory

if TYPE_CHECKING:
    from duramen._bridge import Detail, Entry

__all__ = [
    "FORMAT",
    "Base64Payload",
    "EntryKind",
    "History",
    "HistoryEntry",
    "HistoryPayload",
    "HistoryRun",
    "HistorySource",
    "dump_payload",
    "load_payload",
    "make_history",
    "read_history",
]

FORMAT = 1
"""The version of the form: one more whenever an older build could misread it."""

EntryKind: TypeAlias = Literal[
    "run_created",
    "step_completed",
    "step_failed",
    "step_attempt_failed",
    "wait_opened",
    "event_received",
    "timer_fired",
    "approval_requested",
    "approval_resolved",
    "value_recorded",
    "child_started",
    "child_finished",
    "patch_marked",
    "cancel_requested",
    "run_finished",
    "run_failed",
    "run_cancelled",
    "run_terminated",
    "run_reopened",
    "message_sent",
    "update_accepted",
    "update_finished",
    "stream_written",
    "step_progress",
    "run_parked",
]
"""Every kind of journal entry that this build knows, in the order of the numbers that stores keep."""

_Status: TypeAlias = Literal[
    "queued", "running", "waiting", "completed", "failed", "cancelled", "terminated", "stuck", "paused"
]
# A pattern makes pydantic look at the characters: text that is no Unicode (a lone surrogate) is refused.
_Text: TypeAlias = Annotated[str, Field(pattern=r"(?s)\A.*\z")]
_Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=255, pattern=r"\A[^\x00]*\z")]
# To the end of the year 9999, where `datetime` ends.
_Instant: TypeAlias = Annotated[int, Field(ge=0, le=253_402_300_799_999)]
# The engine's integers have 64 bits, and it counts on.
_Count: TypeAlias = Annotated[int, Field(ge=0, le=2**62)]

_STRICT = ConfigDict(extra="forbid", strict=True)


@with_config(_STRICT)
class Base64Payload(TypedDict):
    """A payload that is no JSON text."""

    base64: _Text


HistoryPayload: TypeAlias = _Text | Base64Payload
"""The payload's own text (which is JSON, or empty), or its bytes in base64."""


@with_config(_STRICT)
class HistoryEntry(TypedDict):
    """A journal entry. Its index is its place in the list."""

    encoding: Annotated[int, Field(ge=0, le=255)]
    """The least encoding that can read the entry."""
    kind: EntryKind
    """A version that does not know the kind exports it as ``kind N``, with the number that stores keep."""
    op: _Text
    """The operation's id; empty for entries of the run itself."""
    meta: _Text | None
    """Facts beside the payload, as the JSON text that the store has."""
    payload: HistoryPayload
    at: _Instant
    """When it was recorded: milliseconds since the epoch (UTC), as all times here."""


@with_config(_STRICT)
class HistoryRun(TypedDict):
    """A run's row, and what belongs to it."""

    run_id: _Id
    workflow: _Id
    version: _Id
    status: _Status
    created_at: _Instant
    started_at: _Instant | None
    updated_at: _Instant
    finished_at: _Instant | None
    ready_at: _Instant | None
    deadline: _Instant | None
    epoch: _Count
    generation: NotRequired[_Count]
    """How often it was continued as new; missing if it never was. The journal is that of this generation."""
    waits: list[_Text]
    tags: list[_Text]
    seed: Annotated[str, Field(pattern=r"\A[0-9a-f]{32}\z")]
    """What `ctx.uuid()` and `ctx.random()` are derived from, in hexadecimal."""
    note: _Text | None
    """Why a stuck run is stuck, or a paused one paused."""
    state: HistoryPayload | None
    memo: HistoryPayload | None


@with_config(_STRICT)
class History(TypedDict):
    """A run as `Runtime.export` gives it: plain JSON, with the user's payloads in it."""

    format: Literal[1]
    """`FORMAT` of the build that made it."""
    duramen: _Text
    """The version that made it; for people."""
    run: HistoryRun
    journal: Annotated[list[HistoryEntry], Field(min_length=1)]


HistorySource: TypeAlias = Mapping[str, Any] | str | bytes | Path
"""A history as a dict, as JSON text, or in a file."""


@cache
def _adapter() -> TypeAdapter[History]:
    """Made at first use: it costs milliseconds, and few processes need it."""
    return TypeAdapter(History)


def dump_payload(data: bytes) -> HistoryPayload:
    r"""Put a payload into a history.

    >>> dump_payload(b'{"a": 1}'), dump_payload(b""), dump_payload(b"\xff")
    ('{"a": 1}', '', {'base64': '/w=='})
    """
    try:
        text = data.decode()
        if text:
            json.loads(text)
    except (ValueError, RecursionError):
        return {"base64": base64.b64encode(data).decode()}
    return text


def load_payload(payload: HistoryPayload) -> bytes:
    r"""Take a payload out of a history.

    Raises:
        ValueError: it is no base64, or not UTF-8.

    >>> load_payload({"base64": "/w=="})
    b'\xff'
    """
    if isinstance(payload, str):
        return payload.encode()
    return base64.b64decode(payload["base64"], validate=True)


def make_history(detail: Detail, entries: list[Entry]) -> History:
    """Make the history of a run from its detail and its journal, as the engine gives them."""
    row = detail.row
    copied: dict[str, Any] = {
        name: getattr(row, name)
        for name in (
            "run_id", "workflow", "version", "status", "created_at", "started_at", "updated_at",
            "finished_at", "ready_at", "deadline", "epoch", "waits", "tags",
        )
    }  # fmt: skip
    if row.generation:
        copied["generation"] = row.generation
    copied["seed"] = row.seed.hex()
    copied["note"] = row.note
    for name, data in (("state", detail.state), ("memo", detail.memo)):
        copied[name] = None if data is None else dump_payload(data)
    return {
        "format": FORMAT,
        "duramen": version("duramen"),
        "run": cast("HistoryRun", copied),
        "journal": [
            {
                "encoding": entry.encoding,
                "kind": cast("EntryKind", entry.kind),
                "op": entry.op,
                "meta": entry.meta,
                "payload": dump_payload(entry.payload),
                "at": entry.at,
            }
            for entry in entries
        ],
    }


def read_history(source: HistorySource) -> History:
    """Read a history and check every part of it.

    Args:
        source: a dict, JSON text (str or bytes), or the path of a file (a `pathlib.Path`, not a str).

    Raises:
        InvalidHistory: it is none; the error names the part that is to blame.
        OSError: the file cannot be read.

    >>> read_history('{"format": 7}')
    Traceback (most recent call last):
    duramen.errors.InvalidHistory: $.format: this history has format 7, and this version reads format 1: ...
    """
    value = _parse(source)
    if not isinstance(value, Mapping):
        raise InvalidHistory("$", "a history is an object, as Runtime.export gives it")
    found = cast("Mapping[str, object]", value).get("format")
    if isinstance(found, bool) or found != FORMAT:
        raise InvalidHistory(
            "$.format",
            f"this history has format {found!r}, and this version reads format {FORMAT}: "
            "replay it with the version that made it, or a later one",
        )
    try:
        history = _adapter().validate_python(_readable(cast("Mapping[str, object]", value)))
    except ValidationError as error:
        raise _invalid(error) from None
    first = history["journal"][0]["kind"]
    if first != "run_created":
        raise InvalidHistory("$.journal[0].kind", f"a journal begins with run_created, not with {first}")
    _check_payloads(history)
    return history


def _readable(value: Mapping[str, object]) -> Mapping[str, object]:
    """The history with the numbers of kinds that a version which did not know them wrote turned into names.

    What has the form of a history is left to be found out.

    Raises:
        InvalidHistory: an entry needs a later version than this one.
    """
    journal = value.get("journal")
    if not isinstance(journal, list):
        return value
    entries = cast("list[object]", journal)
    needed = [_encoding(entry) for entry in entries]
    most = max(needed, default=0)
    if most > ENCODING:
        raise InvalidHistory(
            f"$.journal[{needed.index(most)}].encoding",
            f"this entry needs a version that reads encoding {most}, and this one reads up to {ENCODING}: "
            "replay it with the version that made it, or a later one",
        )
    return {**value, "journal": [_named(entry) for entry in entries]}


def _encoding(entry: object) -> int:
    found = cast("Mapping[str, object]", entry).get("encoding") if isinstance(entry, Mapping) else None
    return found if type(found) is int and found <= 255 else 0


def _named(entry: object) -> object:
    if not isinstance(entry, Mapping):
        return entry
    known = cast("Mapping[str, object]", entry)
    kind = known.get("kind")
    number = kind.removeprefix("kind ") if isinstance(kind, str) else ""
    if number == kind or not (number.isascii() and number.isdecimal() and len(number) <= 3):
        return known
    names = get_args(EntryKind)
    return {**known, "kind": names[int(number)]} if int(number) < len(names) else known


def _parse(source: HistorySource) -> Any:
    if isinstance(source, Path):
        source = source.read_bytes()
    if not isinstance(source, str | bytes):
        return source
    try:
        return json.loads(source)
    except (ValueError, RecursionError) as error:
        hint = "; for a file give a pathlib.Path" if isinstance(source, str) else ""
        raise InvalidHistory("$", f"it is not JSON ({error}){hint}") from None


def _invalid(error: ValidationError) -> InvalidHistory:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    # The names of union members stand in the location too; they are no part of the document.
    path = "$"
    for part in first["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and part != "Base64Payload":
            path += f".{part}"
    return InvalidHistory(path, first["msg"])


def _check_payloads(history: History) -> None:
    payloads = [
        (f"$.journal[{index}].payload", entry["payload"]) for index, entry in enumerate(history["journal"])
    ]
    run = history["run"]
    payloads += [
        (f"$.run.{name}", payload)
        for name, payload in (("state", run["state"]), ("memo", run["memo"]))
        if payload is not None
    ]
    for path, payload in payloads:
        try:
            load_payload(payload)
        except (binascii.Error, ValueError) as error:
            raise InvalidHistory(path, f"a payload is a text, or bytes in base64: {error}") from None
