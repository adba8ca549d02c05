"""Fan-out over many items, in chunks that are runs of their own."""

from __future__ import annotations

from asyncio import CancelledError, Lock
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypedDict, TypeVar, overload

from duramen._bridge import Halted, InvalidIdError
from duramen._handlers.callables import Definition
from duramen._handlers.mapping import (
    MapResult,
    Reached,
    chunk_size,
    chunk_workflow_name,
    in_parallel,
    item_type,
    packed,
    packing,
    piece_bytes,
    place_of,
    unpacked,
)
from duramen._handlers.step import plan_of
from duramen._values.checks import check_id
from duramen._values.payloads import recorded_failure
from duramen.errors import InvalidArgument, MapFailed, UnknownWorkflow, WorkflowDefinitionError

from .base import Calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from typing_extensions import Unpack

    from duramen._driving.children import Child
    from duramen._driving.host import RunHost
    from duramen._handlers.workflow import WorkflowDef

__all__ = ["MapCalls", "MapOptions", "Parts", "event_of"]

T = TypeVar("T")
R = TypeVar("R")

_SPREAD = 16
"""Chunks in flight at most: a few with much to do commit less often than many with little."""


class MapOptions(TypedDict, total=False):
    """What can be said of a map beside what is called with which items."""

    id: str | None
    concurrency: int
    min_success: int | None
    tolerate: float | None


class _Called(NamedTuple):
    spec: dict[str, Any]
    """How a chunk finds it."""
    takes: Any
    gives: Any
    """Types; None for any JSON."""


