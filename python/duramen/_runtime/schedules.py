"""The schedules of a store: declared when a runtime opens, made and changed while everything runs."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Literal

from duramen._handlers.inputs import NO_INPUT
from duramen._logging import logger
from duramen._schedules.decide import redefined, run_id_of
from duramen._schedules.schedule import Definition, Schedule, check_schedule_id, checked_catch_up
from duramen._schedules.state import Asked, State
from duramen._values.checks import check_choice, check_count, check_id, check_text
from duramen._values.durations import from_ms, instant_ms
from duramen.errors import InvalidArgument, StoreLocked, UnknownSchedule, UnknownWorkflow

from .scheduling import new_version
from .views import Page, ScheduleView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime, timedelta

    from duramen._bridge import ScheduleRow
    from duramen._values.serializer import Serializer

    from .lifecycle import Lifecycle
    from .registry import Registry
    from .scheduling import Scheduling
    from .starting import Starting
    from .surroundings import Surroundings

__all__ = ["Schedules", "declared_schedules"]

_log = logger("duramen.schedules")

_PAGE = 500
_ATTEMPTS = 30
"""How often a change that others came before is begun anew."""

_MOST_ASKED = 1000
"""So many runs may have been asked for and not been started yet."""

_LATEST: Literal["latest"] = "latest"


def declared_schedules(schedules: Iterable[Any]) -> dict[str, Schedule[Any]]:
    """The schedules of a runtime by their ids.

    Raises:
        InvalidArgument: one is none, or two have one id.
    """
    found: dict[str, Schedule[Any]] = {}
    if isinstance(schedules, str | Schedule) or not hasattr(schedules, "__iter__"):
        raise InvalidArgument(f"schedules is {schedules!r}: give a list of Schedule(…)")
    for schedule in schedules:
        if not isinstance(schedule, Schedule):
            raise InvalidArgument(f"schedules holds {schedule!r}: give Schedule(…)")
        if schedule.id in found:
            raise InvalidArgument(f"two schedules have the id {schedule.id!r}: give each its own")
        found[schedule.id] = schedule
    return found


class Schedules:
    """The calls about schedules."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        registry: Registry,
        serializer: Serializer,
        surroundings: Surroundings,
        starting: Starting,
        scheduling: Scheduling,
        declared: Mapping[str, Schedule[Any]],
        *,
        remove_stale: bool,
    ) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._serializer = serializer
        self._surroundings = surroundings
        self._starting = starting
        self._scheduling = scheduling
        self._declared = declared
        self._remove_stale = remove_stale

    # -- declarations ----------------------------------------------------------------------------------------

    async def declare(self) -> None:
        """Write the declared schedules as far as they are not there as they are declared."""
        wanted = {
            schedule_id: self._definition(schedule, declared=True)
            for schedule_id, schedule in self._declared.items()
        }
        ids = list(wanted)
        for start in range(0, len(ids), _PAGE):
            part = ids[start : start + _PAGE]
            await self._write_all({schedule_id: wanted[schedule_id] for schedule_id in part})
        if self._remove_stale:
            await self._remove_all_but(wanted)

    async def _write_all(self, wanted: dict[str, Definition]) -> None:
        port = self._lifecycle.ready
        for attempt in range(_ATTEMPTS):
            rows: list[ScheduleRow | None] = await port.call(port.engine.get_schedules, list(wanted))
            changes: list[tuple[Any, ...]] = []
            for (schedule_id, definition), row in zip(wanted.items(), rows, strict=True):
                if row is None or row.definition != definition.packed():
                    changes.append(self._rewritten(schedule_id, definition, row))
            if not changes:
                return
            done: list[bool] = await port.call(port.engine.change_schedules, changes)
            self._scheduling.hint()
            wanted = {
                change[0]: wanted[change[0]] for change, was in zip(changes, done, strict=True) if not was
            }
            if not wanted:
                return
            await _breathe(attempt)
        raise _held(next(iter(wanted)))

    async def _remove_all_but(self, wanted: Mapping[str, Definition]) -> None:
        port = self._lifecycle.ready
        after = None
        while True:
            rows: list[ScheduleRow] = await port.call(port.engine.list_schedules, after, _PAGE)
            stale = [row for row in rows if row.id not in wanted and _is_declared(row)]
            if stale:
                await port.call(port.engine.change_schedules, [(row.id, row.version, None) for row in stale])
                _log.info(
                    "schedules that are not declared any more were removed: %s", [row.id for row in stale]
                )
            if len(rows) < _PAGE:
                return
            after = rows[-1].id

    def _definition(self, schedule: Schedule[Any], *, declared: bool) -> Definition:
        name, data = schedule.workflow_name, None
        if callable(schedule.input):
            if not declared:
                raise InvalidArgument(
                    f"schedule {schedule.id!r}: a function makes its input, which only this process has: "
                    "declare it with Runtime(schedules=[…])"
                )
            if not isinstance(schedule.workflow, str):
                self._registry.resolve(schedule.workflow)
        else:
            data = self._payload(schedule, name)
        return schedule.definition(data, declared=declared)

    def _payload(self, schedule: Schedule[Any], name: str) -> bytes:
        try:
            workflow = self._registry.resolve(schedule.workflow)
        except UnknownWorkflow:
            if not isinstance(schedule.workflow, str):
                raise
            # Others know it; what it takes is looked at there.
            value = None if schedule.input is NO_INPUT else schedule.input
            return self._serializer.dumps(value)
        value = workflow.input_or_default(schedule.input)
        if not workflow.has_input and value is not None:
            raise InvalidArgument(
                f"schedule {schedule.id!r}: workflow {name!r} takes no input, so none can be given"
            )
        return self._serializer.dumps(value, workflow.input_type)

    def _rewritten(
        self, schedule_id: str, definition: Definition, row: ScheduleRow | None
    ) -> tuple[Any, ...]:
        now = self._lifecycle.engine.now()
        before = None
        state = State(cursor=now)
        if row is not None:
            try:
                before, state = Definition.unpacked(row.definition), State.unpacked(row.state)
            except InvalidArgument as error:
                raise InvalidArgument(f"schedule {schedule_id!r}: {error}") from None
        redefined(state, before, definition, now)
        data = (definition.workflow, state.next_at(definition, now), definition.packed(), state.packed())
        return schedule_id, None if row is None else row.version, (new_version(), *data)

    # -- changes ---------------------------------------------------------------------------------------------

    async def upsert(self, schedule: Schedule[Any]) -> ScheduleView:
        """See `ScheduleCalls.upsert`."""
        if not isinstance(schedule, Schedule):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"{schedule!r} is no schedule: give Schedule(…)")
        await self._write_all({schedule.id: self._definition(schedule, declared=False)})
        return await self.get(schedule.id)

    async def delete(self, schedule_id: str) -> None:
        """See `ScheduleCalls.delete`."""
        port = self._lifecycle.ready
        for attempt in range(_ATTEMPTS):
            row = await self._row(schedule_id)
            (done,) = await port.call(port.engine.change_schedules, [(schedule_id, row.version, None)])
            if done:
                return
            await _breathe(attempt)
        raise _held(schedule_id)

    async def pause(self, schedule_id: str, note: str | None) -> ScheduleView:
        """See `ScheduleCalls.pause`."""
        if note is not None:
            check_text("note", note)

        def change(definition: Definition, state: State, now: int) -> None:
            del definition, now
            state.skipped += len(state.waiting)
            state.paused, state.note, state.waiting = True, note, []

        return await self._changed(schedule_id, change)

    async def resume(self, schedule_id: str, catch_up: Literal["none", "latest"] | timedelta) -> ScheduleView:
        """See `ScheduleCalls.resume`."""
        window = checked_catch_up(catch_up, "resume")

        def change(definition: Definition, state: State, now: int) -> None:
            if not state.paused:
                return
            state.paused, state.note = False, None
            if window is None:
                latest = definition.before(now + 1)
                state.waiting += [latest] if latest is not None and latest > state.cursor else []
            elif window:
                behind = max(state.cursor, now - window - 1)
                missed = definition.preview(_MOST_ASKED, behind)
                state.waiting += [at for at in missed if at <= now]
            state.cursor = max(state.cursor, now)
            state.looks = 0

        return await self._changed(schedule_id, change)

    async def trigger(self, schedule_id: str, trigger_id: str | None) -> str:
        """See `ScheduleCalls.trigger`; gives the run's id."""
        check_schedule_id(schedule_id)
        own = self._surroundings.run_id() if trigger_id is None else check_id("trigger id", trigger_id)
        run_id = check_id("run id", f"{schedule_id}:manual:{own}")

        def change(definition: Definition, state: State, now: int) -> None:
            del definition
            _ask(state, [Asked(run_id, now, state.previous, in_turn=False)])

        await self._changed(schedule_id, change)
        # Here and now, if this process can: whoever asks wants to see the run.
        await self._scheduling.look_at([schedule_id])
        return run_id

    async def backfill(
        self, schedule_id: str, start: datetime, end: datetime, overlap: Literal["allow", "in_turn"]
    ) -> list[str]:
        """See `ScheduleCalls.backfill`; gives the runs' ids."""
        first, last = instant_ms(start, "start"), instant_ms(end, "end")
        in_turn = check_choice("overlap", overlap, ("allow", "in_turn")) == "in_turn"
        if last < first:
            raise InvalidArgument(f"the range ends ({end}) before it starts ({start})")
        run_ids: list[str] = []

        def change(definition: Definition, state: State, now: int) -> None:
            if last > now:
                raise InvalidArgument(f"the range ends at {end}, which is still to come")
            asked: list[Asked] = []
            previous = definition.before(first)
            at = definition.after(first - 1)
            while at is not None and at <= last:
                if len(asked) == _MOST_ASKED:
                    raise InvalidArgument(
                        f"there are more than {_MOST_ASKED} fire times from {start} to {end}: do it in parts"
                    )
                asked.append(Asked(run_id_of(schedule_id, at), at, previous, in_turn))
                previous, at = at, definition.after(at)
            _ask(state, asked)
            run_ids[:] = [each.run_id for each in asked]

        await self._changed(schedule_id, change)
        return run_ids

    async def _changed(
        self, schedule_id: str, change: Callable[[Definition, State, int], None]
    ) -> ScheduleView:
        """Change a schedule's state, whoever else changes it."""
        port = self._lifecycle.ready
        for attempt in range(_ATTEMPTS):
            row = await self._row(schedule_id)
            definition, state = _read(row)
            now = port.engine.now()
            change(definition, state, now)
            data = (row.workflow, state.next_at(definition, now), row.definition, state.packed())
            changed = (schedule_id, row.version, (new_version(), *data))
            (done,) = await port.call(port.engine.change_schedules, [changed])
            if done:
                self._scheduling.hint()
                return await self._view(schedule_id, definition, state, data[1])
            await _breathe(attempt)
        raise _held(schedule_id)

    # -- questions -------------------------------------------------------------------------------------------

    async def get(self, schedule_id: str) -> ScheduleView:
        """See `ScheduleCalls.get`."""
        row = await self._row(schedule_id)
        return await self._view(schedule_id, *_read(row), row.next_at)

    async def list(self, *, limit: int, cursor: str | None) -> Page[ScheduleView]:
        """See `ScheduleCalls.list`."""
        check_count("limit", limit, most=1000)
        port = self._lifecycle.ready
        after = None if cursor is None else check_id("cursor", cursor)
        rows: list[ScheduleRow] = await port.call(port.engine.list_schedules, after, limit + 1)
        views = tuple(_listed(row) for row in rows[:limit])
        return Page(views, rows[limit - 1].id if len(rows) > limit else None)

    async def preview(self, schedule_id: str, n: int, after: datetime | None) -> list[datetime]:
        """See `ScheduleCalls.preview`."""
        check_count("n", n, most=10_000)
        row = await self._row(schedule_id)
        begin = self._lifecycle.engine.now() if after is None else instant_ms(after, "after")
        return [from_ms(at) for at in _read(row)[0].preview(n, begin)]

    async def _row(self, schedule_id: str) -> ScheduleRow:
        check_schedule_id(schedule_id)
        port = self._lifecycle.ready
        (row,) = await port.call(port.engine.get_schedules, [schedule_id])
        if row is None:
            raise UnknownSchedule(schedule_id)
        return row

    async def _view(
        self, schedule_id: str, definition: Definition, state: State, next_at: int | None
    ) -> ScheduleView:
        alive = await self._scheduling.alive(state.started)
        return _view(schedule_id, definition, state, next_at, alive)


