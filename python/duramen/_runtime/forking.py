"""Forks: runs that begin with a part of another's journal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from duramen._bridge import ENCODING
from duramen._handlers.inputs import NO_INPUT
from duramen._values.checks import check_id
from duramen._values.payloads import dump_failure
from duramen.errors import InvalidArgument, RunIdConflict, StoreLocked, StoreNewer, UnknownWorkflow

from .history import load_payload
from .journals import ENDS, NOTES, in_force

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from duramen._bridge import Created
    from duramen._values.serializer import Serializer

    from .history import History, HistoryEntry
    from .lifecycle import Lifecycle
    from .queries import Queries
    from .registry import Registry
    from .starting import NewRow
    from .surroundings import Surroundings
    from .taking import Taking
    from .views import RunHandle

__all__ = ["Brought", "Forking", "brought_by"]

Brought = tuple[int, str, str, str | None, bytes, int]
"""Encoding, kind, operation, meta, payload and time of an entry, as the engine takes them."""

_SHOWN = 12
"""So many operations are named to whoever asks for one that is not there."""

_OVERRIDABLE = frozenset({"step_completed", "step_failed", "event_received", "approval_resolved"})


class Forking:
    """The call that makes a run of another one's journal."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        registry: Registry,
        serializer: Serializer,
        surroundings: Surroundings,
        queries: Queries,
        taking: Taking,
        new_handle: Callable[[NewRow, bool], RunHandle[Any]],
    ) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._serializer = serializer
        self._surroundings = surroundings
        self._queries = queries
        self._taking = taking
        self._handle = new_handle

    async def fork(
        self,
        run_id: str,
        *,
        from_operation: str | None,
        new_run_id: str | None,
        input: Any,  # noqa: A002
        overrides: Mapping[str, Any] | None,
        version: str | None,
        drive: bool,
    ) -> RunHandle[Any]:
        """See `Runtime.fork`."""
        fork_id = self._surroundings.run_id() if new_run_id is None else check_id("run id", new_run_id)
        if from_operation is not None:
            check_id("operation id", from_operation)
        detail = await self._queries.detail(run_id)
        history = await self._queries.export(run_id)
        row, run, journal = detail.row, history["run"], history["journal"]
        definition = self._registry.of_version(row.workflow, version)
        if definition is None and version is not None and row.workflow in self._registry.names():
            raise UnknownWorkflow(row.workflow, version)
        if input is NO_INPUT:
            data = load_payload(journal[0]["payload"])
        elif definition is None:
            data = self._serializer.dumps(input)
        elif not definition.has_input and input is not None:
            raise InvalidArgument(f"workflow {definition.name!r} takes no input, so none can be given")
        else:
            data = self._serializer.dumps(input, definition.input_type)
        entries = brought_by(history, from_operation, overrides or {}, self._serializer)
        began = journal[0]["at"] if run.get("generation") else run["started_at"]
        new: NewRow = (
            fork_id,
            row.workflow,
            (version or row.version) if definition is None else definition.version,
            data,
            None,
            list(run["tags"]),
            detail.memo,
            row.timeout if definition is None else definition.timeout_ms,
        )
        port = self._lifecycle.ready
        origin = f"fork:{run_id}"[:255]
        answers: list[Created] = await port.call(
            port.engine.fork, new, row.queue, row.priority, origin, entries, began if entries else None
        )
        (answer,) = answers
        if answer.status == "blocked":
            raise StoreLocked(
                f"a transaction that is not Duramen's is about to create run {fork_id!r}; nothing was done: "
                "end that transaction, then try again"
            )
        if answer.workflow != row.workflow:
            raise RunIdConflict(fork_id, row.workflow, answer.workflow)
        if drive and definition is not None:
            await self._taking.adopt(fork_id)
        return self._handle(new, answer.created)


def brought_by(
    history: History, from_operation: str | None, overrides: Mapping[str, Any], serializer: Serializer
) -> list[Brought]:
    """The entries that a fork begins with, behind its own first one.

    What was under way at that place begins anew: of an operation without an outcome nothing is kept.

    Raises:
        InvalidArgument: there is no such operation, or what is asked of it cannot be.
        StoreNewer: a part of the journal is for a later version to read.
    """
    journal = history["journal"]
    run_id = history["run"]["run_id"]
    kept = _kept(journal, run_id, from_operation, overrides)
    _check_children(kept)
    settled = {entry["op"] for entry in kept if _tells(entry)}
    found: list[Brought] = []
    for entry in kept:
        if entry["encoding"] > ENCODING:
            raise StoreNewer(
                f"a part of run {run_id!r} has format {entry['encoding']}, and this duramen reads up to "
                f"{ENCODING}: fork it with a newer one"
            )
        op, kind, payload = entry["op"], entry["kind"], load_payload(entry["payload"])
        if kind in NOTES and op not in settled:
            continue
        if op in overrides and _tells(entry):
            kind, payload = _replaced(entry, overrides[op], serializer)
        found.append((entry["encoding"], kind, op, _own_meta(entry), payload, entry["at"]))
    return found


