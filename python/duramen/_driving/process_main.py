"""The program of a process for steps: calls one function after the other, until the runtime is gone."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import socket
from contextvars import copy_context
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from duramen._handlers.remote import find
from duramen._handlers.step_context import StepContext, current_step
from duramen._values.serializer import JsonSerializer, dump_error
from duramen.errors import NotADurableContext, PayloadTooLarge, SerializationError

from .frames import BEAT, DONE, EMIT, FAILED, HEAD, READY, UNFIT, pack, size_of, unpack

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

__all__ = ["main"]

_PLAIN = JsonSerializer(None)
_KEPT = JsonSerializer()
"""With the limit that what is kept in a store has."""


class Wire:
    """The process's end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = Lock()
        self.calls: SimpleQueue[list[bytes]] = SimpleQueue()

    def send(self, *parts: bytes) -> None:
        """Send a frame, from any thread."""
        with self._lock:
            self._connection.sendall(pack(*parts))

    def listen(self) -> None:
        """Take in calls. When the runtime is gone so is the process, whatever it is doing."""
        try:
            while True:
                self.calls.put(unpack(self._exactly(size_of(self._exactly(HEAD)))))
        finally:
            os._exit(0)

    def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self._connection.recv(min(size - len(parts), 1 << 20))
            if not part:
                os._exit(0)
            parts += part
        return bytes(parts)


class RemoteStep:
    """What the function's `step_context` stands on."""

    def __init__(self, wire: Wire, facts: Mapping[str, Any], progress: bytes) -> None:
        self._wire = wire
        self._progress = progress
        self.run_id: str = facts["run_id"]
        self.scope: str = facts["scope"]
        self.op: str = facts["op"]
        self.attempt: int = facts["attempt"]
        self.timeout: float | None = facts["timeout"]
        self.started: float = facts["started"]
        self.meta: Mapping[str, Any] | None = facts["meta"]

    def plain(self, progress: Any, /) -> bytes:
        """See `RunningStep`."""
        return _KEPT.dumps(progress, None)

    def progress(self, told: bytes | None, /) -> Any:
        """See `RunningStep`."""
        data = self._progress if told is None else told
        return _PLAIN.loads(data, None) if data else None

    def beat(self, attempt: StepContext, /) -> None:
        """See `RunningStep`."""
        self._wire.send(BEAT, attempt.read() or b"")

    def emit(self, attempt: StepContext, name: str, value: Any, /) -> None:
        """See `RunningStep`."""
        del attempt
        self._wire.send(EMIT, name.encode(), _PLAIN.dumps(value, None))

    def write(
        self, attempt: StepContext, stream: str, keep: int | None, item: Any, annotation: Any, /
    ) -> Awaitable[None]:
        """See `RunningStep`."""
        del attempt, keep, item, annotation
        raise NotADurableContext(
            f"step {self.op!r} wrote to the stream {stream!r} from a process of its own: write in the "
            "handler, or in a step that runs where the runtime is"
        )


def main(fd: int) -> None:
    """Serve a runtime.

    Args:
        fd: of the socket that leads to it.
    """
    for each in (signal.SIGINT, signal.SIGTERM):
        # They mean the runtime, which decides what becomes of its steps. Not SIG_IGN, which what a step
        # starts would inherit.
        signal.signal(each, _pass_over)
    wire = Wire(socket.socket(fileno=fd))
    Thread(target=wire.listen, name="duramen-wire", daemon=True).start()
    wire.send(READY)
    while True:
        _, facts, progress, *args = wire.calls.get()
        wire.send(*copy_context().run(_outcome, wire, from_json(facts), progress, args))


def _pass_over(*_: object) -> None:
    """Stands for a handler of signals."""


def _outcome(wire: Wire, facts: dict[str, Any], progress: bytes, args: list[bytes]) -> tuple[bytes, bytes]:
    try:
        plan = find(facts["module"], facts["name"]).duramen_plan
        remote = plan.remote
        names: list[str] = facts["names"]
        places = len(args) - len(names)
        placed = [_PLAIN.loads(data, remote.type_at(place)) for place, data in enumerate(args[:places])]
        named = {
            name: _PLAIN.loads(data, remote.type_of(name))
            for name, data in zip(names, args[places:], strict=True)
        }
        current_step.set(StepContext(RemoteStep(wire, facts, progress)))
        result = remote.fn(*placed, **named)
        if inspect.isawaitable(result):
            result = asyncio.run(_awaited(result))
    except BaseException as error:  # noqa: BLE001 - it is the step's outcome, SystemExit too
        return FAILED, dump_error(error)
    try:
        return DONE, _PLAIN.dumps(result, plan.result)
    except (SerializationError, PayloadTooLarge) as error:
        return UNFIT, dump_error(error)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
