"""Replays recorded journals under the code that is here, with nothing executed.

The real machine does it, through the bridge, over a store that holds this one run and keeps nothing. Where
the journal ends the replay ends, so no step is ever started, and no timer waited for.
"""

from __future__ import annotations

import threading
from contextvars import Context
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from duramen._bridge import Drive, Engine, Newer, Reply, Start, StoreRequest, native_error
from duramen._driving.host import RunHost
from duramen._driving.services import Around, Services
from duramen._logging import logger
from duramen.errors import StoreError

from .history import load_payload

if TYPE_CHECKING:
    from collections.abc import Callable

    from duramen._bridge import Entry, Row, Run, RunEvent, Turn
    from duramen._driving.stepper import StepJob, Stepper
    from duramen._handlers.workflow import WorkflowDef
    from duramen._values.serializer import Serializer

    from .history import History

__all__ = ["Code", "Outcome", "Recording", "replayed"]

T = TypeVar("T")

# What a host has to say of its handler was said when the run was driven.
_SILENT = logger("duramen.replay")
_SILENT.logger.disabled = True

_ANSWER_TIMEOUT = 30.0
"""Seconds that the engine may take for an answer. It has nothing to wait for, so this is a defect's bound."""

_TAKE, _CLOSE = 1, 2
"""Tokens of the calls."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A run as it is replayed: its row, as a store gives it to a claim, and its journal."""

    row: dict[str, Any]
    journal: list[dict[str, Any]]

    @staticmethod
    def of_history(history: History) -> Recording:
        """Take it out of an exported history."""
        run = history["run"]
        journal: list[dict[str, Any]] = [
            {**entry, "payload": load_payload(entry["payload"])} for entry in history["journal"]
        ]
        return _recording(
            {
                **{name: run[name] for name in _SAME},
                "generation": run.get("generation", 0),
                "seed": list(bytes.fromhex(run["seed"])),
                "queue": "default",
                "priority": 5,
                **dict.fromkeys(("parent", "root", "origin")),
            },
            journal,
        )

    @staticmethod
    def of_row(row: Row, entries: list[Entry]) -> Recording:
        """Make it of a row and the journal of its present generation, or the beginning of that."""
        names = (*_SAME, "queue", "priority", "parent", "root", "origin", "generation")
        facts = {name: getattr(row, name) for name in names}
        fields = ("encoding", "kind", "op", "meta", "payload", "at")
        journal = [{name: getattr(entry, name) for name in fields} for entry in entries]
        return _recording({**facts, "seed": list(row.seed)}, journal)

    @property
    def now(self) -> int:
        """The run's own time: to the clock of this machine everything recorded would be long overdue."""
        return max(self.row["created_at"], *(entry["at"] for entry in self.journal))


_SAME = (
    "run_id", "workflow", "version", "created_at", "started_at", "updated_at", "deadline", "tags", "epoch",
)  # fmt: skip

_ZERO = (
    "journal_start",
    "inbox_len",
    "inbox_seen",
    "unread",
    "unread_bytes",
    "lost",
    "lost_at",
)


def _recording(facts: dict[str, Any], journal: list[dict[str, Any]]) -> Recording:
    # Nobody asked the handler when the run was terminated: the code has no part in that entry.
    if journal[-1]["kind"] == "run_terminated":
        journal.pop()
    started_at = facts["created_at"] if facts["started_at"] is None else facts["started_at"]
    return Recording(
        {
            **facts,
            **dict.fromkeys(_ZERO, 0),
            **dict.fromkeys(("finished_at", "ready_at", "timeout", "note")),
            "status": "running",
            "started_at": started_at,
            "owner": "replay",
            "epoch": facts["epoch"] + 1,
            "format": max((entry["encoding"] for entry in journal), default=1),
            "journal_len": len(journal),
            "waits": [],
        },
        journal,
    )


