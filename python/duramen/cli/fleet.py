"""The supervisor of `duramen worker --processes`: starts workers, replaces dead ones, ends them in order.

It runs no code of the application: whatever that does to a process, the supervisor stays. Each worker holds
the reading end of a pipe, its lifeline: when the supervisor ends, however it does, the pipe ends, and the
workers drain and end as well. Workers are started afresh, never forked from a process that has run anything.

The end is a matter of phases, each with its time: a worker is told what the phase asks of it when the phase
begins, and one whose process appears only then (a start takes its while) when it appears.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from .exits import Exit
from .member import COUNTS, DRAINING, GRACE, REPORT
from .telling import SUMMARY

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOST_PROCESSES", "Settings", "supervise"]

MOST_PROCESSES = 256

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a worker that died is replaced: twice as long each time, until one lives for `SOUND`."""

SOUND = 60.0

HASTE = 3.0
"""Seconds that workers have to end after a second signal."""

LAST = 5.0
"""Seconds that the system has to end a process that was killed (one that hangs in the kernel may not)."""

PARTING = 1.0
"""Seconds to hear the last of a worker that has ended, if something else keeps its pipe open."""

FUTILE = 5
"""So many starts in a row that came to nothing, with no worker running, and the supervisor gives up."""

SILENT = 6 * REPORT
"""Seconds without a report after which a worker is said to be silent."""

SLOW = 2 * REPORT
"""Seconds after which a worker that has not become ready is mentioned."""


class Phase(IntEnum):
    """How far the end has come."""

    RUNNING = 0
    DRAINING = 1
    HURRYING = 2
    KILLING = 3


@dataclass
class Settings:
    """What every worker is told."""

    target: str
    concurrency: int
    drain: float
    level: int
    """From which on is logged, as `logging` numbers it."""


@dataclass
class Member:
    """A place in the fleet, and the process that has it now."""

    number: int
    process: asyncio.subprocess.Process | None = None
    lifeline: int = -1
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    begun: float = 0.0
    heard: float = 0.0
    doing: str = ""
    """What it did last of what precedes its being ready."""
    silent: bool = False
    slow: bool = False
    """That it is silent, or takes long to start, has been said."""
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

    @property
    def works(self) -> bool:
        """Whether it is alive and has become ready."""
        return self.is_alive and self.ready.is_set()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        if self.process is not None and self.process.returncode is None:
            with suppress(ProcessLookupError):
                self.process.send_signal(number)


