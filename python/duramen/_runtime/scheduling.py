"""Firing schedules: look for those that are due, decide about them, carry out what was decided.

It is *decided, then done*. Whoever finds a schedule due writes into its row what is to be done about it, as a
change of the version that was read: of several processes one succeeds. Then that process does it, and writes
that it is done. Each part of it is idempotent (a run is created by its id, a cancellation delivered under an
id, a run terminated), so that another process may do it again: it finds the row due, with what is pending in
it, when the first has not said for a while that it is done.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from duramen._bridge import ScheduleRow
from duramen._driving.records import line_of
from duramen._logging import logger
from duramen._schedules.decide import Plan, decide, settled
from duramen._schedules.schedule import Definition
from duramen._schedules.state import State
from duramen._values.durations import from_ms
from duramen.errors import (
    DuramenError,
    InvalidArgument,
    RuntimeClosed,
    RuntimeNotOpen,
    StoreClosed,
    StoreError,
    UnknownRun,
)

from .views import RunRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence

    from duramen._bridge import Created, DueSchedules
    from duramen._schedules.schedule import Schedule
    from duramen._schedules.state import Action
    from duramen._values.serializer import Serializer

    from .lifecycle import Lifecycle
    from .messages import Messages
    from .port import Port
    from .registry import Registry
    from .starting import Starting
    from .surroundings import Surroundings

__all__ = ["Looked", "Scheduling", "new_version"]

_log = logger("duramen.schedules")

_PAGE = 100
"""So many schedules are decided about together."""

_PATIENCE = 30.0
"""Seconds that a function which makes an input may take."""

_TROUBLE = 1.0
_MOST_TROUBLE = 15.0
"""Seconds to wait when the store does not answer: doubled from the first to the last."""

_RIVALS = 1000
"""Milliseconds after which a schedule is looked at again that somebody else was just changing."""

_WATCHED = 1000
"""The end of so many runs is waited for; that of others is found by looking from time to time."""


def new_version() -> int:
    """Mark a new state of a schedule: drawn, so that none has the mark of another."""
    return secrets.randbits(62)


@dataclass(slots=True)
class Looked:
    """What a look at the schedules found."""

    started: list[str] = field(default_factory=list[str])
    """Runs that were created."""
    now: int = 0
    next_at: int | None = None
    """When to look again; None if nobody knows."""


@dataclass(slots=True)
class _Case:
    """A schedule that is due, on its way through a decision."""

    row: ScheduleRow
    definition: Definition
    state: State
    plan: Plan | None = None
    version: int = 0
    error: BaseException | None = None

    def change(self, now: int) -> tuple[Any, ...]:
        """Write the state in the place of the one that was read."""
        expected, self.version = self.version or self.row.version, new_version()
        data = (self.row.workflow, self.state.next_at(self.definition, now), self.row.definition)
        return self.row.id, expected, (self.version, *data, self.state.packed())


class Scheduling:
    """What fires schedules in this process."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        registry: Registry,
        serializer: Serializer,
        surroundings: Surroundings,
        starting: Starting,
        messages: Messages,
        declared: Mapping[str, Schedule[Any]],
        lease_ms: int,
    ) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._serializer = serializer
        self._surroundings = surroundings
        self._starting = starting
        self._messages = messages
        self._declared = declared
        self._lease_ms = lease_ms
        self._port: Port | None = None
        self._working = 0
        self._task: asyncio.Future[Any] | None = None
        self._hint = asyncio.Event()
        self._watches: dict[str, asyncio.Future[Any]] = {}
        self._ended: set[str] = set()
        self._told: dict[str, str] = {}
        self._looking = False

    # -- all the time ----------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Fire schedules until `end`, or until the runtime is closed."""
        port = self._lifecycle.ready
        if self._port is not port:  # it was opened anew, perhaps on another loop
            self._port, self._working, self._task = port, 0, None
            self._hint = asyncio.Event()
            self._watches.clear()
        self._working += 1
        if self._task is None or self._task.done():
            self._task = self._lifecycle.beside(self._work())

    def end(self) -> None:
        """The opposite of `begin`."""
        self._working -= 1
        if not self._working and self._task is not None:
            self._task.cancel()
            self._task = None

    def hint(self) -> None:
        """Look soon: something has changed."""
        self._hint.set()

    @property
    def busy(self) -> bool:
        """Whether the schedules are being looked at right now, or are about to be."""
        task = self._task
        return task is not None and not task.done() and (self._looking or self._hint.is_set())

    async def _work(self) -> None:
        trouble = 0.0
        while True:
            self._hint.clear()
            self._looking = True
            pause: float | None = None
            try:
                await self._look_at_ended()
                looked = await self.look(limit=10 * _PAGE)
                trouble = 0.0
                if looked.next_at is not None:
                    pause = max(0, looked.next_at - looked.now) / 1000
            except (StoreClosed, RuntimeClosed, RuntimeNotOpen):
                return
            except Exception as error:  # noqa: BLE001 - this loop must not end while others depend on it
                if not isinstance(error, StoreError):  # the engine tells how the store is
                    _log.error("schedules could not be looked at: %s", line_of(error), exc_info=error)
                pause = trouble = min(2 * trouble or _TROUBLE, _MOST_TROUBLE)
            self._looking = False
            await self._surroundings.pause(self._hint, pause, trouble=trouble > 0)

    async def _look_at_ended(self) -> None:
        """Look at schedules that waited for the end of a run."""
        ended, self._ended = self._ended, set()
        if ended:
            await self.look_at(sorted(ended))

    async def look_at(self, schedule_ids: list[str]) -> None:
        """Look at schedules before they are due."""
        port = self._lifecycle.ready
        found: list[ScheduleRow | None] = await port.call(port.engine.get_schedules, schedule_ids)
        known = set(self._registry.names())
        rows = [row for row in found if row is not None and row.workflow in known]
        await self._fire(rows, port.engine.now(), early=True)

    # -- one look --------------------------------------------------------------------------------------------

    async def look(self, *, limit: int, now: int | None = None) -> Looked:
        """Find up to `limit` schedules due, and start what is to be started."""
        looked = Looked()
        names = self._registry.names()
        port = self._lifecycle.ready
        if not names or not limit:
            looked.now = port.engine.now()
            return looked
        after: tuple[int, str] | None = None
        nexts: list[int] = []
        left = limit
        while True:
            due: DueSchedules = await port.call(
                port.engine.due_schedules, names, after, min(left, _PAGE), now
            )
            looked.now, looked.next_at = due.now, due.next_at
            if due.rows:
                last = due.rows[-1]
                after = (last.next_at or 0, last.id)
                started, next_at = await self._fire(due.rows, due.now)
                looked.started += started
                nexts += next_at
                left -= len(due.rows)
            if not due.rows or not left or due.next_at is None or due.next_at > due.now:
                break
        if looked.next_at is not None:
            nexts.append(looked.next_at)
        looked.next_at = min(nexts, default=None)
        return looked

    async def _fire(
        self, rows: Sequence[ScheduleRow], now: int, *, early: bool = False
    ) -> tuple[list[str], list[int]]:
        """Decide about schedules, and do it; gives the new runs, and when to look at these again."""
        cases = [case for row in rows if (case := self._case(row)) is not None]
        if early:  # others may have them in hand
            cases = [each for each in cases if not each.state.pending and each.state.retry_at is None]
        await self._decide(cases, now)
        begun = monotonic()
        mine = await self._write(cases, now)
        lost, cases = len(mine) < len(cases), mine
        done: list[_Case] = []
        started: list[str] = []
        # Whoever was held up for long may have been given up: then others do it, or have done it.
        busy = [case for case in cases if case.state.pending]
        if busy and monotonic() - begun < self._lease_ms / 2000:
            started, done = await self._do(busy)
        for case in done:
            case.state.pending, case.state.until = [], 0
        if done:
            await self._write(done, now)
        for case in cases:
            self._watch(case)
        nexts = [at for case in cases if (at := case.state.next_at(case.definition, now)) is not None]
        # What others have changed at this moment they will look at; in case they do not:
        return started, [*nexts, now + _RIVALS] if lost else nexts

    def _case(self, row: ScheduleRow) -> _Case | None:
        try:
            case = _Case(row, Definition.unpacked(row.definition), State.unpacked(row.state))
        except InvalidArgument as error:
            self._tell(row.id, f"it is left to others: {error}")
            return None
        if case.definition.input is None and not callable(self._input_of(row.id)):
            # Its declaration, with the function that makes its input, is not here.
            return None
        return case

    def _input_of(self, schedule_id: str) -> Any:
        declared = self._declared.get(schedule_id)
        return None if declared is None else declared.input

    # -- deciding --------------------------------------------------------------------------------------------

    async def _decide(self, cases: Iterable[_Case], now: int) -> None:
        fresh: list[_Case] = []
        for case in cases:
            if case.state.pending:  # somebody has decided, and not said that it is done
                case.state.until = now + self._lease_ms
            else:
                fresh.append(case)
        asked = {run_id for case in fresh if _needs_alive(case) for run_id in case.state.started}
        alive = await self.alive(sorted(asked))
        for case in fresh:
            known = alive if _needs_alive(case) else set(case.state.started)
            case.plan = decide(case.row.id, case.definition, case.state, now, known)
        await asyncio.gather(*(self._prepare(case, now) for case in fresh))

    async def alive(self, run_ids: list[str]) -> set[str]:
        """Which of these runs have not ended. A stuck one has not, but nothing of it runs."""
        if not run_ids:
            return set()
        port = self._lifecycle.ready
        found: list[str | None] = await port.call(port.engine.statuses, run_ids)
        ended = {None, "completed", "failed", "cancelled", "terminated", "stuck"}
        return {run_id for run_id, status in zip(run_ids, found, strict=True) if status not in ended}

    async def _prepare(self, case: _Case, now: int) -> None:
        """Get inputs for what is to be started, and write the plan into the state."""
        plan = case.plan
        assert plan is not None  # noqa: S101 - it was just decided
        made = 0
        try:
            for start in (*plan.fires, *(action for _, action in plan.asked)):
                start.input = await self._payload(case, start)
                made += 1
        except Exception as error:  # noqa: BLE001 - whatever a user's function or serializer raises
            case.error = error
        settled(case.state, plan, made, now + self._lease_ms)
        if case.error is None:
            if made and case.state.failures:
                _log.info("schedule %r fires again", case.row.id)
                self._told.pop(case.row.id, None)
            case.state.mended()
        else:
            case.state.failed(line_of(case.error), now)
            self._tell(case.row.id, f"its run cannot be started: {line_of(case.error)}", case.error)

    async def _payload(self, case: _Case, start: Action) -> bytes:
        workflow = self._registry.resolve(case.definition.workflow)
        data = case.definition.input
        if data is not None:
            self._serializer.loads(data, workflow.input_type)
            return data
        made = self._input_of(case.row.id)
        try:
            async with asyncio.timeout(_PATIENCE):
                value = await _called(made, start.at)
        except TimeoutError as error:
            if error.__cause__ is None:
                raise
            raise TimeoutError(f"the function that makes its input took more than {_PATIENCE:g} s") from None
        return self._starting.new_row(RunRequest(workflow.name, value, start.run_id))[3]

    def _tell(self, schedule_id: str, what: str, error: BaseException | None = None) -> None:
        """Say it once, until something else is to be said."""
        if self._told.get(schedule_id) != what:
            self._told[schedule_id] = what
            _log.error("schedule %r: %s", schedule_id, what, exc_info=error)

    # -- doing -----------------------------------------------------------------------------------------------

    async def _write(self, cases: list[_Case], now: int) -> list[_Case]:
        """Write states; gives those that nobody else has changed meanwhile."""
        if not cases:
            return []
        port = self._lifecycle.ready
        changes = [case.change(now) for case in cases]
        written: list[bool] = await port.call(port.engine.change_schedules, changes)
        return [case for case, done in zip(cases, written, strict=True) if done]

    async def _do(self, cases: list[_Case]) -> tuple[list[str], list[_Case]]:
        """Carry out what is pending; gives the new runs, and the schedules of which all is done."""
        left = {id(case) for case in cases}
        for case in cases:
            done = [await self._end(case, each) for each in case.state.pending if each.kind != "start"]
            if not all(done):
                left.discard(id(case))
        # Only what was ended is followed by another: none is started where something could not be ended.
        starts = [
            (case, each)
            for case in cases
            if id(case) in left
            for each in case.state.pending
            if each.kind == "start"
        ]
        started: list[str] = []
        port = self._lifecycle.ready
        if starts:
            rows = [
                (
                    self._starting.row_with(
                        case.row.workflow, each.run_id, each.input, each.start_at, case.definition.tags
                    ),
                    case.row.id,
                    each.at,
                    each.previous,
                )
                for case, each in starts
            ]
            answers: list[Created] = await port.call(port.engine.create_scheduled, rows)
            for (case, each), answer in zip(starts, answers, strict=True):
                if answer.status == "blocked":
                    left.discard(id(case))
                elif answer.created:
                    started.append(each.run_id)
        return started, [case for case in cases if id(case) in left]

    async def _end(self, case: _Case, action: Action) -> bool:
        """Cancel or terminate a run; False if somebody else holds it."""
        reason = f"schedule {case.row.id!r} starts the next run"
        try:
            if action.kind == "terminate":
                await self._messages.terminate(action.run_id, reason)
            else:
                await self._messages.cancel(action.run_id, reason, message_id=action.message_id)
        except UnknownRun:
            pass  # it was deleted meanwhile
        except StoreError:
            raise
        except DuramenError as error:
            self._tell(case.row.id, f"run {action.run_id!r} cannot be ended: {error}")
            return False
        return True

    # -- the ends of runs ------------------------------------------------------------------------------------

    def _watch(self, case: _Case) -> None:
        """Look again as soon as a run ends that something waits for, where somebody works all the time."""
        if case.plan is None or not self._working:
            return
        port = self._lifecycle.ready
        for run_id in case.plan.waits_for:
            if run_id in self._watches or len(self._watches) >= _WATCHED:
                continue
            watch = port.call(port.engine.watch_end, run_id)
            self._watches[run_id] = watch

            def ended(_: object, run_id: str = run_id, schedule_id: str = case.row.id) -> None:
                self._watches.pop(run_id, None)
                self._ended.add(schedule_id)
                self.hint()

            watch.add_done_callback(ended)


def _needs_alive(case: _Case) -> bool:
    """Whether it matters which runs have not ended."""
    return case.definition.overlap != "allow" or any(asked.in_turn for asked in case.state.asked)


async def _called(function: Any, at: int) -> Any:
    instant = from_ms(at)
    if inspect.iscoroutinefunction(function):
        return await function(instant)
    # It may block, and others go on.
    value = await asyncio.to_thread(function, instant)
    if inspect.isawaitable(value):
        waited: Awaitable[Any] = value
        return await waited
    return value
