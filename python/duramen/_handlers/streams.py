"""Streams as handlers and steps write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from duramen._values.checks import check_count, check_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["HandlerStream", "StepStream", "check_keep"]

T = TypeVar("T")


def check_keep(keep: object) -> int | None:
    """How many items of a stream are kept; None for all.

    Raises:
        InvalidArgument: it is no number of items.
    """
    return None if keep is None else check_count("keep", keep, least=1, most=2**53)


class _Stream:
    def __init__(self, name: str, type: Any, keep: int | None) -> None:  # noqa: A002
        self.name = check_id("stream's name", name)
        self._type = type
        self._keep = check_keep(keep)

    def __repr__(self) -> str:
        return f"<stream {self.name!r}>"


class HandlerStream(_Stream, Generic[T]):
    """A stream of the run, for its handler: see `Context.stream`."""

    def __init__(
        self,
        write: Callable[[str, int | None, T, Any], Awaitable[None]],
        name: str,
        type: Any,  # noqa: A002
        keep: int | None,
    ) -> None:
        super().__init__(name, type, keep)
        self._write = write

    async def write(self, item: T) -> None:
        """Write an item: it is there for readers with the run's next commit, once, whatever crashes.

        It does not wait for that commit. What is written before a step is there when the step begins.

        Raises:
            SerializationError, PayloadTooLarge: the item cannot be stored.
            NotADurableContext: called outside of the handler: a step has ``step_context().stream(name)``.
        """
        await self._write(self.name, self._keep, item, self._type)


class StepStream(_Stream, Generic[T]):
    """A stream of the run, for the step that runs: see `StepContext.stream`."""

    def __init__(
        self,
        write: Callable[[str, int | None, T, Any], Awaitable[None]],
        name: str,
        type: Any,  # noqa: A002
        keep: int | None,
    ) -> None:
        super().__init__(name, type, keep)
        self._write = write

    def write(self, item: T) -> Awaitable[None]:
        """Write an item; it is sent at once, and with those that gather meanwhile.

        In an async step await it: that waits when too many items are on their way. In a sync step the call
        itself waits. The step's result counts when its items are stored.

        Raises:
            SerializationError, PayloadTooLarge: the item cannot be stored.
            NotADurableContext: the attempt is over, or it is that of a transaction.
            InvalidArgument: far too many items wait, because nobody awaits what this gives.
        """
        return self._write(self.name, self._keep, item, self._type)
