"""Replays exported histories against a workflow's code, and compares how they end."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from duramen._bridge import FINISH_CANCELLED, FINISH_COMPLETED, FINISH_CONTINUED, FINISH_FAILED
from duramen._driving.services import Around
from duramen._handlers.context import Context
from duramen._handlers.middleware import checked as check_middleware
from duramen._runtime.history import HistorySource, read_history
from duramen._runtime.replaying import Recording, replayed
from duramen._values.payloads import load_recorded
from duramen._values.serializer import JsonSerializer
from duramen.errors import InvalidArgument, RecordedError, ReplayDiverged, UnknownWorkflow

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from duramen._handlers.middleware import Middleware
    from duramen._handlers.workflow import WorkflowDef
    from duramen._runtime.history import History
    from duramen._runtime.replaying import Outcome
    from duramen._values.serializer import Serializer

__all__ = ["Replayed", "replay"]

_KINDS: dict[int, Literal["completed", "failed", "cancelled", "continued"]] = {
    FINISH_COMPLETED: "completed",
    FINISH_FAILED: "failed",
    FINISH_CANCELLED: "cancelled",
    FINISH_CONTINUED: "continued",
}


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where a replay has come to."""

    run_id: str
    kind: Literal["completed", "failed", "cancelled", "continued", "unfinished"]
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
    others: Iterable[WorkflowDef[Any, Any]] = (),
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
        others: workflows whose runs the code starts by their names: their types say what it is given.
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
    code = _Code(workflow, others)
    around = Around(check_middleware(middleware, Context, "middleware"))
    job = _Replay(definition, checked, JsonSerializer() if serializer is None else serializer, code, around)
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


_ENDS = ("run_finished", "run_failed")


class _Code:
    """See `duramen._runtime.replaying.Code`."""

    def __init__(self, workflow: WorkflowDef[Any, Any], others: Iterable[WorkflowDef[Any, Any]]) -> None:
        self._known = {each.name: each for each in (*others, workflow)}

    def find(self, workflow: Any, /) -> WorkflowDef[Any, Any] | None:
        return self._known.get(workflow) if isinstance(workflow, str) else workflow

    def of_version(self, name: str, version: str | None, /) -> WorkflowDef[Any, Any] | None:
        newest = self._known.get(name)
        if newest is None or version is None:
            return newest
        return next((each for each in (newest, *newest.previous) if each.version == version), None)


class _Replay:
    """One replay, and what it is compared with."""

    def __init__(
        self,
        definition: WorkflowDef[Any, Any],
        history: History,
        serializer: Serializer,
        code: _Code,
        around: Around,
    ) -> None:
        self._around_handlers = around
        self._definition = definition
        self._history = history
        self._serializer = serializer
        self._code = code
        self._recording = Recording.of_history(history)

    def run(self, *, compare_output: bool) -> Replayed:
        outcome = replayed(
            self._definition, self._recording, self._serializer, self._code, self._around_handlers
        )
        self._check(outcome, compare_output=compare_output)
        kind, value = outcome.kind, outcome.value
        return Replayed(
            run_id=self._history["run"]["run_id"],
            kind="unfinished" if kind is None else _KINDS[kind],
            output=value if kind == FINISH_COMPLETED else None,
            error=value if kind in {FINISH_FAILED, FINISH_CANCELLED} else None,
            entries=len(self._recording.journal),
        )

    def _check(self, outcome: Outcome, *, compare_output: bool) -> None:
        if outcome.difference is not None:
            raise self._diverged(*outcome.difference)
        last = len(self._recording.journal) - 1
        end = self._recording.journal[last]
        if compare_output and outcome.payload is not None and end["kind"] in _ENDS:
            expected, found = end["payload"], outcome.payload
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
        for place in range(max(0, index - 3), min(len(self._recording.journal), index + 3)):
            entry = self._recording.journal[place]
            mark = ">" if place == index else " "
            lines.append(f"  {mark} {place:>4}  {entry['kind']:<20} {entry['op']}".rstrip())
        if index >= len(self._recording.journal):
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
