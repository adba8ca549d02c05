"""`Runtime.schedules`: what people do with schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from duramen._runtime.services import Services
    from duramen._runtime.views import Page, RunHandle, ScheduleView
    from duramen._schedules.schedule import Schedule

__all__ = ["ScheduleCalls"]

_List = list
"""The built-in one, where the class has a method of that name."""


class ScheduleCalls:
    """The schedules of a store. Changes are durable when a call returns, and count for all processes.

    Those that work look at a changed schedule at once if they made the change, and within 15 seconds if
    another process made it.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    async def upsert(self, schedule: Schedule[Any]) -> ScheduleView:
        """Make a schedule, or give the one of that id another definition. It lives in the store alone.

        The workflow may be given by its name, also one that only other processes know. Runs that were begun
        go on. With other fire times, those count from now on; with the same, what was missed is caught up
        with as before.

        Raises:
            InvalidArgument: its input is made by a function, which no store can keep.
            SerializationError: the input does not fit the workflow, or cannot be stored.
            UnknownWorkflow: the workflow is not registered here.
        """
        services = self._services
        return await services.here(services.schedules.upsert, schedule)

    async def get(self, schedule_id: str) -> ScheduleView:
        """Read one schedule.

        Raises:
            UnknownSchedule: there is none of that id.
        """
        services = self._services
        return await services.here(services.schedules.get, schedule_id)

    async def list(self, *, limit: int = 100, cursor: str | None = None) -> Page[ScheduleView]:
        """Read schedules by their ids, a page at a time.

        Args:
            limit: how many, at most 1000.
            cursor: the `Page.cursor` of the page before.
        """
        services = self._services
        return await services.here(services.schedules.list, limit=limit, cursor=cursor)

    async def pause(self, schedule_id: str, *, note: str | None = None) -> ScheduleView:
        """Let a schedule start nothing until it is resumed. Its runs go on; fire times that wait are dropped.

        Args:
            schedule_id: which.
            note: why, for people.

        Raises:
            UnknownSchedule: there is none of that id.
        """
        services = self._services
        return await services.here(services.schedules.pause, schedule_id, note)

    async def resume(
        self, schedule_id: str, *, catch_up: Literal["none", "latest"] | timedelta = "none"
    ) -> ScheduleView:
        """Let a paused schedule go on.

        Args:
            schedule_id: which.
            catch_up: what becomes of the fire times that came while it was paused: none of them starts a run,
                the latest, or all that are not older than a `timedelta`.

        Raises:
            UnknownSchedule: there is none of that id.
        """
        services = self._services
        return await services.here(services.schedules.resume, schedule_id, catch_up)

    async def trigger(self, schedule_id: str, *, trigger_id: str | None = None) -> RunHandle[Any]:
        """Start a run of a schedule now, also of a paused one, whatever else of it is running.

        Its fire time is now. If this process does not know the workflow, one that works does it.

        Args:
            schedule_id: which.
            trigger_id: the same id starts one run, however often it is given. None: a fresh one.

        Returns:
            The handle of the run ``{schedule_id}:manual:{trigger_id}``. Unless this process knows the
            workflow, it may not have been created yet.

        Raises:
            UnknownSchedule: there is none of that id.
        """
        services = self._services
        run_id = await services.here(services.schedules.trigger, schedule_id, trigger_id)
        return services.handle(run_id)

    async def backfill(
        self,
        schedule_id: str,
        start: datetime,
        end: datetime,
        *,
        overlap: Literal["allow", "in_turn"] = "in_turn",
    ) -> _List[str]:
        """Start runs for fire times that have passed. Those that have started one do not start another.

        Args:
            schedule_id: which.
            start: the first instant of the range, aware.
            end: the last one.
            overlap: ``in_turn``: one after the other, each when no other run of the schedule is under way;
                ``allow``: all at once.

        Returns:
            The ids of their runs, which may not have been created yet.

        Raises:
            UnknownSchedule: there is none of that id.
            InvalidArgument: there are more than a thousand fire times in the range, or it has not passed yet.
        """
        services = self._services
        return await services.here(services.schedules.backfill, schedule_id, start, end, overlap)

    async def delete(self, schedule_id: str) -> None:
        """Remove a schedule. Its runs go on. One that is declared comes back when its declaration is opened.

        Raises:
            UnknownSchedule: there is none of that id.
        """
        services = self._services
        await services.here(services.schedules.delete, schedule_id)

    async def preview(
        self, schedule_id: str, n: int = 10, *, after: datetime | None = None
    ) -> _List[datetime]:
        """Find the next fire times, in UTC.

        Args:
            schedule_id: which.
            n: how many.
            after: behind which instant; None: now.

        Raises:
            UnknownSchedule: there is none of that id.
        """
        services = self._services
        return await services.here(services.schedules.preview, schedule_id, n, after)
