"""What a runtime needs from the world beside its store, so that a test can bring its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from duramen._driving.stepper import Stepper
from duramen._values.checks import new_run_id

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["Surroundings"]

T = TypeVar("T")

_LOOK = 15.0
"""Seconds after which a look into the store tells of schedules that another process has changed."""

_HOLD_MS = 1000
"""A deadline this near is waited for with the lease kept: cheaper than a release and a claim."""


class Surroundings:
    """Those of a program: the machine's clock, random ids, steps that simply run."""

    budget: tuple[float | None, float] = (None, 1.0)
    """Of drives that nobody gave another: deadline (`time.monotonic`) and least remaining seconds."""

    def run_id(self) -> str:
        """An id for a run that was given none."""
        return new_run_id()

    def message_id(self) -> str:
        """An id for a message that was given none."""
        return uuid4().hex

    def stepper(self, loop: asyncio.AbstractEventLoop, max_threads: int | None) -> Stepper:
        """What runs the steps."""
        return Stepper(loop, max_threads=max_threads)

    def engine_settings(self, *, lease_ms: int, warm: int) -> dict[str, Any]:
        """Keyword arguments of the engine that are not about store and workflows."""
        return {"lease": lease_ms, "hold": min(_HOLD_MS, lease_ms // 4), "warm": warm}

    async def pause(self, hint: asyncio.Event, seconds: float | None, *, trouble: bool) -> None:
        """Wait until a schedule may be due: for a hint, at most for so long.

        Args:
            hint: set by whoever knows that one may be.
            seconds: until the next one that is known; None: none is.
            trouble: the last look failed; what was due then still is.
        """
        del trouble
        try:
            async with asyncio.timeout(_LOOK if seconds is None else min(seconds, _LOOK)):
                await hint.wait()
        except TimeoutError:
            pass

    async def patiently(self, run_id: str, result: Coroutine[Any, Any, T], *, for_ever: bool) -> T:
        """Wait for the result of a run; `for_ever`: its caller gave no time limit."""
        del run_id, for_ever
        return await result
