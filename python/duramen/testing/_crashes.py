"""Crashes at every change of the store: a scenario is played again and again, and ends the same each time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from duramen.errors import RuntimeClosed, StoreUnavailable

from ._crash_store import Change, CrashingStore
from ._env import Environment
from ._surroundings import World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duramen.store import Store

    from ._crash_store import Side

__all__ = ["CrashFailed", "CrashReport", "Scenario", "crash_everywhere"]

Scenario = Callable[[Environment], Awaitable[Any]]
"""Plays what a test is about, against `env.runtime` and the clock, and returns what came of it."""

NewStore = Callable[[], "str | Store"]
"""Gives an empty store, or the URL of one; who asks closes it."""

Worker = Literal["another", "same"]

_START = datetime(2030, 1, 1, tzinfo=UTC)


class CrashFailed(AssertionError):
    """After a crash, a scenario did not end as it does without one."""

    def __init__(self, change: Change, side: str, worker: str, difference: str) -> None:
        super().__init__(f"crash {side} {change}; resumed by {worker} worker: {difference}")
        self.change = change
        self.side = side
        self.worker = worker
        self.difference = difference


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What `crash_everywhere` did."""

    changes: tuple[Change, ...]
    """The changes of the store that the scenario makes, in their order; each is two crash points."""
    crashes: int
    """How many there were: one for each change, side and worker, and those of the recoveries (`again`)."""
    outcome: Any
    """What the scenario returned, each time."""

    def __str__(self) -> str:
        lines = [f"{len(self.changes)} changes, {self.crashes} crashes"]
        return "\n".join(lines + [f"  {change}" for change in self.changes])


