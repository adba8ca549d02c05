"""A driver of a run's loop in a few lines of Python: what it delivers, and when, is the test's choice."""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import uvloop

from duramen._loop.loop import RunLoop, RunTimer
from duramen.errors import RunEvicted

Handler = Callable[["Driver"], Awaitable[Any]]
Entry = tuple[str, int]
"""What stands in the journal of the tests: the kind of an operation and its number by order of request."""

START = 1_700_000_000.0


class Diverged(Exception):
    """The journal's next entry is not what the handler asked for."""


class Driver:
    """Runs a handler to its end, delivering one outcome at a time.

    `choices` says which of the outstanding operations is next (modulo their number), timers going by time.
    With `journal` the order is the recorded one, and an operation that is next is answered at once if the
    loop says that nothing else could run.
    """

    def __init__(self, choices: Sequence[int] = (), journal: Sequence[Entry] | None = None) -> None:
        self.loop = RunLoop(self, now=START)
        self.choices = list(choices)
        self.replay = list(journal) if journal is not None else None
        self.journal: list[Entry] = []
        self.trace: list[Any] = []
        self.at_once = 0
        self.reached = 0
        """How long the trace was when the handler failed or could not go on."""
        self.open: dict[Entry, asyncio.Future[Any]] = {}
        self.timers: list[tuple[int, int, RunTimer]] = []
        self.asked: dict[str, int] = {}

    # -- what a handler calls

    def note(self, *what: Any) -> None:
        self.trace.append(what)

    async def op(self, name: str = "op", error: type[Exception] | None = None) -> Entry:
        if self.loop.evicted:
            raise RunEvicted
        entry = self.ask(name)
        self.note("ask", *entry)
        if self.replay and self.replay[0] == entry and self.loop.idle:
            self.replay.pop(0)
            self.journal.append(entry)
            self.at_once += 1
        else:
            self.open[entry] = future = asyncio.Future[Any](loop=self.loop)
            try:
                await future
            finally:
                self.open.pop(entry, None)
        if error is not None:
            raise error(entry)
        return entry

    # -- the loop's side

    def ask(self, kind: str) -> Entry:
        number = self.asked[kind] = self.asked.get(kind, 0) + 1
        return kind, number

    def open_timer(self, handle: RunTimer) -> None:
        handle.op = self.ask("timer")
        self.note("timer", handle.op[1], handle.when_ms)
        heapq.heappush(self.timers, (handle.when_ms, handle.op[1], handle))

    def close_timer(self, handle: RunTimer) -> None:
        self.note("close", handle.op[1])
        self.timers = [item for item in self.timers if item[2] is not handle]
        heapq.heapify(self.timers)

    # -- driving

    def next_entry(self) -> Entry | None:
        if self.replay is not None:
            return self.replay.pop(0) if self.replay else None
        asked = list(self.open)
        if self.timers:
            asked.append(self.timers[0][2].op)
        if not asked:
            return None
        return asked[(self.choices.pop(0) if self.choices else 0) % len(asked)]

    def deliver(self, entry: Entry) -> None:
        self.journal.append(entry)
        if entry[0] == "timer":
            timer = next((item for item in self.timers if item[2].op == entry), None)
            if timer is None:
                raise Diverged(entry)
            self.timers.remove(timer)
            heapq.heapify(self.timers)
            self.loop.now = max(self.loop.now, timer[0] / 1000)
            self.loop.fire(timer[2])
        else:
            if entry not in self.open:
                raise Diverged(entry)
            self.open[entry].set_result(entry)

    def start(self, handler: Handler) -> "asyncio.Task[Any]":
        async def body() -> Any:
            return await handler(self)

        return self.loop.create_task(body(), name="main")

    def run(self, handler: Handler) -> Any:
        """Drive the handler until it ends, or waits for nothing that could come."""
        main = self.start(handler)
        while True:
            assert self.loop.drain(100_000), "the handler spins"
            if main.done():
                break
            entry = self.next_entry()
            if entry is None:
                raise TimeoutError("the handler waits for nothing that could come")
            self.deliver(entry)
        error = None if main.cancelled() else main.exception()
        self.note("end", "cancelled" if main.cancelled() else repr(error or main.result()))
        if main.cancelled():
            raise asyncio.CancelledError
        return main.result()


HOSTS = ("none", "asyncio", "uvloop")


def on_host(host: str, call: Callable[[], Any]) -> Any:
    """Call a function from a plain callback of a host's loop ("none": from no loop at all)."""
    if host == "none":
        return call()
    loop = uvloop.new_event_loop() if host == "uvloop" else asyncio.new_event_loop()
    outcome: list[Any] = []

    def callback() -> None:
        try:
            outcome.append(call())
            assert asyncio.get_running_loop() is loop
        except BaseException as error:  # noqa: BLE001
            outcome.append(error)
        loop.stop()

    try:
        loop.call_soon(callback)
        loop.run_forever()
    finally:
        loop.close()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
