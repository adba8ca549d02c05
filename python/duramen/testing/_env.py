"""An in-process runtime on a virtual clock: months pass in milliseconds, in the same way each time."""

from __future__ import annotations

import asyncio
import warnings
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, overload

from duramen import RunHandle, RunStatus, Runtime, Update
from duramen._runtime.settings import Settings
from duramen._values.durations import from_ms, instant_ms
from duramen.errors import InvalidArgument, RunTimedOut, UpdateTimeout
from duramen.store import lane_key

from ._arguments import ArgumentChanged
from ._env_steps import StepWatch
from ._faults import FaultyStore
from ._replay import replay
from ._surroundings import Driving, EnvRuntime, EnvSurroundings, World

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from duramen.store import DueSchedules, Store, UnsentAsk

__all__ = ["Environment"]

OutputT = TypeVar("OutputT")
P = TypeVar("P")
R = TypeVar("R")

_START = datetime(2030, 1, 1, tzinfo=UTC)
_QUIET = 3
"""Turns of the event loop without anything happening that count as rest."""
_LOOKS = 3
"""So often an answer is looked for although nothing is ever due."""
_LIMIT = 60.0
"""Real seconds that may pass without the clock moving, before somebody is told that it goes on for ever."""
_LIVE: Any = ["queued", "running", "waiting"]
_REPLAYED = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.WAITING)


