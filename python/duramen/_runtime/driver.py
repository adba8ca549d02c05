"""Drives the runs that the engine hands over: one `RunHost` each, all of them on the runtime's loop.

The engine says which run may go on; this module calls its host, once for everything that came in together,
and flushes the engine once at the end of each such round.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple

from duramen._bridge import Advance, Drive, Evict, Resume
from duramen._driving.exits import say
from duramen._driving.host import RunHost
from duramen._driving.records import run_failed, run_stuck
from duramen._driving.services import Around, Services
from duramen._logging import logger
from duramen._values.durations import from_ms
from duramen.errors import RuntimeClosed

from .rows import read_payload
from .views import Event

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from duramen._bridge import Engine, Run, RunEvent
    from duramen._driving.stepper import Stepper
    from duramen._driving.transactions import Transactions
    from duramen._values.serializer import Serializer

    from .port import Port
    from .registry import Registry
    from .watchdog import Watchdog

__all__ = ["NOT_HERE", "Collector", "Driver", "Left"]

_log = logger("duramen")


class Collector:
    """Live events of some runs (or of all), the first `limit` of them."""

    def __init__(self, limit: int, publish: Callable[[Event], object] | None = None) -> None:
        self.events: deque[Event] = deque()
        self.count = 0
        self._publish = publish
        self._limit = limit
        self._states: dict[str, Any] = {}
        self.changed = asyncio.Event()

    def add(self, event: Event) -> None:
        """Take an event; beyond the limit it is only counted."""
        self.count += 1
        if len(self.events) < self._limit:
            self.events.append(event)
        self.changed.set()
        if self._publish is not None:
            try:
                self._publish(event)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001 - a run must not suffer from who listens to it
                _log.exception("a live event of run %r could not be published", event.run_id)

    def add_state(self, run_id: str, at: datetime, state: Any) -> None:
        """Take a run's state: as a patch of the one before, the first one as a whole."""
        patch = state_patch(self._states.get(run_id, _NO_STATE), state)
        if patch:
            self._states[run_id] = state
            self.add(Event(run_id=run_id, index=None, kind="state_changed", at=at, data=patch))


_NO_STATE = object()


def state_patch(before: Any, state: Any) -> list[dict[str, Any]]:
    """The operations (RFC 6902) that make one state of the other; the whole if there was none before."""
    if before is _NO_STATE:
        return [{"op": "replace", "path": "", "value": state}]
    from jsonpatch import make_patch

    return list(make_patch(before, state))


class Left(NamedTuple):
    """How a run left this process's hands."""

    how: str
    """``completed``, ``failed``, ``cancelled``, ``stuck``, ``continued``, ``paused`` or ``lost``."""
    output: bytes | None = None
    """If it completed: its output as it is recorded, so that nobody has to read it back."""
    output_type: Any = None
    workflow: str = ""
    """The name of its workflow, if it completed."""


_PAUSED, _LOST = Left("paused"), Left("lost")
NOT_HERE = _PAUSED
"""What is as good as known of a run that is not driven here."""


