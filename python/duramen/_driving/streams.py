"""What an attempt of a step writes to streams, on its way to the store.

Items go out while the step runs: the first at once, and while it is on its way the next ones gather. The step
waits when too many have gathered; a sync one in its thread. An attempt is over when its items are out: its
outcome is reported after that, so no result is durable of which an item is missing. What is written after the
outcome is refused, and what a process writes that has lost the run is refused by the store.

What goes wrong on the way is of three kinds. The store is out, or somebody else's transaction holds the run:
it is tried again until this process has lost the run. The store's fence refuses: the run has gone elsewhere,
which this process will learn, or the process has just taken another name; tried again, too. The store or a
codec has something against an item: that is an error of the step.

An item that is sent again because the answer was lost may be there twice, then with the same index.
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, Any

from duramen.errors import InvalidArgument, NotADurableContext, RuntimeClosed, StoreError

from .exits import Trouble, encoded, name_of, plain_payload, text_of

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Generator

    from .waits import StepCall

__all__ = ["Writes", "over"]

_MOST, _MOST_BYTES = 1_000, 1 << 20
"""So many items, and about so many bytes, go out at once; as many may gather before the step waits."""

_FAR_TOO_MANY = 16
"""So many times that: whoever writes on without awaiting is told."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two tries: doubled each time."""

_LOOK = 1.0
"""Seconds after which a thread looks whether it still waits for something."""


def over(op: str, attempt: int) -> NotADurableContext:
    """What is said to an attempt that writes after its end."""
    return NotADurableContext(
        f"step {op!r} wrote to a stream after attempt {attempt} was over (it timed out, its run went "
        "elsewhere, or it left a thread behind): nothing was written"
    )


class _Item:
    __slots__ = ("attempt", "data", "index", "keep", "stream")

    def __init__(self, stream: str, index: int, attempt: int, keep: int | None, data: bytes) -> None:
        self.stream = stream
        self.index = index
        self.attempt = attempt
        self.keep = keep
        self.data = data


