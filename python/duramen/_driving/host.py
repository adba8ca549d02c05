"""Drives one run: its handler on a loop of its own, the engine's machine, its steps on the host's loop."""

from __future__ import annotations

from asyncio import Future, Task, TimerHandle
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from duramen._bridge import (
    FINISH_COMPLETED,
    FINISH_FAILED,
    TIMER_LOOP,
    Apply,
    Cancel,
    ChildEnded,
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
from duramen._handlers.step import current_context
from duramen._loop.loop import RunLoop, RunTimer
from duramen._values.payloads import Decision, decode, load_decision, load_reason, step_failure
from duramen._values.tokens import TokenType, load_answer
from duramen.errors import DeserializationError, RunEvicted

from . import hooks
from .children import Child
from .continuing import Wish, next_version
from .endings import ending_of, handled, recorded_end
from .exits import (
    Trouble,
    encoded,
    name_of,
    note,
    plain_payload,
    reading_trouble,
    say,
    text_of,
)
from .polls import PollCall
from .process_calls import ProcessCall
from .records import warn_of_leaks, warn_of_swallowing
from .transaction_calls import TransactionCall
from .undoing import Undoing
from .updates import Updates
from .waits import MessageWait, StepCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from duramen._bridge import Outcome, Turn
    from duramen._handlers.context import Context
    from duramen._handlers.retry import Retry
    from duramen._handlers.step import StepPlan
    from duramen._handlers.workflow import WorkflowDef
    from duramen._values.serializer import Serializer

    from .services import Services

__all__ = ["RunHost"]

_SLICE = 10_000
"""Callbacks that a handler may run before the program's own loop has its turn."""

_SPINNING = 100
"""Slices in a row after which a handler is said to spin."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0
"""Seconds between two looks whether what was out is back: doubled each time."""


class _NoTimers:
    """Keeps the timers of a loop whose run is over: there are none."""

    def open_timer(self, handle: RunTimer, /) -> None:
        raise RunEvicted(f"the run was over when its code asked for {handle!r}")

    def close_timer(self, handle: RunTimer, /) -> None: ...


_NO_TIMERS = _NoTimers()


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
        self.scope: str = run.scope
        self.definition = definition
        self.services = services
        self.serializer: Serializer = services.serializer
        self.loads = services.serializer.loads
        self.retry: Retry | None = definition.retry
        self.pauses_run = definition.pauses_run
        self.loop = RunLoop(self, now=run.now() / 1000, strict=True, run_id=self.run_id)
        self.main: Task[Any] | None = None
        self.step_context = definition.step_context
        self.step_middleware = services.around.step_middleware + definition.step_middleware
        self.closed = False
        """Nothing of the handler runs any more."""
        self.undoing = Undoing()
        self.outcome: tuple[int, Any] | None = None
        """How the handler ended (as `Run.finish` is told), with its value or error: durable only once the
        engine has said so."""
        self.output: bytes | None = None
        """The output of a handler that has returned, as it is recorded."""
        self.children: dict[str, Child] = {}
        """Its attached children that are not known to have ended, by their operations."""
        self._wish: Wish | None = None
        self._slots: dict[int, Any] = {}
        self._halted = False
        self._advancing = False
        self._fresh = False
        self._slices = 0
        self.context: Context[Any] | None = None
        self.updates = Updates()
        self.queries: dict[str, Callable[..., Any]] = {}
        """What answers the handler's queries, by their names."""
        self.tokens: dict[str, tuple[Any]] = {}
        """The types of its completion tokens, by their ids."""
        self._state = b""
        """The state as it was recorded last, without codecs."""
        self._turn: Turn | None = None
        """What the engine wants next and has not been done yet."""
        self._held_up = False
        """What was asked last needs something that is out: nothing goes on meanwhile."""
        self._again: list[Callable[[], object]] = []
        """What is to be done once that is back."""
        self._retry: TimerHandle | None = None
        self._retries = 0
        self._out_since = 0.0
        self._leaving: str | None = None
        self._parking: str | None = None
        self.reason_payload = b'""'
        """Payload of the reason of the run's cancellation."""

    def __repr__(self) -> str:
        return f"<RunHost of {self.run.run_id!r}{' closed' if self.closed else ''}>"

    # -- driving ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin with the handler and go as far as possible. Flush the engine afterwards.

        Raises:
            KeyboardInterrupt: as `advance`.
        """
        if self.closed:
            return
        try:
            self._begin()
        except BaseException as error:
            if self._way_out(error, self.start):
                raise
        else:
            self.advance()

    def _begin(self) -> None:
        definition = self.definition
        value: Any = None
        if definition.hooks:
            hooks.prepare(self, "stuck")
        try:
            state = None if definition.state_type is None else definition.state_type()
            if definition.has_input:
                value = self.loads(self.run.input, definition.input_type)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - bad input, or a state type that cannot be made
            self.expect_trouble(error)
            unfit = issubclass(type(error), DeserializationError)
            if unfit and self.run.journal_len() > 1:
                # It has been read before, so it is the code that has changed.
                self.run.cannot_read("", text_of(error))
                self._give_up()
                return
            if unfit:
                note(error, f"the input of run {self.run.run_id!r} does not fit its workflow")
            self._close_with(FINISH_FAILED, error)
            return
        # Not Context[Any](…): going through an alias costs as much as all the rest of it.
        context: Context[Any] = definition.context(self, state, value)
        self.context = context
        variables = self.services.context.copy()
        variables.run(current_context.set, context)
        self.main = self.loop.create_task(handled(self, context, value), name="handler", context=variables)

    def advance(self) -> None:  # noqa: C901 - every call here is paid for by each step
        """Go on until nothing is left to do but wait. Flush the engine afterwards.

        Raises:
            KeyboardInterrupt: as raised while the handler ran; the run is given back.
        """
        if self.closed or self._advancing:
            return
        if self._leaving is not None:
            self._give_back(self._leaving)
            return
        if self._parking is not None:
            self._park(self._parking)
            return
        if self.main is None or self._held_up:
            return
        loop = self.loop
        main = self.main
        turn = self.run.turn
        self._advancing = loop.delivering = True
        try:
            while True:
                if loop.ready and not self._drain():
                    return
                if self._halted:
                    self._give_up()
                    return
                if self._held_up:
                    return
                if self.updates:
                    self.updates.settle(self)
                if main.done():
                    self._ended(main)
                    return
                if self.definition.state_type is not None and not self._look_at_state():
                    return
                step = self._turn or turn()
                if step is None:
                    return
                while step is not None:
                    self._turn = step
                    step = self._act(step)
                self._turn = None
        except BaseException as error:
            if self._way_out(error, self.advance):
                raise
        finally:
            self._advancing = loop.delivering = False

    def _drain(self) -> bool:
        """Run what is ready. False if the handler spins, and the program's own loop must have its turn."""
        while True:
            try:
                if self.loop.drain(_SLICE):
                    self._slices = 0
                    return True
                break
            except SystemExit:
                # The exit of a handler is that of its run: it must not take down every worker in turn.
                continue
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
        elif type(turn) is Apply:
            self.updates.apply(self, turn)
        elif type(turn) is Seal:
            self._slots[turn.slot].sealed(turn.change)
        elif type(turn) is Cancel:
            self.loop.now = turn.at / 1000
            self._wish = None
            if self.main is not None and not self.undoing.is_active:
                self.reason_payload = turn.reason
                self.main.cancel(self._reason_text(turn.reason) or None)
        else:
            self.loop.now = turn.at / 1000
            self._wish = None
            if self.main is not None and not self.undoing.is_active:
                self.main.cancel("the run's time is over")
        return None

    def _deliver(self, turn: Deliver) -> None:
        self.loop.now = turn.at / 1000
        entry = self._slots.pop(turn.slot)
        outcome = turn.outcome
        cls = entry.__class__
        try:
            if cls is RunTimer:
                self.loop.fire(entry)
            elif issubclass(cls, StepCall):
                future: Future[Any] = entry.future
                if type(outcome) is Completed:
                    payload = outcome.payload
                    if payload is None:
                        future.set_result(entry.value)
                    else:
                        self._resolve(future, payload, entry)
                elif type(outcome) is Failed:
                    self._fail(future, outcome.error, entry.op)
                else:
                    entry.time_is_over()
            elif cls is MessageWait:
                self._bring(entry, outcome)
            elif cls is Child:
                self._child_ended(entry, outcome)
            else:
                entry.set_result(None)
        except Trouble:
            self._slots[turn.slot] = entry  # until it can be read
            raise

    def _bring(self, wait: MessageWait, outcome: Outcome) -> None:
        if type(outcome) is not Received:
            wait.future.set_result((False, None))
        elif (payload := outcome.payload) is None:
            wait.future.set_result((True, wait.value))
        else:
            try:
                value = self._message(payload, wait.type)
            except BaseException as error:  # noqa: BLE001 - as below
                self.cannot_read(wait.op, error)
            else:
                wait.future.set_result((True, value))

    def _child_ended(self, child: Child, outcome: Outcome) -> None:
        if type(outcome) is ChildEnded:
            try:
                child.ended(self.serializer, outcome.how, outcome.payload)
            except BaseException as error:  # noqa: BLE001 - as below
                self.cannot_read(child.op, error)

    def _resolve(self, future: Future[Any], payload: bytes, call: StepCall) -> None:
        try:
            value = self.loads(payload, call.plan.result)
        except BaseException as error:  # noqa: BLE001 - recorded under other code, with another type
            self.cannot_read(call.op, error)
        else:
            future.set_result(value)

    def _fail(self, future: Future[Any], payload: bytes, op: str) -> None:
        try:
            failure = step_failure(self.serializer, op, payload)
        except BaseException as error:  # noqa: BLE001 - as above; also what a user's codec raises
            self.cannot_read(op, error)
        else:
            future.set_exception(failure)

    def cannot_read(self, op: str, error: BaseException) -> None:
        """Park the run, unless it is a codec that is out, or the process that is told to end."""
        if issubclass(type(error), KeyboardInterrupt):
            raise error
        self.expect_trouble(error)
        self.run.cannot_read(op, text_of(error))

    def _message(self, payload: bytes, type: Any) -> Any:  # noqa: A002
        if type is Decision:
            return load_decision(self.serializer, payload)
        if type.__class__ is TokenType:
            return load_answer(self.serializer, payload, type)
        return self.loads(payload, type)

    def _offer(self, turn: Offer) -> Turn | None:
        if (taker := self.updates.taker(turn.slot)) is not None:
            return self.updates.offer(self, taker, turn)
        entry: MessageWait = self._slots[turn.slot]
        try:
            entry.value = self._message(turn.payload, entry.type)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a user's type or serializer has against it
            self.expect_trouble(error)
            self.run.refuse(text_of(error))
            return None
        return self.run.accept()

    def _reason_text(self, reason: bytes) -> str:
        try:
            decode(self.serializer, reason)
        except Exception as error:  # noqa: BLE001 - only what is out is of interest here
            self.expect_trouble(error)
        return load_reason(self.serializer, reason)

    @property
    def reason(self) -> str:
        """Why the run is cancelled, if it is."""
        return load_reason(self.serializer, self.reason_payload)

    @property
    def is_over(self) -> bool:
        """Nobody goes on with the run here, although its handler may not have ended."""
        return self._halted or self.loop.evicted

    def _look_at_state(self) -> bool:
        """Hand over the state if it has changed. False: it has no payload, and the run has failed."""
        context = self.context
        if context is None or self.run.replaying:
            return True
        try:
            plain = plain_payload(self.serializer, context.state, self.definition.state_type)
            if plain == self._state:
                return True
            state = encoded(self.serializer, plain)
        except (Trouble, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - also what a user's serializer raises
            note(error, f"the state of run {self.run.run_id!r} cannot be recorded")
            self._close_with(FINISH_FAILED, error)
            return False
        self._state = plain
        self.run.set_state(state)
        if self.services.on_state is not None:
            try:
                self.services.on_state(self, state)
            except Exception:
                self.services.log.exception("the state of run %r could not be told", self.run.run_id)
        return True

    def state_has_strayed(self) -> bool:
        """Whether the state has changed since the handler came to rest: then somebody else has changed it."""
        context = self.context
        if context is None or self.definition.state_type is None or self.run.replaying or not self._state:
            return False
        try:
            plain = plain_payload(self.serializer, context.state, self.definition.state_type)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - the handler hears of it at its next turn
            return True
        return plain != self._state

    # -- ways out --------------------------------------------------------------------------------------------

    def _way_out(self, error: BaseException, again: Callable[[], object]) -> bool:
        """Decide what becomes of the run after something was raised through it. True: it is raised on."""
        try:
            return self._decide(error, again)
        except KeyboardInterrupt:
            self._give_back("the process is interrupted")
            raise
        except BaseException as worse:  # noqa: BLE001 - whatever is wrong, nobody would drive it any more
            self._give_back(f"it could not be driven on: {name_of(worse)}: {text_of(worse)}")
            return False

    def _decide(self, error: BaseException, again: Callable[[], object]) -> bool:
        cls = type(error)
        if cls is Halted:
            self._halted = True
            self._give_up()
        elif cls is Trouble:
            self._held_up = True
            self.wait_out(error, partial(self._go_on, again))
        elif issubclass(cls, KeyboardInterrupt):
            self._give_back("the process is interrupted")
            return True
        else:
            say(self.services.log, f"run {self.run.run_id!r} cannot be driven on", error)
            reason = f"it could not be driven on: {name_of(error)}: {text_of(error)}"
            if issubclass(cls, MemoryError | OSError):
                self._give_back(reason)
            else:
                self._park(reason)
        return False

    def _give_up(self) -> None:
        """The engine refused to go on. If the code does not fit the journal, it still has to park the run."""
        self._drop()
        try:
            self.run.turn()
        except Halted:
            pass

    def park(self, why: str) -> None:
        """Only people can help this run: it is parked with the reason in the loop's next turn."""
        self._parking = self._parking or why
        self.services.touched(self)

    def _park(self, why: str) -> None:
        self.run.cannot_read("", why)
        self._give_up()

    def leave(self, why: str) -> None:
        """An attempt ended without an outcome: the run is given back in the loop's next turn."""
        self._leaving = self._leaving or why
        self.services.touched(self)

    def _give_back(self, why: str) -> None:
        self.services.log.warning(
            "run %r is given back: %s; what was not recorded here is done again by whoever takes it up",
            self.run.run_id,
            why,
        )
        self.run.abandon()
        try:
            self._drop()
        finally:
            self.services.given_back(self)

    def wait_out(self, trouble: BaseException, again: Callable[[], object]) -> None:
        """Call `again` when that may have passed: soon, then less and less often.

        It is not waited for without end: the run is given back when its pass is over. With its lease it goes
        elsewhere anyway.
        """
        services = self.services
        cause = trouble if trouble.__cause__ is None else trouble.__cause__
        if services.later is None or (services.deadline is not None and services.deadline <= monotonic()):
            self.leave(f"{name_of(cause)}: {text_of(cause)}")
            return
        self._again.append(again)
        if self._retry is not None:
            return
        if not self._retries:
            services.log.warning(
                "run %r waits for something that is out, and keeps what it has: %s: %s",
                self.run.run_id,
                name_of(cause),
                text_of(cause),
            )
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self._retries, 10))
        self._retries += 1
        self._retry = services.later(pause, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        waiting, self._again = self._again, []
        for again in waiting:
            try:
                again()
            except BaseException as error:
                if self._way_out(error, again):
                    raise
        if not self._again:
            self._retries = 0
            self._out_since = 0.0
        self.services.touched(self)

    def _go_on(self, again: Callable[[], object]) -> None:
        self._held_up = False
        again()

    def expect_trouble(self, error: BaseException) -> None:
        """Raise `Trouble` if a payload could not be read because a codec is out, and may be back soon."""
        cause = reading_trouble(error)
        if cause is None or self.services.later is None:
            return
        now = monotonic()
        self._out_since = self._out_since or now
        if now - self._out_since < self.services.patience:
            raise Trouble from cause

    async def out(self, error: BaseException) -> bool:
        """Wait if a payload could not be read because a codec is out. True: read it again."""
        try:
            self.expect_trouble(error)
        except Trouble as trouble:
            await self.sit_out(trouble)
            return True
        return False

    def _wake(self, back: Future[Any]) -> None:
        self.loop.delivering = True
        try:
            if not back.done():
                back.set_result(None)
        finally:
            self.loop.delivering = False
        self.advance()

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
        until: Callable[[Any], object] | None = None,
    ) -> Any:
        """Wait for a step (or a transaction, or a poll) that was just requested."""
        future: Future[Any] = Future(loop=self.loop)
        if transaction:
            call = TransactionCall(self, slot, future, plan, args, retry, timeout, meta, database)
        elif plan.remote is not None:
            call = ProcessCall(self, slot, future, plan, args, retry, timeout, meta)
        elif until is not None:
            call = PollCall(self, slot, future, plan, args, retry, timeout, meta, until)
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
        wait = self.open_message(slot, type)
        try:
            return await wait.future
        except BaseException:
            self.forget(slot)
            raise

    def open_wait(self, slot: int, child: Child) -> None:
        """Wait for the end of a child."""
        self._slots[slot] = child

    def new_child(self, op: str, run_id: str, type: Any, *, attached: bool) -> Child:  # noqa: A002
        """A child that was just started."""
        return Child(self, op, run_id, type, attached=attached)

    async def payload_of(self, value: Any, type: Any) -> bytes:  # noqa: A002
        """Give the payload of a value that leaves the run."""
        while True:
            try:
                return encoded(self.serializer, plain_payload(self.serializer, value, type))
            except Trouble as trouble:
                await self.sit_out(trouble)

    async def sit_out(self, trouble: BaseException) -> None:
        """Wait until a codec that is out may be back."""
        back: Future[Any] = Future(loop=self.loop)
        self._held_up = True
        self.wait_out(trouble, partial(self._go_on, partial(self._wake, back)))
        await back

    def open_message(self, slot: int, type: Any) -> MessageWait:  # noqa: A002
        """Begin to wait for an event, a decision or what a token brings."""
        wait = MessageWait(Future(loop=self.loop), self.run.last_op(), type)
        self._slots[slot] = wait
        return wait

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

    def wish_for(self, value: Any, version: str | WorkflowDef[Any, Any] | None) -> None:
        """Once the handler has ended the run continues as new."""
        definition = next_version(self.services, self.run.workflow, version)
        self._wish = Wish(self.serializer, definition, value)

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

    def step_not_yet(self, slot: int) -> None:
        """Report a look of a poll that has found nothing."""
        self.run.step_not_yet(slot)
        self.services.touched(self)

    def step_failed(self, slot: int, error: bytes, retryable: bool) -> int | None:
        """Report a failed attempt; gives the milliseconds until the next one, if there is to be one."""
        pause = self.run.step_failed(slot, error, retryable)
        self.services.touched(self)
        return pause

    # -- the end ---------------------------------------------------------------------------------------------

    def _ended(self, main: Task[Any]) -> None:
        """The handler has returned or raised."""
        kind, value = ending_of(self, main, self._wish)
        # A state that cannot be recorded has failed the run.
        if kind != FINISH_COMPLETED or self.definition.state_type is None or self._look_at_state():
            self._close_with(kind, value)

    def _close_with(self, kind: int, value: Any) -> None:
        run = self.run
        kind, value, payload, word = recorded_end(self, kind, value)
        if kind == FINISH_COMPLETED:
            self.output = payload
        # From here on nothing has to be done twice.
        log = self.services.log
        warn_of_leaks(log, run, self.loop.leaked_tasks(self.main))
        if kind == FINISH_COMPLETED:
            warn_of_swallowing(log, run)
        self.outcome = (kind, value)
        self._drop()
        try:
            run.finish(kind, payload, word)
            while run.turn() is not None:
                pass  # nothing is left to deliver to; the last commit goes on its way
        except Halted:
            self._give_up()
            return
        if self.services.on_finished is not None:
            try:
                self.services.on_finished(self, kind, value)
            except Exception:
                self.services.log.exception("the end of run %r could not be told", run.run_id)

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
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._again.clear()
        self._turn = None
        slots, self._slots = self._slots, {}
        for entry in slots.values():
            if isinstance(entry, StepCall):
                entry.stop()
        try:
            self.loop.abandon()
        finally:
            # Cuts the circles, so that memory comes back without the collector.
            self.loop.timers = _NO_TIMERS
            self.main = self.context = None
            self.children.clear()
            self.updates.clear()
            self.queries = {}  # whoever reads a copy has kept them
