"""What goes around a handler, from its call until its end, and how that is recorded."""

from __future__ import annotations

from asyncio import CancelledError
from functools import partial
from typing import TYPE_CHECKING, Any

from duramen._bridge import FINISH_CANCELLED, FINISH_COMPLETED, FINISH_CONTINUED, FINISH_FAILED
from duramen._handlers.middleware import go_through
from duramen.errors import RunTimedOut

from . import hooks
from .children import with_children
from .continuing import is_continuation
from .exits import Trouble, advised, failure_payload, is_cancellation, note, operation_of, recorded

if TYPE_CHECKING:
    from asyncio import Task

    from duramen._handlers.context import Context

    from .continuing import Wish
    from .host import RunHost

__all__ = ["ending_of", "handled", "recorded_end"]


async def handled(host: RunHost, context: Context[Any], value: Any) -> Any:
    """Call the handler inside of its middleware; then its children end, and work that failed is undone."""
    definition = host.definition
    handler = definition.handler
    middleware = host.services.around.middleware + definition.middleware
    try:
        if middleware:
            inside = partial(handler, context, value) if definition.has_input else partial(handler, context)
            ending = go_through(middleware, context, inside)
        else:
            ending = handler(context, value) if definition.has_input else handler(context)
        result = await with_children(host, ending)
        if host.undoing:
            _check_output(host, result)
    except BaseException as error:
        if not host.is_over and host.undoing.answers(error):
            await host.undoing.carry_out(host.run, context)
        raise
    else:
        return result
    finally:
        if host.loop.asyncgens and not host.is_over:
            await host.loop.shutdown_asyncgens()


def ending_of(host: RunHost, main: Task[Any], wish: Wish | None) -> tuple[int, Any]:
    """How a handler that has returned or raised ends its run: the kind, and its value or error."""
    run = host.run
    error: BaseException | None
    try:
        error = main.exception()
    except CancelledError as cancelled:
        error = cancelled
    if wish is not None and is_continuation(error):
        if error is None:
            host.services.log.warning(
                "run %r called ctx.continue_as_new and then returned a result, so it continues", run.run_id
            )
        return FINISH_CONTINUED, wish
    if error is None:
        return FINISH_COMPLETED, main.result()
    if is_cancellation(error) or is_continuation(error):
        if run.cancelled and not host.undoing.by_time:
            return FINISH_CANCELLED, error
        if run.timed_out:
            return FINISH_FAILED, RunTimedOut(run.run_id, "its workflow's timeout")
    return FINISH_FAILED, advised(error)


def _check_output(host: RunHost, result: Any) -> None:
    """What cannot be recorded fails the run, so its work has to be undone."""
    try:
        recorded(host.serializer, result, host.definition.output_type)
    except Trouble:
        pass  # that is waited for when it is recorded


def recorded_end(host: RunHost, kind: int, value: Any) -> tuple[int, Any, bytes, str | None]:
    """How the handler has ended: kind, value or error, the payload of that, and the word for `Run.finish`.

    Raises:
        Trouble: a codec is out.
    """
    definition = host.definition
    if kind == FINISH_CANCELLED:
        return kind, value, host.reason_payload, None
    if kind != FINISH_FAILED:
        try:
            if kind == FINISH_CONTINUED:
                return kind, value, value.payload(), value.version
            payload, value = recorded(host.serializer, value, definition.output_type)
        except (Trouble, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - also what a user's serializer raises
            what = "result" if kind == FINISH_COMPLETED else "next input"
            note(error, f"the {what} of run {host.run_id!r} cannot be recorded")
            value = error
        else:
            if definition.hooks:
                hooks.prepare(host, "completed", value=value)
            return kind, value, payload, None
    payload = failure_payload(host.serializer, value)
    if definition.hooks:
        hooks.prepare(host, "failed", failure=payload)
    return FINISH_FAILED, value, payload, operation_of(value)
