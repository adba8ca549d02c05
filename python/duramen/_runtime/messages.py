"""The part of `Runtime` that reaches into runs: signals, decisions, cancellation, intervention."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from duramen._bridge import Change
from duramen._values.checks import check_event_name, check_id, check_signal_id, check_text
from duramen._values.serializer import message_type
from duramen.errors import (
    ApprovalConflict,
    EventRejected,
    InboxFull,
    InvalidArgument,
    SerializationError,
    StoreLocked,
    UnknownRun,
)

from .queries import Queries
from .views import SignalResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duramen._bridge import Delivered, Row

    from .driver import Left

__all__ = ["Messages", "id_held_by_others"]

_log = logging.getLogger("duramen")

_LOOK_AGAIN = 1.0
"""Seconds after which is looked whether a run is still driven here."""

_CLAIMS = 3
"""How often a run is claimed again that never got as far as being driven."""


Message = tuple[str, str, str, str, bytes, str | None]
"""Run id, message id, kind, name, payload, fingerprint."""


def _held_by_others(run_id: str) -> StoreLocked:
    return StoreLocked(
        f"run {run_id!r} is held by a transaction that is not Duramen's, and was for as long as a lease; "
        "nothing was changed: end that transaction, then try again"
    )


def id_held_by_others(run_id: str) -> StoreLocked:
    """The error of a creation that was refused since a transaction of others is about to create that id."""
    return StoreLocked(
        f"a transaction that is not Duramen's is about to create run {run_id!r}, and has been open for as "
        "long as a lease; the run was not created here: end that transaction, then try again"
    )


class Messages(Queries):
    """See `Runtime`."""

    def _fresh_id(self) -> str:
        """An id for a message that was given none."""
        return uuid4().hex

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
        message = await self._event(
            run_id, name, payload, signal_id, connected_and_driven=drive and connection is not None
        )
        if connection is not None:
            change = Change.deliver(self._engine, message)
            found = SignalResult((await self._transactions.carry_out(connection, change))[0])
            if found is SignalResult.FULL:
                raise InboxFull(run_id)
            return found
        result, _ = await self._deliver_one(message)
        if drive and result in {SignalResult.DELIVERED, SignalResult.BUFFERED, SignalResult.DUPLICATE}:
            await self._drive_now(run_id)
        return result

    async def _event(
        self,
        run_id: str,
        name: str,
        payload: Any,
        signal_id: str | None,
        *,
        connected_and_driven: bool = False,
    ) -> Message:
        if connected_and_driven:
            raise InvalidArgument(
                "drive=True with a connection: the run cannot be driven before your transaction commits"
            )
        check_id("run id", run_id)
        check_event_name(name)
        message_id = self._fresh_id() if signal_id is None else check_signal_id(signal_id)
        return run_id, message_id, "event", name, await self._event_payload(run_id, name, payload), None

    async def signal_many(
        self, signals: Iterable[tuple[str, str, Any] | tuple[str, str, Any, str]]
    ) -> list[SignalResult]:
        """Send many events with few transactions; each is ``(run_id, name, payload[, signal_id])``.

        Nothing is sent if one of them is invalid. The answers are those of `signal`, in the same order.
        """
        messages: list[Message] = []
        for run_id, name, payload, *rest in signals:
            message_id = check_signal_id(rest[0]) if rest else self._fresh_id()
            check_id("run id", run_id)
            check_event_name(name)
            messages.append(
                (run_id, message_id, "event", name, await self._event_payload(run_id, name, payload), None)
            )
        found: list[SignalResult] = []
        for start in range(0, len(messages), 500):
            found += [result for result, _ in await self._deliver(messages[start : start + 500])]
        return found

    async def _event_payload(self, run_id: str, name: str, payload: Any) -> bytes:
        if self._registry.declares_event(name):
            port = self._ready
            (detail,) = await port.call(port.engine.get, [run_id])
            row: Row | None = detail.row if detail is not None else None
            definition = self._registry.get(row.workflow, row.version) if row is not None else None
            annotation = definition.event_type(name) if definition is not None else None
            if annotation is not None:
                try:
                    return self.serializer.dumps(payload, annotation)
                except SerializationError as error:
                    raise EventRejected(run_id, name, str(error)) from error
        return self.serializer.dumps(payload, message_type(payload))

    async def _deliver(self, messages: list[Message]) -> list[tuple[SignalResult, str | None]]:
        port = self._ready
        answers: list[Delivered] = await port.call(port.engine.deliver, messages)
        return [(SignalResult(answer.result), answer.fingerprint) for answer in answers]

    async def _deliver_one(self, message: Message) -> tuple[SignalResult, str | None]:
        (answer,) = await self._deliver([message])
        if answer[0] is SignalResult.FULL:
            raise InboxFull(message[0])
        if answer[0] is SignalResult.BLOCKED:
            raise _held_by_others(message[0])
        return answer

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
        check_id("run id", run_id)
        check_id("approval id", approval_id)
        if not isinstance(approved, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"approved is {approved!r}: give True or False")
        for what, text in (("feedback", feedback), ("by", by)):
            if text is not None:
                check_text(what, text)
        message_id = f"approval:{approval_id}"
        if len(message_id) > 255:
            raise InvalidArgument(
                f"the approval id has {len(approval_id)} characters: it is none of Duramen's"
            )
        data = self.serializer.dumps(
            {"approved": approved, "feedback": feedback, "by": by, "at": self._engine.now()}
        )
        decision = "approved" if approved else "rejected"
        result, first = await self._deliver_one((run_id, message_id, "approval", approval_id, data, decision))
        if result is SignalResult.DUPLICATE and first is not None and first != decision:
            raise ApprovalConflict(run_id, approval_id)
        if drive and result not in {SignalResult.NOT_FOUND, SignalResult.FINISHED}:
            await self._drive_now(run_id)
        return result

    async def cancel(self, run_id: str, reason: str = "", *, drive: bool = False) -> SignalResult:
        """Ask a run to end: its handler gets `asyncio.CancelledError` at its await and may clean up.

        It reaches the run wherever it is driven; one that is paused is due at once.

        Args:
            run_id: which run.
            reason: for the handler and for people.
            drive: as in `signal`.
        """
        check_id("run id", run_id)
        data = self._reason(reason)
        result, _ = await self._deliver_one((run_id, self._fresh_id(), "cancel", "cancel", data, None))
        if drive and result not in {SignalResult.NOT_FOUND, SignalResult.FINISHED}:
            await self._drive_now(run_id)
        return result

    def _reason(self, reason: Any) -> bytes:
        if len(check_text("reason", reason)) > 10_000:
            raise SerializationError("reason", f"it has {len(reason)} characters: at most 10,000 are allowed")
        return json.dumps(reason, ensure_ascii=False).encode()

    async def terminate(self, run_id: str, reason: str = "") -> bool:
        """End a run at once, without a chance to clean up; whoever drives it is fenced off.

        Returns:
            False if it had ended already.

        Raises:
            UnknownRun: there is no such run.
        """
        check_id("run id", run_id)
        port = self._ready
        done = self._intervened(run_id, await port.call(port.engine.terminate, run_id, self._reason(reason)))
        if done:
            self._driver.drop(run_id)
        return done

    async def retry(self, run_id: str, *, drive: bool = True) -> None:
        """Let a failed, cancelled, terminated or stuck run go on from what ended it.

        Args:
            run_id: which run.
            drive: go on in this process, in the background, if the workflow is registered here; else (and
                with False) any worker or sweep takes the run.

        Raises:
            UnknownRun: there is no such run.
            InvalidArgument: it completed, or has not ended.
        """
        check_id("run id", run_id)
        port = self._ready
        if not self._intervened(run_id, await port.call(port.engine.reopen, run_id)):
            status = (await self._detail(run_id)).row.status
            raise InvalidArgument(
                f"run {run_id!r} is {status}: only failed, cancelled, terminated and stuck runs are retried"
            )
        if drive:
            await self._adopt(run_id)

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
        check_id("run id", run_id)
        port = self._ready
        answer = await port.call(port.engine.delete, run_id, force)
        if answer == "blocked":
            raise _held_by_others(run_id)
        if answer == "not_allowed":
            raise InvalidArgument(
                f"run {run_id!r} has not ended: cancel or terminate it first, or pass force=True"
            )
        if answer == "done":
            self._driver.drop(run_id)
        return answer == "done"

    @staticmethod
    def _intervened(run_id: str, answer: str) -> bool:
        if answer == "not_found":
            raise UnknownRun(run_id)
        if answer == "blocked":
            raise _held_by_others(run_id)
        return answer == "done"

    # -- driving ---------------------------------------------------------------------------------------------

    async def _take(self, run_id: str) -> int | None:
        """Claim a run if it is due and its workflow is here; it is then driven in the background."""
        port = self._ready
        return await port.call(port.engine.take, run_id, None)

    async def _adopt(self, run_id: str) -> int | None:
        """The same, and the engine goes on with it as with a run that was started here."""
        port = self._ready
        return await port.call(port.engine.adopt, run_id)

    async def _drive_now(self, run_id: str) -> str | None:
        """Drive a run that is due, here, until it pauses or ends; gives how, or None if it was not due."""
        driver = self._driver
        left = driver.watch(run_id)
        try:
            return await self._until_left(run_id, left) if await self._claim(run_id) or left.done() else None
        finally:
            driver.unwatch(run_id, left)

    async def _until_left(
        self, run_id: str, left: asyncio.Future[Left], limit: float | None = None
    ) -> str | None:
        """Wait until a run leaves these hands; gives how, or None if it is in others or the time is over."""
        end = None if limit is None else time.monotonic() + limit
        failures = 0
        while not left.done():
            pause = _LOOK_AGAIN if end is None else min(_LOOK_AGAIN, end - time.monotonic())
            await asyncio.wait([left], timeout=max(0.0, pause))
            if left.done() or (end is not None and time.monotonic() >= end):
                break
            if not self._driver.drives(run_id):
                # Its journal could not be read after it was claimed, or somebody else was faster.
                failures += 1
                if failures > _CLAIMS or not await self._claim(run_id):
                    break
        return left.result().how if left.done() else None

    async def _claim(self, run_id: str) -> bool:
        """See to it that a run which is due is driven here; False if it is not due, or driven elsewhere."""
        if self._driver.drives(run_id) or await self._take(run_id) is not None:
            return True
        # What was started here is also woken by the engine itself, which may have been faster.
        row = (await self._detail(run_id)).row
        return row.status == "running" and row.owner == self._engine.owner()