class MapCalls(Calls):
    """See `Context`."""

    __slots__ = ()

    @overload
    async def map(
        self, fn: WorkflowDef[T, R], items: Iterable[T], /, **options: Unpack[MapOptions]
    ) -> MapResult[R]: ...
    @overload
    async def map(
        self, fn: Callable[[T], Awaitable[R]], items: Iterable[T], /, **options: Unpack[MapOptions]
    ) -> MapResult[R]: ...
    @overload
    async def map(
        self, fn: Callable[[T], R], items: Iterable[T], /, **options: Unpack[MapOptions]
    ) -> MapResult[R]: ...
    @overload
    async def map(
        self, fn: str, items: Iterable[Any], /, **options: Unpack[MapOptions]
    ) -> MapResult[Any]: ...
    async def map(
        self,
        fn: Any,
        items: Iterable[Any],
        /,
        *,
        id: str | None = None,  # noqa: A002
        concurrency: int = 10,
        min_success: int | None = None,
        tolerate: float | None = None,
    ) -> MapResult[Any]:
        """Call a function as a step, or start a workflow as a child, with each of many items.

        The items go in chunks, of 10 to 250, to runs of their own, whose journals have what became of each:
        this run's has three entries for a chunk. They are driven by whoever serves this workflow, and end
        before this call does. After a crash each goes on where it was.

        Args:
            fn: a step or a function that is defined at the level of its module, or a workflow, or the name
                of one. It takes one item. The retries and the timeout of a step are its own, else those of
                this workflow.
            items: as many as you like. They are recorded, by the type of the parameter that takes them.
            id: the operation's. Default: ``map-1``, ``map-2`` … in the order of the calls.
            concurrency: how many items are in flight at once; 1 takes one after the other.
            min_success: end when that many have succeeded: the others are cancelled, or not begun.
            tolerate: how many may fail, as a number, or as a fraction of all (0.1). Default: none, or with
                `min_success` as many as leave that possible.

        Raises:
            MapFailed: more have failed; the rest has been cancelled. It has what is known of each item.
            ChildFailed: somebody has cancelled or terminated a chunk.
            WorkflowDefinitionError: `fn` cannot be found by its name, or takes something else than one item.
            UnknownWorkflow: no workflow of that name is registered here.
            InvalidId, InvalidArgument: the id or an option cannot be used.
            SerializationError, PayloadTooLarge: an item does not fit its type, or cannot be stored.
        """
        self._check("ctx.map")
        called = self._called(fn)
        if id is not None:
            check_id("operation id", id)
        else:
            self._maps += 1
        every = list(items)
        reached = _reached(len(every), min_success, tolerate)
        op = f"map-{self._maps}" if id is None else id
        mapping = _Mapping(self._host, self._failed, op, called, every, reached)
        chunks = -(-len(every) // mapping.size)
        widths = _widths(_checked(concurrency), chunks)
        await in_parallel(mapping.drain(width) for width in widths)
        result = mapping.result()
        if reached.has_failed:
            raise MapFailed(mapping.op, result) from next(iter(result.failures.values()), None)
        return result

    def _called(self, fn: Any) -> _Called:
        if isinstance(fn, str) or (isinstance(fn, Definition) and fn.defined_as == "workflow"):
            definition = self._host.services.find(fn)
            if definition is None:
                raise UnknownWorkflow(str(fn), None)
            if not definition.has_input:
                raise WorkflowDefinitionError(
                    f"ctx.map cannot start {definition!r}: it takes no input, and is to take an item"
                )
            spec = {"workflow": [definition.name, definition.version]}
            return _Called(spec, definition.input_type, definition.output_type)
        plan = plan_of(fn)
        return _Called({"step": list(place_of(fn))}, item_type(fn), plan.result)


class Parts:
    """Values as parts of payloads: each by its own type, as JSON if that is what the serializer makes.

    Args:
        host: the run.
        failed: ends a call that the engine refused.
    """

    def __init__(self, host: RunHost, failed: Callable[[BaseException], Awaitable[NoReturn]]) -> None:
        self._host = host
        self._failed = failed
        self._json = packing(host.serializer)

    async def pack(self, value: Any, type: Any) -> tuple[Any, int]:  # noqa: A002
        """A value as a part of a payload, and how long that is."""
        if self._json is not None:
            data = self._json.dumps(value, type)
        else:
            data = await self._host.payload_of(value, type)
        return packed(data, is_json=self._json is not None), len(data)

    async def unpack(self, op: str, part: Any, type: Any) -> Any:  # noqa: A002
        """Undo `pack`."""
        serializer = self._json or self._host.serializer
        return await self.read(
            op, lambda: serializer.loads(unpacked(part, is_json=self._json is not None), type)
        )

    async def read(self, op: str, read: Callable[[], T]) -> T:
        """Read something that is recorded. If it does not fit the code any more, the run is parked."""
        while True:
            try:
                return read()
            except Exception as error:  # noqa: BLE001 - whatever a user's serializer raises
                if not await self._host.out(error):
                    self._host.run.cannot_read(op, str(error))
                    await self._failed(error)


class _Mapping:
    """One call of `Context.map`.

    Where chunks begin and end follows from the items alone, and which is begun when from the order of what
    is recorded.
    """

    def __init__(
        self,
        host: RunHost,
        failed: Callable[[BaseException], Awaitable[NoReturn]],
        op: str,
        called: _Called,
        items: list[Any],
        reached: Reached,
    ) -> None:
        self.op = op
        self.size = chunk_size(len(items))
        self._host = host
        self._failed = failed
        self._parts = Parts(host, failed)
        self._called = called
        self._items = items
        self._reached = reached
        self._outcomes: dict[int, tuple[bool, Any]] = {}
        self._chunks = self._cut()
        self._cutting = Lock()  # a codec may be waited for in the midst of it
        self._begun = 0

    async def drain(self, width: int) -> None:
        """Do one chunk after the other, with so many of its items in flight."""
        while True:
            async with self._cutting:
                found = await anext(self._chunks, None)
                if found is None:
                    return
                first, items = found
                self._begun += 1
                number = self._begun
                wanted, allowed = self._reached.left()
                chunk = {
                    "map": self._called.spec, "of": self._host.run_id, "number": number, "first": first,
                    "items": items, "width": width, "wanted": wanted, "allowed": allowed,
                }  # fmt: skip
                child = await self._start(f"{self.op}/chunk-{number}", chunk)
            outcomes = await self._end(child)
            for index, kind, part in outcomes:
                self._outcomes[index] = kind == "ok", await self._read(child.op, kind, part)
            self._reached.count(kind for _, kind, _ in outcomes)

    async def _read(self, op: str, kind: str, part: Any) -> Any:
        if kind == "ok":
            return await self._parts.unpack(op, part, self._called.gives)
        return await self._parts.read(op, lambda: recorded_failure(part))

    async def _start(self, id: str, chunk: dict[str, Any]) -> Child:  # noqa: A002
        host = self._host
        data = await host.payload_of(chunk, dict[str, Any])
        no_tags: list[str] = []
        row = (None, chunk_workflow_name(host.run.workflow), host.run.version, data, no_tags, None, None)
        try:
            op, child_id = host.run.start_child(id, row)
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
            raise  # for type checkers: the line above does not come back
        return host.new_child(op, child_id, dict[str, Any], attached=True)

    async def _end(self, child: Child) -> list[Any]:
        """Wait for what became of a chunk's items; when this is cancelled, cancel the chunk."""
        try:
            end = await child.result()
            outcomes: list[Any] = end["outcomes"]
            for number in range(1, end["pieces"] + 1):
                outcomes += await self._piece(child, number)
        except CancelledError:
            if child.how is None and not self._host.closed:
                try:
                    await child.cancel_and_wait()
                except Halted as error:
                    await self._failed(error)
            raise
        return outcomes

    async def _piece(self, child: Child, number: int) -> list[Any]:
        try:
            slot = self._host.run.event(event_of(child.run_id), f"{child.op}/{number}", None)
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
            raise  # for type checkers: the line above does not come back
        _, piece = await self._host.await_message(slot, None)
        return piece

    async def _cut(self) -> AsyncIterator[tuple[int, list[Any]]]:
        """The items in chunks, each with the index of its first item."""
        limit = piece_bytes(self._host.serializer)
        first, length, chunk = 0, 0, list[Any]()
        for index, item in enumerate(self._items):
            part, size = await self._parts.pack(item, self._called.takes)
            if chunk and (len(chunk) == self.size or length + size > limit):
                yield first, chunk
                first, length, chunk = index, 0, []
            chunk.append(part)
            length += size
        if chunk:
            yield first, chunk

    def result(self) -> MapResult[Any]:
        """What is known of each item."""
        result: MapResult[Any] = MapResult(len(self._items))
        for index in sorted(self._outcomes):
            ok, value = self._outcomes[index]
            (result.successes if ok else result.failures)[index] = value
        return result


def event_of(run_id: str) -> str:
    """The event in which a chunk sends outcomes that are too long to be its output."""
    return f"map:{sha256(run_id.encode()).hexdigest()}"


def _checked(concurrency: Any) -> int:
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidArgument(f"concurrency is {concurrency!r}: give how many items may be in flight, from 1")
    return concurrency


def _widths(concurrency: int, chunks: int) -> list[int]:
    """How many items are in flight in each of the chunks that are.

    >>> _widths(1, 9), _widths(10, 3), _widths(100, 9), _widths(100, 0)
    ([1], [4, 3, 3], [12, 11, 11, 11, 11, 11, 11, 11, 11], [])
    """
    count = min(concurrency, chunks, _SPREAD)
    return [concurrency // count + (n < concurrency % count) for n in range(count)]


def _reached(total: int, min_success: Any, tolerate: Any) -> Reached:
    """When enough is known of so many items.

    >>> _reached(10, None, 0.25).left(), _reached(10, 3, None).left()
    ((None, 2), (3, 7))
    >>> _reached(10, 11, None)
    Traceback (most recent call last):
    duramen.errors.InvalidArgument: min_success is 11: give a number from 1 to that of the items, which is 10
    """
    if min_success is not None and (
        isinstance(min_success, bool) or not isinstance(min_success, int) or not 1 <= min_success <= total
    ):
        raise InvalidArgument(
            f"min_success is {min_success!r}: give a number from 1 to that of the items, which is {total}"
        )
    if tolerate is None:
        return Reached(min_success, 0 if min_success is None else total - min_success)
    if isinstance(tolerate, int) and not isinstance(tolerate, bool) and tolerate >= 0:
        return Reached(min_success, tolerate)
    if isinstance(tolerate, float) and 0 <= tolerate <= 1:
        return Reached(min_success, int(tolerate * total))
    raise InvalidArgument(
        f"tolerate is {tolerate!r}: give the number of items that may fail, or a fraction such as 0.1"
    )
