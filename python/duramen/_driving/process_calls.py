"""Steps with ``where="process"``: an attempt is a call in a process that is killed when it is given up."""

from __future__ import annotations

from functools import partial
from time import time
from typing import TYPE_CHECKING, Any, cast

from typing_extensions import override

from duramen._handlers.remote import call_of
from duramen._values.exceptions import load_error, rebuild_error, stand_in
from duramen._values.payloads import with_attempts
from duramen._values.serializer import JsonSerializer
from duramen.errors import SerializationError

from .exits import encoded, note, say
from .frames import BEAT, CALL, DONE, UNFIT, pack
from .waits import StepCall

if TYPE_CHECKING:
    from duramen._handlers.remote import Remote
    from duramen._handlers.step_context import StepContext

    from .processes import Seat

__all__ = ["ProcessCall"]

_PLAIN = JsonSerializer(None)

_DOUBT = 0.05
"""Seconds after which it is asked again whether this process still has the run."""


class ProcessCall(StepCall):
    """A step in another process that a handler waits for: over all its attempts.

    Its function is found there by its name. Arguments and the result go there and back as JSON, by their
    annotations; exceptions as they are recorded.
    """

    __slots__ = ("is_unfit", "raised", "seat")

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seat: Seat | None = None
        self.raised: tuple[BaseException, bytes] | None = None
        """What the function raised, and how it was recorded where it was raised."""
        self.is_unfit = False
        """Something cannot be sent: no other attempt will do better."""

    @override
    def start(self, attempt: int) -> None:
        self.attempt = attempt
        self.raised = None
        self.seat = self.host.services.stepper.processes.take(self._begin)

    def _begin(self) -> None:
        """There is room for a process."""
        host = self.host
        if self.stopped or host.closed:
            return
        if not host.run.holds_lease() and host.services.later is not None:
            host.services.later(_DOUBT, self._begin)  # it may have waited for longer than a lease lasts
            return
        if self.timeout is not None:
            self.started = time()
        now = host.step_context(self)
        self.submit(self._go_through if host.step_middleware else self.inside, (now,), now)

    @override
    def done(self, result: Any, error: BaseException | None) -> None:
        self._leave()
        super().done(result, error)

    def _leave(self) -> None:
        seat, self.seat = self.seat, None
        if seat is not None:
            seat.leave()

    @override
    def stop(self) -> None:
        if self.job is None:
            self._leave()  # it has only waited in line
        super().stop()

    @override
    async def inside(self, now: StepContext) -> Any:
        remote = cast("Remote", self.plan.remote)
        frame = self._frame(remote)
        kind, data = await self.host.services.stepper.processes.run(frame, partial(self._told, now))
        if kind == DONE:
            return _PLAIN.loads(data, self.plan.result)
        recorded = load_error(data)
        if kind == UNFIT:
            self.is_unfit = True
            raise SerializationError(
                "$", f"the result of step {self.op!r} cannot be sent back: {recorded.message}"
            )
        error = rebuild_error(recorded) or stand_in(recorded)
        self.raised = error, data
        raise error

    def _frame(self, remote: Remote) -> bytes:
        host = self.host
        placed, named = call_of(self.plan.call, self.args)
        facts = {
            "module": remote.module,
            "name": remote.name,
            "run_id": self.run_id,
            "scope": self.scope,
            "op": self.op,
            "attempt": self.attempt,
            "timeout": self.timeout,
            "started": self.started,
            "meta": self.meta,
            "names": list(named),
        }
        progress = host.run.progress(self.slot)
        try:
            return pack(
                CALL,
                _PLAIN.dumps(facts, None),
                b"" if progress is None else _PLAIN.dumps(host.loads(progress, None), None),
                *(_PLAIN.dumps(value, remote.type_at(place)) for place, value in enumerate(placed)),
                *(_PLAIN.dumps(value, remote.type_of(name)) for name, value in named.items()),
            )
        except SerializationError as error:
            self.is_unfit = True
            note(error, f"step {self.op!r} runs in a process, so its arguments (and meta=) are sent to it")
            raise

    def _told(self, now: StepContext, message: list[bytes]) -> None:
        """The process has sent a sign of life, or a live event."""
        kind, *parts = message
        if kind == BEAT:
            if parts[0]:
                try:
                    now.heartbeat(_PLAIN.loads(parts[0], None))
                    return
                except Exception as error:  # noqa: BLE001 - what a serializer of the user's has against it
                    say(self.host.services.log, f"a progress of step {self.op!r} cannot be recorded", error)
            now.heartbeat()
        else:
            name, value = parts
            self.emit(now, name.decode(), _PLAIN.loads(value, None))

    @override
    def failed(self, error: BaseException, *, final: bool = False) -> None:
        super().failed(error, final=final or self.is_unfit)

    @override
    def failure_payload(self, error: BaseException, timed_out: bool) -> bytes:
        raised = self.raised
        if raised is None or raised[0] is not error:
            return super().failure_payload(error, timed_out)
        # As it was where it was raised, with that traceback.
        return encoded(self.host.serializer, with_attempts(raised[1], self.attempt))
