"""Asks a store that is written in Python what the engine wants to know of it."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

from duramen._logging import logger
from duramen.errors import (
    InvalidArgument,
    StoreClosed,
    StoreCorrupt,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from duramen._bridge import Engine, StoreRequest

__all__ = ["StoreServer"]

_log = logger("duramen")

_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (StoreUnavailable, "unavailable"),
    (StoreLocked, "locked"),
    (StoreReadOnly, "read_only"),
    (StoreFull, "full"),
    (StoreCorrupt, "corrupt"),
    (StoreClosed, "closed"),
    (InvalidArgument, "invalid"),
)


class StoreServer:
    """Calls the methods of a store object, one task for each request, on the loop of the runtime.

    Its methods are coroutine functions (or plain ones) that take and give plain dicts and lists.
    """

    def __init__(self, engine: Engine, store: Any) -> None:
        self._engine = engine
        self._store = store
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def under_way(self) -> int:
        """How many requests have not been answered yet."""
        return len(self._tasks)

    def abandon(self) -> None:
        """Stop all of them."""
        for task in list(self._tasks):
            task.cancel()

    def serve(self, asked: StoreRequest) -> None:
        """Start a request; its answer goes back to the engine."""
        task = asyncio.get_running_loop().create_task(self._serve(asked), name=f"store.{asked.method}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, asked: StoreRequest) -> None:
        request, method = asked.request, asked.method
        try:
            value = getattr(self._store, method)(*asked.arguments)
            if inspect.isawaitable(value):
                value = await value
        except asyncio.CancelledError:
            self._engine.answer(request, None, ("closed", "the runtime was closed during the call"))
            raise
        except Exception as error:  # noqa: BLE001 - whatever a store raises, the engine must hear of it
            kind = next((kind for cls, kind in _KINDS if isinstance(error, cls)), "other")
            if kind == "other":
                _log.warning("%s() of the store failed", method, exc_info=error)
            self._engine.answer(request, None, (kind, str(error) or type(error).__name__))
        else:
            self._engine.answer(request, value, None)
