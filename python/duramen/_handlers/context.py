"""What a handler is given: its durable calls, the facts of its run, and its budget."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar as DefaultTypeVar
from typing_extensions import override

from duramen._logging import CarefulLogger, logger
from duramen._loop.insides import get_running_loop
from duramen._values.checks import check_id
from duramen._values.durations import duration_ms, from_ms
from duramen.errors import InvalidArgument

from .calls.children import ChildCalls
from .calls.generations import GenerationCalls
from .calls.maps import MapCalls
from .calls.polls import PollCalls
from .calls.requests import RequestCalls
from .calls.steps import StepCalls
from .calls.streams import StreamCalls
from .calls.ticks import ScheduleTick
from .calls.tokens import Token, TokenCalls
from .calls.undos import UndoCalls
from .calls.values import ValueCalls
from .calls.waits import Approval, WaitCalls
from .extensions import extend
from .step_context import current_step

if TYPE_CHECKING:
    import logging
    from datetime import datetime, timedelta

    from duramen._driving.host import RunHost

__all__ = ["Approval", "Context", "Token"]

StateT = DefaultTypeVar("StateT", default=Any)


class _RunLog(CarefulLogger):
    """Adds the run's fields to each record, and says nothing while the run is replayed."""

    def __init__(self, host: RunHost) -> None:
        run = host.run
        facts = {"run_id": run.run_id, "workflow": run.workflow, "version": run.version}
        super().__init__(
            logger("duramen.run").logger,
            {**facts, **{f"duramen_{name}": fact for name, fact in facts.items()}},
        )
        self._host = host

    @override
    def isEnabledFor(self, level: int) -> bool:
        return not self._host.run.replaying and super().isEnabledFor(level)


class Context(
    StepCalls,
    WaitCalls,
    ValueCalls,
    ChildCalls,
    MapCalls,
    GenerationCalls,
    StreamCalls,
    RequestCalls,
    TokenCalls,
    PollCalls,
    UndoCalls,
    Generic[StateT],
):
    """The first argument of every handler.

    Its durable calls belong to the handler and the tasks it makes, on the handler's own event loop. From
    anywhere else (a thread, a step, after the end) they raise `NotADurableContext`.

    A class that extends it has attributes that middleware sets, and methods made of its calls; a workflow
    names it, ``@workflow(context=ShopContext)``::

        class ShopContext(Context[Progress]):
            tenant: str
    """

    __slots__ = ("_input", "_log", "_state")

    def __init__(self, host: RunHost, state: Any, input: Any = None) -> None:  # noqa: A002
        super().__init__(host)
        self._input: Any = input
        self._state = state
        self._log: _RunLog | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        extend(cls, Context, "ctx")

    def __repr__(self) -> str:
        return f"<Context of run {self._run.run_id!r}>"

    # -- what others see -------------------------------------------------------------------------------------

    @property
    def state(self) -> StateT:
        """The run's state object, to be changed in place; others read it with ``runtime.get(run_id).state``.

        It goes into the store with the next commit, and is built up again by replay.

        Raises:
            InvalidArgument: the workflow has none: declare it with ``@workflow(state=…)``.
        """
        if self._host.definition.state_type is None:
            raise InvalidArgument("this workflow has no state: declare its type with @workflow(state=…)")
        return self._state

    @state.setter
    def state(self, value: StateT) -> None:
        if self._host.definition.state_type is None:
            raise InvalidArgument("this workflow has no state: declare its type with @workflow(state=…)")
        self._state = value

    def emit(self, name: str, value: Any = None) -> None:
        """Send a live event to whoever listens right now. It is not recorded, and not sent by replays.

        A step of this run may call it too (or ``step_context().emit``), also from its thread.

        Raises:
            InvalidId: the name cannot be used.
            NotADurableContext: called outside of the handler and its steps.
        """
        check_id("event name", name)
        if get_running_loop() is not self._loop:
            step = current_step.get()
            if step is not None and step.run_id == self._host.run_id:
                step.emit(name, value)
                return
            self._refuse("ctx.emit")
        if not self._run.replaying:
            self._host.services.emit(self._run.run_id, name, value)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger (``duramen.run``) whose records carry the run's fields; replays do not repeat them."""
        if self._log is None:
            self._log = _RunLog(self._host)
        return self._log

    # -- facts -----------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._host.run_id

    @property
    def input(self) -> Any:
        """The run's input, as the handler got it."""
        return self._input

    @property
    def attempt(self) -> int:
        """How often the run was taken up by a process so far, from 1. Do not base decisions on it."""
        return self._run.epoch

    @property
    def version(self) -> str:
        """The version of the workflow that the run began under."""
        return self._run.version

    @property
    def generation(self) -> int:
        """How often the run was continued as new before: 0 in its first generation."""
        return self._run.generation

    @property
    def tags(self) -> tuple[str, ...]:
        """The run's tags."""
        return tuple(self._run.tags)

    @property
    def schedule(self) -> ScheduleTick | None:
        """The fire time of a schedule for which the run was started, or None if no schedule started it."""
        tick = self._run.tick
        if tick is None:
            return None
        schedule_id, at, previous = tick
        return ScheduleTick(schedule_id, from_ms(at), None if previous is None else from_ms(previous))

    @property
    def deadline(self) -> datetime | None:
        """When the run's own time is over (UTC), or None."""
        deadline = self._run.deadline
        return None if deadline is None else from_ms(deadline)

    @property
    def replaying(self) -> bool:
        """Whether the handler repeats what is recorded. Do not base decisions on it."""
        return self._run.replaying

    # -- the budget ------------------------------------------------------------------------------------------

    def time_remaining(self) -> float | None:
        """Seconds that are left of the host's budget for this pass, or None without a limit.

        It is no recorded value: use it to decide about `yield_`, or inside of what one step does.
        """
        deadline = self._host.services.deadline
        return None if deadline is None else max(0.0, deadline - monotonic())

    def should_yield(self, min_remaining: timedelta | float | None = None) -> bool:
        """Whether less than `min_remaining` of the host's budget is left: a good moment for `yield_`.

        Always False on replay, where nothing is done that could take long.

        Args:
            min_remaining: seconds or `timedelta`. Default: what the host was told.
        """
        deadline = self._host.services.deadline
        if deadline is None or self._run.replaying:
            return False
        least = (
            self._host.services.min_remaining
            if min_remaining is None
            else duration_ms(min_remaining, "min_remaining") / 1000
        )
        return deadline - monotonic() < least

    async def yield_(self) -> None:
        """Hand the run over at the next durable call: it is released there, and due at once for the next one.

        Nothing is recorded, and on replay it does nothing.
        """
        self._check("ctx.yield_")
        self._host.yield_now()
