"""Waiting: for time, for events, for people's decisions."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from duramen._bridge import TIMER_SLEEP, Halted, InvalidIdError
from duramen._values.checks import check_id, check_text
from duramen._values.durations import duration_ms, from_ms, instant_ms
from duramen._values.payloads import Decision
from duramen.errors import InvalidArgument, InvalidId

from .base import Calls

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Approval", "WaitCalls"]

R = TypeVar("R")
D = TypeVar("D")

_UNSET: Any = object()

_MAX_APPROVAL_ID = 200
"""Leaves room for what is put around it in the id of the message that brings the decision."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A decision about what `Context.approve` asked."""

    approved: bool
    approval_id: str
    """Derived from the run and the operation; what `Runtime.approve` is told."""
    feedback: str | None
    by: str | None
    """Who decided, as the caller of `Runtime.approve` said."""
    at: datetime
    """When (UTC)."""


class WaitCalls(Calls):
    """See `Context`."""

    __slots__ = ()

    async def sleep(self, duration: timedelta | float) -> None:
        """Wait for a while (seconds or `timedelta`), over restarts and with nothing kept running.

        The deadline is fixed when the call is first reached. `asyncio.sleep` in a handler does the same.

        Raises:
            InvalidArgument: the duration is negative, not finite, or over 100 years.
        """
        milliseconds = duration_ms(duration)
        self._check("ctx.sleep")
        await self._timer(self._run.now() + milliseconds)

    async def sleep_until(self, instant: datetime) -> None:
        """Wait until an aware `datetime`. One that has passed lets the handler go on at once.

        Raises:
            InvalidArgument: the datetime is naive.
        """
        deadline = instant_ms(instant)
        self._check("ctx.sleep_until")
        await self._timer(deadline)

    async def _timer(self, deadline: int) -> None:
        try:
            slot = self._run.timer(TIMER_SLEEP, deadline)
        except Halted as error:
            await self._failed(error)
        await self._host.await_slot(slot, Future(loop=self._loop))

    @overload
    async def wait_for_event(
        self, name: str, type: type[R], *, id: str | None = None, timeout: timedelta | float | None = None
    ) -> R: ...
    @overload
    async def wait_for_event(
        self,
        name: str,
        type: type[R],
        *,
        id: str | None = None,
        timeout: timedelta | float | None = None,
        default: D,
    ) -> R | D: ...
    @overload
    async def wait_for_event(
        self,
        name: str,
        type: Any = ...,
        *,
        id: str | None = None,
        timeout: timedelta | float | None = None,
        default: Any = ...,
    ) -> Any: ...
    async def wait_for_event(
        self,
        name: str,
        type: Any = _UNSET,  # noqa: A002
        *,
        id: str | None = None,  # noqa: A002
        timeout: timedelta | float | None = None,
        default: Any = _UNSET,
    ) -> Any:
        """Wait for the next event of a name. One that came early was kept, and is taken at once.

        A payload that does not fit the type is refused (or set aside with the reason), and the wait goes on.

        Args:
            name: the event's name.
            type: what the payload is read as. Default: the type declared in ``@workflow(events=…)``.
            id: the operation's id. Default: ``event-1``, ``event-2`` … in the order of the calls.
            timeout: seconds or `timedelta`.
            default: what to return on time-out.

        Raises:
            TimeoutError: none came in time, and there is no default.
            InvalidId: the name or the id cannot be used, or the id is that of a step, say, in this run.
        """
        self._check("ctx.wait_for_event")
        host = self._host
        check_id("event name", name)
        if id is not None:
            check_id("operation id", id)
        if type is _UNSET:
            type = host.definition.event_type(name)  # noqa: A001
        deadline = None if timeout is None else self._run.now() + duration_ms(timeout, "timeout")
        try:
            slot = self._run.event(name, id, deadline)
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
        arrived, value = await host.await_message(slot, type)
        if arrived:
            return value
        if default is not _UNSET:
            return default
        raise TimeoutError(f"no event {name!r} came within {timeout} (seconds, or a timedelta)")

    async def approve(
        self,
        title: str,
        *,
        id: str | None = None,  # noqa: A002
        description: str | None = None,
        assignees: Sequence[str] = (),
        timeout: timedelta | float | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Approval:
        """Ask people for a decision and wait for it.

        The request is recorded for whoever shows it to them; `Runtime.approve` brings the decision.

        Args:
            title: the question in a line.
            id: the approval's id in the run, up to 200 characters. Default: ``approval-1``, ``approval-2``, …
                in order.
            description: more about it.
            assignees: who is asked; recorded, not enforced.
            timeout: seconds or `timedelta`.
            meta: JSON for whoever shows the request.

        Raises:
            TimeoutError: nobody decided in time.
            SerializationError: `meta` is not JSON.
            InvalidId: the id cannot be used, or is that of a step, say, in this run.
            InvalidArgument: another argument cannot be used.
        """
        self._check("ctx.approve")
        check_text("title", title)
        if id is not None and len(check_id("operation id", id)) > _MAX_APPROVAL_ID:
            raise InvalidId(f"the approval id has {len(id)} characters: use {_MAX_APPROVAL_ID} at the most")
        if description is not None:
            check_text("description", description)
        if isinstance(assignees, str) or not isinstance(assignees, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"assignees is {assignees!r}: give a list, assignees=[{assignees!r}]")
        if meta is not None and not isinstance(meta, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"meta is {meta!r}: give a dict")
        host = self._host
        request = host.serializer.dumps(
            {
                "title": title,
                "description": description,
                "assignees": list(assignees),
                "meta": None if meta is None else dict(meta),
            }
        )
        deadline = None if timeout is None else self._run.now() + duration_ms(timeout, "timeout")
        try:
            slot, approval_id = self._run.approval(id, request, deadline)
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
        arrived, decision = await host.await_message(slot, Decision)
        if not arrived:
            raise TimeoutError(f"nobody decided about {approval_id!r} within {timeout}")
        return Approval(decision.approved, approval_id, decision.feedback, decision.by, from_ms(decision.at))