def _ask(state: State, asked: Iterable[Asked]) -> None:
    there = {each.run_id for each in state.asked}
    state.asked += [each for each in asked if each.run_id not in there]
    if len(state.asked) > _MOST_ASKED:
        raise InvalidArgument(
            f"{len(state.asked)} runs were asked for and have not been started yet: at most {_MOST_ASKED} can"
        )
    state.looks = 0


def _read(row: ScheduleRow) -> tuple[Definition, State]:
    try:
        return Definition.unpacked(row.definition), State.unpacked(row.state)
    except InvalidArgument as error:
        raise InvalidArgument(f"schedule {row.id!r}: {error}") from None


def _is_declared(row: ScheduleRow) -> bool:
    try:
        return Definition.unpacked(row.definition).declared
    except InvalidArgument:
        return False  # a newer build knows what it is


def _listed(row: ScheduleRow) -> ScheduleView:
    try:
        definition, state = _read(row)
    except InvalidArgument as error:
        return ScheduleView(id=row.id, workflow=row.workflow, when="?", error=str(error))
    return _view(row.id, definition, state, row.next_at, None)


def _view(
    schedule_id: str, definition: Definition, state: State, next_at: int | None, alive: set[str] | None
) -> ScheduleView:
    def instant(at: int | None) -> datetime | None:
        return None if at is None else from_ms(at)

    window = definition.catch_up_ms
    fire = None if state.paused else definition.after(state.cursor)
    return ScheduleView(
        id=schedule_id,
        workflow=definition.workflow,
        when=repr(definition.when),
        overlap=definition.overlap,
        catch_up=_LATEST if window is None else f"{window / 1000:g} s" if window else "none",
        jitter=definition.jitter_ms / 1000,
        start=instant(definition.start_ms),
        end=instant(definition.end_ms),
        tags=definition.tags,
        declared=definition.declared,
        paused=state.paused,
        note=state.note,
        next_fire=instant(fire),
        next_look=instant(next_at),
        last_fire=instant(state.previous),
        last_run=state.last_run,
        running=tuple(run_id for run_id in state.started if alive is None or run_id in alive),
        waiting=tuple(from_ms(at) for at in state.waiting),
        fired=state.fired,
        skipped=state.skipped,
        error=state.error,
        failures=state.failures,
    )


async def _breathe(attempt: int) -> None:
    """Others change the same schedule: let them."""
    await asyncio.sleep(random.uniform(0, 0.01 * min(attempt + 1, 20)))  # noqa: S311 - no secret


def _held(schedule_id: str) -> StoreLocked:
    return StoreLocked(
        f"schedule {schedule_id!r} is changed by others again and again, or held by a transaction of "
        "somebody else's; nothing was changed: try again"
    )
