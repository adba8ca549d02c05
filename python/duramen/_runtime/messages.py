"""Reaching into runs: signals, decisions, cancellation, intervention."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from duramen._bridge import Change
from duramen._values.checks import check_event_name, check_id, check_signal_id, check_text
from duramen._values.serializer import message_type
from duramen.errors import (
    ApprovalConflict,
    EventRejected,
    InboxFull,
    InvalidArgument,
    RunUndone,
    SerializationError,
    StoreLocked,
    UnknownRun,
)

from .connected import Planned
from .rows import event_of
from .views import SignalResult

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duramen._bridge import Delivered, Row
    from duramen._driving.transactions import Transactions
    from duramen._values.serializer import Serializer

    from .lifecycle import Lifecycle
    from .queries import Queries
    from .registry import Registry
    from .surroundings import Surroundings
    from .taking import Taking

__all__ = ["Messages", "held_by_others"]

Message = tuple[str, str, str, str, bytes, str | None]
"""Run id, message id, kind, name, payload, fingerprint."""

_BATCH = 500
"""So many messages of `signal_many` are one request to the store."""


class Messages:
    """The calls that reach into runs."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        registry: Registry,
        serializer: Serializer,
        surroundings: Surroundings,
        queries: Queries,
        taking: Taking,
        transactions: Transactions,
    ) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._serializer = serializer
        self._surroundings = surroundings
        self._queries = queries
        self._taking = taking
        self._transactions = transactions

    # -- events ----------------------------------------------------------------------------------------------

    async def signal(
        self, run_id: str, name: str, payload: Any, signal_id: str | None, drive: bool
    ) -> SignalResult:
        """See `Runtime.signal`."""
        result, _ = await self._deliver_one(await self._event(run_id, name, payload, signal_id))
        if drive and result in {SignalResult.DELIVERED, SignalResult.BUFFERED, SignalResult.DUPLICATE}:
            await self._taking.drive_now(run_id)
        return result

    async def planned(
        self, run_id: str, name: str, payload: Any, signal_id: str | None = None, drive: bool = False
    ) -> Planned[SignalResult]:
        """The same, to be carried out on a connection of the user's."""
        if drive:
            raise InvalidArgument(
                "drive=True with a connection: the run cannot be driven before your transaction commits"
            )
        message = await self._event(run_id, name, payload, signal_id)
        change = Change.deliver(self._lifecycle.engine, message)

        def answered(answer: tuple[Any, ...]) -> SignalResult:
            found = SignalResult(answer[0])
            if found is SignalResult.FULL:
                raise InboxFull(run_id)
            return found

        return Planned(change, self._transactions, await self._transactions.identity(), answered)

    async def _event(self, run_id: str, name: str, payload: Any, signal_id: str | None) -> Message:
        check_id("run id", run_id)
        check_event_name(name)
        message_id = self._surroundings.message_id() if signal_id is None else check_signal_id(signal_id)
        return run_id, message_id, "event", name, await self._event_payload(run_id, name, payload), None

    async def signal_many(
        self, signals: Iterable[tuple[str, str, Any] | tuple[str, str, Any, str]]
    ) -> list[SignalResult]:
        """See `Runtime.signal_many`."""
        messages: list[Message] = []
        for run_id, name, payload, *rest in signals:
            message_id = check_signal_id(rest[0]) if rest else None
            messages.append(await self._event(run_id, name, payload, message_id))
        found: list[SignalResult] = []
        for start in range(0, len(messages), _BATCH):
            found += [result for result, _ in await self._deliver(messages[start : start + _BATCH])]
        return found

    async def _event_payload(self, run_id: str, name: str, payload: Any) -> bytes:
        if self._registry.declares_event(name):
            port = self._lifecycle.ready
            (detail,) = await port.call(port.engine.get, [run_id])
            row: Row | None = detail.row if detail is not None else None
            definition = self._registry.get(row.workflow, row.version) if row is not None else None
            annotation = definition.event_type(name) if definition is not None else None
            if annotation is not None:
                try:
                    return self._serializer.dumps(payload, annotation)
                except SerializationError as error:
                    raise EventRejected(run_id, name, str(error)) from error
        return self._serializer.dumps(payload, message_type(payload))

    async def _deliver(self, messages: list[Message]) -> list[tuple[SignalResult, str | None]]:
        port = self._lifecycle.ready
        answers: list[Delivered] = await port.call(port.engine.deliver, messages)
        return [(SignalResult(answer.result), answer.fingerprint) for answer in answers]

    async def _deliver_one(self, message: Message) -> tuple[SignalResult, str | None]:
        (answer,) = await self._deliver([message])
        if answer[0] is SignalResult.FULL:
            raise InboxFull(message[0])
        if answer[0] is SignalResult.BLOCKED:
            raise held_by_others(message[0])
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
        """See `Runtime.approve`."""
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
        data = self._serializer.dumps(
            {"approved": approved, "feedback": feedback, "by": by, "at": self._lifecycle.engine.now()}
        )
        decision = "approved" if approved else "rejected"
        result, first = await self._deliver_one((run_id, message_id, "approval", approval_id, data, decision))
        if result is SignalResult.DUPLICATE and first is not None and first != decision:
            raise ApprovalConflict(run_id, approval_id)
        if drive and result not in {SignalResult.NOT_FOUND, SignalResult.FINISHED}:
            await self._taking.drive_now(run_id)
        return result

    async def cancel(
        self, run_id: str, reason: str = "", *, drive: bool = False, message_id: str | None = None
    ) -> SignalResult:
        """See `Runtime.cancel`; under a message id it takes place once."""
        check_id("run id", run_id)
        data = self._reason(reason)
        message_id = self._surroundings.message_id() if message_id is None else message_id
        result, _ = await self._deliver_one((run_id, message_id, "cancel", "cancel", data, None))
        if drive and result not in {SignalResult.NOT_FOUND, SignalResult.FINISHED}:
            await self._taking.drive_now(run_id)
        return result

    def _reason(self, reason: Any) -> bytes:
        if len(check_text("reason", reason)) > 10_000:
            raise SerializationError("reason", f"it has {len(reason)} characters: at most 10,000 are allowed")
        return json.dumps(reason, ensure_ascii=False).encode()

    async def terminate(self, run_id: str, reason: str = "") -> bool:
        """See `Runtime.terminate`."""
        check_id("run id", run_id)
        port = self._lifecycle.ready
        done = self._intervened(run_id, await port.call(port.engine.terminate, run_id, self._reason(reason)))
        if done:
            self._lifecycle.driver.drop(run_id)
        return done

    async def retry(self, run_id: str, *, version: str | None = None, drive: bool = True) -> None:
        """See `Runtime.retry`."""
        check_id("run id", run_id)
        port = self._lifecycle.ready
        if version is not None:
            check_id("version", version)
            row = (await self._queries.detail(run_id)).row
            self._registry.check_version(row.workflow, version)
            if version == row.version:
                version = None  # it goes on as it is
        if not self._intervened(run_id, await port.call(port.engine.reopen, run_id, version)):
            detail = await self._queries.detail(run_id)
            if detail.end is not None and event_of(run_id, 0, detail.end, self._serializer).undone:
                raise RunUndone(run_id)
            raise InvalidArgument(self._not_retried(detail.row, version))
        if drive:
            await self._taking.adopt(run_id)

    @staticmethod
    def _not_retried(row: Row, version: str | None) -> str:
        told = f"run {row.run_id!r} is {row.status}: "
        if version is None or row.status == "completed":
            if row.status == "paused":
                return told + "it was not paused for a step that has failed: resume it instead"
            return told + (
                "only failed, cancelled, terminated and stuck runs are retried, and those that are paused "
                "for a step"
            )
        if row.status == "running":
            return told + "its version can be changed when it waits, or has ended; try again"
        return told + "something else has changed it just now; try again"

    async def delete(self, run_id: str, *, force: bool = False) -> bool:
        """See `Runtime.delete`."""
        check_id("run id", run_id)
        port = self._lifecycle.ready
        answer = await port.call(port.engine.delete, run_id, force)
        if answer == "blocked":
            raise held_by_others(run_id)
        if answer == "not_allowed":
            raise InvalidArgument(
                f"run {run_id!r} has not ended: cancel or terminate it first, or pass force=True"
            )
        if answer == "done":
            self._lifecycle.driver.drop(run_id)
        return answer == "done"

    @staticmethod
    def _intervened(run_id: str, answer: str) -> bool:
        if answer == "not_found":
            raise UnknownRun(run_id)
        if answer == "blocked":
            raise held_by_others(run_id)
        return answer == "done"


def held_by_others(run_id: str) -> StoreLocked:
    """What is raised when a transaction that is not Duramen's holds a run for too long."""
    return StoreLocked(
        f"run {run_id!r} is held by a transaction that is not Duramen's, and was for as long as a lease; "
        "nothing was changed: end that transaction, then try again"
    )
