"""Processes for steps with ``where="process"``: started when needed, killed when a step is given up."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from typing import TYPE_CHECKING

from pydantic_core import to_json

from duramen._logging import logger

from .frames import DONE, FAILED, HEAD, UNFIT, size_of, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Processes", "Seat"]

_log = logger("duramen")

_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); fd = int(sys.argv[2]); del sys.argv[1:]; "
    "from duramen._driving.process_main import main; main(fd)"
)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
"""Seconds before it is tried again to start a process for which the system had no room: doubled each time."""

_LOOK = 0.01
"""Seconds between two looks whether a process that was killed is gone."""

_PATIENCE = 1.0
"""Seconds that a killed process is waited for: the system may have it in its hands."""


class Seat:
    """A place among the processes, or in the line for one."""

    __slots__ = ("_processes", "_ready")

    def __init__(self, processes: Processes, ready: Callable[[], object]) -> None:
        self._processes: Processes | None = processes
        self._ready: Callable[[], object] | None = ready

    def call(self) -> None:
        """It is this one's turn."""
        ready, self._ready = self._ready, None
        if ready is not None:
            ready()

    def leave(self) -> None:
        """Make room for the next one. Calling it again does nothing."""
        processes, self._processes = self._processes, None
        if processes is not None:
            waits, self._ready = self._ready is not None, None
            processes.left(self, waits)


class _Worker:
    """One process, and this end of its socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self.process = subprocess.Popen(  # noqa: S603 - this interpreter, with a program of ours
                    [_interpreter(), "-c", _PROGRAM, to_json(sys.path).decode(), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
        except BaseException:
            ours.close()
            raise
        self._socket: socket.socket | None = ours
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        """Wait until it takes calls."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        self._socket = None  # the writer's now
        await self.receive()

    async def send(self, frame: bytes) -> None:
        """Send a frame."""
        writer = self._writer
        if writer is None:
            raise ConnectionError
        writer.write(frame)
        await writer.drain()

    async def receive(self) -> list[bytes]:
        """Wait for a frame.

        Raises:
            EOFError, ConnectionError: the process is gone.
        """
        head = await self._reader.readexactly(HEAD)
        return unpack(await self._reader.readexactly(size_of(head)))

    def is_alive(self) -> bool:
        """Whether it can be given a call."""
        return self.process.poll() is None

    def kill(self) -> None:
        """End it, whatever it is doing."""
        if self.process.poll() is None:
            # Our own child, which nobody but this has waited for: the number cannot be another's.
            os.kill(self.process.pid, signal.SIGKILL)
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._writer is not None:
            try:
                self._writer.transport.abort()
            except RuntimeError:
                pass  # the loop is closed, and the socket with it
            self._writer = None


def _interpreter() -> str:
    """The program that runs Python: not `sys.executable` where Python is part of another program."""
    from multiprocessing.spawn import get_executable

    return os.fsdecode(get_executable())


class Processes:
    """The processes of one stepper. All of it happens on the loop's thread.

    Args:
        loop: the host's loop.
        most: how many there may be at once. Default: as many as there are processors.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int | None = None) -> None:
        self._loop = loop
        self.most = most or os.cpu_count() or 1
        self._taken = 0
        self._line: deque[Seat] = deque()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._killed: list[subprocess.Popen[bytes]] = []
        """Not waited for yet."""
        self._looking = False
        self._closed = False
        self._short = False
        """The last process that was wanted could not be started."""

    @property
    def pids(self) -> list[int]:
        """Of the processes there are."""
        return sorted(each.process.pid for each in self._all)

    # -- seats -----------------------------------------------------------------------------------------------

    def take(self, ready: Callable[[], object]) -> Seat:
        """Get in line; `ready` is called when there is room, at once if there is now."""
        seat = Seat(self, ready)
        if self._taken < self.most:
            self._taken += 1
            seat.call()
        else:
            self._line.append(seat)
        return seat

    def left(self, seat: Seat, waits: bool) -> None:
        """A seat was left."""
        if waits:
            self._line.remove(seat)
            return
        if self._line and not self._closed:
            self._line.popleft().call()
        else:
            self._taken -= 1

    # -- calls -----------------------------------------------------------------------------------------------

    async def run(self, frame: bytes, told: Callable[[list[bytes]], object]) -> list[bytes]:
        """Have a call carried out, and give the frame that ends it. Cancelled, it kills the process.

        Args:
            frame: the call.
            told: called with each frame before the last.

        Raises:
            ChildProcessError: the process died.
        """
        worker = await self._worker()
        try:
            try:
                await worker.send(frame)
                while (answer := await worker.receive())[0] not in {DONE, FAILED, UNFIT}:
                    told(answer)
            except (EOFError, ConnectionError):
                raise ChildProcessError(await self._how_it_died(worker)) from None
        except BaseException:
            self._kill(worker)
            raise
        if self._closed:
            self._kill(worker)
        else:
            self._idle.append(worker)
        return answer

    async def _worker(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive():
                return worker
            self._kill(worker)
        worker = await self._started()
        self._all.add(worker)
        try:
            await worker.connect()
        except (EOFError, ConnectionError):
            how = await self._how_it_died(worker)
            self._kill(worker)
            raise ChildProcessError(f"a process for the step could not begin: {how}") from None
        except BaseException:
            self._kill(worker)
            raise
        return worker

    async def _started(self) -> _Worker:
        pause = _FIRST_PAUSE
        while True:
            try:
                worker = _Worker()
            except OSError as error:  # no room for a process, or for a file: nothing is wrong with the step
                if not self._short:
                    self._short = True
                    _log.warning("no process can be started for a step (%s); it is tried again", error)
            else:
                self._short = False
                return worker
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _how_it_died(self, worker: _Worker) -> str:
        """Wait for a process whose socket has ended, and say what became of it."""
        for _ in range(int(_PATIENCE / _LOOK)):
            if worker.process.poll() is not None:
                break
            await asyncio.sleep(_LOOK)
        code = worker.process.returncode
        if code is None:
            return "its process no longer answers, and was killed"
        if code >= 0:
            return f"its process ended with status {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ", as the system does when memory is short" if -code == signal.SIGKILL else ""
        return f"its process was ended by {name}{hint}"

    # -- ends ------------------------------------------------------------------------------------------------

    def _kill(self, worker: _Worker) -> None:
        worker.kill()
        self._all.discard(worker)
        if worker.process.poll() is None:
            self._killed.append(worker.process)
            self._look_later()

    def _look_later(self) -> None:
        if not self._looking and not self._closed:
            self._looking = True
            self._loop.call_later(_LOOK, self._look)

    def _look(self) -> None:
        """Take leave of the processes that are gone, so that none stays a zombie."""
        self._looking = False
        self._killed = [each for each in self._killed if each.poll() is None]
        if self._killed:
            self._look_later()

    def close(self) -> None:
        """End all of them. Calling it again does nothing."""
        self._closed = True
        self._line.clear()
        self._idle.clear()
        for worker in list(self._all):
            self._kill(worker)
        for process in self._killed:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                _log.warning("process %d of a step was killed and is not gone yet", process.pid)
        self._killed.clear()