@dataclass(slots=True)
class _Ledger:
    """Which steps have their outcome in the store, and which of these began all the same."""

    recorded: dict[tuple[str, str], str]
    """By run and operation: the kind of the journal entry."""
    again: list[str]

    def record(self, run_id: str, op: str, kind: str) -> None:
        self.recorded[run_id, op] = kind

    def reopen(self, run_id: str) -> None:
        """The failure that ended a run is taken back: its step may begin again."""
        for key, kind in list(self.recorded.items()):
            if key[0] == run_id and kind == "step_failed":
                del self.recorded[key]

    def forget(self, run_id: str) -> None:
        """Its next generation begins, whose steps have the ids of this one's."""
        for key in [key for key in self.recorded if key[0] == run_id]:
            del self.recorded[key]

    def start(self, run_id: str, op: str, attempt: int) -> None:
        if (run_id, op) in self.recorded:
            self.again.append(f"step {op!r} of run {run_id!r} (attempt {attempt})")


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a scenario ended, as far as it has to be the same each time."""

    outcome: Any
    runs: dict[str, str]

    def difference(self, other: _Ended) -> str | None:
        if other.outcome != self.outcome:
            return f"the outcome is {other.outcome!r}, without a crash {self.outcome!r}"
        if other.runs != self.runs:
            return f"the runs are {other.runs}, without a crash {self.runs}"
        return None


class _Play:
    """A scenario with all that its repetitions have in common."""

    def __init__(
        self,
        scenario: Scenario,
        workflows: Iterable[Any],
        seed: int,
        new_store: NewStore | None,
        options: dict[str, Any],
    ) -> None:
        self.scenario = scenario
        self.new_store = new_store
        self.workflows = tuple(workflows)
        self.seed = seed
        self.options = options
        self.crashes = 0

    def world(self) -> World:
        return World(None if self.new_store is None else self.new_store(), _START, self.seed)

    def environment(self, world: World, store: CrashingStore, ledger: _Ledger) -> Environment:
        env = Environment(self.workflows, store=store, world=world, **self.options)
        env.steps.on_start = ledger.start
        env.steps.ordered = True  # or steps in threads would let each repetition take a course of its own
        return env

    def store(self, world: World, ledger: _Ledger, **point: Any) -> CrashingStore:
        return CrashingStore(
            world.base,
            on_recorded=ledger.record,
            on_reopened=ledger.reopen,
            on_continued=ledger.forget,
            **point,
        )

    async def reference(self) -> tuple[_Ended, tuple[Change, ...]]:
        world, ledger = self.world(), _Ledger({}, [])
        store = self.store(world, ledger)
        async with self.environment(world, store, ledger) as env:
            ended = await self._ended(env)
        return ended, tuple(store.changes)

    async def _ended(self, env: Environment) -> _Ended:
        outcome = await self.scenario(env)
        await env.settle()
        runs: dict[str, str] = {}
        cursor = None
        while True:
            page = await env.runtime.list(cursor=cursor)
            runs |= {view.run_id: view.status.value for view in page.items}
            cursor = page.cursor
            if cursor is None:
                return _Ended(outcome, runs)

    async def attempt(self, points: tuple[int, ...], side: Side, worker: Worker, expected: _Ended) -> bool:
        """Crash at a change of each life in turn, and go on. False if the last crash does not come about."""
        world, ledger = self.world(), _Ledger({}, [])
        ended: _Ended | None = None
        crashed: CrashingStore | None = None
        for at in (*points, 0):
            store = self.store(world, ledger, at=at, side=side, survive=worker == "same")
            try:
                ended = await self._live(self.environment(world, store, ledger), store)
            except Exception as error:
                crashed = store if store.reached else crashed
                if crashed is None:
                    raise
                raise CrashFailed(crashed.change, side, worker, f"{type(error).__name__}: {error}") from error
            if store.reached:
                crashed = store
                self.crashes += 1
            elif at:
                return False
            if ended is not None:
                break
        if crashed is None:
            return False
        difference = None if ended is None else expected.difference(ended)
        if ledger.again:
            difference = f"began again although its outcome was recorded: {', '.join(ledger.again)}"
        if difference is not None:
            raise CrashFailed(crashed.change, side, worker, difference)
        return True

    async def _live(self, env: Environment, store: CrashingStore) -> _Ended | None:
        """Play the scenario in one process. None if it crashed."""
        if store.survive:
            return await self._survived(env, store)
        store.on_crash = env.kill
        try:
            return await self._until_crash(env, store)
        except RuntimeClosed:
            if not store.crashed.is_set():
                raise
            return None  # while it was being opened

    async def _survived(self, env: Environment, store: CrashingStore) -> _Ended:
        """The process goes on; whoever made the call that failed makes it again."""
        async with env:
            try:
                return await self._ended(env)
            except StoreUnavailable:
                if not store.reached:
                    raise
                return await self._ended(env)

    async def _until_crash(self, env: Environment, store: CrashingStore) -> _Ended | None:
        async with env:
            play = asyncio.ensure_future(self._ended(env))
            crash = asyncio.ensure_future(store.crashed.wait())

            def crashed() -> None:
                env.kill()
                play.cancel()  # or it would move the clock, and time pass until the next process begins

            store.on_crash = crashed
            try:
                await asyncio.wait([play, crash], return_when=asyncio.FIRST_COMPLETED)
                return None if store.crashed.is_set() else await play
            finally:
                crash.cancel()
                play.cancel()
                await asyncio.wait([play])
                if not play.cancelled():
                    play.exception()  # it was raised here, or the crash caused it


async def crash_everywhere(
    scenario: Scenario,
    workflows: Iterable[Any],
    *,
    seed: int = 0,
    workers: tuple[Worker, ...] = ("another", "same"),
    again: bool = False,
    new_store: NewStore | None = None,
    **options: Any,
) -> CrashReport:
    """Play a scenario, and once more for each change that it makes of the store, with a crash there.

    The crash comes before the change takes place, and in another repetition after it, with nobody knowing
    that it did. ``"another"``: the process is gone, the scenario begins again from its start with another
    worker on the same store, and the runs go on when their leases have ended. ``"same"``: the call fails, and
    the process goes on. Each time the scenario must return the same and leave every run in the same status,
    and no step may begin again once its outcome is in the store.

    So a scenario can be repeated: it gives run ids and signal ids, as a caller does that tries again after a
    failure, and returns nothing that depends on how long a recovery takes.

    Args:
        scenario: a coroutine function that takes an `Environment`.
        workflows: as for `Environment`.
        seed: as for `Environment`.
        workers: who resumes.
        again: also let the other worker crash, at each change of its recovery, and a third one resume.
        new_store: gives an empty store, or the URL of one, for each repetition, which closes it at its end.
            Default: one in memory.
        options: other options of `Environment`.

    Raises:
        CrashFailed: the first repetition that ended otherwise.

    >>> from datetime import timedelta
    >>> from duramen import Context, step_context, workflow
    >>> charged = []
    >>> async def charge() -> str:
    ...     charged.append(step_context().idempotency_key)
    ...     return "paid"
    >>> @workflow
    ... async def order(ctx: Context) -> str:
    ...     await ctx.sleep(timedelta(days=1))
    ...     paid = await ctx.step("charge", charge)
    ...     return f"{paid}, {await ctx.wait_for_event('shipped')}"
    >>> async def scenario(env):
    ...     run = await env.runtime.start(order, run_id="order:1")
    ...     await env.advance(days=2)
    ...     await env.runtime.signal("order:1", "shipped", "by train", signal_id="shipping")
    ...     return await env.result(run)
    >>> report = asyncio.run(crash_everywhere(scenario, [order]))
    >>> print(report.outcome, len(report.changes) > 5, set(charged))
    paid, by train True {'order:1/charge'}
    """
    play = _Play(scenario, workflows, seed, new_store, options)
    expected, changes = await play.reference()
    for worker in workers:
        for side in ("before", "after"):
            at = 1
            while await play.attempt((at,), side, worker, expected):
                second = 1
                while (
                    again and worker == "another" and await play.attempt((at, second), side, worker, expected)
                ):
                    second += 1
                at += 1
            if at <= len(changes):
                raise CrashFailed(
                    changes[at - 1], side, worker, "the scenario took another course: is it repeatable?"
                )
    return CrashReport(changes, play.crashes, expected.outcome)