class Environment:
    """A `duramen.Runtime` for tests, on a clock that stands still until the test moves it.

    Everything durable follows that clock: ``ctx.now()``, sleeps, time-outs, back-offs, deadlines, leases, the
    timeouts of steps. Steps themselves are really run, and take no time by it. After the block each run is
    replayed from its journal; a handler that looked at the wall clock, at random numbers or at the outside
    world without recording it is found out there. A step that changes what it was given is warned of
    (`ArgumentChanged`).

    Args:
        workflows: as for `Runtime`.
        store: a URL or a store. Default: one in memory, for this environment alone.
        now: the clock's first instant, aware. Default: the beginning of 2030, UTC.
        seed: makes ``ctx.uuid()``, ``ctx.random()`` and jitter the same each time, for the same run id.
        worker: take up whatever is due, as `Runtime.work` does. False for tests of their own sweeps.
        replay: replay the runs at the end.
        driving: ``"evicting"`` drops each run from memory wherever it waits, also between two steps;
            ``"one-by-one"`` lets a step's outcome in only when all that followed the last is done.
        patience: a step in flight is waited for during so many real seconds before the clock is moved.
        world: that of another environment, to stand beside it or in its place as another process does, with
            the same clock and the same store.
        options: other options of `Runtime`, such as `serializer`, `lease` (of 30 seconds), `owner`, `warm`.

    >>> from duramen import Context, workflow
    >>> @workflow
    ... async def remind(ctx: Context, days: int) -> str:
    ...     await ctx.sleep(timedelta(days=days))
    ...     return f"{ctx.now():%d %B %Y}"
    >>> async def main() -> None:
    ...     async with Environment([remind]) as env:
    ...         run = await env.runtime.start(remind, 90)
    ...         await env.advance(days=89)
    ...         print((await env.runtime.get(run.run_id)).status)
    ...         await env.advance(days=1)
    ...         print(await run.result())
    >>> asyncio.run(main())
    waiting
    01 April 2030
    """

    def __init__(
        self,
        workflows: Iterable[Any] = (),
        *,
        store: str | Store | None = None,
        now: datetime | None = None,
        seed: int = 0,
        worker: bool = True,
        replay: bool = True,
        driving: Driving = "warm",
        patience: float = 5.0,
        world: World | None = None,
        **options: Any,
    ) -> None:
        if driving not in {"warm", "evicting", "one-by-one"}:
            raise InvalidArgument(f"driving is {driving!r}: 'warm', 'evicting' or 'one-by-one'")
        self.world = World(store, _START if now is None else now, seed) if world is None else world
        self.driving = driving
        self.steps = StepWatch(self.world.clock, patience, one_by_one=driving == "one-by-one")
        self._worker = worker
        self._replay = replay
        target = self.world.target if world is None or store is None else store
        if isinstance(target, FaultyStore):
            target.sleep = self.world.sleep
        options = {"migrate": True, "shutdown_timeout": 0.1, "watchdog": 0} | options
        settings = Settings.checked(target, **options)
        self.surroundings = EnvSurroundings(self.world, self.steps, driving)
        runtime = EnvRuntime(workflows, settings, self.surroundings)
        self.runtime: Runtime = runtime
        """The runtime; the calls are those of any other."""
        self._services = runtime.services
        self._lifecycle = runtime.services.lifecycle

    # -- opening ---------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.runtime.open()
        if self._worker:
            self._lifecycle.engine.work(1000, 20, 1000)
            self._services.scheduling.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.steps.closed:
            self._warn_of_changes()
            return
        try:
            if kind is None:
                await self.settle()
                if self._replay:
                    await self.check_replays()
            await self._let_go()
        finally:
            await self.runtime.close()

    async def _let_go(self) -> None:
        """Let go of the runs; a commit that has to be tried again takes its time by the clock."""
        engine, clock = self._lifecycle.engine, self.world.clock
        engine.stop_work()
        engine.yield_all()
        await self.settle()
        end = clock.now() + self._services.settings.lease_ms
        while self._active() and not self.steps.in_flight and clock.now() < end:
            await self._move(clock.next() or end)

    def kill(self) -> None:
        """Let the runtime be gone as after a crash: nothing it holds is written, and no lease is given back.

        Steps in flight are cancelled: unlike those of a process that is killed, they can clean up.
        """
        found = self._lifecycle.taken_down()
        if found is None:
            return
        port, driver = found
        self.steps.closed = True
        driver.detach()
        driver.stepper.close()
        port.release()
        if port.store is not None:
            port.store.abandon()

    # -- time ------------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The clock's time (UTC)."""
        return from_ms(self.world.clock.now())

    async def advance(
        self,
        duration: timedelta | None = None,
        /,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        """Move the clock on, and let everything happen that becomes due, at its time and in order.

        Returns when nothing more can happen at the new time.

        Args:
            duration: how far; the parts below are added to it.
            weeks: of seven days.
            days: of 24 hours.
            hours: of 60 minutes.
            minutes: of 60 seconds.
            seconds: to the millisecond.

        Raises:
            InvalidArgument: it is negative; clocks do not go back.
        """
        span = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
        span += duration or timedelta()
        if span < timedelta():
            raise InvalidArgument(f"the clock cannot be moved by {span}: it does not go back")
        await self._advance_to(self.world.clock.now() + round(span.total_seconds() * 1000))

    async def advance_to(self, instant: datetime) -> None:
        """Move the clock on to an aware `datetime`, as `advance` does.

        Raises:
            InvalidArgument: it is naive, or has passed.
        """
        target = instant_ms(instant, "instant")
        if target < self.world.clock.now():
            raise InvalidArgument(f"it is {self.now} already: the clock does not go back to {instant}")
        await self._advance_to(target)

    async def _advance_to(self, target: int) -> None:
        clock = self.world.clock
        await self.settle()
        while clock.now() < target:
            at = await self._next_instant()
            await self._move(target if at is None else min(at, target))

    async def result(
        self, run: RunHandle[OutputT] | str, *, within: timedelta = timedelta(days=3650)
    ) -> OutputT:
        """Move the clock from one instant to the next until a run has ended, and give its output.

        Args:
            run: its handle or its id.
            within: how far the clock may be moved.

        Raises:
            RunTimedOut: it has not ended by then, or waits for something that no time brings.
            RunFailed, RunCancelled, RunTerminated, RunStuck: as `Runtime.result`.
        """
        run_id = run if isinstance(run, str) else run.run_id
        end = self.world.clock.now() + round(within.total_seconds() * 1000)
        while True:
            await self.settle()
            view = await self.runtime.get(run_id)
            if view.finished or view.status is RunStatus.STUCK:
                # Not `Runtime.result`: what drove it here may not have heard of its end.
                return self._services.results.output(await self._services.queries.detail(run_id))
            at = await self._next_instant()
            if at is None or at > end:
                waits = ", ".join(view.waits) or "nothing that is known"
                when = "nothing else is ever due" if at is None else f"nothing is due before {from_ms(at)}"
                raise RunTimedOut(run_id, f"it is {view.status} at {self.now}, waits for {waits}, and {when}")
            await self._move(at)

    @overload
    async def update(
        self,
        run: RunHandle[Any] | str,
        update: Update[P, R],
        payload: P,
        *,
        update_id: str | None = None,
        within: timedelta = ...,
    ) -> R: ...
    @overload
    async def update(
        self,
        run: RunHandle[Any] | str,
        update: str,
        payload: Any = None,
        *,
        update_id: str | None = None,
        within: timedelta = ...,
    ) -> Any: ...
    async def update(
        self,
        run: RunHandle[Any] | str,
        update: Any,
        payload: Any = None,
        *,
        update_id: str | None = None,
        within: timedelta = timedelta(days=3650),
    ) -> Any:
        """Send an update, and move the clock from one instant to the next until it has been answered.

        Args:
            run: its handle or its id.
            update: as for `Runtime.update`; so are `payload` and `update_id`.
            payload: what its function gets.
            update_id: the same id is applied once.
            within: how far the clock may be moved.

        Raises:
            UpdateTimeout: it is not answered by then, or nothing that time brings could answer it.
            UpdateRejected, UpdateFailed, RunFinished, RunStuck, UnknownRun: as `Runtime.update`.
        """
        run_id = run if isinstance(run, str) else run.run_id
        update_id = self.surroundings.message_id() if update_id is None else update_id
        asked = asyncio.ensure_future(self.runtime.update(run_id, update, payload, update_id=update_id))
        clock = self.world.clock
        end = clock.now() + round(within.total_seconds() * 1000)
        looks = 0
        try:
            while True:
                await self.settle()
                if asked.done():
                    return await asked
                at = await self._next_instant()
                if at is None and looks < _LOOKS:
                    # What was not answered here is looked for from time to time.
                    looks += 1
                    at = clock.next()
                if at is None or at > end:
                    name = update.name if isinstance(update, Update) else update
                    raise UpdateTimeout(run_id, name, update_id)
                await self._move(at)
        finally:
            asked.cancel()
            await asyncio.wait([asked])

    async def _move(self, to: int) -> None:
        world = self.world
        # What is overdue all the same is only found by the looks that somebody takes from time to time.
        world.clock.advance(max(to, world.clock.now() + 1))
        moved = world.wake_sleepers()
        moved |= await self._hint_schedules()
        moved |= self.steps.fire()
        if self._collect() or moved:
            await self.settle()

    async def _next_instant(self) -> int | None:
        """The next instant at which something may happen."""
        world = self.world
        instants = [self.steps.next_deadline, world.sleepers[0][0] if world.sleepers else None]
        if self._active() or await self._holds_orphans() or await self._has_unsent():
            # Leases are renewed, messages asked for, failed commits tried again, orphans found, and what has
            # left runs but did not get to its target.
            instants.append(world.clock.next())
        else:
            # With nothing in anybody's hands, whatever happens next is due by the store.
            due = (await world.base.next_due({"lanes": self._lanes(), "now": world.clock.now()}))["ready_at"]
            if due is not None and due <= world.clock.now():
                due = world.clock.next() if self._worker else await self._due_later()
            instants.append(due)
        if self._worker:
            instants.append(await self._next_schedule())
        return min((at for at in instants if at is not None), default=None)

    async def _next_schedule(self) -> int | None:
        """When a schedule is due next, leaving out those that nobody here takes up although they are due."""
        due = await self._due_schedules((self.world.clock.now(), chr(0x10FFFF)))
        return due["next_at"]

    async def _hint_schedules(self) -> bool:
        """Let schedules be looked at if any are due; changes that are made here give hints themselves."""
        if not self._worker or self._lifecycle.port is None:
            return False
        found = (await self._due_schedules(None))["rows"]
        if found:
            self._services.scheduling.hint()
        return bool(found)

    async def _due_schedules(self, after: tuple[int, str] | None) -> DueSchedules:
        names = self._services.registry.names()
        now = self.world.clock.now()
        return await self.world.base.due_schedules(
            {"workflows": names, "after": after, "limit": 1, "now": now}
        )

    async def _due_later(self) -> int | None:
        """When something is due next, leaving out what nobody takes up although it is due."""
        now = self.world.clock.now()
        page: Any = {"next": None}
        found: list[int] = []
        while True:
            page = await self.world.base.list({"status": _LIVE}, 500, page["next"])
            found += [row["ready_at"] for row in page["rows"] if (row["ready_at"] or 0) > now]
            if page["next"] is None:
                break
        for owner in await self.world.base.owners():
            if owner["held"] and owner["ended_at"] is None and owner["lease_until"] > now:
                found.append(owner["lease_until"])
        return min(found, default=None)

    def _active(self) -> bool:
        port = self._lifecycle.port
        return port is not None and port.engine.active() > 0

    async def _holds_orphans(self) -> bool:
        """Whether runs are leased to this runtime that it does not know of: the answer was lost."""
        port = self._lifecycle.port
        if port is None:
            return False
        own = port.engine.owner()
        return any(owner["held"] for owner in await self.world.base.owners() if owner["owner"] == own)

    async def _has_unsent(self) -> bool:
        ask: UnsentAsk = {"before": 2**62, "run_id": None, "limit": 1}
        return bool(await self.world.base.unsent(ask))

    def _lanes(self) -> list[str]:
        # What this build's own runs stand in: the queue of those without one, the encoding that it writes.
        keys = self._services.registry.served()
        return [lane_key("default", name, version, 1) for name, version in keys]

    # -- rest ------------------------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Let everything happen that can happen at the present time.

        Raises:
            TimeoutError: it does not come to rest within a minute of real time.
            RuntimeNotOpen: the environment was not entered.
        """
        if not self.steps.closed:
            self._lifecycle.ready  # noqa: B018 - raises if no calls are possible
        quiet = 0
        outcomes = -1
        limit = monotonic() + _LIMIT
        while quiet < _QUIET:
            moved = self._collect()
            await asyncio.sleep(0)
            moved += self._collect()
            if moved or self._due_here() or outcomes != self.steps.outcomes:
                outcomes = self.steps.outcomes
                quiet = 0
                if monotonic() > limit:
                    raise TimeoutError(
                        f"the runs do not come to rest at {self.now}: something goes on without ever waiting"
                    )
            elif self.steps.busy or self._scheduling() or self._storing():
                quiet = 0
                await asyncio.sleep(0.0005)
            elif self.steps.release():
                quiet = 0
            else:
                quiet += 1

        self._warn_of_changes()

    def _warn_of_changes(self) -> None:
        """Say which steps have changed what they were given; what the warning may raise reaches the test."""
        changes, self.steps.changes = self.steps.changes, []
        for change in changes:
            warnings.warn(change, ArgumentChanged, stacklevel=2)

    def _collect(self) -> int:
        port = self._lifecycle.port
        return 0 if port is None else port.collect()

    def _due_here(self) -> bool:
        return self._lifecycle.port is not None and self._lifecycle.driver.round_due

    def _scheduling(self) -> bool:
        """Whether schedules are being looked at, unless that waits for the clock."""
        return self._services.scheduling.busy and not self.world.sleepers

    def _storing(self) -> bool:
        """Whether calls of a store written in Python are under way, but for those that wait for the clock."""
        port = self._lifecycle.port
        server = None if port is None else port.store
        return server is not None and server.under_way > len(self.world.sleepers)

    # -- looking in ------------------------------------------------------------------------------------------

    async def journals(self) -> dict[str, list[tuple[str, str, str | None, bytes, int]]]:
        """Read the journals of all runs: kind, operation id, facts, payload and time (ms) of each entry."""
        found: dict[str, list[tuple[str, str, str | None, bytes, int]]] = {}
        cursor = None
        while True:
            page = await self.runtime.list(cursor=cursor)
            for view in page.items:
                found[view.run_id] = [
                    (entry["kind"], entry["op"], entry["meta"], bytes(entry["payload"]), entry["at"])
                    for entry in await self.world.base.load(view.run_id, view.journal_start, 2**31)
                ]
            cursor = page.cursor
            if cursor is None:
                return found

    # -- replay ----------------------------------------------------------------------------------------------

    async def check_replays(self) -> int:
        """Replay every run that has ended or waits from its journal; the end of the block does it too.

        Returns:
            How many there were.

        Raises:
            ReplayDiverged: a handler does something else when it is called again with the same journal, so it
                depends on something that is not recorded: the wall clock, random numbers, I/O.
        """
        runtime, registry = self.runtime, self._services.registry
        middleware = self._services.settings.middleware
        count = 0
        cursor = None
        while True:
            page = await runtime.list(status=[status.value for status in _REPLAYED], cursor=cursor)
            for view in page.items:
                definition = registry.get(view.workflow, view.version)
                if definition is None:
                    continue
                history = await runtime.export(view.run_id)
                replay(
                    definition,
                    history,
                    serializer=runtime.serializer,
                    others=registry.newest(),
                    middleware=middleware,
                )
                count += 1
            cursor = page.cursor
            if cursor is None:
                return count
