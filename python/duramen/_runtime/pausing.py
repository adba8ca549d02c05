"""Pausing runs and letting them go on, one by one or all that a filter finds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from duramen._values.checks import check_id, check_text
from duramen._values.serializer import message_type
from duramen.errors import InvalidArgument, StoreLocked

from .filters import engine_filter
from .views import PauseResult, ResumeResult

if TYPE_CHECKING:
    from duramen._bridge import Delivered, Row
    from duramen._bridge import Page as EnginePage
    from duramen._values.serializer import Serializer

    from .filters import RunFilters
    from .lifecycle import Lifecycle
    from .queries import Queries
    from .surroundings import Surroundings
    from .taking import Taking

__all__ = ["Pausing"]

_LIVE = ["queued", "running", "waiting"]

_PAGE = 500
"""So many runs are looked for, and sent to, in one request to the store."""

_ENDED = frozenset({"completed", "failed", "cancelled", "terminated"})

_PAUSED = {
    "delivered": PauseResult.PAUSING,
    "buffered": PauseResult.PAUSED,
    "duplicate": PauseResult.ALREADY_PAUSED,
    "not_found": PauseResult.NOT_FOUND,
    "finished": PauseResult.FINISHED,
}


class Pausing:
    """The calls that pause runs and let them go on."""

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

    async def pause(self, run_id: str, reason: str, by: str | None) -> PauseResult:
        """See `Runtime.pause`."""
        check_id("run id", run_id)
        note, payload = _told(reason, by)
        (result,) = await self._send([run_id], "pause", note, payload)
        if result == "blocked":
            raise _held_by_others(run_id)
        found = _PAUSED[result]
        if found is PauseResult.PAUSED and (await self._queries.detail(run_id)).row.status == "stuck":
            return PauseResult.PAUSING
        return found

    async def resume(self, run_id: str, *, drive: bool = True) -> ResumeResult:
        """See `Runtime.resume`."""
        check_id("run id", run_id)
        port = self._lifecycle.ready
        (detail,) = await port.call(port.engine.get, [run_id])
        if detail is None:
            return ResumeResult.NOT_FOUND
        row: Row = detail.row
        if row.status in _ENDED:
            return ResumeResult.FINISHED
        if row.status not in {"paused", "running"} and not row.unread:
            return ResumeResult.NOT_PAUSED
        if steps := _exhausted(row):
            names = ", ".join(map(repr, steps))
            raise InvalidArgument(
                f"run {run_id!r} is paused because {names} failed for good: `retry` lets it try again, "
                "`skip` gives it a result"
            )
        (result,) = await self._send([run_id], "resume", "", b"")
        if result == "blocked":
            raise _held_by_others(run_id)
        if result == "not_found":
            return ResumeResult.NOT_FOUND
        if result == "finished":
            return ResumeResult.FINISHED
        if drive and row.status == "paused":
            await self._taking.adopt(run_id)
        return ResumeResult.RESUMED

    async def skip(self, run_id: str, result: Any, operation: str | None, *, drive: bool = True) -> None:
        """See `Runtime.skip`."""
        check_id("run id", run_id)
        if operation is not None:
            check_id("operation id", operation)
        payload = self._serializer.dumps(result, message_type(result))
        row = (await self._queries.detail(run_id)).row
        steps = _exhausted(row)
        if not steps:
            raise InvalidArgument(
                f"run {run_id!r} is {row.status}, and not paused for a step: there is none to skip"
            )
        if operation is None:
            if len(steps) > 1:
                names = ", ".join(steps)
                raise InvalidArgument(
                    f"run {run_id!r} is paused for several steps: say which, operation= one of {names}"
                )
            operation = steps[0]
        elif operation not in steps:
            raise InvalidArgument(
                f"run {run_id!r} is not paused for {operation!r}, but for {', '.join(steps)}"
            )
        port = self._lifecycle.ready
        answer = await port.call(port.engine.skip, run_id, operation, payload)
        if answer == "blocked":
            raise _held_by_others(run_id)
        if answer != "done":
            raise InvalidArgument(f"run {run_id!r} has changed meanwhile: look at it again")
        if drive:
            await self._taking.adopt(run_id)

    async def pause_many(self, reason: str, by: str | None, filters: RunFilters) -> int:
        """See `Runtime.pause_many`."""
        note, payload = _told(reason, by)
        return await self._send_all("pause", note, payload, self._wanted("pause_many", filters, _LIVE))

    async def resume_many(self, filters: RunFilters) -> int:
        """See `Runtime.resume_many`."""
        return await self._send_all("resume", "", b"", self._wanted("resume_many", filters, ["paused"]))

    @staticmethod
    def _wanted(call: str, filters: RunFilters, statuses: list[str]) -> dict[str, Any]:
        if all(value is None for value in filters.values()):
            raise InvalidArgument(
                f"{call}() without a filter is about every run: say which, such as workflow="
            )
        wanted = engine_filter(call, filters)
        wanted["status"] = [each for each in wanted.get("status", statuses) if each in statuses]
        if not wanted["status"]:
            raise InvalidArgument(
                f"{call}() is about runs that are {', '.join(statuses)}: none of the statuses is"
            )
        return wanted

    async def _send_all(self, kind: str, note: str, payload: bytes, wanted: dict[str, Any]) -> int:
        port = self._lifecycle.ready
        cursor: Any = None
        sent = 0
        while True:
            page: EnginePage = await port.call(port.engine.list, wanted, _PAGE, cursor)
            # A step that has failed for good is for `retry` and `skip`.
            run_ids = [row.run_id for row in page.rows if kind == "pause" or not _exhausted(row)]
            if run_ids:
                answers = await self._send(run_ids, kind, note, payload)
                sent += sum(1 for each in answers if each in {"delivered", "buffered"})
            cursor = page.next
            if cursor is None:
                return sent

    async def _send(self, run_ids: list[str], kind: str, note: str, payload: bytes) -> list[str]:
        port = self._lifecycle.ready
        message_id = self._surroundings.message_id
        messages = [(run_id, message_id(), kind, note, payload, None) for run_id in run_ids]
        answers: list[Delivered] = await port.call(port.engine.deliver, messages)
        return [answer.result for answer in answers]


def _exhausted(row: Row) -> list[str]:
    """The steps for which a run is paused."""
    waits = row.waits if row.status == "paused" else []
    return [wait.removeprefix("exhausted:") for wait in waits if wait.startswith("exhausted:")]


def _told(reason: str, by: str | None) -> tuple[str, bytes]:
    """What people are told in a line, and the whole of it."""
    if by is not None and not check_text("by", by).strip():
        raise InvalidArgument("by is empty: say who, or leave it out")
    if len(check_text("reason", reason)) > 10_000:
        raise InvalidArgument(f"the reason has {len(reason)} characters: at most 10,000 are allowed")
    line = ": ".join(part for part in (by, reason) if part)
    # One line: a control character would be refused.
    line = " ".join("".join(each if each.isprintable() else " " for each in line).split())
    return line, json.dumps({"reason": reason, "by": by}, ensure_ascii=False).encode()


def _held_by_others(run_id: str) -> StoreLocked:
    return StoreLocked(
        f"run {run_id!r} is held by a transaction that is not Duramen's, and was for as long as a lease; "
        "nothing was changed: end that transaction, then try again"
    )
