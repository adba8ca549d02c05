"""What a handler waits for: a step over all its attempts, an event, a decision."""

from __future__ import annotations

from contextvars import Context as ContextVars
from contextvars import copy_context
from functools import partial
from time import time
from typing import TYPE_CHECKING, Any

from duramen._handlers.step import current_context, current_step

from .exits import (
    Trouble,
    failure_payload,
    is_cancellation,
    may_retry,
    name_of,
    note,
    recorded,
    say,
    text_of,
)
from .records import attempt_failed
from .stepper import NoOutcome, StepJob

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable, Mapping

    from duramen._handlers.retry import Retry
    from duramen._handlers.step import StepPlan

    from .host import RunHost

__all__ = ["MessageWait", "StepCall"]


class StepCall:
    """A step that a handler waits for: over all its attempts.

    An attempt is open from `start` until it is settled, once: its outcome is reported to the run (`_report`),
    the run is given back, or nobody waits for it any more (`stop`). See `exits`.
    """

    __slots__ = (
        "args", "attempt", "future", "host", "job", "meta", "op", "plan", "retry", "run_id", "slot",
        "started", "stopped", "timeout", "value", "variables",
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
        self.value: Any = None
        self.variables: ContextVars = copy_context()
        """The context variables of the handler's task where it asked for the step."""

    def context(self) -> ContextVars:
        """What an attempt runs in: the handler's context variables, in a step and not in a handler."""
        variables = self.variables.copy()
        variables.run(_enter_step, self)
        return variables

    def start(self, attempt: int) -> None:
        """Hand an attempt to the stepper."""
        services = self.host.services
        self.attempt = attempt
        if self.timeout is not None:
            self.started = time()
        self.job = job = StepJob(
            self.plan.call,
            self.args,
            done=self.done,
            timeout=self.timeout,
            context_setup=self.context(),
            may_start=self.host.run.holds_lease,
        )
        services.stepper.submit(job)

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
        self.job = None
        if error is None:
            self.took(result)
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

    def _tell_failure(self, error: BaseException, timed_out: bool, retryable: bool) -> None:
        host = self.host
        payload = failure_payload(host.serializer, error, attempts=self.attempt, timed_out=timed_out)
        pause = host.step_failed(self.slot, payload, retryable)
        attempts = 1 if self.retry is None else self.retry.attempts
        attempt_failed(host.run, self.op, self.attempt, attempts, error, pause)

    def _ran_out(self, error: BaseException) -> bool:
        return (
            self.timeout is not None
            and type(error) is TimeoutError
            and not error.args
            and time() - self.started >= self.timeout * 0.99
        )

    def emit(self, name: str, value: Any, /) -> None:
        """Send a live event of the attempt that runs: on the host's loop, or from its thread."""
        self.host.services.stepper.on_loop(self._emit, self.job, name, value)

    def _emit(self, job: StepJob | None, name: str, value: Any) -> None:
        if job is not None and job is self.job and not self.host.closed:
            self.host.services.emit(self.run_id, name, value)

    def stop(self) -> None:
        """The handler no longer waits for it."""
        self.stopped = True
        job, self.job = self.job, None
        if job is not None:
            job.cancel("the handler no longer waits for this step")


def _enter_step(call: StepCall) -> None:
    current_context.set(None)
    current_step.set(call)


class MessageWait:
    """An event or a decision that a handler waits for."""

    __slots__ = ("future", "op", "type", "value")

    def __init__(self, future: Future[Any], op: str, type: Any) -> None:  # noqa: A002
        self.future = future
        self.op = op
        self.type = type
        self.value: Any = None