@dataclass(slots=True)
class Outcome:
    """What came of a replay."""

    kind: int | None = None
    """How the handler ended, as `Run.finish` is told; None: the journal ended first."""
    value: Any = None
    """What it returned or raised."""
    payload: bytes | None = None
    """The same as it would be recorded."""
    difference: tuple[str, int] | None = None
    """How the code differs from the journal, and where."""
    unreadable: bool = False
    """It cannot read a value that is recorded."""
    spins: bool = False
    """The handler ran on and on without durable calls until there was no more patience."""
    patches: dict[str, bool] = field(default_factory=dict[str, bool])
    """What the handler was told of patches by the journal. Places behind its end are not among them."""


class Code(Protocol):
    """The workflows that the code of a replayed run may ask for."""

    def find(self, workflow: Any, /) -> WorkflowDef[Any, Any] | None:
        """The one of that name, or that definition."""
        ...

    def of_version(self, name: str, version: str | None, /) -> WorkflowDef[Any, Any] | None:
        """That version of one, or the newest."""
        ...


def replayed(
    definition: WorkflowDef[Any, Any],
    recording: Recording,
    serializer: Serializer,
    code: Code,
    around: Around,
    *,
    patience: float | None = None,
) -> Outcome:
    """Replay a run. It blocks for as long as the handler needs, in a thread without a running event loop.

    Args:
        definition: the code, in the run's version.
        recording: the run.
        serializer: that of the runtime which the run was made by.
        code: finds other workflows.
        around: what the runtime has around handlers.
        patience: seconds after which a handler that still runs on is left; None: never.
    """
    return _Replay(definition, recording, serializer, code, around, patience).run()


class _Replay:
    """One replay: an engine, a store of one run, the run's host."""

    def __init__(
        self,
        definition: WorkflowDef[Any, Any],
        recording: Recording,
        serializer: Serializer,
        code: Code,
        around: Around,
        patience: float | None,
    ) -> None:
        self._definition = definition
        self._recording = recording
        self._serializer = serializer
        self._code = code
        self._around = around
        self._patience = patience
        self._store = _OneRun(recording)
        self._woken = threading.Event()
        self._touched = False
        self._outcome = Outcome()

    def run(self) -> Outcome:
        key = self._definition
        engine = Engine(
            "python",
            "",
            owner="replay",
            lease=86_400_000,
            hold=0,
            warm=0,
            wake_fd=None,
            wake=self._woken.set,
            options={},
            store=self._store,
        )
        try:
            engine.register([(key.name, key.version)])
            engine.take(_TAKE, self._recording.row["run_id"], self._recording.now)
            run = self._await(engine, _driven)
            host = self._drive(run)
        finally:
            engine.close(_CLOSE)
            self._await(engine, _closed)
        outcome = self._outcome
        outcome.kind, outcome.value = host.outcome or (None, None)
        outcome.difference = outcome.difference or self._store.unreadable()
        return outcome

    def _await(self, engine: Engine, wanted: Callable[[RunEvent | Reply], T | None]) -> T:
        """Serve the engine's store until an event brings what is wanted.

        Raises:
            StoreError: the engine refuses, which only a defect can make it do.
        """
        while True:
            for event in engine.drain():
                if isinstance(event, StoreRequest):
                    self._store.answer(engine, event)
                elif isinstance(event, Newer):
                    continue  # one run is all that the store has
                elif (found := wanted(event)) is not None:
                    return found
                elif isinstance(event, Reply) and event.error is not None:
                    raise native_error(event.error)
            if not self._woken.wait(_ANSWER_TIMEOUT):
                raise StoreError("the engine does not answer")
            self._woken.clear()

    def _drive(self, run: Run) -> RunHost:
        guarded = _GuardedRun(run, self._outcome)
        services = Services(
            stepper=cast("Stepper", _NoSteps()),
            serializer=self._serializer,
            touched=self._touch,
            context=Context(),
            find=self._code.find,
            definition=self._code.of_version,
            around=self._around,
            log=_SILENT,
        )
        until = None if self._patience is None else monotonic() + self._patience
        host = RunHost(cast("Run", guarded), self._definition, services)
        host.start()
        while self._touched:  # the handler used up a slice of time
            self._touched = False
            if until is not None and monotonic() > until:
                self._outcome.spins = True
                break
            host.advance()
        host.evict()
        run.abandon()
        return host

    def _touch(self, _: object) -> None:
        self._touched = True


