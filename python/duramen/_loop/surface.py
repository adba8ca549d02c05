"""What libraries ask of any event loop besides running things: exception handlers, debug flags, and so on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typing_extensions import override

from duramen._logging import logger

from .refusals import RefusingLoop

if TYPE_CHECKING:
    import asyncio

_log = logger("duramen.loop")


class SurfaceLoop(RefusingLoop):
    """A loop with everything but the running: `RunLoop` does that."""

    slow_callback_duration: float = 0.1
    """Part of asyncio's surface; a driver that warns of slow handlers reads it. Seconds."""

    _over = False
    """Closed or evicted."""
    _debug = False
    _exception_handler: Any = None

    def __init__(self) -> None:
        # RunLoop does this by itself, for speed.
        self.errors: list[dict[str, Any]] = []
        """What reached the exception handler, as asyncio's context dictionaries, in order."""

    # -- errors --------------------------------------------------------------------------------------------

    def _callback_failed(self, handle: asyncio.Handle, error: BaseException) -> None:
        self.call_exception_handler(
            {
                "message": f"Exception in callback {handle._callback!r}",
                "exception": error,
                "handle": handle,
            }
        )

    @override
    def set_exception_handler(self, handler: Any) -> None:
        if handler is not None and not callable(handler):
            raise TypeError("an exception handler must be callable or None")
        self._exception_handler = handler

    @override
    def get_exception_handler(self) -> Any:
        return self._exception_handler

    @override
    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log the error of a callback, or of a task whose exception nobody looked at."""
        error: BaseException | None = context.get("exception")
        _log.error(
            "%s (in a workflow handler)", context.get("message") or "unhandled exception", exc_info=error
        )

    @override
    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self._over:
            return  # asyncio reports from __del__ too, and what a dropped run leaves behind is no error
        self.errors.append(context)
        if self._exception_handler is None:
            self.default_exception_handler(context)
            return
        try:
            self._exception_handler(self, context)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001
            self.default_exception_handler(
                {
                    "message": "Unhandled error in exception handler",
                    "exception": error,
                    "context": context,
                }
            )

    # -- flags and executors --------------------------------------------------------------------------------

    @override
    def get_debug(self) -> bool:
        return self._debug

    @override
    def set_debug(self, enabled: bool) -> None:
        self._debug = bool(enabled)

    @override
    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to do: a run's loop has no threads."""
