"""Replays exported histories against a workflow's code, with nothing executed.

The real machine does it, through the bridge, over a store that holds this one run and keeps nothing. Where
the history ends the replay ends, so no step is ever started, and no timer waited for.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context as ContextVars
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from duramen._bridge import (
    FINISH_CANCELLED,
    FINISH_COMPLETED,
    FINISH_FAILED,
    Drive,
    Engine,
    Newer,
    Reply,
    Start,
    StoreRequest,
    native_error,
)
from duramen._driving.host import RunHost
from duramen._driving.services import Around, Services
from duramen._handlers.context import Context
from duramen._handlers.middleware import checked as check_middleware
from duramen._logging import logger
from duramen._runtime.history import HistorySource, load_payload, read_history
from duramen._values.payloads import load_recorded
from duramen._values.serializer import JsonSerializer
from duramen.errors import InvalidArgument, RecordedError, ReplayDiverged, StoreError, UnknownWorkflow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from duramen._bridge import Run, RunEvent, Turn
    from duramen._driving.stepper import StepJob, Stepper
    from duramen._handlers.middleware import Middleware
    from duramen._handlers.workflow import WorkflowDef
    from duramen._runtime.history import History
    from duramen._values.serializer import Serializer

__all__ = ["Replayed", "replay"]

T = TypeVar("T")

_KINDS: dict[int, Literal["completed", "failed", "cancelled"]] = {
    FINISH_COMPLETED: "completed",
    FINISH_FAILED: "failed",
    FINISH_CANCELLED: "cancelled",
}

# What a host has to say of its handler was said when the run was driven.
_SILENT = logger("duramen.replay")
_SILENT.logger.disabled = True

_ANSWER_TIMEOUT = 30.0
"""Seconds that the engine may take for an answer. It has nothing to wait for, so this is a defect's bound."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where a replay has come to."""

    run_id: str
    kind: Literal["completed", "failed", "cancelled", "unfinished"]
    """How the handler ended. ``unfinished``: the history ended first, as it does for a run that waits, and
    the code fits as far as it goes."""
    output: Any = None
    """What the handler returned."""
    error: BaseException | None = None
    """What it raised."""
    entries: int = 0
    """How many journal entries were replayed."""


def replay(
    workflow: WorkflowDef[Any, Any],
    history: HistorySource,
    *,
    serializer: Serializer | None = None,
    compare_output: bool = True,
    middleware: Sequence[Middleware[Context[Any]]] = (),
) -> Replayed:
    """Run a workflow's code against an exported history and see that it does what is recorded.

    Nothing is executed: steps answer from the history, and where that ends the replay ends. It works for runs
    in any status; a terminated one counts as one that had not ended. It blocks for as long as the handler
    needs, and can be called with or without an event loop.

    Args:
        workflow: the code. For a history of another version than its own, one of `previous=` is taken.
        history: what `Runtime.export` gave: as a dict, as JSON text, or in a file (`pathlib.Path`).
        serializer: that of the runtime which the run was made by. Default: `JsonSerializer`.
        compare_output: also compare what the handler returns, or the class of what it raises, with the
            record.
        middleware: that of the runtime, if it has any; the workflow's own is run anyway.

    Returns:
        How the handler ended, or that the history ended first.

    Raises:
        ReplayDiverged: the code does something else; the text shows the difference.
        InvalidHistory: it is no history, one of a later form, or one with entries that only a later version
            can read.
        UnknownWorkflow: the run is of a version that the workflow does not have.
        InvalidArgument: the run is of another workflow.

    In a test, for every history that was kept::

        @pytest.mark.parametrize("history", Path("histories").glob("*.json"))
        def test_old_runs_go_on(history):
            replay(fulfillment, history)

    >>> from duramen import Context, Runtime, workflow
    >>> async def charge() -> str:
    ...     return "paid"
    >>> @workflow
    ... async def order(ctx: Context) -> str:
    ...     return await ctx.step("charge", charge)
    >>> async def main():
    ...     async with Runtime("memory://", workflows=[order]) as runtime:
    ...         await runtime.run(order, run_id="order:42")
    ...         return await runtime.export("order:42")
    >>> history = asyncio.run(main())
    >>> replay(order, history).output
    'paid'
    >>> @workflow(name="order")
    ... async def changed(ctx: Context) -> str:
    ...     return await ctx.step("pay", charge)
    >>> replay(changed, history)
    Traceback (most recent call last):
    duramen.errors.ReplayDiverged: run 'order:42' does not replay under workflow 'order' version '1' ...
    """
    checked = read_history(history)
    definition = _definition(workflow, checked)
    job = _Replay(definition, checked, JsonSerializer() if serializer is None else serializer, middleware)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return job.run(compare_output=compare_output)
    # Handlers are not drained inside of a task, so one that replays gets a thread for it.
    with ThreadPoolExecutor(1, "duramen-replay") as pool:
        return pool.submit(job.run, compare_output=compare_output).result()


