"""What a handler waits for: a step over all its attempts, an event, a decision."""

from __future__ import annotations

from asyncio import CancelledError
from time import time
from typing import TYPE_CHECKING, Any

from duramen._handlers.retry import is_retryable
from duramen._handlers.step import current_step
from duramen._values.payloads import dump_failure
from duramen._values.serializer import round_trip

from .stepper import StepJob

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Mapping

    from duramen._handlers.retry import Retry
    from duramen._handlers.step import StepPlan

    from .host import RunHost

__all__ = ["MessageWait", "StepCall"]


class StepCall:
    """A step that a handler waits for: over all its attempts."""

    __slots__ = (
        "args", "attempt", "future", "host", "job", "meta", "op", "plan", "retry", "run_id", "slot",
        "started", "timeout", "value",
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
        self.value: Any = None

    def start(self, attempt: int) -> None:
        """Hand an attempt to the stepper."""
        services = self.host.services
        self.attempt = attempt
        if self.timeout is not None:
            self.started = time()
        variables = services.context.copy()
        variables.run(current_step.set, self)
        self.job = job = StepJob(
            self.plan.call,
            self.args,
            done=self.done,
            timeout=self.timeout,
            context_setup=variables,
            may_start=self.host.run.holds_lease,
        )
        services.stepper.submit(job)

    def done(self, result: Any, error: BaseException | None) -> None:
        """Take the outcome of an attempt. It may run inside of a task, so it only takes note."""
        host = self.host
        job = self.job
        if job is None or host.closed:
            return  # given up meanwhile
        self.job = None
        if error is None:
            try:
                data, self.value = round_trip(host.serializer, result, self.plan.result)
            except Exception as failure:  # noqa: BLE001 - also what a user's serializer raises
                error = failure
                failure.add_note(f"the result of step {self.op!r} cannot be recorded")
                retryable = False
            else:
                host.step_ok(self.slot, data)
                return
        elif isinstance(error, KeyboardInterrupt) or (
            job.cancel_requested and isinstance(error, CancelledError)
        ):
            # The process or the runtime is on its way out: that is no outcome; the step runs again elsewhere.
            return
        else:
            retryable = True
        timed_out = self._ran_out(error)
        if timed_out:
            error = TimeoutError(f"step {self.op!r} took longer than its timeout of {self.timeout:g} s")
        if retryable:
            retryable = is_retryable(error, self.retry)
        host.step_failed(
            self.slot,
            dump_failure(host.serializer, error, attempts=self.attempt, timed_out=timed_out),
            retryable,
        )

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
        job, self.job = self.job, None
        if job is not None:
            job.cancel("the handler no longer waits for this step")


class MessageWait:
    """An event or a decision that a handler waits for."""

    __slots__ = ("future", "op", "type", "value")

    def __init__(self, future: Future[Any], op: str, type: Any) -> None:  # noqa: A002
        self.future = future
        self.op = op
        self.type = type
        self.value: Any = None
