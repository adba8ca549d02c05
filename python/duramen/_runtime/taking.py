"""Taking runs up here: claims of a run by its id, and waiting until it leaves these hands again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from duramen._logging import logger

if TYPE_CHECKING:
    from .driver import Left
    from .lifecycle import Lifecycle
    from .queries import Queries

__all__ = ["Taking"]

_log = logger("duramen")

_LOOK_AGAIN = 1.0
"""Seconds after which is looked whether a run is still driven here."""

_CLAIMS = 3
"""How often a run is claimed again that never got as far as being driven."""


class Taking:
    """What the calls share that drive a certain run."""

    def __init__(self, lifecycle: Lifecycle, queries: Queries) -> None:
        self._lifecycle = lifecycle
        self._queries = queries

    async def adopt(self, run_id: str) -> int | None:
        """Claim a run if it is due and its workflow is here.

        The engine goes on with it as with one that was started here.
        """
        port = self._lifecycle.ready
        return await port.call(port.engine.adopt, run_id)

    def adopt_soon(self, run_id: str) -> None:
        """The same, without anybody who waits for it."""
        self._lifecycle.beside(self.adopt(run_id)).add_done_callback(_log_failure)

    async def claim(self, run_id: str) -> bool:
        """See to it that a run which is due is driven here; False if it is not due, or driven elsewhere."""
        port = self._lifecycle.ready
        if (
            self._lifecycle.driver.drives(run_id)
            or await port.call(port.engine.take, run_id, None) is not None
        ):
            return True
        # What was started here is also woken by the engine itself, which may have been faster.
        row = (await self._queries.detail(run_id)).row
        return row.status == "running" and row.owner == self._lifecycle.engine.owner()

    async def drive_now(self, run_id: str) -> str | None:
        """Drive a run that is due, here, until it pauses or ends; gives how, or None if it was not due."""
        driver = self._lifecycle.driver
        left = driver.watch(run_id)
        try:
            return await self.until_left(run_id, left) if await self.claim(run_id) or left.done() else None
        finally:
            driver.unwatch(run_id, left)

    async def until_left(
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
            if not self._lifecycle.driver.drives(run_id):
                # Its journal could not be read after it was claimed, or somebody else was faster.
                failures += 1
                if failures > _CLAIMS or not await self.claim(run_id):
                    break
        return left.result().how if left.done() else None


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.warning("a run that is due could not be taken: %s", error)
