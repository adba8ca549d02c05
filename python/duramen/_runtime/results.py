"""Waiting for the ends of runs, and what they ended with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from duramen._bridge import ENCODING
from duramen._handlers.step import waits_for
from duramen._values.checks import check_id
from duramen._values.durations import duration_ms
from duramen._values.payloads import load_reason
from duramen._values.serializer import rebuild_error
from duramen.errors import (
    InvalidArgument,
    RunCancelled,
    RunFailed,
    RunStuck,
    RunTerminated,
    RuntimeClosed,
    RunTimedOut,
    StoreClosed,
    StoreNewer,
)

from .driver import NOT_HERE, Left
from .rows import read_error

if TYPE_CHECKING:
    from datetime import timedelta

    from duramen._bridge import Detail
    from duramen._values.serializer import Serializer

    from .lifecycle import Lifecycle
    from .queries import Queries
    from .registry import Registry
    from .surroundings import Surroundings

__all__ = ["Results", "ended"]

_ON = frozenset({"paused", "continued", "lost"})
"""How a run leaves a process's hands without having ended."""


class Results:
    """The call that waits for a result."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        registry: Registry,
        serializer: Serializer,
        surroundings: Surroundings,
        queries: Queries,
    ) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._serializer = serializer
        self._surroundings = surroundings
        self._queries = queries

    async def result(
        self,
        run_id: str,
        timeout: timedelta | float | None,
        output_type: Any = None,
        workflow: str = "",
    ) -> Any:
        """See `Runtime.result`; `output_type` and `workflow` are those of a caller who knows them."""
        waiting = self._wait(run_id, timeout, output_type, workflow)
        return await self._surroundings.patiently(run_id, waiting, for_ever=timeout is None)

    async def _wait(
        self, run_id: str, timeout: timedelta | float | None, output_type: Any, workflow: str
    ) -> Any:
        check_id("run id", run_id)
        limit = None if timeout is None else duration_ms(timeout, "timeout") / 1000
        until = None if limit is None else self._lifecycle.ready.loop.time() + limit
        while True:
            try:
                async with waits_for(run_id, self._is_begun):
                    found = await self._told(run_id, until)
            except StoreClosed:
                raise RuntimeClosed("the runtime was closed during the call") from None
            if found is None:
                raise RunTimedOut(run_id, f"no result within {limit:g} s; the run itself goes on")
            if isinstance(found, Left):
                _check_workflow(run_id, workflow, found.workflow)
                # What drove it knows best: the run may have been continued under another version.
                known = output_type if found.output_type is None else found.output_type
                return self._serializer.loads(found.output or b"", known)
            if ended(found.row.status):
                _check_workflow(run_id, workflow, found.row.workflow)
                return self.output(found, output_type)

    async def _is_begun(self, run_id: str) -> bool:
        return (await self._queries.detail(run_id)).row.status != "queued"

    async def _told(self, run_id: str, until: float | None) -> Left | Detail | None:
        """Wait until a run is said to have ended: its output if it completed here, else how it stands.

        None if that instant of the loop's clock comes before.
        """
        left = await self._left_here(run_id, until)
        if left is None or left.output is not None:
            return left
        if left.how not in _ON:
            return await self._queries.detail(run_id)
        return await self._told_anywhere(run_id, until)

    async def _left_here(self, run_id: str, until: float | None) -> Left | None:
        """Wait for as long as a run is driven here, and give how it left; None if that instant comes before.

        It cannot have ended meanwhile, and its end is told by one future: of a run that is started and waited
        for, as most are, the engine is asked nothing and says nothing beside its outcome.
        """
        port, driver = self._lifecycle.ready, self._lifecycle.driver
        how = NOT_HERE
        while driver.drives(run_id):
            left = driver.watch(run_id)
            try:
                if until is None:
                    await left
                elif not await _one_done(port.loop, until, left):
                    return None
            finally:
                driver.unwatch(run_id, left)
            how = left.result()
            if how.how not in _ON:
                break
        return how

    async def _told_anywhere(self, run_id: str, until: float | None) -> Left | Detail | None:
        port, driver = self._lifecycle.ready, self._lifecycle.driver
        # Before anything is read: an end that comes meanwhile must not be missed.
        left = driver.watch(run_id)
        token: int | None = None
        try:
            detail = await self._queries.detail(run_id)
            if ended(detail.row.status):
                return detail
            # However many wait, the engine asks for all of them at once.
            token, ending = port.call_with_token(port.engine.watch_end, run_id)
            while not ending.done():
                if not await _one_done(port.loop, until, left, ending):
                    return None
                if left.done():
                    how = left.result()
                    if how.output is not None:
                        return how
                    if how.how not in _ON:
                        break
                    driver.unwatch(run_id, left)
                    left = driver.watch(run_id)
            else:
                ending.result()
            return await self._queries.detail(run_id)
        finally:
            driver.unwatch(run_id, left)
            if token is not None:
                port.forget(token)
                port.engine.unwatch_end(token)

    def output(self, detail: Detail, output_type: Any = None) -> Any:
        """The output of a run that has ended, or the error that it ended with."""
        row = detail.row
        run_id, status = row.run_id, row.status
        if status == "stuck":
            raise RunStuck(run_id, row.note or "no reason was recorded")
        if detail.end is not None and detail.end.encoding > ENCODING:
            raise StoreNewer(
                f"how run {run_id!r} ended is recorded in format {detail.end.encoding}, and this duramen "
                f"reads up to {ENCODING}: ask a newer one"
            )
        payload = b"" if detail.end is None else detail.end.payload
        if status == "completed":
            known = self._registry.types(row.workflow, row.version)[1]
            return self._serializer.loads(payload, output_type if known is None else known)
        if status == "failed":
            recorded = read_error(self._serializer, payload)
            raise RunFailed(run_id, recorded) from rebuild_error(recorded)
        reason = load_reason(self._serializer, payload) if payload else ""
        raise (RunCancelled if status == "cancelled" else RunTerminated)(run_id, reason)


def _check_workflow(run_id: str, expected: str, found: str) -> None:
    if expected and expected != found:
        raise InvalidArgument(
            f"run {run_id!r} is one of workflow {found!r}, and its handle was made for {expected!r}: name "
            "that one, or none"
        )


def ended(status: str) -> bool:
    """Whether a run will not go on by itself."""
    return status in {"completed", "failed", "cancelled", "terminated", "stuck"}


async def _one_done(
    loop: asyncio.AbstractEventLoop, until: float | None, *futures: asyncio.Future[Any]
) -> bool:
    """Wait until one of them is done; false if that instant of the loop's clock comes before."""
    pause = None if until is None else max(0.0, until - loop.time())
    done, _ = await asyncio.wait(futures, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)
