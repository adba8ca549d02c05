"""The supervisor of `duramen worker --processes`: starts workers, replaces dead ones, ends them in order.

It runs no code of the application: whatever that does to a process, the supervisor stays. Each worker holds
the reading end of a pipe, its lifeline: when the supervisor ends, however it does, the pipe ends, and the
workers drain and end as well. Workers are started afresh, never forked from a process that has run anything.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .exits import Exit
from .member import COUNTS, DRAINING, GRACE, REPORT
from .output import print_json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_PROCESSES", "FactLog", "Settings", "log_event", "print_event", "supervise"]

_log = logging.getLogger("duramen.worker")

MOST_PROCESSES = 256

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a worker that died is replaced: twice as long each time, until one lives for `SOUND`."""

SOUND = 60.0

HASTE = 3.0
"""Seconds that workers have to end after a second signal."""

FUTILE = 5
"""So many starts in a row that came to nothing, with no worker running, and the supervisor gives up."""

SUMMARY = 60.0
"""Seconds between two summaries."""

SILENT = 6 * REPORT
"""Seconds without a report after which a worker is said to be silent."""


@dataclass
class Settings:
    """What every worker is told."""

    target: str
    concurrency: int
    drain: float
    verbose: bool = False


@dataclass
class Member:
    """A place in the fleet, and the process that has it now."""

    number: int
    process: asyncio.subprocess.Process | None = None
    lifeline: int = -1
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    begun: float = 0.0
    heard: float = 0.0
    silent: bool = False
    deaths: int = 0
    counts: dict[str, int] = field(default_factory=dict[str, int])
    """Of this process."""

    @property
    def pid(self) -> int:
        """The process id, 0 without one."""
        return 0 if self.process is None else self.process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process is not None and self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


async def supervise(
    settings: Settings, processes: int, *, tell: Callable[[dict[str, Any]], None], apart: bool = False
) -> int:
    """Keep so many workers running until SIGTERM or SIGINT; gives the exit code.

    Args:
        settings: what the workers are told.
        processes: how many.
        tell: is called with each event.
        apart: what the workers print goes to stderr, so that stdout has the events alone.
    """
    if os.name != "posix":
        tell(
            {
                "event": "refused",
                "reason": "more than one process needs a POSIX system: start several workers",
            }
        )
        return Exit.USAGE
    return await Fleet(settings, processes, tell, apart=apart).run()