class Driver:
    """The hosts of one open runtime."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: Registry,
        serializer: Serializer,
        stepper: Stepper,
        watchdog: Watchdog,
        transactions: Transactions | None = None,
        *,
        budget: tuple[float | None, float] = (None, 1.0),
        around: Around = Around(),  # noqa: B008 - it cannot be changed
    ) -> None:
        self.loop = loop
        self.serializer = serializer
        self.stepper = stepper
        self.context = Context()
        self._registry = registry
        self._watchdog = watchdog
        self._transactions = transactions
        self._around = around
        self._engine: Engine | None = None
        self._port: Port | None = None
        self._hosts: dict[int, RunHost] = {}
        self._runs: dict[int, Run] = {}
        self._tickets: dict[str, int] = {}
        self._active: set[int] = set()
        self._touched: dict[RunHost, None] = {}
        self._round_due = False
        self._interrupt: KeyboardInterrupt | None = None
        """Was raised in this round, and ends the process once all are served."""
        self._waiters: dict[str, set[asyncio.Future[Left]]] = {}
        self._collectors: dict[str, set[Collector]] = {}
        self._readers: dict[str, set[asyncio.Event]] = {}
        self._services = self._new_services(*budget)
        self.ends = dict.fromkeys(("completed", "failed", "cancelled", "stuck"), 0)
        """How many runs ended so in this process's hands."""
        self.budgets: dict[str, tuple[float, float]] = {}
        """Deadline (`time.monotonic`) and least remaining seconds of drives about to begin, by run id."""
        self.sweep_budgets: dict[int, tuple[float, float]] = {}
        """The same for runs that a sweep takes up, by the token of its call, until it has been answered."""
        self.idle = asyncio.Event()
        """Set while no run is being driven."""
        self.idle.set()

    def _services_for(self, run: Run) -> Services:
        """What a run gets with each claim anew: it keeps to the budget of whatever took it up."""
        budget = self.budgets.pop(run.run_id, None)
        if budget is None and self.sweep_budgets and (sweep := run.sweep) is not None:
            budget = self.sweep_budgets.get(sweep)
        return self._services if budget is None else self._new_services(*budget)

    def _new_services(self, deadline: float | None, min_remaining: float) -> Services:
        return Services(
            stepper=self.stepper,
            serializer=self.serializer,
            touched=self.touch,
            given_back=self.given_back,
            later=self.later,
            append=self._append,
            written=self.written,
            emit=self.emit,
            definition=self._registry.of_version,
            on_state=self.tell_state,
            context=self.context,
            deadline=deadline,
            min_remaining=min_remaining,
            log=_log,
            find=self._registry.find,
            transactions=self._transactions,
            around=self._around,
        )

    def attach(self, port: Port) -> None:
        """Tell the driver its end of the engine, which needs `on_events` to be made."""
        self._port = port
        self._engine = port.engine

    def detach(self) -> None:
        """Drop every run from memory; nothing is written any more."""
        self._engine = self._port = None
        for host in list(self._hosts.values()):
            self._safely(host, "evict")
        for ticket in list(self._hosts):
            self._forget(ticket, _LOST)
        self._watchdog.stop()

    @property
    def round_due(self) -> bool:
        """Whether something is to be advanced in the loop's next turn."""
        return self._round_due

    def drives(self, run_id: str) -> bool:
        """Whether that run is being driven here at this moment (paused ones that are kept warm are not)."""
        return self._tickets.get(run_id) in self._active

    # -- rounds ----------------------------------------------------------------------------------------------

    def on_events(self, events: deque[RunEvent]) -> None:
        """Act on what the engine says of runs, in its order, and take it out; then flush the engine once."""
        while events:
            event = events.popleft()
            try:
                self._on_event(event)
            except BaseException as error:  # noqa: BLE001 - the other events have to be acted on
                if type(event) is Drive and event.ticket not in self._hosts:
                    event.run.abandon()
                self._give_back(event.ticket, error)
        self._end_round()

    def _on_event(self, event: RunEvent) -> None:
        ticket = event.ticket
        if type(event) is Drive:
            self._drive(ticket, event.run)
            return
        host = self._hosts.get(ticket)
        if host is None:
            return
        if type(event) is Advance:
            self._advance(ticket, host, event.driven)
        elif type(event) is Resume:
            host.services = self._services_for(self._runs[ticket])
            self._activate(ticket)
            self._safely(host, "advance")
        elif type(event) is Evict:
            self._safely(host, "evict")
            self._forget(ticket, None)
        else:
            self._lost(ticket, host, event.error)

    def _advance(self, ticket: int, host: RunHost, driven: str | None) -> None:
        self._touched.pop(host, None)
        self.written(host.run_id)
        if driven is None:
            self._safely(host, "advance")
            return
        self._safely(host, "ended", driven)
        if driven in self.ends:
            self.ends[driven] += 1
        if driven == "failed":
            run_failed(host.run, None if host.outcome is None else host.outcome[1])
        elif driven == "stuck":
            run_stuck(host.run)
        if driven == "paused":
            self._rest(ticket, _PAUSED)
        elif driven == "completed":
            self._forget(ticket, Left(driven, host.output, host.definition.output_type, host.run.workflow))
        else:
            self._forget(ticket, Left(driven))

    def _lost(self, ticket: int, host: RunHost, error: tuple[str, str] | None) -> None:
        run = self._runs[ticket]
        _log.warning(
            "run %r left this process's hands%s: what was not recorded here is done again by whoever has it",
            run.run_id,
            f" ({error[1]})" if error else "",
        )
        self._safely(host, "evict")
        self._forget(ticket, _LOST)

    def touch(self, host: RunHost) -> None:
        """Outcomes came in for a host: it is advanced in the loop's next turn, once."""
        self._touched[host] = None
        self.round_soon()

    def given_back(self, host: RunHost) -> None:
        """A host has let its run go."""
        ticket = self._tickets.get(host.run_id)
        if ticket is not None and self._hosts.get(ticket) is host:
            self._forget(ticket, _LOST)

    def later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        """Call something in a while."""
        return self.loop.call_later(seconds, callback, context=self.context)

    def round_soon(self) -> None:
        """Advance what was touched and flush, in the loop's next turn."""
        if not self._round_due and not self.loop.is_closed():
            self._round_due = True
            self.loop.call_soon(self._round, context=self.context)

    def _round(self) -> None:
        self._round_due = False
        try:
            for host in list(self._touched):
                if host not in self._touched:
                    continue  # the engine has spoken of it meanwhile
                del self._touched[host]
                self._safely(host, "advance")
            self._end_round()
        finally:
            if self._touched:
                self.round_soon()

    def _end_round(self) -> None:
        if self._engine is not None:
            self._engine.flush()
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise interrupt

    def _drive(self, ticket: int, run: Run) -> None:
        try:
            host = self._host_of(run)
        except Exception:  # noqa: BLE001 - as in `_safely`
            _log.exception("run %r cannot be driven here; another process may take it over", run.run_id)
            host = None
        if host is None:
            run.abandon()
            return
        self._hosts[ticket] = host
        self._runs[ticket] = run
        self._tickets[run.run_id] = ticket
        self._activate(ticket)
        self._safely(host, "start")

    def _host_of(self, run: Run) -> RunHost | None:
        definition = self._registry.get(run.workflow, run.version)
        if definition is None:
            # Claims name what is registered, so this is a run that was taken by its id.
            _log.error(
                "run %r needs workflow %r version %r, which is not here",
                run.run_id,
                run.workflow,
                run.version,
            )
            return None
        return RunHost(run, definition, self._services_for(run))

    def _safely(self, host: RunHost, method: str, *args: Any) -> None:
        """Call a host so that a defect in it, or in what it calls, stops this run only."""
        try:
            getattr(host, method)(*args)
        except KeyboardInterrupt as interrupt:
            self._interrupt = interrupt  # for the end of the round: the others have to be told first
        except BaseException as error:  # noqa: BLE001 - a defect in one run must not stop the others
            if method == "evict":
                say(_log, "a run could not be dropped from memory in order", error)
            else:
                ticket = next((ticket for ticket, each in self._hosts.items() if each is host), None)
                self._give_back(ticket, error)

    def _give_back(self, ticket: int | None, error: BaseException) -> None:
        """Let a run go about which something was raised that nobody answers for."""
        if issubclass(type(error), KeyboardInterrupt):
            self._interrupt = KeyboardInterrupt(*error.args)
        else:
            say(_log, "a run could not be driven on; another process may take it over", error)
        host = None if ticket is None else self._hosts.get(ticket)
        if ticket is not None and host is not None:
            self._runs[ticket].abandon()
            self._safely(host, "evict")
            self._forget(ticket, _LOST)

    def _activate(self, ticket: int) -> None:
        if not self._active:
            self.idle.clear()
            self._watchdog.arm()
        self._active.add(ticket)

    def _rest(self, ticket: int, left: Left) -> None:
        self._active.discard(ticket)
        if not self._active:
            self.idle.set()
            self._watchdog.disarm()
        self._tell(self._runs[ticket].run_id, left)

    def _forget(self, ticket: int, left: Left | None) -> None:
        host = self._hosts.pop(ticket, None)
        if host is None:
            return
        self._touched.pop(host, None)
        run = self._runs[ticket]
        if left is None:  # it paused before, and everybody was told
            self._active.discard(ticket)
        else:
            self._rest(ticket, left)
        del self._runs[ticket]
        if self._tickets.get(run.run_id) == ticket:
            del self._tickets[run.run_id]

    # -- telling ---------------------------------------------------------------------------------------------

    def watch(self, run_id: str) -> asyncio.Future[Left]:
        """A future of how the run next leaves this process's hands; give it back with `unwatch`."""
        future: asyncio.Future[Left] = self.loop.create_future()
        self._waiters.setdefault(run_id, set()).add(future)
        return future

    def unwatch(self, run_id: str, future: asyncio.Future[Left]) -> None:
        """The future is not needed any more."""
        future.cancel()
        waiters = self._waiters.get(run_id)
        if waiters is not None:
            waiters.discard(future)
            if not waiters:
                del self._waiters[run_id]

    def _tell(self, run_id: str, left: Left) -> None:
        for future in self._waiters.pop(run_id, ()):
            if not future.done():
                future.set_result(left)
        for collector in self._collectors.get(run_id, ()):
            collector.changed.set()
        self.written(run_id)

    def yield_run(self, run_id: str) -> None:
        """Ask a run to let go as soon as its steps in flight are recorded."""
        ticket = self._tickets.get(run_id)
        if ticket in self._active:
            assert ticket is not None  # noqa: S101 - for the type checker
            self._runs[ticket].yield_now()
            self.touch(self._hosts[ticket])

    def drop(self, run_id: str) -> None:
        """A run was ended or removed from outside: stop it at once, do not wait until a write is refused."""
        ticket = self._tickets.get(run_id)
        if ticket in self._active:
            assert ticket is not None  # noqa: S101 - for the type checker
            self._runs[ticket].abandon()
            self._safely(self._hosts[ticket], "evict")
            self._forget(ticket, _LOST)

    def collect(self, run_id: str, collector: Collector) -> None:
        """Send live events of a run, or of all runs (""), to a collector until `uncollect`."""
        self._collectors.setdefault(run_id, set()).add(collector)

    def uncollect(self, run_id: str, collector: Collector) -> None:
        """Undo `collect`."""
        collectors = self._collectors.get(run_id, set())
        collectors.discard(collector)
        if not collectors:
            self._collectors.pop(run_id, None)

    def _append(self, run: Run, items: list[Any]) -> asyncio.Future[Any]:
        if self._port is None:
            raise RuntimeClosed("the runtime was closed before an item of a stream was stored")
        return self._port.call(run.append, items)

    def written(self, run_id: str) -> None:
        """Items of its streams may be there to be read."""
        for bell in self._readers.get(run_id, ()):
            bell.set()

    def read(self, run_id: str, bell: asyncio.Event) -> None:
        """Ring when items of a run's streams may be there, or it has left these hands, until `unread`."""
        self._readers.setdefault(run_id, set()).add(bell)

    def unread(self, run_id: str, bell: asyncio.Event) -> None:
        """Undo `read`."""
        bells = self._readers.get(run_id, set())
        bells.discard(bell)
        if not bells:
            self._readers.pop(run_id, None)

    def emit(self, run_id: str, name: str, value: Any) -> None:
        """Pass a live event on to whoever listens."""
        if not self._collectors:
            return
        engine = self._engine
        if engine is None:
            return
        event = Event(
            run_id=run_id, index=None, kind="emitted", at=from_ms(engine.now()), op=name, data=value
        )
        for key in (run_id, ""):
            for collector in self._collectors.get(key, ()):
                collector.add(event)

    def tell_state(self, host: RunHost, state: bytes) -> None:
        """Pass a run's changed state on to whoever listens."""
        if self._collectors and self._engine is not None:
            at = from_ms(self._engine.now())
            value = read_payload(self.serializer, state)
            for key in (host.run_id, ""):
                for collector in self._collectors.get(key, ()):
                    collector.add_state(host.run_id, at, value)
