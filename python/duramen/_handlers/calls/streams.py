"""Streams."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from duramen._bridge import Halted
from duramen._handlers.streams import HandlerStream
from duramen._loop.insides import get_running_loop
from duramen.errors import NotADurableContext

from .base import Calls

__all__ = ["StreamCalls"]

T = TypeVar("T")


class StreamCalls(Calls):
    """See `Context`."""

    __slots__ = ()

    @overload
    def stream(self, name: str, type: type[T], *, keep: int | None = None) -> HandlerStream[T]: ...
    @overload
    def stream(self, name: str, type: Any = None, *, keep: int | None = None) -> HandlerStream[Any]: ...
    def stream(self, name: str, type: Any = None, *, keep: int | None = None) -> HandlerStream[Any]:  # noqa: A002
        """A stream of this run to write to: ``await ctx.stream("log").write("reserved")``.

        Anybody reads it while the run goes on, and after it, with `Runtime.stream`. It is there without being
        declared; steps write to the same one with ``step_context().stream(name)``.

        Args:
            name: of the stream, in this run.
            type: of its items, as for results of steps. Default: any JSON.
            keep: so many items are kept, the last ones; a write takes out what is too much. Default: all.

        Raises:
            InvalidId: the name cannot be used.
            InvalidArgument: `keep` is no number of items.
        """
        return HandlerStream(self._write, name, type, keep)

    async def _write(self, stream: str, keep: int | None, item: Any, annotation: Any) -> None:
        if get_running_loop() is not self._loop:
            self._refuse_write()
        data = await self._host.payload_of(item, annotation)
        try:
            self._run.write(stream, keep, data)
        except Halted as error:
            await self._failed(error)

    def _refuse_write(self) -> None:
        try:
            self._refuse("ctx.stream(…).write")
        except NotADurableContext as refusal:
            refusal.add_note("a step has a stream of its own: step_context().stream(name).write(item)")
            raise