class Fleet:
    """See `supervise`."""

    def __init__(
        self, settings: Settings, processes: int, tell: Callable[[dict[str, Any]], None], *, apart: bool
    ) -> None:
        self._settings = settings
        self._apart = apart
        self._tell = tell
        self._members = [Member(number) for number in range(1, processes + 1)]
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._over = asyncio.Event()
        self._code: int | None = None
        self._restarts = 0
        self._futile = 0
        self._past: dict[str, int] = {}
        """Counts of processes that have ended."""

    async def run(self) -> int:
        """Do it all."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        tasks: list[asyncio.Task[None]] = []
        try:
            # One alone at first: what keeps it from starting would keep all of them, and is shown once.
            first, *others = self._members
            tasks.append(asyncio.create_task(self._keep(first)))
            if await self._first_is_ready(first, tasks[0]):
                tasks += [asyncio.create_task(self._keep(member)) for member in others]
            summaries = asyncio.create_task(self._summarise())
            await self._stopping.wait()
            self._over.set()
            killed = await self._end()
            await asyncio.gather(*tasks)
            summaries.cancel()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)
            for task in tasks:
                task.cancel()
            for member in self._members:
                member.signal(signal.SIGKILL)
        self._tell({"event": "ended", "killed": killed, **self._total()})
        if self._code is not None:
            return self._code
        return Exit.FAILED if killed else Exit.OK

    def _signalled(self, number: int) -> None:
        if self._stopping.is_set():
            self._hurry.set()
        else:
            self._tell({"event": "draining", "signal": signal.Signals(number).name})
            self._stopping.set()

    async def _first_is_ready(self, first: Member, kept: asyncio.Task[None]) -> bool:
        waits = [asyncio.ensure_future(one.wait()) for one in (first.ready, self._stopping)]
        await asyncio.wait([*waits, kept], return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        return not self._stopping.is_set()

    async def _keep(self, member: Member) -> None:
        """Start the member's process, and start it again when it has died."""
        while not self._stopping.is_set():
            code = await self._attend(member, await self._start(member))
            if self._stopping.is_set():
                return
            if not member.ready.is_set():
                self._futile += 1
                others = any(one.is_alive and one.ready.is_set() for one in self._members)
                if not others and (self._restarts == 0 or self._futile >= FUTILE):
                    self._give_up(member, code)
                    return
            lived = time.monotonic() - member.begun
            member.deaths = 1 if member.ready.is_set() and lived >= SOUND else member.deaths + 1
            pause = min(FIRST_PAUSE * 2.0 ** min(member.deaths - 1, 16), LONGEST_PAUSE)
            self._restarts += 1
            self._tell(
                {
                    "event": "died",
                    "worker": member.number,
                    "pid": member.pid,
                    "how": _how(code),
                    "lived": round(lived, 1),
                    "restart_in": pause,
                }
            )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    def _give_up(self, member: Member, code: int) -> None:
        self._code = code if code > 0 else Exit.FAILED
        self._tell({"event": "gave_up", "worker": member.number, "pid": member.pid, "how": _how(code)})
        self._stopping.set()

    async def _start(self, member: Member) -> asyncio.Task[None]:
        """Start a process; gives the task that listens to it."""
        lifeline, member.lifeline = os.pipe()
        heard, said = os.pipe()
        # Reports are read as they come: whatever a worker writes must not block it.
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(heard, "rb")
        )
        member.ready.clear()
        member.counts, member.silent = {}, False
        member.begun = member.heard = time.monotonic()
        settings = json.dumps({**asdict(self._settings), "lifeline": lifeline, "said": said})
        try:
            member.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "duramen.cli.member",
                settings,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr if self._apart else None,
                pass_fds=(lifeline, said),
                # Ctrl-C reaches the whole group of the terminal: workers get it from here, once.
                process_group=0,
            )
        finally:
            os.close(lifeline)
            os.close(said)
        self._tell({"event": "started", "worker": member.number, "pid": member.pid})
        return asyncio.create_task(self._listen(member, reader))

    async def _attend(self, member: Member, listener: asyncio.Task[None]) -> int:
        """Wait for the end of the process; gives its exit code, negative for a signal."""
        try:
            code = await _gone(member)
            await listener  # what it said last
        finally:
            os.close(member.lifeline)
            member.lifeline = -1
        for name, count in member.counts.items():
            self._past[name] = self._past.get(name, 0) + (count if name != "active" else 0)
        member.counts = {}
        return code

    async def _listen(self, member: Member, reader: asyncio.StreamReader) -> None:
        """Note what the worker says until its end of the pipe is closed."""
        while line := await reader.readline():
            member.heard = time.monotonic()
            if member.silent:
                member.silent = False
                self._tell({"event": "heard_again", "worker": member.number, "pid": member.pid})
            fact: dict[str, Any] = json.loads(line)
            if fact.pop("event") == "ready":
                member.ready.set()
                self._futile = 0
                self._tell({"event": "ready", "worker": member.number, "pid": member.pid, **fact})
            else:
                member.counts = fact

    async def _summarise(self) -> None:
        """Say now and then how it goes, and at once when a worker falls silent."""
        before, told = self._total(), time.monotonic()
        while True:
            await asyncio.sleep(REPORT)
            now = time.monotonic()
            for member in self._members:
                quiet = now - member.heard
                if member.is_alive and member.ready.is_set() and quiet > SILENT and not member.silent:
                    member.silent = True
                    self._tell(
                        {
                            "event": "silent",
                            "worker": member.number,
                            "pid": member.pid,
                            "seconds": round(quiet),
                        }
                    )
            total = self._total()
            if now - told >= SUMMARY and total != before:
                before, told = total, now
                workers = sum(member.is_alive and member.ready.is_set() for member in self._members)
                self._tell({"event": "counts", "workers": workers, "restarts": self._restarts, **total})

    def _total(self) -> dict[str, int]:
        total: dict[str, int] = dict.fromkeys(COUNTS, 0)
        for counts in (self._past, *(member.counts for member in self._members)):
            for name in total:
                total[name] += counts.get(name, 0)
        return total

    async def _end(self) -> int:
        """End all workers; gives how many had to be killed."""
        alive = [member for member in self._members if member.is_alive]
        for member in alive:
            with suppress(OSError):
                os.write(member.lifeline, DRAINING)
            member.signal(signal.SIGTERM)
        ended = [asyncio.ensure_future(_gone(member)) for member in alive]
        hurry = asyncio.ensure_future(self._hurry.wait())
        everybody = asyncio.gather(*ended)
        patience = self._settings.drain + GRACE
        await asyncio.wait([everybody, hurry], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if hurry.done() and not everybody.done():
            for member in alive:
                member.signal(signal.SIGTERM)
            await asyncio.wait([everybody], timeout=HASTE)
        hurry.cancel()
        late = [member for member in alive if member.is_alive]
        for member in late:
            # Stopped or blocked. Its leases end, and others take its runs over.
            self._tell({"event": "killed", "worker": member.number, "pid": member.pid})
            member.signal(signal.SIGKILL)
        await everybody
        return len(late)


async def _gone(member: Member) -> int:
    """Wait for the end of its process."""
    return 0 if member.process is None else await member.process.wait()


def _how(code: int) -> str:
    """How a process ended, in words.

    >>> _how(-9), _how(3)
    ('killed by SIGKILL', 'exit code 3')
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


_SENTENCES = {
    "started": "worker {worker} (pid {pid}) starts",
    "ready": "worker {worker} (pid {pid}) is ready: {owner}",
    "died": "worker {worker} (pid {pid}) died after {lived} s: {how}; it is replaced in {restart_in} s",
    "gave_up": "worker {worker} (pid {pid}) could not start: {how}; giving up",
    "silent": "worker {worker} (pid {pid}) has said nothing for {seconds} s: it is stopped, or its event "
    "loop is blocked; others take over its runs when their leases have ended",
    "heard_again": "worker {worker} (pid {pid}) is heard of again",
    "draining": "{signal}: no new runs are taken; waiting for steps in flight",
    "killed": "worker {worker} (pid {pid}) did not end in time and is killed; its leases will end",
    "counts": "{workers} workers: {active} runs active, {claimed} claimed, {ended} ended, {lost} lost, "
    "{restarts} restarts",
    "ended": "all workers have ended: {claimed} runs claimed, {ended} ended, {lost} lost, {killed} killed",
    "refused": "{reason}",
}


def log_event(event: dict[str, Any]) -> None:
    """Log an event of the fleet as a sentence."""
    level = logging.INFO
    if event["event"] in {"died", "gave_up", "silent", "killed", "refused"}:
        level = logging.WARNING
    _log.log(level, "%s", _SENTENCES[event["event"]].format_map(event))


class FactLog:
    """Logs what a worker says that is alone: its counts when they have changed, once a minute at most."""

    def __init__(self) -> None:
        self._told = -SUMMARY
        self._before: dict[str, Any] = {}

    def __call__(self, fact: dict[str, Any]) -> None:
        """Log a fact."""
        kind = fact.pop("event")
        if kind == "ready":
            _log.info("ready: %s", fact["owner"])
            return
        now = time.monotonic()
        if kind == "drained" or (now - self._told >= SUMMARY and fact != self._before):
            self._told, self._before = now, fact
            counts = "{active} runs active, {claimed} claimed, {ended} ended, {lost} lost".format_map(fact)
            _log.info("%s: %s", kind, counts)


def print_event(event: dict[str, Any]) -> None:
    """Print an event as a line of JSON, with the time."""
    print_json({"at": round(time.time(), 3), **event}, compact=True)
