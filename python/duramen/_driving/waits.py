"""What a handler waits for: a step over all its attempts, an event, a decision."""

from __future__ import annotations

from asyncio import CancelledError
from contextvars import Context as ContextVars
from contextvars import copy_context
from functools import partial
from inspect import isawaitable
from threading import Lock
from time import time
from typing import TYPE_CHECKING, Any

from duramen._handlers.callables import is_async_callable
from duramen._handlers.middleware import go_through
from duramen._handlers.step import current_context
from duramen._handlers.step_context import current_step

from .exits import (
    Trouble,
    failure_payload,
    is_cancellation,
    may_retry,
    name_of,
    note,
    plain_payload,
    plain_value,
    recorded,
    say,
    text_of,
)
from .records import attempt_failed
from .stepper import NoOutcome, StepJob
from .streams import Writes, over
from .telling import Telling

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Awaitable, Callable, Mapping

    from duramen._handlers.retry import Retry
    from duramen._handlers.step import StepPlan
    from duramen._handlers.step_context import StepContext

    from .host import RunHost

__all__ = ["MessageWait", "StepCall"]

_beginning = Lock()
"""Held while the first item of an attempt is taken: its threads may all write at once."""


class StepCall:
    """A step that a handler waits for: over all its attempts.

    An attempt is open from `start` until it is settled, once: its outcome is reported to the run (`_report`),
    the run is given back, or nobody waits for it any more (`stop`). See `exits`.
    """

    __slots__ = (
        "args", "attempt", "future", "host", "job", "meta", "op", "plan", "retry", "run_id", "scope",
        "slot", "started", "stopped", "telling", "timeout", "value", "variables", "writes",
    )  # fmt: skip

    def __init__(
        self,
        host: RunHost,
        slot: int,
        future: Future[Any],
        plan: StepPlan,
        args: tuple[Any, ...],
        retry: Retry | None,
        timeout: float | None,
        meta: Mapping[str, Any] | None,
    ) -> None:
        self.host = host
        self.run_id = host.run_id
        self.scope = host.scope
        self.slot = slot
        self.future = future
        self.plan = plan
        self.args = args
        self.retry = retry
        self.timeout = timeout
        self.meta = meta
        self.op: str = host.run.last_op()
        self.attempt = 0
        self.started = 0.0
        self.job: StepJob | None = None
        self.stopped = False
        self.writes: Writes | None = None
        """What the attempt has written to streams."""
        self.telling: Telling | None = None
        """What the attempt under way tells of its progress, once it does."""
        self.value: Any = None
        self.variables: ContextVars = copy_context()
        """The context variables of the handler's task where it asked for the step."""

    def entered(self, attempt: StepContext) -> ContextVars:
        """What an attempt runs in: the handler's context variables, in a step and not in a handler."""
        variables = self.variables.copy()
        variables.run(_enter_step, attempt)
        return variables

    def start(self, attempt: int) -> None:
        """Hand an attempt to the stepper."""
        host = self.host
        self.attempt = attempt
        self.writes = None
        if self.timeout is not None:
            self.started = time()
        now = host.step_context(self)
        if host.step_middleware:
            self.submit(self._go_through, (now,), now)
        else:
            self.submit(self.plan.call, self.args, now)

    def submit(self, call: Callable[..., Any], args: tuple[Any, ...], now: StepContext) -> None:
        """Have the stepper make a call that is the attempt."""
        host = self.host
        self.job = job = StepJob(
            call,
            args,
            done=self.done,
            timeout=self.timeout,
            heartbeat=self.plan.heartbeat,
            context_setup=self.entered(now),
            may_start=host.run.holds_lease,
            on_cancel=now.end,
        )
        host.services.stepper.submit(job)

    async def _go_through(self, now: StepContext) -> Any:
        """Run an attempt inside of its middleware."""
        return await go_through(self.host.step_middleware, now, partial(self.inside, now))

    async def inside(self, now: StepContext) -> Any:
        """Run the function of an attempt, inside of its middleware."""
        call, args = self.plan.call, self.args
        if is_async_callable(call):
            return await call(*args)
        host = self.host
        try:
            result = await host.services.stepper.in_thread(call, args, host.run.holds_lease)
        except CancelledError:
            now.end()  # the thread goes on, and may look
            raise
        return await result if isawaitable(result) else result

    def done(self, result: Any, error: BaseException | None) -> None:
        """Take the outcome of an attempt. It may run inside of a task, so it only takes note."""
        try:
            self._take(result, error)
        except BaseException as lost:
            self.host.leave(f"the outcome of step {self.op!r} was not recorded: {name_of(lost)}")
            if issubclass(type(lost), KeyboardInterrupt):
                raise
            say(self.host.services.log, f"the outcome of step {self.op!r} was lost", lost)

    def _take(self, result: Any, error: BaseException | None) -> None:
        host = self.host
        job = self.job
        if job is None or host.closed:
            return  # given up meanwhile
        if (writes := self.writes) is not None:
            if issubclass(type(error), NoOutcome | KeyboardInterrupt):
                writes.drop()
            elif not writes.settle(partial(self.done, result, error)):
                return
            elif error is None:
                error = writes.error
        self.job = None
        telling, self.telling = self.telling, None
        if telling is not None:
            telling.end(error is not None)
        if error is None:
            self.took(result)
        elif job.silent and is_cancellation(error):
            self._report(partial(self._fell_silent, error))
        elif issubclass(type(error), NoOutcome | KeyboardInterrupt) or (
            job.cancel_requested and is_cancellation(error)
        ):
            # The process or the runtime is on its way out.
            host.leave(f"step {self.op!r} was interrupted: {text_of(error) or name_of(error)}")
        else:
            self.failed(error)

    def took(self, result: Any) -> None:
        """Report what the function has returned."""
        host = self.host
        try:
            data, self.value = recorded(host.serializer, result, self.plan.result)
        except BaseException:  # noqa: BLE001 - once more, with care
            self._report(partial(self._succeeded, result))
        else:
            host.step_ok(self.slot, data)

    def failed(self, error: BaseException, *, final: bool = False) -> None:
        """Settle the attempt with a failure; if it is `final`, no other attempt will do better."""
        self._report(partial(self._failed, error, final))

    def _report(self, tell: Callable[[], None]) -> None:
        """Report an outcome; when that needs something that is out, later."""
        host = self.host
        if host.closed or self.stopped:
            return
        try:
            try:
                tell()
            except Trouble as trouble:
                host.wait_out(trouble, partial(self._report, tell))
        except KeyboardInterrupt:
            host.leave(f"the outcome of step {self.op!r} was not recorded: the process is interrupted")
            raise
        except BaseException as error:  # noqa: BLE001 - not even the failure has a payload
            host.park(f"the outcome of step {self.op!r} cannot be recorded: {text_of(error)}")

    def _succeeded(self, result: Any) -> None:
        try:
            data, self.value = recorded(self.host.serializer, result, self.plan.result)
        except (Trouble, KeyboardInterrupt):
            raise
        except BaseException as failure:  # noqa: BLE001 - also what a user's serializer raises
            note(failure, f"the result of step {self.op!r} cannot be recorded")
            self._failed(failure, final=True)
        else:
            self.host.step_ok(self.slot, data)

    def _failed(self, error: BaseException, final: bool) -> None:
        timed_out = self._ran_out(error)
        if timed_out:
            error = TimeoutError(f"step {self.op!r} took longer than its timeout of {self.timeout:g} s")
        retryable = not final and may_retry(error, self.retry)
        # The rules are asked once, however often a codec has to be.
        self._report(partial(self._tell_failure, error, timed_out, retryable))

    def _fell_silent(self, cancellation: BaseException) -> None:
        error = TimeoutError(
            f"step {self.op!r} showed no sign of life for its heartbeat_timeout of {self.plan.heartbeat:g} s"
        )
        error.__cause__ = cancellation
        retryable = may_retry(error, self.retry)
        self._report(partial(self._tell_failure, error, True, retryable))

    def _tell_failure(self, error: BaseException, timed_out: bool, retryable: bool) -> None:
        host = self.host
        payload = self.failure_payload(error, timed_out)
        pause = host.step_failed(self.slot, payload, retryable)
        attempts = 1 if self.retry is None else self.retry.attempts
        attempt_failed(host.run, self.op, self.attempt, attempts, error, pause)

    def failure_payload(self, error: BaseException, timed_out: bool) -> bytes:
        """What is recorded of a failed attempt."""
        return failure_payload(self.host.serializer, error, attempts=self.attempt, timed_out=timed_out)

    def _ran_out(self, error: BaseException) -> bool:
        return (
            self.timeout is not None
            and type(error) is TimeoutError
            and not error.args
            and time() - self.started >= self.timeout * 0.99
        )

    # -- what the attempt under way tells --------------------------------------------------------------------

    def plain(self, progress: Any, /) -> bytes:
        """The payload of a progress, without codecs."""
        return plain_payload(self.host.serializer, progress, None)

    def progress(self, told: bytes | None, /) -> Any:
        """What an attempt has told, else the last that was recorded."""
        host = self.host
        if told is not None:
            return plain_value(host.serializer, told)
        payload = host.run.progress(self.slot)
        return None if payload is None else host.loads(payload, None)

    def beat(self, attempt: StepContext, /) -> None:
        """Take note of a sign of life: on the host's loop, or from a thread."""
        self.host.services.stepper.on_loop(self._beat, attempt)

    def _beat(self, attempt: StepContext) -> None:
        told = attempt.read()
        job = self.job
        if job is None or attempt.attempt != self.attempt or self.host.closed:
            return
        self.host.services.stepper.beat(job)
        if told is not None:
            if self.telling is None:
                self.telling = Telling(self.host, self.slot, self.op)
            self.telling.tell(told)

    def emit(self, attempt: StepContext, name: str, value: Any, /) -> None:
        """Send a live event of an attempt that runs: on the host's loop, or from its thread."""
        self.host.services.stepper.on_loop(self._emit, attempt, name, value)

    def _emit(self, attempt: StepContext, name: str, value: Any) -> None:
        if attempt.attempt == self.attempt and self.job is not None and not self.host.closed:
            self.host.services.emit(self.run_id, name, value)

    def write(
        self, attempt: StepContext, stream: str, keep: int | None, item: Any, annotation: Any, /
    ) -> Awaitable[None]:
        """Take an item of a stream from an attempt: from the one that runs, and from no other."""
        with _beginning:
            if attempt.attempt != self.attempt or self.job is None:
                raise over(self.op, attempt.attempt)
            writes = self.writes
            if writes is None:
                writes = self.writes = Writes(self)
        return writes.write(stream, keep, item, annotation)

    def stop(self) -> None:
        """The handler no longer waits for it."""
        self.stopped = True
        if self.writes is not None:
            self.writes.drop()
        job, self.job = self.job, None
        if self.telling is not None:
            self.telling.end(False)
        if job is not None:
            job.cancel("the handler no longer waits for this step")


def _enter_step(attempt: StepContext) -> None:
    current_context.set(None)
    current_step.set(attempt)


class MessageWait:
    """An event or a decision that a handler waits for."""

    __slots__ = ("future", "op", "type", "value")

    def __init__(self, future: Future[Any], op: str, type: Any) -> None:  # noqa: A002
        self.future = future
        self.op = op
        self.type = type
        self.value: Any = None
