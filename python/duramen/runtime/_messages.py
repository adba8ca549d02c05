"""What a runtime says to runs: events, decisions, and what people do to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._calls import Calls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duramen._runtime.views import SignalResult

__all__ = ["MessageCalls"]

_List = list
"""The built-in one, where the class has a method of that name."""


class MessageCalls(Calls):
    """See `Runtime`."""

    async def signal(
        self,
        run_id: str,
        name: str,
        payload: Any = None,
        *,
        signal_id: str | None = None,
        drive: bool = False,
        connection: Any = None,
    ) -> SignalResult:
        """Send an event to a run. It is durable when this returns, also if the run does not wait for it yet.

        Args:
            run_id: which run.
            name: the event's name, as in ``ctx.wait_for_event(name)``; names with ``__`` in front are
            reserved.
            payload: what the run gets; anything that the serializer takes.
            signal_id: the same id reaches the run once, however often it is sent; None makes up a fresh one.
            drive: also drive the run here until it pauses or ends, if it is due.
            connection: a connection of yours to the store's database, with a transaction open: the event is
                sent if and only if that transaction commits; see `Runtime.enqueue`. On Postgres the run's row
                is locked until then, so make it one of the transaction's last statements.

        Returns:
            ``delivered``, ``buffered``, ``duplicate``, ``not_found`` or ``finished``.

        Raises:
            SignalRefused: the name or the signal id is reserved.
            EventRejected: the payload does not fit the type that the workflow declares for this event.
            InboxFull: the run has as many unread messages as it may have.
            StoreLocked: a transaction of somebody else's holds the run, and has for as long as a lease.
            SerializationError: the payload cannot be stored.
            UnusableConnection, WrongDatabase, TransactionsUnsupported: as in `Runtime.enqueue`.
        """
        services = self._services
        args = (run_id, name, payload, signal_id, drive)
        if connection is None:
            return await services.here(services.messages.signal, *args)
        return await (await services.here(services.messages.planned, *args)).carry_out(connection)

    async def signal_many(
        self, signals: Iterable[tuple[str, str, Any] | tuple[str, str, Any, str]]
    ) -> _List[SignalResult]:
        """Send many events with few transactions; each is ``(run_id, name, payload[, signal_id])``.

        Nothing is sent if one of them is invalid. The answers are those of `signal`, in the same order.
        """
        return await self._services.here(self._services.messages.signal_many, [*signals])

    async def approve(
        self,
        run_id: str,
        approval_id: str,
        approved: bool = True,
        *,
        feedback: str | None = None,
        by: str | None = None,
        drive: bool = False,
    ) -> SignalResult:
        """Decide about an approval that a run asked for. The first decision stands.

        Args:
            run_id: which run.
            approval_id: which approval; `RunView.waiting_approvals` has those that are open.
            approved: the decision.
            feedback: a text for the handler.
            by: who decided.
            drive: as in `signal`.

        Raises:
            ApprovalConflict: it was decided already, the other way.
        """
        return await self._services.here(
            self._services.messages.approve,
            run_id,
            approval_id,
            approved,
            feedback=feedback,
            by=by,
            drive=drive,
        )

    async def cancel(self, run_id: str, reason: str = "", *, drive: bool = False) -> SignalResult:
        """Ask a run to end: its handler gets `asyncio.CancelledError` at its await and may clean up.

        It reaches the run wherever it is driven; one that is paused is due at once.

        Args:
            run_id: which run.
            reason: for the handler and for people.
            drive: as in `signal`.
        """
        return await self._services.here(self._services.messages.cancel, run_id, reason, drive=drive)

    async def terminate(self, run_id: str, reason: str = "") -> bool:
        """End a run at once, without a chance to clean up; whoever drives it is fenced off.

        Returns:
            False if it had ended already.

        Raises:
            UnknownRun: there is no such run.
        """
        return await self._services.here(self._services.messages.terminate, run_id, reason)

    async def retry(self, run_id: str, *, version: str | None = None, drive: bool = True) -> None:
        """Let a failed, cancelled, terminated or stuck run go on from what ended it.

        With a `version` it goes on with the code of that version of its workflow, from its beginning as on
        any replay; if that does not fit its journal the run is stuck, and may be given another version. So a
        run that waits or is queued may be moved, too; what it has in its inbox stays.

        A run that is paused because a step has failed for good gives that step fresh attempts.

        Args:
            run_id: which run.
            version: the version that goes on with it; None: its own.
            drive: go on in this process, in the background, if the workflow is registered here; else (and
                with False) any worker or sweep takes the run.

        Raises:
            UnknownRun: there is no such run.
            InvalidArgument: it completed, or has not ended.
            UnknownWorkflow: the workflow is registered here, but not in that version.
            RunUndone: what it had done was undone before it ended.
        """
        await self._services.here(self._services.messages.retry, run_id, version=version, drive=drive)

    async def delete(self, run_id: str, *, force: bool = False) -> bool:
        """Remove a run and all that belongs to it.

        Args:
            run_id: which run.
            force: also if it has not ended; whoever drives it is fenced off.

        Returns:
            False if there was none of that id.

        Raises:
            InvalidArgument: it has not ended.
        """
        return await self._services.here(self._services.messages.delete, run_id, force=force)
