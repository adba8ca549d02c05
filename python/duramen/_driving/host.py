"""Drives one run: its handler on a loop of its own, the engine's machine, its steps on the host's loop."""

# The host of a run drives its loop from the inside, as that loop's documentation says.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import logging
from asyncio import CancelledError, Future, Task
from collections.abc import Callable
from contextvars import Context as ContextVars
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from duramen._bridge import (
    FINISH_CANCELLED,
    FINISH_COMPLETED,
    FINISH_FAILED,
    TIMER_LOOP,
    Cancel,
    Completed,
    Deliver,
    Failed,
    Halted,
    Offer,
    Received,
    Run,
    Seal,
    Start,
)
from duramen._handlers.context import Context
from duramen._handlers.step import current_context
from duramen._loop.loop import RunLoop, RunTimer
from duramen._values.payloads import (
    Decision,
    dump_failure,
    failed_operation,
    load_decision,
    load_reason,
    step_failure,
)
from duramen._values.serializer import Serializer, round_trip
from duramen.errors import DeserializationError, RunEvicted, RunTimedOut

from .stepper import Stepper
from .transaction_calls import TransactionCall
from .transactions import Transactions
from .waits import MessageWait, StepCall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from duramen._bridge import Turn
    from duramen._handlers.retry import Retry
    from duramen._handlers.step import StepPlan
    from duramen._handlers.workflow import WorkflowDef

__all__ = ["RunHost", "Services"]

_SLICE = 10_000
"""Callbacks that a handler may run before the program's own loop has its turn."""

_SPINNING = 100
"""Slices in a row after which a handler is said to spin."""


def _ignore(*_: object) -> None:
    """Stands for a service that nobody wants."""


class _NoTimers:
    """Keeps the timers of a loop whose run is over: there are none."""

    def open_timer(self, handle: RunTimer, /) -> None:
        raise RunEvicted(f"the run was over when its code asked for {handle!r}")

    def close_timer(self, handle: RunTimer, /) -> None: ...


_NO_TIMERS = _NoTimers()


@dataclass(slots=True)
class Services:
    """What a `RunHost` needs of its runtime; shared by all its hosts, or by those of a pass with a budget."""

    stepper: Stepper
    serializer: Serializer
    touched: Callable[[RunHost], object]
    """Called when step outcomes came in: advance that host in a callback of the host's loop, then flush."""
    emit: Callable[[str, str, Any], object] = _ignore
    """Takes live events: run id, name, value."""
    context: ContextVars = field(default_factory=copy_context)
    """The context variables that handlers and steps start from."""
    deadline: float | None = None
    """When the budget of this pass is over, on the clock of `time.monotonic`."""
    min_remaining: float = 1.0
    """With fewer seconds of budget left no fresh step is started."""
    log: logging.Logger = field(default_factory=lambda: logging.getLogger("duramen"))
    on_finished: Callable[[RunHost, int, Any], object] | None = None
    """Called when the handler has ended (nothing is durable yet): kind, and its value or error."""
    on_state: Callable[[RunHost, bytes], object] | None = None
    """Called when the run's state object has changed."""
    transactions: Transactions | None = None
    """What `ctx.transaction` needs of the runtime."""


