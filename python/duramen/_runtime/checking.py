"""Open runs under the code that is here: which would go on, and which branch of a patch each follows.

Everything is read, nothing is claimed, written or executed: runs are replayed as far as their journals go,
whoever drives them meanwhile. A journal only grows, so its beginning is as good as the whole.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from duramen._bridge import ENCODING, FINISH_FAILED, Row
from duramen._driving.records import line_of
from duramen._values.checks import check_count, check_id
from duramen._values.durations import duration_ms, from_ms
from duramen.errors import DeserializationError, InvalidArgument

from .deploys import CheckReport, OldestRun, PatchReport, PatchView, ProblemKind, RunProblem
from .replaying import Recording, replayed
from .views import RunStatus

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from datetime import timedelta

    from duramen._bridge import Entry, OpenRuns
    from duramen._bridge import Page as EnginePage
    from duramen._driving.services import Around
    from duramen._handlers.workflow import WorkflowDef
    from duramen._values.serializer import Serializer

    from .lifecycle import Lifecycle
    from .registry import Registry
    from .replaying import Code, Outcome

__all__ = ["Checking"]

_OPEN = [status.value for status in RunStatus if not status.is_final]
"""The statuses of runs that have not ended."""

_PAGE = 200
"""So many rows are read at a time."""

_ENTRIES = 1000
"""So many journal entries."""

_KEPT = 1000
"""So many problems are told."""


@dataclass(slots=True)
class _Looked:
    """One run, looked at."""

    row: Row
    problem: tuple[ProblemKind, str, int | None] | None = None
    marks: frozenset[str] = frozenset()
    answers: dict[str, bool] = field(default_factory=dict[str, bool])


@dataclass(slots=True)
class _Which:
    """Which runs are looked at."""

    workflow: str | None
    version: str | None
    limit: int | None = None
    """So many of the newest."""
    sample: int | None = None
    """So many from all ages."""
    parallel: int = 4
    patience: float = 30.0


class Checking:
    """The calls that replay open runs."""

    def __init__(
        self, lifecycle: Lifecycle, registry: Registry, serializer: Serializer, around: Around
    ) -> None:
        self._around = around
        self._lifecycle = lifecycle
        self._registry = registry
        self._serializer = serializer

    async def check(
        self,
        workflow: Any,
        *,
        version: str | None,
        sample: int | None,
        parallel: int,
        patience: timedelta | float,
        progress: Callable[[int, int], object] | None,
    ) -> CheckReport:
        """See `Runtime.check`."""
        which = _which(workflow, version, sample=sample, parallel=parallel, patience=patience)
        total = await self._total(which)
        checked = fits = stuck_before = mended = 0
        problems: list[RunProblem] = []
        counts: dict[str, int] = {}
        async for looked in self._looks(which):
            checked += 1
            is_stuck = looked.row.status == "stuck"
            if looked.problem is None:
                fits += 1
                mended += is_stuck
            else:
                kind, reason, index = looked.problem
                counts[kind] = counts.get(kind, 0) + 1
                stuck_before += is_stuck
                if len(problems) < _KEPT:
                    problems.append(_problem(looked.row, kind, reason, index))
            if progress is not None:
                progress(checked, total if sample is None else min(sample, total))
        return CheckReport(checked, max(total, checked), fits, tuple(problems), counts, stuck_before, mended)

    async def patches(
        self,
        workflow: Any,
        *,
        limit: int | None,
        parallel: int,
        patience: timedelta | float,
        progress: Callable[[int, int], object] | None,
    ) -> PatchReport:
        """See `Runtime.patches`."""
        which = _which(workflow, None, limit=limit, parallel=parallel, patience=patience)
        total = await self._total(which)
        tally = _Tally()
        async for looked in self._looks(which):
            tally.add(looked)
            if progress is not None:
                progress(tally.checked, total if limit is None else min(limit, total))
        return PatchReport(tally.views(), tally.checked, max(total, tally.checked), tally.problems)

    # -- which runs ------------------------------------------------------------------------------------------

    async def _census(self, which: _Which) -> list[OpenRuns]:
        port = self._lifecycle.ready
        found: list[OpenRuns] = await port.call(port.engine.census)
        return [
            runs
            for runs in found
            if which.workflow in {None, runs.workflow} and which.version in {None, runs.version}
        ]

    async def _total(self, which: _Which) -> int:
        return sum(runs.count for runs in await self._census(which))

    def _rows(self, which: _Which) -> AsyncGenerator[Row]:
        if which.sample is not None:
            return self._sampled(which, which.sample)
        asked = {"workflow": which.workflow, "version": which.version, "status": _OPEN}
        return self._newest(asked, which.limit)

    async def _newest(self, asked: dict[str, Any], most: int | None) -> AsyncGenerator[Row]:
        port = self._lifecycle.ready
        cursor: tuple[int, str] | None = None
        while True:
            size = _PAGE if most is None else min(_PAGE, most)
            page: EnginePage = await port.call(port.engine.list, asked, size, cursor)
            for row in page.rows:
                yield row
            cursor = page.next
            if most is not None:
                most -= len(page.rows)
            if cursor is None or most == 0:
                return

    async def _sampled(self, which: _Which, most: int) -> AsyncGenerator[Row]:
        """Some runs of each version and status, as many as its share; each has one at the least."""
        found = await self._census(which)
        total = sum(runs.count for runs in found)
        before = 0
        for runs in found:
            share = (before + runs.count) * most // total - before * most // total
            before += runs.count
            async for row in self._spread(runs, min(max(1, share), runs.count)):
                yield row

    async def _spread(self, runs: OpenRuns, wanted: int) -> AsyncGenerator[Row]:
        """So many of the runs of one lane and status, from the oldest to the newest in even steps of time."""
        port = self._lifecycle.ready
        asked = {
            "workflow": runs.workflow,
            "version": runs.version,
            "queue": runs.queue,
            "status": [runs.status],
        }
        seen: set[str] = set()
        oldest, now = runs.oldest[0], port.engine.now()
        for number in range(wanted):
            at = oldest + (now - oldest) * number // max(1, wanted - 1)
            page: EnginePage = await port.call(port.engine.list, asked, 1, (at + 1, ""))
            for row in page.rows:
                if row.run_id not in seen:
                    seen.add(row.run_id)
                    yield row
        # Where many were created at once, steps of time meet the same again.
        async for row in self._newest(asked, wanted):
            if len(seen) >= wanted:
                return
            if row.run_id not in seen:
                seen.add(row.run_id)
                yield row

    # -- looking ---------------------------------------------------------------------------------------------

    async def _looks(self, which: _Which) -> AsyncGenerator[_Looked]:
        """Look at each of them, some at a time: no more journals than that are in memory."""
        under_way: set[asyncio.Task[_Looked | None]] = set()
        try:
            async for row in self._rows(which):
                if len(under_way) >= which.parallel:
                    done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        if (looked := task.result()) is not None:
                            yield looked
                under_way.add(asyncio.create_task(self._look(row, which.patience)))
            while under_way:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    if (looked := task.result()) is not None:
                        yield looked
        finally:
            for task in under_way:
                task.cancel()

    async def _look(self, row: Row, patience: float) -> _Looked | None:
        """Look at one run; None if it has ended meanwhile."""
        looked = _Looked(row)
        definition = self._registry.get(row.workflow, row.version)
        entries = await self._entries(row)
        if not entries:
            return None  # deleted
        looked.marks = frozenset(entry.op for entry in entries if entry.kind == "patch_marked")
        if row.format > ENCODING:
            text = f"a later version of Duramen wrote to it (format {row.format}; this one reads {ENCODING})"
            looked.problem = ("newer", text, None)
        elif definition is None:
            looked.problem = ("no_code", self._missing(row), None)
        else:
            outcome = await _in_thread(
                definition,
                Recording.of_row(row, entries),
                self._serializer,
                self._registry,
                self._around,
                patience,
            )
            looked.answers = {} if outcome is None else outcome.patches
            looked.problem = _problem_of(row, outcome, looked.marks)
        if looked.problem is not None and not await self._stands(row):
            return None
        return looked

    async def _entries(self, row: Row) -> list[Entry]:
        """The journal of the present generation: what the row counts of it, of a running run all there is."""
        port = self._lifecycle.ready
        end = None if row.status == "running" else row.journal_len
        entries: list[Entry] = []
        while True:
            at = row.journal_start + len(entries)
            limit = _ENTRIES if end is None else min(_ENTRIES, end - at)
            found: list[Entry] = await port.call(port.engine.load, row.run_id, at, limit) if limit > 0 else []
            entries += found
            if len(found) < _ENTRIES:
                return entries

    async def _stands(self, row: Row) -> bool:
        """Whether that run is still there and open: one that has ended meanwhile is nobody's problem."""
        port = self._lifecycle.ready
        (detail,) = await port.call(port.engine.get, [row.run_id])
        now = None if detail is None else detail.row
        return (
            now is not None
            and now.status in _OPEN
            and (now.seed, now.version, now.generation) == (row.seed, row.version, row.generation)
        )

    def _missing(self, row: Row) -> str:
        text = f"workflow {row.workflow!r} version {row.version!r} is not registered here"
        told = [
            f"{path!r} could not be loaded: {line_of(why)}" for path, why in self._registry.broken.items()
        ]
        return "; ".join([text, *told])