class Writes:
    """What one attempt of a step writes: made with its first item.

    It is used on the host's loop and from threads.
    """

    def __init__(self, call: StepCall) -> None:
        self._call = call
        self._attempt = call.attempt
        self._writer: str | None = None
        self._changed = threading.Condition()
        self._counts: dict[str, int] = {}
        self._waiting: deque[_Item] = deque()
        self._bytes = 0
        self._sending: list[Any] = []
        self._error: BaseException | None = None
        self._over = False
        self._pumping = False
        self._failures = 0
        self._rooms: list[Future[None]] = []
        self._then: Callable[[], object] | None = None

    # -- in the step -----------------------------------------------------------------------------------------

    def write(self, stream: str, keep: int | None, item: Any, annotation: Any) -> Room:
        """Take an item. In a thread this waits for room; on the loop what it gives does, when awaited.

        Raises:
            SerializationError, PayloadTooLarge: the item cannot be stored.
            NotADurableContext: the attempt is over.
        """
        try:
            data = plain_payload(self._call.host.serializer, item, annotation)
        except Trouble as trouble:
            raise (trouble if trouble.__cause__ is None else trouble.__cause__) from None
        here = self._call.host.services.stepper.is_here()
        with self._changed:
            while not here and self._is_full() and self._error is None and not self._over:
                self._changed.wait(_LOOK)
            self._check()
            if len(self._waiting) >= _FAR_TOO_MANY * _MOST or self._bytes >= _FAR_TOO_MANY * _MOST_BYTES:
                raise InvalidArgument(
                    f"{len(self._waiting)} items of step {self._call.op!r} wait for the store: write "
                    "`await stream.write(item)` in an async step, so that it waits until there is room"
                )
            index = self._counts.get(stream, 0)
            self._counts[stream] = index + 1
            self._waiting.append(_Item(stream, index, self._attempt, keep, data))
            self._bytes += len(data)
            pumps, self._pumping = not self._pumping, True
        if pumps:
            self._call.host.services.stepper.on_loop(self._pump)
        return Room(self if here else None)

    def _is_full(self) -> bool:
        return len(self._waiting) >= _MOST or self._bytes >= _MOST_BYTES

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        if self._over:
            raise over(self._call.op, self._attempt)

    def room(self) -> Generator[Any, None, None]:
        """Wait for room, on the host's loop."""
        while self._is_full() and self._error is None and not self._over:
            room: Future[None] = self._call.host.services.stepper.loop.create_future()
            self._rooms.append(room)
            yield from room

    # -- on the host's loop ----------------------------------------------------------------------------------

    def settle(self, then: Callable[[], object]) -> bool:
        """The attempt has an outcome. True if all is out; else `then` is called when it is."""
        with self._changed:
            self._over = True
            self._tell()
            if not self._waiting and not self._sending:
                return True
        self._then = then
        return False

    @property
    def error(self) -> BaseException | None:
        """What the store, or a codec, has against an item."""
        return self._error

    def drop(self) -> None:
        """Nobody waits for the attempt any more: what is not out stays behind."""
        with self._changed:
            self._over = True
            self._then = None
            self._waiting.clear()
            self._bytes = 0
            self._tell()

    def _tell(self) -> None:
        self._changed.notify_all()
        rooms, self._rooms = self._rooms, []
        for room in rooms:
            if not room.done():
                room.set_result(None)

    def _pump(self) -> None:
        """Send what has gathered, unless something is on its way."""
        host = self._call.host
        if host.closed:
            self.drop()
            return
        with self._changed:
            if self._sending:
                return
            batch: list[_Item] = []
            size = 0
            for item in self._waiting:
                if len(batch) == _MOST or size >= _MOST_BYTES:
                    break
                batch.append(item)
                size += len(item.data)
            if not batch:
                self._pumping = False
                return
        try:
            writer = self._writer = self._writer or host.run.writer(self._call.op)
            at = host.run.wall()
            rows = [
                (
                    one.stream,
                    writer,
                    one.index,
                    one.attempt,
                    one.keep,
                    encoded(host.serializer, one.data),
                    at,
                )
                for one in batch
            ]
        except Trouble as trouble:
            self._again(trouble if trouble.__cause__ is None else trouble.__cause__, self._pump)
            return
        except Exception as error:  # noqa: BLE001 - a codec of the user's refuses the item
            self._fail(error)
            return
        with self._changed:
            for _ in batch:
                self._waiting.popleft()
            self._bytes -= size
            self._sending = rows
            self._tell()
        self._send()

    def _send(self) -> None:
        host = self._call.host
        append = host.services.append
        if append is None:
            self._fail(NotADurableContext("this host has nowhere to store items of streams"))
            return
        if host.closed:
            self.drop()
            return
        try:
            sent = append(host.run, self._sending)
        except RuntimeClosed:
            self.drop()
            return
        sent.add_done_callback(self._sent)

    def _sent(self, sent: Future[tuple[str, str | None]]) -> None:
        if sent.cancelled() or self._call.host.closed:
            self.drop()
            return
        error = sent.exception()
        if error is not None:
            if isinstance(error, StoreError):
                self._again(error, self._send)
            elif isinstance(error, RuntimeClosed):
                self.drop()
            else:
                self._fail(error)
            return
        kind, reason = sent.result()
        if kind == "rejected":
            self._fail(InvalidArgument(f"the store cannot keep an item of a stream: {reason}"))
        elif kind != "applied":
            self._again(StoreError(f"the run's row is {kind}"), self._send)
        else:
            self._sending = []
            self._failures = 0
            self._call.host.services.written(self._call.run_id)
            self._pump()
            self._end()

    def _again(self, error: BaseException, what: Callable[[], object]) -> None:
        services = self._call.host.services
        is_over = services.deadline is not None and services.deadline <= monotonic()
        if services.later is None or is_over:
            self.drop()
            self._call.host.leave(
                f"what step {self._call.op!r} has written to streams cannot be stored now: "
                f"{name_of(error)}: {text_of(error)}"
            )
            return
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._failures, 10))
        self._failures += 1
        services.later(pause, what)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = error
            self._waiting.clear()
            self._bytes = 0
            self._sending = []
            self._tell()
        self._end()

    def _end(self) -> None:
        if self._then is not None and not self._waiting and not self._sending:
            then, self._then = self._then, None
            then()


class Room:
    """What `write` gives: awaited, it waits until there is room for more."""

    __slots__ = ("_writes",)

    def __init__(self, writes: Writes | None) -> None:
        self._writes = writes

    def __await__(self) -> Generator[Any, None, None]:
        """Wait for room, on the host's loop; a thread has waited before."""
        if self._writes is not None:
            yield from self._writes.room()
