"""Eight workers, a Postgres server of their own, and everything that can happen to them.

Half of the workers reach the server through a proxy that cuts connections. Workers are killed, and stopped
for longer than a lease; the server crashes and starts again; connections are cut, some of them just before a
commit reaches the server and some just before its answer comes back. What chance decides comes from a seed;
when it takes effect is the machine's choice.
"""

import asyncio
import os
import random
import secrets
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from duramen import RunRequest, Runtime
from duramen.errors import StoreError
from tests.chaos.app import order
from tests.chaos.verdict import Verdict, facts_of, judge
from tests.postgres.server import Server, server
from tests.postgres.wire import Side, Wire, wire
from tests.workers.fleets import Fleet, is_alive

LEASE = 3.0
BATCH = 50

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """How much of it."""

    runs: int
    seconds: float
    """For runs to come and faults to happen."""
    settle: float = 120.0
    """Seconds after that in which everything must have ended."""
    seed: int = 0
    workers: int = 8
    concurrency: int = 25
    step: float = 0.03
    """Seconds that a step takes at most."""
    pause: float = 1.2
    """Seconds between two faults, on average."""
    crash_every: float = 20.0
    """Seconds between two crashes of the server, about."""


@dataclass
class Chaos:
    """The fleets, the server, and what was done to them."""

    plan: Plan
    pg: Server
    proxy: Wire
    url: str
    ledger: Path
    fleets: list[Fleet]
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter[str])
    words: dict[str, str] = field(default_factory=dict[str, str])
    continued: dict[int, list[int]] = field(default_factory=dict[int, list[int]])

    sending: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    stopped: set[int] = field(default_factory=set[int])
    over: asyncio.Event = field(default_factory=asyncio.Event)
    chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self.chance.seed(self.plan.seed)

    # -- what comes from outside -----------------------------------------------------------------------------

    async def feed(self, runtime: Runtime) -> None:
        """Create runs, spread over the first two thirds of the time."""
        begun, share = time.monotonic(), self.plan.seconds * 2 / 3
        for start in range(0, self.plan.runs, BATCH):
            ids = [f"order:{n}" for n in range(start, min(start + BATCH, self.plan.runs))]
            requests = [RunRequest(order, int(run_id[6:]), run_id=run_id) for run_id in ids]
            await insist(lambda requests=requests: runtime.enqueue_many(requests))
            self.words |= {run_id: secrets.token_hex(4) for run_id in ids}
            send = asyncio.create_task(self.send(runtime, ids))
            self.sending.add(send)
            send.add_done_callback(self.sending.discard)
            await asyncio.sleep(max(0, share * start / self.plan.runs - (time.monotonic() - begun)))

    async def send(self, runtime: Runtime, ids: list[str]) -> None:
        """Send each run its event, early or late, and some of them twice."""
        await asyncio.sleep(self.chance.uniform(0, 3))
        for _ in range(1 + (self.chance.random() < 0.2)):
            signals = [(run_id, "go", self.words[run_id], f"go:{run_id}") for run_id in ids]
            await insist(lambda signals=signals: runtime.signal_many(signals))

    # -- what goes wrong -------------------------------------------------------------------------------------

    async def faults(self) -> None:
        """One after the other, until the time is up."""
        next_crash = time.monotonic() + self.plan.crash_every / 2
        kinds = [
            *(self.kill, self.cut, self.stop, self.kill, self.terminate),
            *(self.cut_at, self.stop, self.cut_at, self.cut),
        ]
        deck = list(kinds)
        while not self.over.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), self.chance.expovariate(1 / self.plan.pause))
            if self.over.is_set():
                return
            if time.monotonic() > next_crash:
                await self.crash()
                next_crash = time.monotonic() + self.plan.crash_every * self.chance.uniform(0.7, 1.3)
            else:
                # Dealt, not drawn: each kind comes up, however short the time is.
                await deck.pop()()
                if not deck:
                    deck = self.chance.sample(kinds, len(kinds))

    def worker(self) -> int | None:
        """A worker that drives runs."""
        alive = [
            pid for fleet in self.fleets for pid in fleet.pids if is_alive(pid) and pid not in self.stopped
        ]
        return self.chance.choice(alive) if alive else None

    async def kill(self) -> None:
        if (pid := self.worker()) is not None:
            os.kill(pid, signal.SIGKILL)
            self.done["workers killed"] += 1

    async def stop(self) -> None:
        if (pid := self.worker()) is not None and len(self.stopped) < self.plan.workers // 2:
            os.kill(pid, signal.SIGSTOP)
            self.stopped.add(pid)
            self.done["workers stopped for longer than a lease"] += 1
            rest = asyncio.create_task(self.go_on(pid, LEASE * self.chance.uniform(1.2, 2.5)))
            self.sending.add(rest)
            rest.add_done_callback(self.sending.discard)

    async def go_on(self, pid: int, after: float) -> None:
        await asyncio.sleep(after)
        self.continued.setdefault(pid, []).append(time.monotonic_ns())
        if is_alive(pid):
            os.kill(pid, signal.SIGCONT)
        self.stopped.discard(pid)

    async def cut(self) -> None:
        await asyncio.to_thread(self.proxy.cut_all)
        self.done["times that all connections of the proxy were cut"] += 1

    async def cut_at(self) -> None:
        side: Side = self.chance.choice(["before", "after"])
        await asyncio.to_thread(self.proxy.cut, self.chance.randrange(1, 20), side)
        self.done[f"connections cut {side} a request was done"] += 1

    async def terminate(self) -> None:
        query = (
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND random() < 0.3"
        )
        ((count,),) = await asyncio.to_thread(self.pg.sql, query)
        self.done["backends terminated"] += count

    async def crash(self) -> None:
        await asyncio.to_thread(self.pg.stop, "immediate")
        await asyncio.sleep(self.chance.uniform(0.1, 2))
        await asyncio.to_thread(self.pg.start)
        self.done["crashes of the server"] += 1

    # -- all of it -------------------------------------------------------------------------------------------

    async def run(self) -> Verdict:
        """Play, let it settle, and judge."""
        plan, begun = self.plan, time.monotonic()
        async with Runtime(self.url, workflows=[order]) as runtime:
            faults = asyncio.create_task(self.faults())
            feed = asyncio.create_task(self.feed(runtime))
            while time.monotonic() - begun < plan.seconds:
                if (feed.done() and feed.exception()) or faults.done():
                    break
                await asyncio.sleep(1)
                self.say(f"{time.monotonic() - begun:5.0f} s  {await self.progress(runtime)}")
            self.over.set()
            await faults
            await feed
            while self.sending:
                await asyncio.wait(self.sending)
            quiet = time.monotonic()
            while await self.open(runtime) and time.monotonic() - quiet < plan.settle:
                await asyncio.sleep(0.5)
                self.say(f"{time.monotonic() - begun:5.0f} s  {await self.progress(runtime)}")
            settled = time.monotonic() - quiet
            codes = await asyncio.gather(*(asyncio.to_thread(fleet.end) for fleet in self.fleets))
            statuses, outputs = await self.look(runtime)
        verdict = judge(self.words, outputs, statuses, self.ledger, self.continued)
        verdict.wrong["supervisors that did not end well"] = [str(code) for code in codes if code]
        for fleet in self.fleets:
            for name, count in facts_of(fleet.events).items():
                verdict.facts[name] = verdict.facts.get(name, 0) + count
            verdict.wrong.setdefault("workers that ended by themselves", []).extend(
                event["how"]
                for event in fleet.of("died")
                if event["how"] not in {"killed by SIGKILL", "exit code 4"}
            )
        verdict.facts |= self.done
        verdict.facts["seconds, all in all"] = round(time.monotonic() - begun)
        verdict.facts["of these, until all had ended after the last fault"] = round(settled)
        return verdict

    async def open(self, runtime: Runtime) -> int:
        return await insist(lambda: runtime.count(status=["queued", "running", "waiting"]))

    async def progress(self, runtime: Runtime) -> str:
        with suppress(StoreError):
            ended = await runtime.count(status="completed")
            return f"{len(self.words)} runs, {ended} completed; {self.done.total()} faults"
        return "the server is away"

    async def look(self, runtime: Runtime) -> tuple[dict[str, str], dict[str, list[str] | None]]:
        statuses, outputs = dict[str, str](), dict[str, list[str] | None]()
        cursor = None
        while True:
            page = await runtime.list(limit=1000, cursor=cursor)
            statuses |= {run.run_id: str(run.status) for run in page}
            if (cursor := page.cursor) is None:
                break
        for run_id, status in statuses.items():
            if status == "completed":
                outputs[run_id] = (await runtime.get(run_id)).output
        return statuses, outputs


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Try it again as long as the server is away: what was done twice counts once."""
    while True:
        try:
            return await call()
        except StoreError:
            await asyncio.sleep(0.2)


def play(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Verdict:
    """Start everything, play, and leave nothing behind."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="duramen-chaos-")))
        ledger = folder / "ledger"
        ledger.mkdir()
        pg = stack.enter_context(server(max_connections=100, synchronous_commit="on"))
        url = pg.new_database("chaos")
        proxy = stack.enter_context(wire(pg.port))
        asyncio.run(_migrate(url))
        fleets = list[Fleet]()
        for port in (pg.port, proxy.port):
            through = (
                urlsplit(url)._replace(netloc=f"{urlsplit(url).netloc.rpartition(':')[0]}:{port}").geturl()
            )
            environment = {
                "CHAOS_URL": through,
                "CHAOS_LEASE": str(LEASE),
                "CHAOS_LEDGER": str(ledger),
                "CHAOS_STEP": str(plan.step),
            }
            options = ["--processes", str(plan.workers // 2), "--concurrency", str(plan.concurrency)]
            fleet = Fleet(folder, "tests.chaos.app:make", options, environment)
            stack.callback(fleet.clear)
            fleets.append(fleet)
        for fleet in fleets:
            fleet.ready(plan.workers // 2)

        async def run() -> Verdict:
            return await Chaos(plan, pg, proxy, url, ledger, fleets, say).run()

        return asyncio.run(run())


async def _migrate(url: str) -> None:
    await Runtime(url).migrate()
