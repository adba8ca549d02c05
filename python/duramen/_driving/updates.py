"""The updates of one run: which its handler takes, and what becomes of those that were accepted."""

from __future__ import annotations

from asyncio import CancelledError
from collections import deque
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from duramen._handlers.step import current_context

from .exits import Trouble, failure_payload, name_of, note, recorded, text_of

if TYPE_CHECKING:
    from asyncio import Task
    from collections.abc import Callable

    from duramen._bridge import Apply, Offer, Turn
    from duramen._handlers.requests import Plan

    from .host import RunHost

__all__ = ["Taker", "Updates"]


class Taker:
    """The updates of a name, and the function that applies them."""

    __slots__ = ("fn", "name", "plan", "validate", "value")

    def __init__(
        self, name: str, fn: Callable[..., Any], plan: Plan, validate: Callable[..., object] | None
    ) -> None:
        self.name = name
        self.fn = fn
        self.plan = plan
        self.validate = validate
        self.value: Any = None
        """The payload that was read last."""

    def call(self, fn: Callable[..., Any]) -> Any:
        """Call a function with the payload, if it takes one."""
        return fn(self.value) if self.plan.takes_payload else fn()


class _Applied:
    """An update that was accepted."""

    __slots__ = ("result", "slot", "task")

    def __init__(self, slot: int, result: Any, task: Task[Any]) -> None:
        self.slot = slot
        self.result = result
        self.task = task


class Updates:
    """See the module's docstring. It belongs to one `RunHost`, and keeps nothing of it."""

    __slots__ = ("_ended", "_takers")

    def __init__(self) -> None:
        self._takers: dict[int, Taker] = {}
        self._ended: deque[_Applied] = deque()

    def take(
        self,
        slot: int,
        name: str,
        fn: Callable[..., Any],
        plan: Plan,
        validate: Callable[..., object] | None,
    ) -> None:
        """The handler takes the updates of a name; asked for again, by another function from now on."""
        self._takers[slot] = Taker(name, fn, plan, validate)

    def taker(self, slot: int) -> Taker | None:
        """Who takes what is offered to that slot, if it is an update."""
        return self._takers.get(slot)

    def offer(self, host: RunHost, taker: Taker, offer: Offer) -> Turn | None:
        """Accept an update, or refuse it with a reason.

        Raises:
            Trouble: a codec is out, so it cannot be read yet.
            KeyboardInterrupt: as raised by the user's code.
        """
        try:
            _read(host, taker, offer.payload)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a user's type or serializer has against it
            host.expect_trouble(error)
            host.run.refuse(text_of(error))
            return None
        if taker.validate is not None:
            try:
                taker.call(taker.validate)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - it refuses by raising whatever it likes
                host.run.refuse(text_of(error) or name_of(error))
                return None
        return host.run.accept()

    def apply(self, host: RunHost, turn: Apply) -> None:
        """Begin with an update that was accepted, now or when it was recorded.

        Raises:
            Trouble: a codec is out, so it cannot be read yet.
        """
        host.loop.now = turn.at / 1000
        taker = self._takers[turn.taker]
        if turn.payload is not None:
            try:
                _read(host, taker, turn.payload)
            except BaseException as error:  # noqa: BLE001 - recorded under other code, with another type
                host.cannot_read(host.run.last_op(), error)
                return
        call = partial(taker.fn, taker.value) if taker.plan.takes_payload else taker.fn
        variables = host.services.context.copy()
        variables.run(current_context.set, host.context)
        task = host.loop.create_task(_applied(call), name=f"update {taker.name}", context=variables)
        applied = _Applied(turn.slot, taker.plan.result, task)
        task.add_done_callback(partial(self._note, applied))

    def _note(self, applied: _Applied, _: object) -> None:
        self._ended.append(applied)

    def __bool__(self) -> bool:
        """Whether functions have ended that the engine has not been told of."""
        return bool(self._ended)

    def settle(self, host: RunHost) -> None:
        """Tell the engine how functions have ended.

        Raises:
            Trouble: a codec is out; those that are left are told later.
        """
        while self._ended:
            applied = self._ended[0]
            ok, payload = _outcome(host, applied)
            host.run.update_done(applied.slot, ok, payload)
            self._ended.popleft()

    def clear(self) -> None:
        """The run is over: cuts the circles, since functions know their handler's context."""
        self._takers.clear()
        self._ended.clear()


def _read(host: RunHost, taker: Taker, payload: bytes) -> None:
    taker.value = host.loads(payload, taker.plan.payload) if taker.plan.takes_payload else None


def _outcome(host: RunHost, applied: _Applied) -> tuple[bool, bytes]:
    serializer = host.serializer
    task = applied.task
    if task.cancelled():
        return False, failure_payload(serializer, CancelledError("the handler cancelled this update"))
    error = task.exception()
    if error is None:
        try:
            return True, recorded(serializer, task.result(), applied.result)[0]
        except (Trouble, KeyboardInterrupt):
            raise
        except BaseException as failure:  # noqa: BLE001 - also what a user's serializer raises
            note(failure, "the result of the update cannot be recorded")
            error = failure
    return False, failure_payload(serializer, error)


async def _applied(call: Callable[[], Any]) -> Any:
    result = call()
    return await result if isawaitable(result) else result
