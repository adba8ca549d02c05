"""What undoes the work of a handler that does not succeed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVarTuple, Unpack

from duramen._handlers.retry import check_retry
from duramen._values.checks import check_id
from duramen.errors import InvalidId

from .base import Calls
from .steps import attempt_seconds, new_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from duramen._handlers.retry import Retry

__all__ = ["UndoCalls"]

Ts = TypeVarTuple("Ts")


class UndoCalls(Calls):
    """See `Context`."""

    __slots__ = ()

    def compensate(
        self,
        id: str,  # noqa: A002
        fn: Callable[[Unpack[Ts]], Any],
        /,
        *args: *Ts,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
    ) -> None:
        """Say what undoes the work that follows, should the handler fail or be cancelled later on.

        Then the undos run as durable steps, the last one first, before the end of the run is recorded; also
        for work that was done before a crash. Register an undo right before the step whose work it undoes:
        the step may have taken effect without a result, so an undo must do no harm where there is nothing to
        undo.

        An undo that fails for good pauses the run: `Runtime.retry` lets it try again, `Runtime.skip` goes
        past it. While undos run, neither a cancellation nor the run's own time limit stops them. A run that
        completes runs none. One whose undos have run cannot be retried.

        Args:
            id: of the undo; its step is ``undo:{id}``, with ``#2``, ``#3`` … for repeats, in the order of
            undoing.
            fn: the function; use `functools.partial` for keywords, as in asyncio.
            *args: its arguments. They are not recorded.
            retry: default: that of the step, else that of the workflow, else a single attempt.
            timeout: seconds or `timedelta`, for each attempt. Default: that of the step.

        Raises:
            InvalidId: the id is empty, too long, or holds a control character or a ``#``.
            InvalidArgument: an option cannot be used.
            WorkflowDefinitionError: `fn` cannot be a step.
            NotADurableContext: called outside of the handler.
        """
        self._check("ctx.compensate")
        plan = new_plan("compensate", id, fn)
        name = check_id("operation id", f"undo:{check_id('operation id', id)}")
        if "#" in name:
            raise InvalidId(f"the undo's id {id!r} has a '#', which marks repeats: give one without it")
        options: dict[str, Any] = {
            "retry": None if retry is None else check_retry(retry),
            "timeout": timeout,
        }
        if timeout is not None:
            attempt_seconds(timeout)
        self._host.undoing.add(name, plan, args, options)
