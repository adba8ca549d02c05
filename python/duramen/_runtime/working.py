"""Taking and driving whatever is due, until somebody says that it is enough."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from duramen._values.checks import check_count
from duramen._values.durations import duration_ms
from duramen.errors import InvalidArgument

from .signals import caught_signals

if TYPE_CHECKING:
    from datetime import timedelta

    from .lifecycle import Lifecycle
    from .port import Port

__all__ = ["Working"]

_log = logging.getLogger("duramen")


class Working:
    """The call that works."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    async def work(
        self,
        *,
        concurrency: int,
        poll_min: timedelta | float,
        poll_max: timedelta | float,
        drain: timedelta | float,
        handle_signals: bool,
    ) -> None:
        """See `Runtime.work`."""
        port = self._lifecycle.ready
        check_count("concurrency", concurrency, most=100_000)
        least, most = duration_ms(poll_min, "poll_min"), duration_ms(poll_max, "poll_max")
        if not 1 <= least <= most:
            raise InvalidArgument(
                f"poll_min is {poll_min!r} and poll_max {poll_max!r}: 0 < poll_min <= poll_max"
            )
        patience = duration_ms(drain, "drain") / 1000
        with caught_signals(port.loop, enabled=handle_signals) as caught:
            port.engine.work(concurrency, least, most)
            try:
                await caught.first.wait()
                _log.info("%s: letting go of %d runs", caught.name, port.engine.active())
            finally:
                # Of a runtime that was closed meanwhile, nothing is left to let go of.
                if self._lifecycle.port is port:
                    await self._drain(port, patience, caught.second)
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