class RunHost:
    """One run in the hands of this process.

    It is driven by callbacks of the host's loop, never from inside a task: `start` once, `advance` whenever
    something came in for it, `evict` or `ended` at the end.

    Args:
        run: the engine's side of the run.
        definition: the workflow, in the run's version.
        services: what the runtime provides.
    """

    def __init__(self, run: Run, definition: WorkflowDef[Any, Any], services: Services) -> None:
        self.run = run
        self.run_id: str = run.run_id
        self.definition = definition
        self.services = services
        self.serializer: Serializer = services.serializer
        self.loads = services.serializer.loads
        self.retry: Retry | None = definition.retry
        self.loop = RunLoop(self, now=run.started_at / 1000, strict=True, run_id=self.run_id)
        self.main: Task[Any] | None = None
        self.closed = False
        """Nothing of the handler runs any more."""
        self.outcome: tuple[int, Any] | None = None
        """How the handler ended (as `Run.finish` is told), with its value or error: durable only once the
        engine has said so."""
        self.output: bytes | None = None
        """The output of a handler that has returned, as it is recorded."""
        self._slots: dict[int, Any] = {}
        self._halted = False
        self._advancing = False
        self._fresh = False
        self._slices = 0
        self._context: Context[Any] | None = None
        self._state = b""
        self._reason = b'""'
        """Payload of the reason of the run's cancellation."""

    def __repr__(self) -> str:
        return f"<RunHost of {self.run.run_id!r}{' closed' if self.closed else ''}>"

    # -- driving ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with the handler and go as far as possible. Flush the engine afterwards."""
        definition = self.definition
        try:
            state = None if definition.state_type is None else definition.state_type()
            # Not Context[Any](…): going through an alias costs as much as all the rest of it.
            context: Context[Any] = Context(self, state)
            self._context = context
            value: Any = None
            if definition.has_input:
                context._input = value = self.loads(self.run.input, definition.input_type)
        except Exception as error:  # noqa: BLE001 - bad input, or a state type that cannot be made
            if isinstance(error, DeserializationError) and self.run.journal_len() > 1:
                # It has been read before, so it is the code that has changed.
                self.run.cannot_read("", str(error))
                self._give_up()
                return
            if isinstance(error, DeserializationError):
                error.add_note(f"the input of run {self.run.run_id!r} does not fit its workflow")
            self._close_with(FINISH_FAILED, error)
            return
        variables = self.services.context.copy()
        variables.run(current_context.set, context)
        self.main = self.loop.create_task(self._handler(context, value), name="handler", context=variables)
        self.advance()

    async def _handler(self, context: Context[Any], value: Any) -> Any:
        handler = self.definition.handler
        try:
            if self.definition.has_input:
                return await handler(context, value)
            return await handler(context)
        finally:
            if self.loop._asyncgens and not self._halted and not self.loop.evicted:
                await self.loop.shutdown_asyncgens()

    def advance(self) -> None:
        """Go on until nothing is left to do but wait. Flush the engine afterwards.

        Raises:
            KeyboardInterrupt: as raised while the handler ran; the run is dropped.
        """
        if self.closed or self._advancing or self.main is None:
            return
        loop = self.loop
        main = self.main
        turn = self.run.turn
        self._advancing = loop._delivering = True
        try:
            while True:
                if loop._ready and not self._drain():
                    return
                if self._halted:
                    self._give_up()
                    return
                if main.done():
                    self._ended(main)
                    return
                if self.definition.state_type is not None:
                    self._look_at_state()
                step = turn()
                if step is None:
                    return
                while step is not None:
                    step = self._act(step)
        except Halted:
            self._halted = True
            self._give_up()
        finally:
            self._advancing = loop._delivering = False

    def _give_up(self) -> None:
        """The engine refused to go on. If the code does not fit the journal, it still has to park the run."""
        self._drop()
        try:
            self.run.turn()
        except Halted:
            pass

    def _drain(self) -> bool:
        """Run what is ready. False if the handler spins, and the program's own loop must have its turn."""
        try:
            if self.loop.drain(_SLICE):
                self._slices = 0
                return True
        except KeyboardInterrupt:
            self.run.abandon()
            self._drop()
            raise
        except SystemExit:
            # The exit of a handler is that of its run: it must not take down every worker in turn.
            return not self.loop._ready or self._drain()
        self._slices += 1
        if self._slices == _SPINNING:
            self.services.log.warning(
                "the handler of run %r runs on and on without durable calls (%d callbacks so far)",
                self.run.run_id,
                _SPINNING * _SLICE,
            )
        self.services.touched(self)
        return False

    def _act(self, turn: Turn) -> Turn | None:
        if type(turn) is Deliver:
            self._deliver(turn)
        elif type(turn) is Start:
            self._fresh = True
            self._slots[turn.slot].start(turn.attempt)
        elif type(turn) is Offer:
            return self._offer(turn)
        elif type(turn) is Seal:
            self._slots[turn.slot].sealed(turn.change)
        elif type(turn) is Cancel:
            self.loop.now = turn.at / 1000
            self._reason = turn.reason
            if self.main is not None:
                self.main.cancel(load_reason(self.serializer, turn.reason) or None)
        else:
            self.loop.now = turn.at / 1000
            if self.main is not None:
                self.main.cancel("the run's time is over")
        return None

    def _deliver(self, turn: Deliver) -> None:
        self.loop.now = turn.at / 1000
        entry = self._slots.pop(turn.slot)
        outcome = turn.outcome
        cls = entry.__class__
        if cls is RunTimer:
            self.loop.fire(entry)
            return
        if cls is StepCall or cls is TransactionCall:
            future: Future[Any] = entry.future
            if type(outcome) is Completed:
                payload = outcome.payload
                if payload is None:
                    future.set_result(entry.value)
                else:
                    self._resolve(future, payload, entry)
            elif type(outcome) is Failed:
                self._fail(future, outcome.error, entry.op)
        elif cls is MessageWait:
            future = entry.future
            if type(outcome) is not Received:
                future.set_result((False, None))
            elif (payload := outcome.payload) is None:
                future.set_result((True, entry.value))
            else:
                try:
                    value = self._message(payload, entry.type)
                except Exception as error:  # noqa: BLE001 - as below
                    self.run.cannot_read(entry.op, str(error))
                else:
                    future.set_result((True, value))
        else:
            entry.set_result(None)

    def _resolve(self, future: Future[Any], payload: bytes, call: StepCall) -> None:
        try:
            value = self.loads(payload, call.plan.result)
        except Exception as error:  # noqa: BLE001 - recorded under other code, with another type
            self.run.cannot_read(call.op, str(error))
        else:
            future.set_result(value)

    def _fail(self, future: Future[Any], payload: bytes, op: str) -> None:
        try:
            failure = step_failure(self.serializer, op, payload)
        except Exception as error:  # noqa: BLE001 - as above; also what a user's codec raises
            self.run.cannot_read(op, str(error))
        else:
            future.set_exception(failure)

    def _message(self, payload: bytes, type: Any) -> Any:  # noqa: A002
        return load_decision(self.serializer, payload) if type is Decision else self.loads(payload, type)

    def _offer(self, turn: Offer) -> Turn | None:
        entry: MessageWait = self._slots[turn.slot]
        try:
            entry.value = self._message(turn.payload, entry.type)
        except Exception as error:  # noqa: BLE001 - whatever a user's type or serializer has against it
            self.run.refuse(str(error))
            return None
        return self.run.accept()

    def _look_at_state(self) -> None:
        context = self._context
        if context is None or self.run.replaying:
            return
        state = self.serializer.dumps(context._state, self.definition.state_type)
        if state != self._state:
            self._state = state
            self.run.set_state(state)
            if self.services.on_state is not None:
                self.services.on_state(self, state)

    # -- what the context asks for ---------------------------------------------------------------------------

    async def await_step(
        self,
        slot: int,
        plan: StepPlan,
        args: tuple[Any, ...],
        retry: Retry | None,
        timeout: float | None,
        meta: Mapping[str, Any] | None,
        *,
        transaction: bool = False,
        database: Any = None,
    ) -> Any:
        """Wait for a step (or a transaction) that was just requested."""
        future: Future[Any] = Future(loop=self.loop)
        if transaction:
            call = TransactionCall(self, slot, future, plan, args, retry, timeout, meta, database)
        else:
            call = StepCall(self, slot, future, plan, args, retry, timeout, meta)
        self._slots[slot] = call
        services = self.services
        if services.deadline is not None and services.deadline - monotonic() < services.min_remaining:
            self.yield_now()
        try:
            return await future
        except BaseException:  # mostly a cancellation; after a failure there is nothing left to forget
            if self.forget(slot):
                call.stop()
            raise

    async def await_message(self, slot: int, type: Any) -> tuple[bool, Any]:  # noqa: A002
        """Wait for an event or a decision: whether it came, and what."""
        wait = MessageWait(Future(loop=self.loop), self.run.last_op(), type)
        self._slots[slot] = wait
        try:
            return await wait.future
        except BaseException:
            self.forget(slot)
            raise

    async def await_slot(self, slot: int, future: Future[Any]) -> None:
        """Wait for a timer."""
        self._slots[slot] = future
        try:
            await future
        except BaseException:
            self.forget(slot)
            raise

    def forget(self, slot: int) -> bool:
        """The handler no longer waits for an operation. True if it is a step in flight."""
        if self._slots.pop(slot, None) is None:
            return False  # its outcome came first
        return self.run.cancel_op(slot)

    def yield_now(self) -> None:
        """Start no fresh work any more, if this pass has done anything at all: else it would never get on."""
        if self._fresh and not self.run.replaying:
            self.run.yield_now()

    def halt(self) -> None:
        """The engine refused to go on with this run: drop it once the handler has come to rest."""
        self._halted = True

    def open_timer(self, handle: RunTimer, /) -> None:
        """See `TimerHost`."""
        try:
            slot = self.run.timer(TIMER_LOOP, handle.when_ms)
        except Halted as error:
            self._halted = True
            raise RunEvicted(str(error)) from None
        handle.op = slot
        self._slots[slot] = handle

    def close_timer(self, handle: RunTimer, /) -> None:
        """See `TimerHost`."""
        self.forget(handle.op)

    # -- what steps bring ------------------------------------------------------------------------------------

    def step_ok(self, slot: int, payload: bytes) -> None:
        """Report a result."""
        self.run.step_ok(slot, payload)
        self.services.touched(self)

    def step_failed(self, slot: int, error: bytes, retryable: bool) -> None:
        """Report a failed attempt."""
        self.run.step_failed(slot, error, retryable)
        self.services.touched(self)

    # -- the end ---------------------------------------------------------------------------------------------

    def _ended(self, main: Task[Any]) -> None:
        """The handler has returned or raised."""
        run = self.run
        error: BaseException | None
        try:
            error = main.exception()
        except CancelledError as cancelled:
            error = cancelled
        if error is None:
            for seen, what in ((run.cancelled, "its cancellation"), (run.timed_out, "the end of its time")):
                if seen:
                    self.services.log.warning(
                        "run %r swallowed %s and returned a result, so it counts as completed",
                        run.run_id,
                        what,
                    )
            if self.definition.state_type is not None:
                self._look_at_state()
            self._close_with(FINISH_COMPLETED, main.result())
        elif isinstance(error, CancelledError) and run.cancelled:
            self._close_with(FINISH_CANCELLED, error)
        elif isinstance(error, CancelledError) and run.timed_out:
            self._close_with(FINISH_FAILED, RunTimedOut(run.run_id, "its workflow's timeout"))
        else:
            self._close_with(FINISH_FAILED, error)

    def _close_with(self, kind: int, value: Any) -> None:
        run = self.run
        op = None
        payload = b""
        if kind == FINISH_COMPLETED:
            try:
                payload, value = round_trip(self.serializer, value, self.definition.output_type)
            except Exception as error:  # noqa: BLE001 - also what a user's serializer raises
                error.add_note(f"the result of run {run.run_id!r} cannot be recorded")
                kind, value = FINISH_FAILED, error
            else:
                self.output = payload
        if kind == FINISH_FAILED:
            payload, op = dump_failure(self.serializer, value), failed_operation(value)
        elif kind == FINISH_CANCELLED:
            payload = self._reason
        self._warn_of_leaks()
        self.outcome = (kind, value)
        self._drop()
        try:
            run.finish(kind, payload, op)
            while run.turn() is not None:
                pass  # nothing is left to deliver to; the last commit goes on its way
        except Halted:
            self._give_up()
            return
        if self.services.on_finished is not None:
            self.services.on_finished(self, kind, value)

    def _warn_of_leaks(self) -> None:
        leaked = self.loop.leaked_tasks(self.main)
        if leaked:
            names = ", ".join(repr(task.get_name()) for task in leaked[:8])
            self.services.log.warning(
                "run %r ended with %d of its tasks still running, which were dropped: %s%s; await them, or "
                "use a TaskGroup",
                self.run.run_id,
                len(leaked),
                names,
                " …" if len(leaked) > 8 else "",
            )

    def evict(self) -> None:
        """Drop the run from memory: nothing that its handler still does gets through. Idempotent."""
        if not self.closed:
            self._drop()

    def ended(self, driven: str) -> None:
        """The engine says that the run left these hands: only one that is paused is kept."""
        self._fresh = False
        if driven != "paused":
            self.evict()
        elif self.services.deadline is not None:
            self.services = replace(self.services, deadline=None)  # that pass is over

    def _drop(self) -> None:
        self.closed = True
        slots, self._slots = self._slots, {}
        for entry in slots.values():
            if isinstance(entry, StepCall):
                entry.stop()
        self.loop.abandon()
        # Cuts the circles, so that memory comes back without the collector.
        self.loop._timers = _NO_TIMERS
        self.main = self._context = None