async def _in_thread(
    definition: WorkflowDef[Any, Any],
    recording: Recording,
    serializer: Serializer,
    code: Code,
    around: Around,
    patience: float,
) -> Outcome | None:
    """Replay in a thread of its own; None if the handler does not give it back.

    Handlers are not drained inside of a task. Nothing can end one that blocks: its thread is left to itself,
    and keeps no process from ending.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Outcome] = loop.create_future()

    def tell(outcome: Outcome | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        elif outcome is not None:
            done.set_result(outcome)

    def work() -> None:
        outcome, error = None, None
        try:
            outcome = replayed(definition, recording, serializer, code, around, patience=patience)
        except BaseException as raised:  # noqa: BLE001 - told where it is waited for
            error = raised
        try:
            loop.call_soon_threadsafe(tell, outcome, error)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    threading.Thread(target=work, name="duramen-check", daemon=True).start()
    try:
        async with asyncio.timeout(patience + 1):
            return await done
    except TimeoutError:
        return None


def _problem_of(
    row: Row, outcome: Outcome | None, marks: frozenset[str]
) -> tuple[ProblemKind, str, int | None] | None:
    if outcome is None or outcome.spins:
        return "hangs", "the handler does not come to rest: it blocks, or runs on without durable calls", None
    if outcome.difference is not None:
        text, index = outcome.difference
        if unasked := sorted(marks - outcome.patches.keys()):
            text += f". It has marks of patches that this code did not ask for: {', '.join(unasked)}"
        return "unreadable" if outcome.unreadable else "stuck", text, index
    error = outcome.value
    if outcome.kind != FINISH_FAILED or not isinstance(error, BaseException):
        return None
    if isinstance(error, DeserializationError):
        return "unreadable", f"its input cannot be read: {error}", 0
    # Its driver is about to record just that.
    return None if row.status == "running" else ("fails", f"the handler raises {line_of(error)}", None)


def _problem(row: Row, kind: ProblemKind, reason: str, index: int | None) -> RunProblem:
    return RunProblem(
        run_id=row.run_id,
        workflow=row.workflow,
        version=row.version,
        status=RunStatus(row.status),
        created_at=from_ms(row.created_at),
        kind=kind,
        reason=reason,
        index=index,
    )


def _which(
    workflow: Any,
    version: str | None,
    *,
    limit: int | None = None,
    sample: int | None = None,
    parallel: int,
    patience: timedelta | float,
) -> _Which:
    """Check what the caller gave.

    Raises:
        InvalidArgument: it makes no sense.
    """
    name = workflow if workflow is None or isinstance(workflow, str) else getattr(workflow, "name", None)
    if workflow is not None and name is None:
        raise InvalidArgument(f"{workflow!r} is no workflow: give a function with @workflow, or its name")
    return _Which(
        None if name is None else check_id("workflow", name),
        None if version is None else check_id("version", version),
        None if limit is None else check_count("limit", limit, most=2**53),
        None if sample is None else check_count("sample", sample, most=100_000),
        check_count("parallel", parallel, most=64),
        duration_ms(patience, "patience") / 1000,
    )


@dataclass(slots=True)
class _OfPatch:
    """What is known of one patch of one version."""

    marked: int = 0
    older: int = 0
    blind_marked: int = 0
    oldest: Row | None = None


class _Tally:
    """Counts runs by the answers that they get."""

    def __init__(self) -> None:
        self.checked = 0
        self.problems: dict[str, int] = {}
        self._patches: dict[tuple[str, str], dict[str, _OfPatch]] = {}
        self._seen: dict[tuple[str, str], int] = {}
        self._blind: dict[tuple[str, str], int] = {}

    def add(self, looked: _Looked) -> None:
        row = looked.row
        key = (row.workflow, row.version)
        self.checked += 1
        known = self._patches.setdefault(key, {})
        for patch in looked.marks:
            known.setdefault(patch, _OfPatch()).marked += 1
        if looked.problem is not None and looked.problem[0] != "fails":
            kind = looked.problem[0]
            self.problems[kind] = self.problems.get(kind, 0) + 1
            self._blind[key] = self._blind.get(key, 0) + 1
            for patch in looked.marks:
                known[patch].blind_marked += 1
            return
        self._seen[key] = self._seen.get(key, 0) + 1
        for patch, answer in looked.answers.items():
            of_patch = known.setdefault(patch, _OfPatch())
            if not answer:
                of_patch.older += 1
                known_oldest = of_patch.oldest
                place = (row.created_at, row.run_id)
                if known_oldest is None or place < (known_oldest.created_at, known_oldest.run_id):
                    of_patch.oldest = row

    def views(self) -> tuple[PatchView, ...]:
        found: list[PatchView] = []
        for key, patches in sorted(self._patches.items()):
            for patch, counted in sorted(patches.items()):
                seen = self._seen.get(key, 0)
                oldest = counted.oldest
                found.append(
                    PatchView(
                        *key,
                        patch,
                        marked=counted.marked,
                        older=counted.older,
                        ahead=seen - (counted.marked - counted.blind_marked) - counted.older,
                        unknown=self._blind.get(key, 0) - counted.blind_marked,
                        oldest=None if oldest is None else _oldest(oldest),
                    )
                )
        return tuple(found)


def _oldest(row: Row) -> OldestRun:
    return OldestRun(row.run_id, RunStatus(row.status), from_ms(row.created_at))
