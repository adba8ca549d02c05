"""Creating runs: one or many, driven here or left to others, also in a transaction of the user's."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

from duramen._bridge import Change
from duramen._values.checks import check_id, check_tags
from duramen._values.durations import instant_ms
from duramen.errors import InvalidArgument, RunIdConflict, StoreLocked

from .connected import Planned
from .views import RunHandle, RunRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from duramen._bridge import Created, Started
    from duramen._driving.transactions import Transactions
    from duramen._values.serializer import Serializer

    from .lifecycle import Lifecycle
    from .registry import Registry
    from .surroundings import Surroundings
    from .taking import Taking

__all__ = ["NewRow", "Starting"]

NewRow = tuple[str, str, str, bytes, int | None, list[str], bytes | None, int | None]
"""Run id, workflow, version, input, start, tags, memo, timeout, as the engine takes them."""

_PART = 500
"""So many runs of `enqueue_many` are one request to the store …"""

_PARTS = 3
"""… and so many requests are under way at once."""


class Starting:
    """The calls that create runs."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        registry: Registry,
        serializer: Serializer,
        surroundings: Surroundings,
        taking: Taking,
        transactions: Transactions,
        new_handle: Callable[[NewRow, bool], RunHandle[Any]],
    ) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._serializer = serializer
        self._surroundings = surroundings
        self._taking = taking
        self._transactions = transactions
        self._handle = new_handle

    # -- one -------------------------------------------------------------------------------------------------

    async def start(self, request: RunRequest) -> RunHandle[Any]:
        """See `Runtime.start`."""
        lifecycle = self._lifecycle
        port = lifecycle.ready
        row = self.new_row(request)
        if row[4] is not None and row[4] > port.engine.now():
            handle = (await self.create([row]))[0]
            if handle.created:
                pause = (row[4] - port.engine.now()) / 1000 + 0.001
                lifecycle.delay(pause, self._taking.adopt_soon, handle.run_id)
            else:  # it has a start of its own, and may have begun long ago
                self._taking.adopt_soon(handle.run_id)
            return handle
        handle, _ = await self.start_row(row)
        return handle

    async def start_row(self, row: NewRow) -> tuple[RunHandle[Any], int | None]:
        """Create a run and claim it, with its ticket if it is driven here."""
        port = self._lifecycle.ready
        run_id, name, version, data, _, tags, memo, timeout = row
        started: Started = await port.call(
            port.engine.start, run_id, name, version, data, tags, memo, timeout
        )
        if started.status == "blocked":
            raise _held_by_others(run_id)
        if started.workflow != name:
            raise RunIdConflict(run_id, name, started.workflow)
        return self._handle(row, started.created), started.ticket

    async def enqueue(self, request: RunRequest) -> RunHandle[Any]:
        """See `Runtime.enqueue`."""
        return (await self.create([self.new_row(request)]))[0]

    async def planned(self, request: RunRequest) -> Planned[RunHandle[Any]]:
        """The same, to be carried out on a connection of the user's."""
        row = self.new_row(request)
        change = Change.create(self._lifecycle.engine, row)

        def answered(answer: tuple[Any, ...]) -> RunHandle[Any]:
            created, existing = answer
            if existing != row[1]:
                raise RunIdConflict(row[0], row[1], existing)
            return self._handle(row, bool(created))

        return Planned(change, self._transactions, await self._transactions.identity(), answered)

    # -- many ------------------------------------------------------------------------------------------------

    async def enqueue_many(self, requests: Iterable[RunRequest | tuple[Any, Any]]) -> list[RunHandle[Any]]:
        """See `Runtime.enqueue_many`."""
        rows = [
            self.new_row(each if isinstance(each, RunRequest) else RunRequest(*each)) for each in requests
        ]
        handles: list[RunHandle[Any]] = []
        refused: RunIdConflict | StoreLocked | None = None
        # While the store writes one part, the next is on its way.
        starts, parts = iter(range(0, len(rows), _PART)), deque[asyncio.Task[list[RunHandle[Any]]]]()
        try:
            while True:
                for start in islice(starts, _PARTS - len(parts)):
                    parts.append(asyncio.create_task(self.create(rows[start : start + _PART])))
                if not parts:
                    break
                try:
                    handles += await parts.popleft()
                except (RunIdConflict, StoreLocked) as error:
                    refused = refused or error
        finally:
            for part in parts:
                part.cancel()
                part.add_done_callback(_seen)
        if refused is not None:
            raise refused
        return handles

    # -- rows ------------------------------------------------------------------------------------------------

    def new_row(self, request: RunRequest) -> NewRow:
        """Check a request and make of it what the engine takes."""
        tags = check_tags(request.tags)
        definition = self._registry.resolve(request.workflow)
        run_id = self._surroundings.run_id() if request.run_id is None else check_id("run id", request.run_id)
        value = definition.input_or_default(request.input)
        if not definition.has_input and value is not None:
            raise InvalidArgument(f"workflow {definition.name!r} takes no input, so none can be given")
        return (
            run_id,
            definition.name,
            definition.version,
            self._serializer.dumps(value, definition.input_type),
            None if request.start_at is None else instant_ms(request.start_at, "start_at"),
            check_tags((*definition.tags, *tags)),
            None if request.memo is None else self._serializer.dumps(request.memo),
            definition.timeout_ms,
        )

    def row_with(
        self, workflow: str, run_id: str, data: bytes, start_at: int | None, tags: tuple[str, ...]
    ) -> NewRow:
        """The same of what has been checked before, with an input that is a payload already."""
        definition = self._registry.resolve(workflow)
        every_tag = check_tags((*definition.tags, *tags))
        return run_id, workflow, definition.version, data, start_at, every_tag, None, definition.timeout_ms

    async def create(self, rows: list[NewRow]) -> list[RunHandle[Any]]:
        """Write runs, and drive none of them."""
        port = self._lifecycle.ready
        answers: list[Created] = await port.call(port.engine.create, rows)
        for row, answer in zip(rows, answers, strict=True):
            if answer.status == "blocked":
                raise _held_by_others(row[0])
            if answer.workflow != row[1]:
                raise RunIdConflict(row[0], row[1], answer.workflow)
        return [self._handle(row, answer.created) for row, answer in zip(rows, answers, strict=True)]


def _held_by_others(run_id: str) -> StoreLocked:
    return StoreLocked(
        f"a transaction that is not Duramen's is about to create run {run_id!r}, and has been open for as "
        "long as a lease; the run was not created here: end that transaction, then try again"
    )


def _seen(part: asyncio.Task[Any]) -> None:
    """Whoever waited for it has failed already: its own failure says nothing new."""
    if not part.cancelled():
        part.exception()
