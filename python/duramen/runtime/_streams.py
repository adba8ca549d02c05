"""What runs write while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._calls import Calls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from duramen._runtime.views import StreamItem

__all__ = ["StreamCalls"]

T = TypeVar("T")


class StreamCalls(Calls):
    """See `Runtime`."""

    @overload
    def stream(
        self, run_id: str, name: str, *, type: type[T], from_seq: int = 0, follow: bool = True
    ) -> AsyncGenerator[StreamItem[T]]: ...
    @overload
    def stream(
        self, run_id: str, name: str, *, type: Any = None, from_seq: int = 0, follow: bool = True
    ) -> AsyncGenerator[StreamItem[Any]]: ...
    async def stream(
        self,
        run_id: str,
        name: str,
        *,
        type: Any = None,  # noqa: A002
        from_seq: int = 0,
        follow: bool = True,
    ) -> AsyncGenerator[StreamItem[Any]]:
        """Read what a run writes to a stream, in order, until the run has ended or is stuck.

        The run may be driven anywhere. A slow reader holds nothing up. To resume, in any process, pass the
        number of the last item seen plus one: nothing is lost, nothing comes twice. A step that is repeated
        writes again what it wrote before; its items have an `index` that was there already: see `StreamItem`.

        Args:
            run_id: which run.
            name: which stream. One that nothing was written to yet is empty.
            type: of the items' values. Default: any JSON.
            from_seq: the first item. 0: the first that there is.
            follow: False stops at the end of what there is.

        Raises:
            UnknownRun: there is no such run, or it was deleted meanwhile.
            StreamTruncated: the next item is no longer kept.
            DeserializationError: an item does not fit the type.
        """
        found = self._services.streams.read(run_id, name, from_seq, follow, type)
        items = self._services.items_here(found)
        try:
            async for item in items:
                yield item
        finally:
            await items.aclose()
