"""What the drivers of runs need of their runtime."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context as ContextVars
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from duramen._handlers.middleware import Middleware
from duramen._logging import CarefulLogger, logger
from duramen._loop.loop import keep_threads_out

if TYPE_CHECKING:
    # ruff: noqa: TC004 - a dataclass names them, and nothing asks it what they are
    from asyncio import Future, TimerHandle

    from duramen._bridge import Run
    from duramen._handlers.workflow import WorkflowDef
    from duramen._values.serializer import Serializer

    from .host import RunHost
    from .stepper import Stepper
    from .transactions import Transactions

__all__ = ["Around", "Services"]


def _ignore(*_: object) -> Any:
    """Stands for a service that nobody wants."""


def _unknown(*_: object) -> None:
    """Stands for a registry without workflows."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a runtime has around all handlers and steps, outside of what their workflows have."""

    middleware: tuple[Middleware[Any], ...] = ()
    step_middleware: tuple[Middleware[Any], ...] = ()


@dataclass(slots=True)
class Services:
    """What a `RunHost` needs of its runtime; shared by all its hosts, or by those of a pass with a budget."""

    stepper: Stepper
    serializer: Serializer
    touched: Callable[[RunHost], object]
    """Called when step outcomes came in: advance that host in a callback of the host's loop, then flush."""
    given_back: Callable[[RunHost], object] = _ignore
    """Called when the host has let its run go: nothing of it is driven here any more."""
    later: Callable[[float, Callable[[], object]], TimerHandle] | None = None
    """The `call_later` of the host's loop. Without one nothing that is out is waited for."""
    patience: float = 60.0
    """Seconds for which a payload is tried again that a codec cannot decode, before the run is parked: the
    key for it may be missing here for good. What a codec cannot encode is kept for as long as the run is."""
    definition: Callable[[str, str | None], WorkflowDef[Any, Any] | None] = _unknown
    """Finds a workflow that is registered here by name and version; without one the newest."""
    append: Callable[[Run, list[Any]], Future[Any]] | None = None
    """Sends what a step has written to streams, as `Run.append` takes it."""
    written: Callable[[str], object] = _ignore
    """Called with the id of a run when items of its streams are there to be read."""
    emit: Callable[[str, str, Any], object] = _ignore
    """Takes live events: run id, name, value."""
    context: ContextVars = field(default_factory=copy_context)
    """The context variables that handlers and steps start from."""
    deadline: float | None = None
    """When the budget of this pass is over, on the clock of `time.monotonic`."""
    min_remaining: float = 1.0
    """With fewer seconds of budget left no fresh step is started."""
    log: CarefulLogger = field(default_factory=lambda: logger("duramen"))
    on_finished: Callable[[RunHost, int, Any], object] | None = None
    """Called when the handler has ended (nothing is durable yet): kind, and its value or error."""
    on_state: Callable[[RunHost, bytes], object] | None = None
    """Called when the run's state object has changed."""
    find: Callable[[Any], WorkflowDef[Any, Any] | None] = _ignore
    """Finds the workflow that a handler names (or means by a definition of it); None if it is not here."""
    transactions: Transactions | None = None
    """What `ctx.transaction` needs of the runtime."""
    around: Around = Around()
    """What the runtime has around handlers and steps."""

    def __post_init__(self) -> None:
        keep_threads_out()