async def supervise(
    settings: Settings, processes: int, *, tell: Callable[[dict[str, Any]], None], apart: bool = False
) -> int:
    """Keep so many workers running until SIGTERM, SIGINT or SIGHUP; gives the exit code.

    Args:
        settings: what the workers are told.
        processes: how many.
        tell: is called with each event; it must neither block nor fail.
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
        self._phase = Phase.RUNNING
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._code: int | None = None
        self._restarts = 0
        self._futile = 0
        self._killed = 0
        self._past: dict[str, int] = {}
        """Counts of processes that have ended."""

    async def run(self) -> int:
        """Do it all."""
        loop = asyncio.get_running_loop()
        # Who was started to outlive the terminal (nohup) ignores SIGHUP, and goes on doing so.
        caught = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            caught.append(signal.SIGHUP)
        for number in caught:
            loop.add_signal_handler(number, self._signalled, number)
        keeping = asyncio.create_task(self._keep_all())
        tasks = [asyncio.create_task(one) for one in (self._summarise(), self._stopping.wait())]
        try:
            await asyncio.wait((keeping, tasks[-1]), return_when=asyncio.FIRST_COMPLETED)
            await self._end(keeping)
            if keeping.done():
                keeping.result()
        finally:
            for task in (keeping, *tasks):
                task.cancel()
            for member in self._members:
                member.signal(signal.SIGKILL)
            for number in caught:
                loop.remove_signal_handler(number)
        self._tell({"event": "ended", "killed": self._killed, **self._total()})
        if self._code is not None:
            return self._code
        return Exit.FAILED if self._killed else Exit.OK

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self._stopping.is_set():
            self._tell({"event": "draining", "signal": name})
            self._stopping.set()
        elif not self._hurry.is_set():
            self._tell({"event": "hurrying", "signal": name})
            self._hurry.set()

    # -- the end

    async def _end(self, keeping: asyncio.Task[None]) -> None:
        """Go from phase to phase until all workers have ended."""
        hurry = asyncio.create_task(self._hurry.wait())
        self._enter(Phase.DRAINING)
        patience = self._settings.drain + GRACE
        await asyncio.wait((keeping, hurry), timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if hurry.done() and not keeping.done():
            self._enter(Phase.HURRYING)
            await asyncio.wait((keeping,), timeout=HASTE)
        hurry.cancel()
        if not keeping.done():
            self._enter(Phase.KILLING)
            await asyncio.wait((keeping,), timeout=LAST)

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        for member in self._members:
            self._press(member)

    def _press(self, member: Member) -> None:
        """Ask of a worker what the phase asks."""
        if not member.is_alive:
            return
        if self._phase is Phase.KILLING:
            # Stopped or blocked. Its leases end, and others take its runs over.
            self._killed += 1
            self._tell({"event": "killed", "worker": member.number, "pid": member.pid})
            member.signal(signal.SIGKILL)
        elif self._phase is not Phase.RUNNING:
            with suppress(OSError):
                os.write(member.lifeline, DRAINING)
            member.signal(signal.SIGTERM)

    # -- keeping them running

    async def _keep_all(self) -> None:
        """Keep all members running, until the supervisor stops and the last process has ended."""
        # One alone at first: what keeps it from starting would keep all of them, and is shown once.
        first, *others = self._members
        async with asyncio.TaskGroup() as keepers:
            kept = keepers.create_task(self._keep(first))
            waits = [asyncio.create_task(one.wait()) for one in (first.ready, self._stopping)]
            await asyncio.wait([*waits, kept], return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            for member in others:
                keepers.create_task(self._keep(member))

    async def _keep(self, member: Member) -> None:
        """Start the member's process, and start it again when it has died."""
        while not self._stopping.is_set():
            try:
                listener = await self._start(member)
            except OSError as error:  # no room for another process, or no interpreter any more
                member.deaths += 1
                reason = error.strerror or str(error)
                await self._pause(member, {"event": "not_started", "worker": member.number, "reason": reason})
                continue
            code = await self._attend(member, listener)
            if self._stopping.is_set():
                return
            if not member.ready.is_set():
                self._futile += 1
                others = any(one.works for one in self._members)
                if not others and (self._restarts == 0 or self._futile >= FUTILE):
                    self._give_up(member, code)
                    return
            lived = time.monotonic() - member.begun
            member.deaths = 1 if member.ready.is_set() and lived >= SOUND else member.deaths + 1
            self._restarts += 1
            death = {"event": "died", "worker": member.number, "pid": member.pid, "how": _how(code)}
            await self._pause(member, {**death, "lived": round(lived, 1)})

    async def _pause(self, member: Member, event: dict[str, Any]) -> None:
        """Say what happened, and wait before the next start."""
        pause = min(FIRST_PAUSE * 2.0 ** min(member.deaths - 1, 16), LONGEST_PAUSE)
        self._tell({**event, "restart_in": pause})
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), pause)

    def _give_up(self, member: Member, code: int) -> None:
        self._code = code if code > 0 else Exit.FAILED
        self._tell({"event": "gave_up", "worker": member.number, "pid": member.pid, "how": _how(code)})
        self._stopping.set()

    async def _start(self, member: Member) -> asyncio.Task[None]:
        """Start a process; gives the task that listens to it.

        Raises:
            OSError: the system starts none.
        """
        member.ready.clear()
        member.counts, member.silent, member.slow, member.doing = {}, False, False, "starts Python"
        member.begun = member.heard = time.monotonic()
        lifeline, member.lifeline = os.pipe()
        ours: list[int] = [member.lifeline]
        theirs: list[int] = [lifeline]
        try:
            heard, said = os.pipe()
            theirs.append(said)
            ours.append(heard)
            settings = json.dumps({**asdict(self._settings), "lifeline": lifeline, "said": said})
            member.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "duramen.cli.member",
                settings,
                stdin=subprocess.DEVNULL,
                stdout=2 if self._apart else None,
                pass_fds=(lifeline, said),
                # Ctrl-C reaches the whole group of the terminal: workers get it from here, once.
                process_group=0,
            )
        except BaseException:
            for end in ours:
                os.close(end)
            member.lifeline = -1
            raise
        finally:
            for end in theirs:
                os.close(end)
        self._tell({"event": "started", "worker": member.number, "pid": member.pid})
        self._press(member)
        return asyncio.create_task(self._listen(member, heard))

    async def _attend(self, member: Member, listener: asyncio.Task[None]) -> int:
        """Wait for the end of the process; gives its exit code, negative for a signal."""
        try:
            code = 0 if member.process is None else await member.process.wait()
            # What it said last. Processes that it left behind may hold its end of the pipe open.
            await asyncio.wait((listener,), timeout=PARTING)
        finally:
            listener.cancel()
            os.close(member.lifeline)
            member.lifeline = -1
        for name, count in member.counts.items():
            self._past[name] = self._past.get(name, 0) + (count if name != "active" else 0)
        member.counts = {}
        return code

    # -- what they say

    async def _listen(self, member: Member, heard: int) -> None:
        """Note what the worker says until its end of the pipe is closed."""
        # Reports are read as they come: whatever a worker writes must not block it.
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(heard, "rb")
        )
        try:
            while True:
                try:
                    line = await reader.readline()
                    if not line:
                        return
                    fact: dict[str, Any] = json.loads(line)
                    self._note(member, str(fact.pop("event")), fact)
                except (ValueError, TypeError, KeyError, AttributeError):
                    pass  # not from this library: the application found the descriptor and wrote to it
        finally:
            transport.close()

    def _note(self, member: Member, kind: str, fact: dict[str, Any]) -> None:
        member.heard = time.monotonic()
        if member.silent:
            member.silent = False
            self._tell({"event": "heard_again", "worker": member.number, "pid": member.pid})
        if kind == "ready":
            member.ready.set()
            self._futile = 0
            self._tell({"event": "ready", "worker": member.number, "pid": member.pid, **fact})
        elif kind == "doing":
            member.doing = str(fact["what"])
        else:
            member.counts = {name: int(fact[name]) for name in COUNTS}

    async def _summarise(self) -> None:
        """Say now and then how it goes, and soon when a worker does not start or falls silent."""
        before, told = self._total(), time.monotonic()
        while True:
            await asyncio.sleep(REPORT)
            now = time.monotonic()
            for member in self._members:
                self._worry(member, now)
            total = self._total()
            if now - told >= SUMMARY and total != before:
                before, told = total, now
                workers = sum(member.works for member in self._members)
                self._tell({"event": "counts", "workers": workers, "restarts": self._restarts, **total})

    def _worry(self, member: Member, now: float) -> None:
        """Say once of a process that it takes long to become ready, or has fallen silent."""
        who = {"worker": member.number, "pid": member.pid}
        if member.works and not member.silent and now - member.heard > SILENT:
            member.silent = True
            self._tell({"event": "silent", **who, "seconds": round(now - member.heard)})
        elif member.is_alive and not (member.ready.is_set() or member.slow) and now - member.begun >= SLOW:
            member.slow = True
            seconds = round(now - member.begun)
            self._tell({"event": "slow_start", **who, "seconds": seconds, "doing": member.doing})

    def _total(self) -> dict[str, int]:
        total: dict[str, int] = dict.fromkeys(COUNTS, 0)
        for counts in (self._past, *(member.counts for member in self._members)):
            for name in total:
                total[name] += counts.get(name, 0)
        return total


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
