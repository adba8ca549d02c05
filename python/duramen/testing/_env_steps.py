"""Steps under a virtual clock: who is in flight, whose time is over, whose outcome is still held back."""

from __future__ import annotations

from asyncio import AbstractEventLoop, CancelledError
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import override

from duramen._driving.stepper import StepJob, Stepper
from duramen._driving.waits import StepCall

from ._arguments import Given

if TYPE_CHECKING:
    from duramen._bridge import Clock

__all__ = ["EnvStepper", "StepWatch"]


@dataclass(slots=True, eq=False)
class _Open:
    """A step in flight."""

    number: int
    job: StepJob
    call: StepCall
    done: Callable[[Any, BaseException | None], object]
    given: Given
    since: float
    """On the clock of `time.monotonic`."""
    deadline: int | None = None
    """On the virtual clock."""
    timed_out: bool = False
    heartbeat: int | None = None
    """How long it may show no sign of life, in milliseconds of the virtual clock."""
    silent_at: int | None = None
    silent: bool = False

    @property
    def next_end(self) -> int | None:
        """When the first of its limits is over."""
        if self.timed_out or self.silent:
            return None
        return min((at for at in (self.deadline, self.silent_at) if at is not None), default=None)


class StepWatch:
    """Watches the steps of one environment.

    Args:
        clock: the clock that the timeouts of steps go by.
        patience: a step that takes longer than so many real seconds is not waited for.
        one_by_one: outcomes are held back until `release`, which lets one through.
    """

    def __init__(self, clock: Clock, patience: float, *, one_by_one: bool) -> None:
        self._clock = clock
        self._patience = patience
        self._one_by_one = one_by_one
        self._begun = 0
        self._open: set[_Open] = set()
        self._held: list[tuple[int, partial[object]]] = []
        self.ordered = one_by_one
        """Whether outcomes are held back until all steps have ended that are worth waiting for, and come in
        the order in which the steps began. Else they come in the order in which the steps really ended, in
        which threads and the outside world have a say."""
        self.outcomes = 0
        """How many steps have ended so far."""
        self.on_start: Callable[[str, str, int], object] | None = None
        """Called with run id, operation id and attempt of each step that is about to begin."""
        self.closed = False
        """The process counts as dead: no step begins any more."""
        self.changes: list[str] = []
        """What has to be said of steps that changed what they were given."""

    def begin(self, job: StepJob) -> bool:
        """Take over a job's timeout and outcome. False if it must not begin."""
        if self.closed:
            return False
        call: StepCall = cast("Any", job.done).__self__
        if self.on_start is not None:
            self.on_start(call.run_id, call.op, call.attempt)
        self._begun += 1
        step = _Open(self._begun, job, call, job.done, Given(call.plan.call, call.args), monotonic())
        if job.timeout is not None:
            step.deadline = self._clock.now() + max(1, round(job.timeout * 1000))
            job.timeout = None
        if job.heartbeat is not None:
            step.heartbeat = max(1, round(job.heartbeat * 1000))
            step.silent_at = self._clock.now() + step.heartbeat
            job.heartbeat = None
        self._open.add(step)
        job.done = partial(self._done, step)
        return True

    def _done(self, step: _Open, result: Any, error: BaseException | None) -> None:
        self._open.discard(step)
        self.outcomes += 1
        self._note_changes(step)
        if step.timed_out and isinstance(error, CancelledError):
            step.call.started = float("-inf")  # as measured by the real clock it would not be late
            error = TimeoutError()
        step.job.silent = step.silent
        if self.ordered:
            self._held.append((step.number, partial(step.done, result, error)))
        else:
            step.done(result, error)

    def _note_changes(self, step: _Open) -> None:
        call = step.call
        what = step.given.changed()
        if call.host.state_has_strayed():
            what.append("the state (ctx.state)")
        if what:
            self.changes.append(
                f"step {call.op!r} of run {call.run_id!r} ({call.host.run.workflow}): while it ran, "
                f"{' and '.join(what)} changed. What a step changes is lost when the run is taken up again, "
                "for the step does not run then: let it return what is new, or give it a copy"
            )

    def release(self) -> bool:
        """Let outcomes through that were held back: one, or all. False if there is none."""
        if not self._held:
            return False
        self._held.sort(key=lambda held: held[0])
        last = 1 if self._one_by_one else len(self._held)
        now, self._held = self._held[:last], self._held[last:]
        for _, tell in now:
            tell()
        return True

    @property
    def in_flight(self) -> int:
        """How many steps are in flight, those too that are not worth waiting for."""
        return len(self._open)

    @property
    def busy(self) -> bool:
        """Whether a step is worth waiting for."""
        if not self._open:
            return False
        since = monotonic() - self._patience
        return any(step.since > since for step in self._open)

    @property
    def next_deadline(self) -> int | None:
        """When the next timeout of a step in flight ends."""
        return min((end for step in self._open if (end := step.next_end) is not None), default=None)

    def beat(self, job: StepJob) -> None:
        """A step shows a sign of life."""
        for step in self._open:
            if step.job is job and step.heartbeat is not None:
                step.silent_at = self._clock.now() + step.heartbeat

    def fire(self) -> bool:
        """Cancel the steps whose time is over, or that fell silent. True if there were any."""
        now = self._clock.now()
        late = [step for step in self._open if (end := step.next_end) is not None and end <= now]
        for step in late:
            step.timed_out = step.deadline is not None and step.deadline <= now
            step.silent = not step.timed_out
            step.since = monotonic()  # it gets the time to clean up
            step.job.cancel("the step's time is over")
        return bool(late)


class EnvStepper(Stepper):
    """A stepper whose jobs are watched."""

    def __init__(self, loop: AbstractEventLoop, watch: StepWatch, *, max_threads: int | None = None) -> None:
        super().__init__(loop, max_threads=max_threads)
        self._watch = watch

    @override
    def beat(self, job: StepJob) -> None:
        self._watch.beat(job)

    @override
    def submit(self, job: StepJob) -> None:
        if self._watch.begin(job):
            super().submit(job)
