"""What all calls of a context stand on: their run, where they may be made, how the engine refuses."""

from __future__ import annotations

from asyncio import Future
from typing import TYPE_CHECKING, Any, NoReturn

from duramen._bridge import Halted, InvalidIdError, invalid_id
from duramen._handlers.step_context import current_step
from duramen._loop.insides import get_running_loop
from duramen._values.payloads import step_failure
from duramen.errors import NotADurableContext, RunEvicted

if TYPE_CHECKING:
    from duramen._driving.host import RunHost
    from duramen._handlers.step import StepPlan
    from duramen.errors import StepFailed

__all__ = ["Calls"]


class Calls:
    """The run of a context, as its calls see it."""

    __slots__ = ("_host", "_loop", "_maps", "_request_step", "_run")

    def __init__(self, host: RunHost) -> None:
        self._host = host
        self._run = host.run
        self._request_step = host.run.step
        self._loop = host.loop
        self._maps = 0
        """How many maps without an id of their own there were."""

    def _ended(self, error: Halted) -> None:
        """Nobody drives the run any more, and this call cannot wait for that to take effect."""
        self._host.halt()
        self._loop.unwind(str(error) or "this run is no longer driven here")

    def _check(self, call: str) -> None:
        if get_running_loop() is not self._loop:
            self._refuse(call)

    def _refuse(self, call: str) -> None:
        if self._loop.evicted and current_step.get() is None:
            self._loop.unwind(f"the run was dropped from memory while its code called {call}")
            return  # the engine says `Halted` to whatever follows
        where = "after its handler had ended" if self._host.closed else "outside of its handler"
        raise NotADurableContext(
            f"{call} was called {where}: durable calls belong to the handler and the tasks that it makes, "
            "not to steps, threads or other event loops"
        )

    async def _recorded(self, plan: StepPlan, found: tuple[bool, bytes, int]) -> Any:
        """What the journal has of a step: whether it succeeded, its payload, when (ms)."""
        ok, payload, at = found
        self._loop.now = at / 1000
        if ok:
            return await self._read_with_care(plan, payload)
        raise await self._recorded_failure(payload)

    async def _recorded_failure(self, payload: bytes) -> StepFailed:
        op = self._run.last_op()
        while True:
            try:
                return step_failure(self._host.serializer, op, payload)
            except Exception as error:  # noqa: BLE001 - whatever a user's codec raises
                if not await self._host.out(error):
                    self._run.cannot_read(op, str(error))
                    await self._failed(error)

    async def _read_with_care(self, plan: StepPlan, payload: bytes) -> Any:
        op = self._run.last_op()
        while True:
            try:
                return self._host.loads(payload, plan.result)
            except Exception as error:  # noqa: BLE001 - whatever a user's serializer raises
                if not await self._host.out(error):
                    self._run.cannot_read(op, str(error))
                    await self._failed(error)

    async def _failed(self, error: BaseException) -> NoReturn:
        """End a call that the engine refused."""
        if isinstance(error, InvalidIdError):
            raise invalid_id(error) from None
        self._host.halt()
        # No exception, for the code may swallow it and ask again without end: it waits here until it is
        # dropped.
        await Future(loop=self._loop)
        raise RunEvicted(str(error) or "this run is no longer driven here") from None
