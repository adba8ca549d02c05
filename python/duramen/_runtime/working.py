"""Taking and driving whatever is due, until somebody says that it is enough."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from duramen._logging import logger

from .signals import caught_signals

if TYPE_CHECKING:
    from .lifecycle import Lifecycle
    from .port import Port
    from .scheduling import Scheduling
    from .settings import Work

__all__ = ["Working"]

_log = logger("duramen")


class Working:
    """The call that works."""

    def __init__(self, lifecycle: Lifecycle, scheduling: Scheduling) -> None:
        self._lifecycle = lifecycle
        self._scheduling = scheduling

    async def work(self, work: Work, *, handle_signals: bool | None) -> None:
        """See `Runtime.work`."""
        port = self._lifecycle.ready
        with caught_signals(port.loop, enabled=handle_signals) as caught:
            port.engine.work(*work.for_engine)
            self._scheduling.begin()
            try:
                await caught.first.wait()
                _log.info("%s: letting go of %d runs", caught.name, port.engine.active())
            finally:
                # Of a runtime that was closed meanwhile, nothing is left to let go of.
                if self._lifecycle.port is port:
                    self._scheduling.end()
                    await self._drain(port, work.drain, caught.second)
                self._lifecycle.in_haste = caught.first.is_set()

    async def _drain(self, port: Port, patience: float, hurry: asyncio.Event) -> None:
        port.engine.stop_work()
        port.engine.yield_all()
        port.engine.flush()
        idle = self._lifecycle.driver.idle
        waits = [asyncio.ensure_future(idle.wait()), asyncio.ensure_future(hurry.wait())]
        try:
            await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