def _definition(workflow: WorkflowDef[Any, Any], history: History) -> WorkflowDef[Any, Any]:
    run = history["run"]
    if run["workflow"] != workflow.name:
        raise InvalidArgument(
            f"the history is one of workflow {run['workflow']!r}, so {workflow.name!r} cannot replay it"
        )
    versions = {each.version: each for each in (workflow, *workflow.previous)}
    definition = versions.get(run["version"])
    if definition is None:
        raise UnknownWorkflow(workflow.name, run["version"])
    definition.resolve()
    return definition


class _Replay:
    """One replay: an engine, a store of one run, the run's host."""

    def __init__(
        self,
        definition: WorkflowDef[Any, Any],
        history: History,
        serializer: Serializer,
        middleware: Sequence[Middleware[Any]],
    ) -> None:
        self._around_handlers = Around(check_middleware(middleware, Context, "middleware"))
        self._definition = definition
        self._history = history
        self._serializer = serializer
        self._store = _OneRun(history)
        self._woken = threading.Event()
        self._touched = False

    def run(self, *, compare_output: bool) -> Replayed:
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
            # The run's own time: to the clock of this machine everything recorded would be long overdue.
            engine.take(_TAKE, self._history["run"]["run_id"], self._store.now)
            run = self._await(engine, _driven)
            guarded, host = self._drive(run)
        finally:
            engine.close(_CLOSE)
            self._await(engine, _closed)
        self._check(guarded, compare_output=compare_output)
        kind, value = host.outcome or (None, None)
        return Replayed(
            run_id=host.run_id,
            kind="unfinished" if kind is None else _KINDS[kind],
            output=value if kind == FINISH_COMPLETED else None,
            error=value if kind in {FINISH_FAILED, FINISH_CANCELLED} else None,
            entries=len(self._store.journal),
        )

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

    def _drive(self, run: Run) -> tuple[_GuardedRun, RunHost]:
        guarded = _GuardedRun(run)
        services = Services(
            stepper=cast("Stepper", _NoSteps()),
            serializer=self._serializer,
            touched=self._touch,
            context=ContextVars(),
            log=_SILENT,
            around=self._around_handlers,
        )
        host = RunHost(cast("Run", guarded), self._definition, services)
        host.start()
        while self._touched:  # the handler used up a slice of time
            self._touched = False
            host.advance()
        host.evict()
        run.abandon()
        return guarded, host

    def _touch(self, _: object) -> None:
        self._touched = True

    # -- what came of it -------------------------------------------------------------------------------------

    def _check(self, run: _GuardedRun, *, compare_output: bool) -> None:
        difference = run.difference or self._store.unreadable()
        if difference is not None:
            raise self._diverged(*difference)
        last = len(self._store.journal) - 1
        end = self._store.journal[last]
        if compare_output and run.finished is not None and end["kind"] in _ENDS:
            expected, found = end["payload"], run.finished
            if end["kind"] == "run_finished":
                if not self._same(expected, found):
                    raise self._diverged(
                        f"the handler returned something else: expected (recorded) {self._show(expected)}, "
                        f"found {self._show(found)}",
                        last,
                    )
            elif end["kind"] == "run_failed":
                was, now = self._error(expected), self._error(found)
                if was.type_name != now.type_name:
                    raise self._diverged(
                        f"the handler raised something else: expected (recorded) {was}, found {now}", last
                    )

    def _diverged(self, text: str, index: int) -> ReplayDiverged:
        definition = self._definition
        code = f"workflow {definition.name!r} version {definition.version!r} ({definition.location})"
        return ReplayDiverged(self._history["run"]["run_id"], text, index, self._around(index), code)

    def _around(self, index: int) -> str:
        """The journal around a place, for people."""
        lines: list[str] = []
        for place in range(max(0, index - 3), min(len(self._store.journal), index + 3)):
            entry = self._store.journal[place]
            mark = ">" if place == index else " "
            lines.append(f"  {mark} {place:>4}  {entry['kind']:<20} {entry['op']}".rstrip())
        if index >= len(self._store.journal):
            lines.append(f"  > {index:>4}  (end of the journal)")
        return "\n".join(lines)

    def _same(self, one: bytes, other: bytes) -> bool:
        if one == other:
            return True
        try:
            return bool(self._serializer.loads(one) == self._serializer.loads(other))
        except Exception:  # noqa: BLE001 - also what a user's serializer raises
            return False

    def _show(self, payload: bytes) -> str:
        try:
            text = repr(self._serializer.loads(payload))
        except Exception:  # noqa: BLE001 - also what a user's serializer raises
            text = repr(payload)
        return text if len(text) <= 500 else f"{text[:500]}…"

    def _error(self, payload: bytes) -> RecordedError:
        try:
            return load_recorded(self._serializer, payload)
        except Exception as error:  # noqa: BLE001 - also what a user's codec raises
            return RecordedError("unreadable", str(error))


