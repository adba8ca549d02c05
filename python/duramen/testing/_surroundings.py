"""What the runtime of an environment stands in: a clock and a store that environments may share."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from typing_extensions import override

from duramen import Runtime
from duramen._bridge import Clock
from duramen._runtime.services import Services
from duramen._runtime.surroundings import Surroundings
from duramen._values.durations import instant_ms
from duramen.errors import RunTimedOut

from ._env_steps import EnvStepper
from ._faults import FaultyStore
from ._native_store import NativeStore, open_store

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Coroutine, Iterable
    from datetime import datetime

    from duramen._driving.stepper import Stepper
    from duramen._runtime.settings import Settings
    from duramen.store import Store

    from ._env_steps import StepWatch

__all__ = ["Driving", "EnvRuntime", "EnvSurroundings", "World"]

T = TypeVar("T")
Driving = Literal["warm", "evicting", "one-by-one"]

_STALLED = 5.0
"""Real seconds that a result is waited for while the clock stands still."""
_numbers = itertools.count(1)


class World:
    """What several environments of a test may share: a clock, a store, and what waits for instants."""

    def __init__(self, store: str | Store | None, now: datetime, seed: int) -> None:
        self.clock = Clock(instant_ms(now, "now"), seed % 2**64)
        self.sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self.environments = 0
        if store is None:
            store = f"memory://duramen-testing-{os.getpid()}-{next(_numbers)}"
        if isinstance(store, str):
            self.base: Any = open_store(store, migrate=True)
            # Only the memory store answers at once, so that nothing of it is ever under way out of sight.
            self.target: Any = store if store.startswith("memory://") else self.base
        else:
            self.target = self.base = store
            while isinstance(self.base, FaultyStore):
                self.base.sleep = self.sleep
                self.base = self.base.inner
        if isinstance(self.base, NativeStore):
            self.base.in_thread = False

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has been moved on by so much."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        until = self.clock.now() + max(0, round(seconds * 1000))
        heapq.heappush(self.sleepers, (until, next(_numbers), future))
        await future

    def wake_sleepers(self) -> bool:
        """Wake those whose instant has come; True if there were any."""
        woken = False
        while self.sleepers and self.sleepers[0][0] <= self.clock.now():
            future = heapq.heappop(self.sleepers)[2]
            if not future.done():
                future.set_result(None)
                woken = True
        return woken


class EnvSurroundings(Surroundings):
    """Those of one environment: the clock is the world's, the ids are the same in each repetition of a test.

    Args:
        world: what it shares with others.
        steps: watches its steps.
        driving: as for `Environment`.
    """

    def __init__(self, world: World, steps: StepWatch, driving: Driving) -> None:
        self._world = world
        self._steps = steps
        self.holds = True
        """Whether a run is kept in hand over a wait of less than a second, as runtimes do."""
        self._evicts = driving == "evicting"
        if self._evicts:
            # A pass whose budget is over: each fresh step is the last of its tenure.
            self.budget = (0.0, 1.0)
        world.environments += 1
        # Yet not the same for what is begun anew after a crash.
        self._ids = (f"{world.environments}-{number}" for number in itertools.count(1))

    @override
    def run_id(self) -> str:
        return f"run-{next(self._ids)}"

    @override
    def message_id(self) -> str:
        return f"message-{next(self._ids)}"

    @override
    def stepper(self, loop: AbstractEventLoop, max_threads: int | None) -> Stepper:
        return EnvStepper(loop, self._steps, max_threads=max_threads)

    @override
    def engine_settings(self, *, lease_ms: int, warm: int) -> dict[str, Any]:
        settings = super().engine_settings(lease_ms=lease_ms, warm=warm) | {"clock": self._world.clock}
        if self._evicts:
            settings |= {"warm": 0, "hold": 0}
        if not self.holds:
            settings["hold"] = 0
        return settings

    @override
    async def pause(self, hint: asyncio.Event, seconds: float | None, *, trouble: bool) -> None:
        # The environment hints when its clock has come to an instant at which a schedule is due.
        if seconds is None or (seconds and not trouble):
            await hint.wait()
        elif trouble:
            await self._world.sleep(seconds)

    @override
    async def patiently(self, run_id: str, result: Coroutine[Any, Any, T], *, for_ever: bool) -> T:
        found = asyncio.ensure_future(result)
        clock, limit = self._world.clock, monotonic() + _STALLED
        before = clock.now()
        try:
            while not (await asyncio.wait([found], timeout=0.5))[0]:
                if clock.now() != before or self._steps.busy:
                    before, limit = clock.now(), monotonic() + _STALLED
                elif for_ever and monotonic() > limit:
                    raise RunTimedOut(
                        run_id,
                        "the clock of the environment stands still, so it waits for ever: move it with "
                        "`await env.advance(…)`, or use `await env.result(run)`",
                    )
            return found.result()
        finally:
            found.cancel()


class EnvRuntime(Runtime):
    """The runtime of an environment: the same face before services that stand in other surroundings."""

    def __init__(self, workflows: Iterable[Any], settings: Settings, surroundings: Surroundings) -> None:
        self._services = self.services = Services(self, workflows, settings, surroundings)
