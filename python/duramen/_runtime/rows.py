"""From the engine's rows and entries to views."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from duramen._bridge import ENCODING
from duramen._values.durations import from_ms
from duramen._values.payloads import load_reason, load_recorded
from duramen.errors import RecordedError

from .views import Event, RefusedSignal, RunStatus, RunView, WorkerView

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from duramen._bridge import Detail, Entry, OwnerRow, Refused, Row
    from duramen._values.serializer import Serializer

__all__ = ["event_of", "read_error", "read_payload", "view_of", "worker_of"]

_ERROR_KINDS = frozenset({"step_failed", "step_attempt_failed", "run_failed"})


def read_payload(serializer: Serializer, data: bytes | None, type: Any = None) -> Any:  # noqa: A002
    """Decode a payload for people: by its type if it fits, else as plain JSON, else as the bytes it is.

    What people look at must not fail because the code has moved on since, or because a key is missing here.
    """
    if data is None or data == b"":
        return None
    if type is not None:
        try:
            return serializer.loads(data, type)
        except Exception:  # noqa: BLE001, S110 - also what a user's type raises when it is made
            pass
    try:
        return serializer.loads(data)
    except Exception:  # noqa: BLE001 - a codec may raise whatever it likes
        return data


def read_error(serializer: Serializer, data: bytes | None) -> RecordedError:
    """Decode a recorded error; what cannot be read becomes an error that says so."""
    try:
        return load_recorded(serializer, data or b"")
    except Exception as error:  # noqa: BLE001 - a codec may raise whatever it likes
        return RecordedError("unknown", f"the recorded error cannot be read ({error})")


def when(milliseconds: int | None) -> datetime | None:
    """As `from_ms`, for times that may be missing."""
    return None if milliseconds is None else from_ms(milliseconds)


def view_of(
    row: Row,
    detail: Detail | None,
    serializer: Serializer,
    types: Callable[[str, str], tuple[Any, Any, Any]],
) -> RunView:
    """Make the view of a row, with its `detail` also of what belongs to it.

    `types` gives the types of input, output and state of a workflow as far as they are known here.
    """
    facts: dict[str, Any] = {
        "run_id": row.run_id,
        "workflow": row.workflow,
        "version": row.version,
        "status": RunStatus(row.status),
        "created_at": from_ms(row.created_at),
        "updated_at": from_ms(row.updated_at),
        "started_at": when(row.started_at),
        "finished_at": when(row.finished_at),
        "ready_at": when(row.ready_at),
        "deadline": when(row.deadline),
        "owner": row.owner,
        "epoch": row.epoch,
        "journal_start": row.journal_start,
        "journal_len": row.journal_len,
        "generation": row.generation,
        "unread": max(0, row.inbox_len - row.inbox_seen),
        "waits": tuple(row.waits),
        "tags": tuple(row.tags),
        "note": row.note,
        "parent": row.parent,
        "root": row.root,
    }
    if detail is not None:
        input_type, output_type, state_type = types(row.workflow, row.version)
        facts["input"] = read_payload(serializer, detail.input, input_type)
        facts["state"] = read_payload(serializer, detail.state, state_type)
        facts["memo"] = read_payload(serializer, detail.memo)
        facts["refused"] = tuple(_refused(message, serializer) for message in detail.refused)
        facts["detailed"] = True
        end = detail.end
        if end is not None:
            if end.kind == "run_finished":
                facts["output"] = read_payload(serializer, end.payload, output_type)
            elif end.kind == "run_failed":
                facts["error"] = read_error(serializer, end.payload)
            elif end.kind in {"run_cancelled", "run_terminated"}:
                facts["reason"] = load_reason(serializer, end.payload) or None
    return RunView(**facts)


def _refused(message: Refused, serializer: Serializer) -> RefusedSignal:
    return RefusedSignal(
        name=message.name,
        signal_id=message.message_id,
        kind=message.kind,
        reason=message.reason,
        at=from_ms(message.at),
        payload=read_payload(serializer, message.payload),
    )


def worker_of(row: OwnerRow, now: int) -> WorkerView:
    """Make the view of an owner as it is at that instant by the store's clock."""
    return WorkerView(
        owner=row.owner,
        label=row.label,
        serves=tuple(row.serves),
        started_at=from_ms(row.started_at),
        seen_at=from_ms(row.seen_at),
        lease_until=from_ms(row.lease_until),
        ended_at=when(row.ended_at),
        runs=row.held,
        alive=row.ended_at is None and row.lease_until > now,
    )


def event_of(run_id: str, index: int, entry: Entry, serializer: Serializer) -> Event:
    """Make the view of a journal entry."""
    kind, meta, payload = entry.kind, entry.meta, entry.payload
    facts: dict[str, Any] = {}
    if meta and entry.encoding <= ENCODING:  # what a newer version says there is for a newer one to read
        try:
            facts = json.loads(meta)
        except ValueError:
            facts = {}
    ended = facts.get("ended")
    is_error = (
        kind in _ERROR_KINDS
        or ended == "failed"
        or (kind == "update_finished" and facts.get("failed") is True)
    )
    if kind == "event_received" and str(facts.get("wait", "")).startswith("event:__token:"):
        payload = payload[1:]  # which says whether it was completed or failed
    attempt = facts.get("attempt")
    if attempt is None and kind.startswith("step_"):
        attempt = 1
    return Event(
        run_id=run_id,
        index=index,
        kind=kind,
        at=from_ms(entry.at),
        op=entry.op,
        data=None if is_error else read_payload(serializer, payload),
        error=read_error(serializer, payload) if is_error else None,
        attempt=attempt,
        retry_at=when(facts.get("retry_at")),
        wait=facts.get("wait"),
        deadline=when(facts.get("deadline")),
        message_id=facts.get("message"),
        cause=facts.get("cause"),
        run=facts.get("run"),
        ended=ended,
        exhausted=facts.get("exhausted") is True,
        undone=facts.get("undone") is True,
        skipped=facts.get("skipped") is True,
    )