_TAKE, _CLOSE = 1, 2
"""Tokens of the calls."""


def _driven(event: RunEvent | Reply) -> Run | None:
    return event.run if isinstance(event, Drive) else None


def _closed(event: RunEvent | Reply) -> Reply | None:
    return event if isinstance(event, Reply) and event.token == _CLOSE else None


_ENDS = ("run_finished", "run_failed")


class _GuardedRun:
    """A run whose turns end with its history: whatever only a live run may do is not done."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._over = False
        self.finished: bytes | None = None
        """The payload that the handler ended with."""
        self.difference: tuple[str, int] | None = None

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

    def finish(self, kind: int, payload: bytes, op: str | None) -> None:
        self.finished = payload
        try:
            self._run.finish(kind, payload, op)
        finally:
            self._end()

    def _end(self) -> None:
        self._over = True
        text, index = self._run.divergence(), self._run.divergence_index()
        if text is not None and index is not None:
            self.difference = (text, index)


class _NoSteps:
    """Stands where steps are run. No turn of a guarded run starts one, so nothing ever comes here."""

    def submit(self, job: StepJob) -> None:
        raise AssertionError(f"a replay started {job!r}")


_ZERO = (
    "journal_start",
    "generation",
    "inbox_len",
    "inbox_seen",
    "unread",
    "unread_bytes",
    "lost",
    "lost_at",
)


class _OneRun:
    """A store that holds one run for one claim, and keeps nothing."""

    def __init__(self, history: History) -> None:
        run = history["run"]
        self.journal: list[dict[str, Any]] = []
        for entry in history["journal"]:
            stored: dict[str, Any] = {**entry, "payload": load_payload(entry["payload"])}
            self.journal.append(stored)
        # Nobody asked the handler when the run was terminated: the code has no part in that entry.
        if self.journal[-1]["kind"] == "run_terminated":
            self.journal.pop()
        self.reads = 0
        """The highest encoding that the engine reads."""
        self.now = max(run["created_at"], *(entry["at"] for entry in history["journal"]))
        self._row: dict[str, Any] = {
            "run_id": run["run_id"],
            "workflow": run["workflow"],
            "version": run["version"],
            "queue": "default",
            "priority": 5,
            "status": "running",
            "created_at": run["created_at"],
            "started_at": run["created_at"] if run["started_at"] is None else run["started_at"],
            "updated_at": run["updated_at"],
            "finished_at": None,
            "ready_at": None,
            "owner": "replay",
            "epoch": run["epoch"] + 1,
            "format": max((entry["encoding"] for entry in self.journal), default=1),
            "journal_len": len(self.journal),
            **dict.fromkeys(_ZERO, 0),
            "timeout": None,
            "deadline": run["deadline"],
            "waits": [],
            "tags": run["tags"],
            "seed": list(bytes.fromhex(run["seed"])),
            **dict.fromkeys(("note", "parent", "root", "origin")),
        }

    def unreadable(self) -> tuple[str, int] | None:
        """The first entry that the engine cannot read: it leaves such a run to newer builds in silence."""
        for index, entry in enumerate(self.journal):
            found = entry["encoding"]
            if found > self.reads:
                text = f"its encoding is {found}, this build reads up to {self.reads}; upgrade duramen"
                return text, index
        return None

    def answer(self, engine: Engine, asked: StoreRequest) -> None:
        """Answer a request of the engine."""
        request, method = asked.request, asked.method
        if method == "claim":
            run = {
                "row": self._row,
                "was": "waiting",
                "journal": self.journal,
                "inbox": [],
                "inbox_more": False,
            }
            claimed = {"now": self.now, "runs": [run], "more": False, "lapsed": False}
            engine.answer(request, claimed, None)
        elif method == "heartbeat":
            self.reads = asked.arguments[0]["format"]
            engine.answer(request, {"now": self.now, "alive": True, "inherited": []}, None)
        elif method in {"retire", "close"}:
            engine.answer(request, None, None)
        elif method == "commit":
            engine.answer(request, [{"kind": "fenced"} for _ in asked.arguments[0]], None)
        else:
            engine.answer(request, None, ("unavailable", f"a replay has no {method}()"))
