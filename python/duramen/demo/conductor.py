"""Runs the demonstration: starts the processes, kills one worker, stops another, notes what happened.

Only processes that were started here are ever signalled, each by its own handle.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duramen import RunRequest, RunStatus, Runtime

from . import files, warehouse
from .counting import Counted, counting, stocktaking
from .models import LARGE, Order
from .processes import LEASE, store_url
from .workflow import fulfillment

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Child", "Happened", "Trouble", "conduct"]

# Stopped in the midst of a transaction, a process holds the lock of its SQLite file, and everybody waits for
# it: that is how SQLite works, and not what is to be shown here. So the conductor looks whether the files can
# be written to.
PROBE = """
import sqlite3, sys
for path in sys.argv[1:]:
    connection = sqlite3.connect(path, timeout=0.3, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("ROLLBACK")
"""

# Keeps the file busy until its standard input ends.
HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""


ENOUGH = 400
"""So many orders keep the workers busy for as long as the demonstration takes to harm them."""

LOOKS = 10
"""So many looks at what is waited for, between two at everything."""


class Trouble(Exception):
    """The demonstration could not be carried out; the text says what to look at."""


@dataclass
class Child:
    """A process that was started here."""

    name: str
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self.process.send_signal(number)


@dataclass
class Happened:
    """What was done, and when (seconds since the epoch); `proof` compares it with the stores."""

    folder: Path
    orders: list[Order]
    started: float = field(default_factory=time.time)
    killed: str = ""
    killed_at: float = 0.0
    killed_in_flight: int = 0
    stopped: str = ""
    stopped_at: float = 0.0
    continued_at: float = 0.0
    stopped_runs: dict[str, int] = field(default_factory=dict[str, int])
    """The runs that the stopped worker held, with the epoch of its claim."""
    taken_runs: dict[str, int] = field(default_factory=dict[str, int])
    """The same before it went on: a higher epoch is another claim."""
    stopped_in_flight: int = 0
    finished: float = 0.0
    live: list[tuple[str, int, Counted]] = field(default_factory=list[tuple[str, int, Counted]])
    """What was read from the streams of stocktakings while they ran: the run, the item's number and value."""
    counts: dict[str, int] = field(default_factory=dict[str, int])
    notes: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    reports: dict[str, dict[str, Any]] = field(default_factory=dict[str, "dict[str, Any]"])
    """What the processes left, by name."""

    def note(self, text: str) -> None:
        """Remember an incident."""
        self.notes.append((time.time() - self.started, text))


async def conduct(
    folder: Path, orders: list[Order], show: Callable[[Happened], None], limit: float
) -> Happened:
    """Do it all; `show` is called with the state of things several times a second.

    Args:
        folder: an empty folder for the store, the warehouse and the processes' logs.
        orders: what to process.
        show: draws the progress.
        limit: seconds after which something must have gone wrong.

    Raises:
        Trouble: a process ended by itself, or the time is up.
    """
    happened = Happened(folder, orders)
    warehouse.build(folder / "warehouse.db", files.stock())
    async with Runtime(store_url(folder), workflows=[fulfillment]) as runtime:
        await runtime.enqueue_many(
            [
                RunRequest(
                    fulfillment,
                    order,
                    run_id=order.order_id,
                    tags=("large",) if order.total >= LARGE else (),
                )
                for order in orders
            ]
        )
        stage = _Stage(runtime, happened, show, limit)
        listening = asyncio.create_task(_listen(runtime, happened))
        try:
            await stage.play()
            await listening
        finally:
            listening.cancel()
            stage.end()
    return happened


async def _listen(runtime: Runtime, happened: Happened) -> None:
    """Read the streams of all stocktakings as they are written, until the last one has ended."""
    heard: set[str] = set()
    while True:
        over = bool(happened.finished)
        runs = await runtime.list(workflow=stocktaking.name, limit=500)
        fresh = sorted(run.run_id for run in runs if run.run_id not in heard)
        if over and not fresh:
            return
        for run_id in fresh:
            heard.add(run_id)
            async for item in runtime.stream(run_id, "counted", type=Counted):
                happened.live.append((run_id, item.seq, item.value))
        await asyncio.sleep(0.1)


class _Stage:
    """The processes of one performance."""

    def __init__(
        self, runtime: Runtime, happened: Happened, show: Callable[[Happened], None], limit: float
    ) -> None:
        self._runtime = runtime
        self._happened = happened
        self._folder = happened.folder
        self._show = show
        self._deadline = time.monotonic() + limit
        self._children: list[Child] = []
        self._gone: set[str] = set()
        # Steps take the longer the fewer orders there are: the workers have to be at it when they are harmed.
        self._pace = max(1.0, ENOUGH / len(happened.orders))
        self._books = sqlite3.connect(self._folder / "warehouse.db", isolation_level=None, timeout=30)

    async def play(self) -> None:
        happened = self._happened
        total = len(happened.orders)
        self._start("payments", "payments")
        await self._until((self._folder / "payments-early.json").exists)
        early = json.loads((self._folder / "payments-early.json").read_text("utf-8"))
        happened.note(f"{early.get('buffered', 0)} payments came before any worker was there")
        approver = self._start("approver", "approver")
        first, second = self._start("worker", "worker-1"), self._start("worker", "worker-2")
        happened.note(f"worker-1 (pid {first.pid}) and worker-2 (pid {second.pid}) start")

        await self._until(lambda: self._done() >= total * 0.15)
        killed = await self._kill(first, second)
        left = second if killed is first else first
        third = self._start("worker", "worker-3")
        happened.note(f"worker-3 (pid {third.pid}) takes its place")

        await self._until(lambda: self._done() >= total * 0.25)
        stopped = await self._stop(left, third)
        await self._until(self._taken_over)
        await self._look(0.3)
        await self._continue(stopped)
        away = happened.continued_at - happened.stopped_at
        happened.note(
            f"{stopped.name} goes on after {away:.1f} s; its {len(happened.stopped_runs)} runs are with "
            "others"
        )

        await self._until(lambda: self._done() >= total)
        happened.note("every order has ended")
        await self._runtime.schedules.pause(counting.id)
        await self._until(self._counted)
        happened.finished = time.time()
        await self._until((self._folder / "payments.json").exists)
        (self._folder / "end").touch()
        for worker in (left, third):
            self._gone.add(worker.name)
            worker.signal(signal.SIGTERM)
        self._gone.add(approver.name)
        await self._until(lambda: all(child.process.poll() is not None for child in self._children))
        for path in sorted(self._folder.glob("*.json")):
            happened.reports[path.stem] = json.loads(path.read_text("utf-8"))

    def end(self) -> None:
        """Leave no process behind, however this went."""
        for child in self._children:
            if child.process.poll() is None:
                child.signal(signal.SIGCONT)
                child.process.kill()
            child.process.wait()
            if child.process.stdin is not None:
                child.process.stdin.close()
        self._books.close()

    # -- harm

    async def _kill(self, *workers: Child) -> Child:
        worker = await self._busy_one(workers)
        self._gone.add(worker.name)
        worker.signal(signal.SIGKILL)
        worker.process.wait()
        happened = self._happened
        happened.killed, happened.killed_at = worker.name, time.time()
        happened.killed_in_flight = self._in_flight(worker)
        happened.note(f"{worker.name} is killed (SIGKILL) with {happened.killed_in_flight} steps in flight")
        return worker

    async def _busy_one(self, workers: tuple[Child, ...]) -> Child:
        """Wait for one that harm would hurt. Of few orders one worker may have all."""
        await self._until(lambda: any(map(self._busy, workers)))
        return max(workers, key=self._in_flight)

    async def _stop(self, *workers: Child) -> Child:
        """Stop one in the midst of work, but not in the midst of a transaction."""
        happened = self._happened
        while True:
            worker = await self._busy_one(workers)
            worker.signal(signal.SIGSTOP)
            happened.stopped_at = time.time()
            if self._writable():
                await self._look(0)
                held = {
                    run.run_id: run.epoch
                    for run in await self._runtime.list(status=RunStatus.RUNNING, limit=1000)
                    if (run.owner or "").startswith(worker.name)
                }
                in_flight = self._in_flight(worker)
                if held and in_flight:
                    break
            worker.signal(signal.SIGCONT)
            await self._look(0.05)
        happened.stopped, happened.stopped_runs, happened.stopped_in_flight = worker.name, held, in_flight
        happened.note(
            f"{worker.name} is stopped (SIGSTOP) with {in_flight} steps in flight; its lease of {len(held)} "
            f"runs ends in {LEASE:g} s"
        )
        return worker

    async def _continue(self, worker: Child) -> None:
        """Let it go on, with the store's file busy for a moment.

        Else its heartbeat may tell it that its leases are gone before it has tried to write anything, and
        nothing would be refused.
        """
        holder = await asyncio.to_thread(self._hold)
        try:
            worker.signal(signal.SIGCONT)
            self._happened.continued_at = time.time()
            await asyncio.sleep(0.4)
        finally:
            holder.communicate()

    def _hold(self) -> subprocess.Popen[bytes]:
        """Hold the store's write lock until the process that is given back has its input closed."""
        command = [sys.executable, "-I", "-S", "-c", HOLD, str(self._folder / "orders.db")]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        if holder.stdout:
            holder.stdout.readline()
        return holder

    async def _taken_over(self) -> bool:
        happened = self._happened
        runs = [await self._runtime.get(run_id) for run_id in happened.stopped_runs]
        happened.taken_runs = {run.run_id: run.epoch for run in runs}
        return all(run.epoch > happened.stopped_runs[run.run_id] for run in runs)

    def _busy(self, worker: Child) -> bool:
        """Harm done to it would hurt."""
        return self._in_flight(worker) >= min(5, len(self._happened.orders) // 8)

    def _in_flight(self, worker: Child) -> int:
        query = "SELECT count(*) FROM attempts WHERE owner = ? AND ended IS NULL"
        return int(self._books.execute(query, (worker.name,)).fetchone()[0])

    def _writable(self) -> bool:
        # In a process of its own: two SQLite libraries in one process undo each other's locks.
        command = [sys.executable, "-I", "-S", "-c", PROBE]
        paths = [str(self._folder / name) for name in ("orders.db", "warehouse.db")]
        return subprocess.run([*command, *paths], stderr=subprocess.DEVNULL, check=False).returncode == 0  # noqa: S603

    # -- looking on

    async def _counted(self) -> bool:
        """Every stocktaking has ended."""
        open_ones = [
            await self._runtime.count(workflow=stocktaking.name, status=status)
            for status in RunStatus
            if not status.is_final
        ]
        return not sum(open_ones)

    def _done(self) -> int:
        return sum(self._happened.counts.get(status, 0) for status in RunStatus if status.is_final)

    async def _until(self, condition: Callable[[], Any]) -> None:
        over = False
        while True:
            # Much more often than the statuses are counted: a worker may be busy for a moment only.
            for _ in range(LOOKS):
                holds = condition()
                if asyncio.iscoroutine(holds):
                    holds = await holds
                if holds:
                    return
                await asyncio.sleep(0.01)
            if over and self._children and not (self._folder / "end").exists():
                raise Trouble("every order ended before the workers could be harmed: process more of them")
            await self._look(0)
            over = not self._happened.continued_at and self._done() >= len(self._happened.orders)

    async def _look(self, pause: float) -> None:
        for status in RunStatus:
            self._happened.counts[status] = await self._runtime.count(
                workflow=fulfillment.name, status=status
            )
        self._show(self._happened)
        for child in self._children:
            ended = child.process.poll()
            if ended is not None and child.name not in self._gone and (ended or child.name != "payments"):
                raise Trouble(f"{child.name} ended by itself with code {ended}: see {self._log(child.name)}")
        for status in (RunStatus.STUCK, RunStatus.FAILED):
            if self._happened.counts[status]:
                # None of the orders is meant to end so; there is no point in waiting for the rest.
                raise Trouble(
                    f"runs are {status}: duramen runs list --status {status} -s {store_url(self._folder)}"
                )
        if time.monotonic() > self._deadline:
            raise Trouble(f"this takes too long: the logs and stores are in {self._folder}")
        await asyncio.sleep(pause)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _start(self, role: str, name: str) -> Child:
        command = [sys.executable, "-m", "duramen.demo", role, str(self._folder), name]
        with self._log(name).open("wb") as log:
            # A session of its own: Ctrl-C reaches the conductor alone, who then ends the others.
            process = subprocess.Popen(  # noqa: S603
                command,
                # Its end tells the process that the conductor has gone, however it did.
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={"DURAMEN_DEMO_PACE": f"{self._pace:g}", **os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        child = Child(name, process)
        self._children.append(child)
        return child