def _driven(event: RunEvent | Reply) -> Run | None:
    return event.run if isinstance(event, Drive) else None


def _closed(event: RunEvent | Reply) -> Reply | None:
    return event if isinstance(event, Reply) and event.token == _CLOSE else None


class _GuardedRun:
    """A run whose turns end with its journal: whatever only a live run may do is not done."""

    def __init__(self, run: Run, outcome: Outcome) -> None:
        self._run = run
        self._over = False
        self._outcome = outcome

    def __getattr__(self, name: str) -> Any:
        return getattr(self._run, name)

    def turn(self) -> Turn | None:
        if self._over:
            return None
        before = self._run.journal_len()
        turn = self._run.turn()
        # What is delivered live gets a new place in the journal, and a step that starts is live anyway.
        if turn is None or isinstance(turn, Start) or self._run.journal_len() > before:
            self._end()
            return None
        return turn

    def patched(self, id: str) -> bool:  # noqa: A002
        before = self._run.journal_len()
        answer = self._run.patched(id)
        # A mark that is made now would be made by whoever goes on with the run.
        if self._run.journal_len() == before and not self._over:
            self._outcome.patches[id] = answer
        return answer

    def cannot_read(self, op: str, why: str) -> None:
        self._outcome.unreadable = True
        self._run.cannot_read(op, why)

    def finish(self, kind: int, payload: bytes, word: str | None) -> None:
        self._outcome.payload = payload
        try:
            self._run.finish(kind, payload, word)
        finally:
            self._end()

    def _end(self) -> None:
        self._over = True
        text, index = self._run.divergence(), self._run.divergence_index()
        if text is not None and index is not None:
            self._outcome.difference = (text, index)


class _NoSteps:
    """Stands where steps are run. No turn of a guarded run starts one, so nothing ever comes here."""

    def submit(self, job: StepJob) -> None:
        raise AssertionError(f"a replay started {job!r}")


class _OneRun:
    """A store that holds one run for one claim, and keeps nothing."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._reads = 0
        """The highest encoding that the engine reads."""

    def unreadable(self) -> tuple[str, int] | None:
        """The first entry that the engine cannot read: it leaves such a run to newer builds in silence."""
        for index, entry in enumerate(self._recording.journal):
            found = entry["encoding"]
            if found > self._reads:
                text = f"its encoding is {found}, this build reads up to {self._reads}; upgrade duramen"
                return text, index
        return None

    def answer(self, engine: Engine, asked: StoreRequest) -> None:
        """Answer a request of the engine."""
        request, method, now = asked.request, asked.method, self._recording.now
        if method == "claim":
            run = {
                "row": self._recording.row,
                "was": "waiting",
                "journal": self._recording.journal,
                "inbox": [],
                "inbox_more": False,
            }
            claimed = {"now": now, "runs": [run], "more": False, "lapsed": False}
            engine.answer(request, claimed, None)
        elif method == "heartbeat":
            self._reads = asked.arguments[0]["format"]
            engine.answer(request, {"now": now, "alive": True, "inherited": []}, None)
        elif method in {"retire", "close"}:
            engine.answer(request, None, None)
        elif method == "unread":
            engine.answer(request, [], None)
        elif method == "commit":
            engine.answer(request, [{"kind": "fenced"} for _ in asked.arguments[0]], None)
        else:
            engine.answer(request, None, ("unavailable", f"a replay has no {method}()"))
