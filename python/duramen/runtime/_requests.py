"""What a runtime asks of runs, and gets an answer to: updates and queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._calls import Calls

if TYPE_CHECKING:
    from datetime import timedelta

    from duramen._handlers.requests import Query, Update

__all__ = ["RequestCalls"]

P = TypeVar("P")
R = TypeVar("R")


class RequestCalls(Calls):
    """See `Runtime`."""

    @overload
    async def update(
        self,
        run_id: str,
        update: Update[P, R],
        payload: P,
        *,
        update_id: str | None = None,
        timeout: timedelta | float | None = None,
        drive: bool = False,
    ) -> R: ...
    @overload
    async def update(
        self,
        run_id: str,
        update: str,
        payload: Any = None,
        *,
        update_id: str | None = None,
        timeout: timedelta | float | None = None,
        drive: bool = False,
    ) -> Any: ...
    async def update(
        self,
        run_id: str,
        update: Update[Any, Any] | str,
        payload: Any = None,
        *,
        update_id: str | None = None,
        timeout: timedelta | float | None = None,
        drive: bool = False,
    ) -> Any:
        """Have a run apply an update, and give what its function returned.

        The run validates it, records it, applies it once and answers it, wherever it is driven; one that
        waits is due at once. An update of a name that the run does not take (yet) is kept until it does, or
        ends.

        Args:
            run_id: which run.
            update: the name that the handler gave to ``ctx.on_update``, or the `Update` with the types.
            payload: what its function gets; anything that the serializer takes.
            update_id: the same id is applied once, and always gets the same answer: also after a time-out or
                a crash of the caller. None makes up a fresh one.
            timeout: how long to wait for the answer; None: for ever. The update stays when it passes.
            drive: also drive the run here until it pauses or ends, if it is due.

        Raises:
            UpdateRejected: the run refused it, with the reason; nothing was changed.
            UpdateFailed: its function raised; the cause is its exception if that class is built in or
                registered.
            UpdateTimeout: the time passed.
            RunFinished: the run has ended, or ended before the update was answered.
            RunStuck: its code no longer fits its journal. The update stays.
            UnknownRun: there is no such run.
            InboxFull, StoreLocked, SerializationError: as in `Runtime.signal`.
            InvalidArgument: the id is that of an update of another name.
        """
        services = self._services
        return await services.here(
            services.updates.update, run_id, update, payload, update_id, timeout, drive
        )

    @overload
    async def query(self, run_id: str, query: Query[R], /, *args: Any) -> R: ...
    @overload
    async def query(self, run_id: str, query: str, /, *args: Any) -> Any: ...
    async def query(self, run_id: str, query: Query[Any] | str, /, *args: Any) -> Any:
        """Ask a run what its handler knows: `fn(*args)` of its ``ctx.on_query(name, fn)``.

        It is answered here, from a copy of the run that is built by replay of what is recorded: whoever
        drives it is not disturbed, nothing is written, and a run that has ended answers as well. What is
        not yet durable is not seen. Each query costs as much as taking the run up.

        Args:
            run_id: which run.
            query: the name, or the `Query`, which says the type of the answer.
            *args: what the function is called with.

        Raises:
            UnknownRun: there is no such run.
            UnknownWorkflow: its workflow is not registered here.
            UnknownQuery: its handler answers none of that name as far as it has come.
            QueryFailed: the function raised, or made a durable call.
            ReplayDiverged: the code here does not fit the run's journal (as of a stuck run, unless the code
                has been mended).
            StoreNewer: its journal is for a later version of Duramen.
        """
        services = self._services
        return await services.here(services.reading.query, run_id, query, args)
