"""Pausing what a runtime has: runs, one by one or all that a filter finds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._calls import Calls

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from duramen._runtime.filters import RunFilters
    from duramen._runtime.views import PauseResult, ResumeResult

__all__ = ["PauseCalls"]


class PauseCalls(Calls):
    """See `Runtime`."""

    async def pause(self, run_id: str, reason: str = "", *, by: str | None = None) -> PauseResult:
        """Let nothing new of a run start, until `resume`. Its handler is not told.

        Steps in flight end and are recorded; then the run is ``paused``, and no process takes it. Events and
        decisions that come meanwhile are kept. Time goes on: what has passed by then is due when the run is
        resumed. A cancellation ends the pause, and the run with it.

        Args:
            run_id: which run.
            reason: for people; `RunView.note` has it.
            by: who wants it.

        Returns:
            ``paused``, ``pausing``, ``already_paused``, ``finished`` or ``not_found``.

        Raises:
            StoreLocked: a transaction of somebody else's holds the run, and has for as long as a lease.
        """
        return await self._services.here(self._services.pausing.pause, run_id, reason, by)

    async def resume(self, run_id: str, *, drive: bool = True) -> ResumeResult:
        """Let a paused run go on, or take back a pause that its driver has not come to yet.

        Args:
            run_id: which run.
            drive: go on in this process, in the background, if the workflow is registered here; else (and
                with False) any worker or sweep takes the run.

        Returns:
            ``resumed``, ``not_paused``, ``finished`` or ``not_found``.

        Raises:
            InvalidArgument: it is paused because a step has failed for good: see `skip` and `retry`.
            StoreLocked: as `pause`.
        """
        return await self._services.here(self._services.pausing.resume, run_id, drive=drive)

    async def skip(
        self, run_id: str, result: Any = None, *, operation: str | None = None, drive: bool = True
    ) -> None:
        """Give a step for which a run is paused a result, as if its function had returned it.

        That is a step that failed for good and whose `on_exhausted` is ``"pause"``; `retry` lets it try
        again.

        Args:
            run_id: which run.
            result: what the handler gets; anything that the serializer takes. The step's annotation is not
                asked: what does not fit it parks the run as stuck.
            operation: which step, if the run is paused for several; `RunView.exhausted_steps` has them.
            drive: go on in this process, in the background, if the workflow is registered here; else (and
                with False) any worker or sweep takes the run.

        Raises:
            UnknownRun: there is no such run.
            InvalidArgument: it is not paused for a step, or not for that one.
            SerializationError: the result cannot be stored.
        """
        await self._services.here(self._services.pausing.skip, run_id, result, operation, drive=drive)

    async def pause_many(
        self, reason: str = "", *, by: str | None = None, **filters: Unpack[RunFilters]
    ) -> int:
        """Pause all live runs that a filter finds, in pages; see `pause`.

        Runs that begin while it is under way may be missed.

        Args:
            reason: for people; `RunView.note` has it.
            by: who wants it.
            filters: as `list` takes them; at least one.

        Returns:
            How many are paused now, or as soon as their steps in flight have ended. Runs that others hold
            locked are not counted: call it again for them.

        Raises:
            InvalidArgument: there is no filter, or it makes no sense.
        """
        return await self._services.here(self._services.pausing.pause_many, reason, by, filters)

    async def resume_many(self, **filters: Unpack[RunFilters]) -> int:
        """Resume all paused runs that a filter finds, in pages; any worker or sweep takes them.

        Args:
            filters: as `list` takes them; at least one.

        Returns:
            How many were resumed.

        Raises:
            InvalidArgument: there is no filter, or it makes no sense.
        """
        return await self._services.here(self._services.pausing.resume_many, filters)
