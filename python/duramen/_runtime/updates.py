"""Updates of runs: sent as messages, answered by the commit that has their end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from duramen._handlers.requests import Update, check_name
from duramen._handlers.step import waits_for
from duramen._values.checks import check_id
from duramen._values.durations import duration_ms
from duramen._values.payloads import load_recorded
from duramen._values.serializer import message_type, rebuild_error
from duramen.errors import (
    DeserializationError,
    InboxFull,
    InvalidArgument,
    InvalidId,
    RunFinished,
    RunStuck,
    RuntimeClosed,
    StoreClosed,
    UnknownRun,
    UpdateFailed,
    UpdateRejected,
    UpdateTimeout,
)

from .messages import held_by_others

if TYPE_CHECKING:
    from datetime import timedelta

    from duramen._bridge import Answer, Delivered
    from duramen._values.serializer import Serializer

    from .lifecycle import Lifecycle
    from .queries import Queries
    from .surroundings import Surroundings
    from .taking import Taking

__all__ = ["Updates"]

_MAX_UPDATE_ID = 240
"""Leaves room for what is put around it in the id of the message."""


class Updates:
    """The call that sends an update and waits for its answer."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        serializer: Serializer,
        surroundings: Surroundings,
        queries: Queries,
        taking: Taking,
    ) -> None:
        self._lifecycle = lifecycle
        self._serializer = serializer
        self._surroundings = surroundings
        self._queries = queries
        self._taking = taking

    async def update(
        self,
        run_id: str,
        update: Update[Any, Any] | str,
        payload: Any,
        update_id: str | None,
        timeout: timedelta | float | None,
        drive: bool,
    ) -> Any:
        """See `Runtime.update`."""
        check_id("run id", run_id)
        if isinstance(update, Update):
            name, result = update.name, update.result
            data = self._serializer.dumps(payload, update.payload)
        else:
            name, result = check_name("update", update), None
            data = self._serializer.dumps(payload, message_type(payload))
        limit = None if timeout is None else duration_ms(timeout, "timeout") / 1000
        update_id = self._surroundings.message_id() if update_id is None else _checked(update_id)
        waiting = self._send_and_wait(run_id, name, data, update_id, limit, drive)
        reply = await self._surroundings.patiently(run_id, waiting, for_ever=timeout is None)
        if reply[:1] == b"+":
            return self._serializer.loads(reply[1:], result)
        recorded = load_recorded(self._serializer, reply[1:])
        raise UpdateFailed(run_id, name, recorded) from rebuild_error(recorded)

    async def _send_and_wait(
        self, run_id: str, name: str, data: bytes, update_id: str, limit: float | None, drive: bool
    ) -> bytes:
        until = None if limit is None else self._lifecycle.ready.loop.time() + limit
        message_id = f"update:{update_id}"
        await self._send(run_id, message_id, name, data, update_id)
        if drive:
            await self._taking.drive_now(run_id)
        try:
            async with waits_for(run_id, self._is_begun):
                answer = await self._answer(run_id, message_id, until)
        except StoreClosed:
            raise RuntimeClosed("the runtime was closed during the call") from None
        if answer is None:
            raise UpdateTimeout(run_id, name, update_id, await self._taken(run_id))
        if answer.how == "refused":
            raise UpdateRejected(run_id, name, answer.why or "")
        if answer.how == "unanswered":
            if answer.why is None:
                raise UnknownRun(run_id)
            if answer.why == "stuck":
                raise RunStuck(run_id, (await self._queries.detail(run_id)).row.note or "")
            raise RunFinished(run_id, answer.why, f"update {name!r} was not answered before its end")
        if not answer.reply:
            raise DeserializationError(
                "$", f"update {name!r} of run {run_id!r} was answered without an answer"
            )
        return answer.reply

    async def _send(self, run_id: str, message_id: str, name: str, data: bytes, update_id: str) -> None:
        """Put it into the run's inbox, unless it is there already."""
        port = self._lifecycle.ready
        message = (run_id, message_id, "update", name, data, name)
        answers: list[Delivered] = await port.call(port.engine.deliver, [message])
        result, first = answers[0].result, answers[0].fingerprint
        if result == "not_found":
            raise UnknownRun(run_id)
        if result == "finished":
            raise RunFinished(run_id, (await self._queries.detail(run_id)).row.status)
        if result == "full":
            raise InboxFull(run_id)
        if result == "blocked":
            raise held_by_others(run_id)
        if result == "duplicate" and first is not None and first != name:
            raise InvalidArgument(
                f"update_id {update_id!r} is that of an update {first!r} of run {run_id!r}, so {name!r} was "
                "not sent: give it another id"
            )

    async def _answer(self, run_id: str, message_id: str, until: float | None) -> Answer | None:
        """Wait until the message is read, or its run has ended; None if that instant comes before."""
        port = self._lifecycle.ready
        token, answered = port.call_with_token(port.engine.watch_answer, run_id, message_id)
        try:
            pause = None if until is None else max(0.0, until - port.loop.time())
            done, _ = await asyncio.wait([answered], timeout=pause)
            return answered.result() if done else None
        finally:
            port.forget(token)
            port.engine.unwatch_answer(token)

    async def _is_begun(self, run_id: str) -> bool:
        return (await self._queries.detail(run_id)).row.status != "queued"

    async def _taken(self, run_id: str) -> tuple[str, ...] | None:
        row = (await self._queries.detail(run_id)).row
        if row.status != "waiting":
            return None
        prefix = "update:"
        return tuple(key.removeprefix(prefix) for key in row.waits if key.startswith(prefix))


def _checked(update_id: str) -> str:
    if len(check_id("update id", update_id)) > _MAX_UPDATE_ID:
        raise InvalidId(f"the update id has {len(update_id)} characters: use {_MAX_UPDATE_ID} at the most")
    return update_id