def _kept(
    journal: list[HistoryEntry], run_id: str, from_operation: str | None, overrides: Mapping[str, Any]
) -> list[HistoryEntry]:
    """The entries in force up to that place."""
    kinds = [entry["kind"] for entry in journal]
    counting = in_force(kinds, [_meta(entry).get("cause") for entry in journal])
    entries = [journal[place] for place in counting[1:] if kinds[place] not in ENDS]
    told: dict[str, int] = {}
    for place, entry in enumerate(entries):
        if _tells(entry):
            told.setdefault(entry["op"], place)
    for op in overrides:
        if op not in told:
            raise _no_operation(run_id, op, told, "has no outcome in run")
    if from_operation is None:
        return entries[: max((told[op] + 1 for op in overrides), default=0)]
    cut = told.get(from_operation)
    if cut is None:
        if all(entry["op"] != from_operation for entry in entries):
            raise _no_operation(run_id, from_operation, told, "is not in the journal of run")
        cut = len(entries)  # it is what the run waits for
    late = [op for op in overrides if told[op] >= cut]
    if late:
        raise InvalidArgument(
            f"operation {late[0]!r} comes behind {from_operation!r}, from where on the fork runs anew: what "
            "is to be replaced must be kept"
        )
    return entries[:cut]


def _tells(entry: HistoryEntry) -> bool:
    """Whether the handler learns of an operation by it. A patch, which may have the id of a step, is none."""
    return bool(entry["op"]) and entry["kind"] not in NOTES and entry["kind"] != "patch_marked"


def _meta(entry: HistoryEntry) -> dict[str, Any]:
    try:
        found = json.loads(entry["meta"] or "{}")
    except ValueError:
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _own_meta(entry: HistoryEntry) -> str | None:
    """The facts of an entry without the number of the generation that it is from."""
    if not (entry["meta"] and entry["kind"].startswith("approval_")):
        return entry["meta"]
    facts = _meta(entry)
    if "wait" in facts:
        facts["wait"] = f"approval:{entry['op']}"
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))


def _replaced(entry: HistoryEntry, value: Any, serializer: Serializer) -> tuple[str, bytes]:
    op, kind = entry["op"], entry["kind"]
    if kind not in _OVERRIDABLE:
        raise InvalidArgument(
            f"operation {op!r} is a {kind}: overrides replace outcomes of steps, events and approvals"
        )
    if isinstance(value, BaseException):
        if not kind.startswith("step_"):
            raise InvalidArgument(f"operation {op!r} is a {kind}, which cannot fail: give what came instead")
        return "step_failed", dump_failure(serializer, value)
    if kind == "event_received":
        return kind, serializer.dumps(value)
    if kind.startswith("step_"):
        return "step_completed", serializer.dumps(value)
    if not isinstance(value, bool):
        raise InvalidArgument(f"operation {op!r} is a decision: give True or False")
    decision = {"approved": value, "feedback": None, "by": None, "at": entry["at"]}
    return kind, serializer.dumps(decision)


def _check_children(kept: list[HistoryEntry]) -> None:
    """Refuse to keep the beginning of a child without its end.

    It is the other run's child, and tells that one.
    """
    ended = {entry["op"] for entry in kept if entry["kind"] == "child_finished"}
    for entry in kept:
        if entry["kind"] == "child_started" and entry["op"] not in ended:
            raise InvalidArgument(
                f"child {entry['op']!r} had not ended at that place, and will tell no fork of its end: fork "
                f"from {entry['op']!r}, or from an operation before it"
            )


def _no_operation(run_id: str, op: str, told: Mapping[str, int], what: str) -> InvalidArgument:
    names = list(told)[:_SHOWN]
    more = f" and {len(told) - len(names)} more" if len(told) > len(names) else ""
    known = f"it has {', '.join(map(repr, names))}{more}" if names else "it has none"
    return InvalidArgument(f"operation {op!r} {what} {run_id!r}: {known}")
