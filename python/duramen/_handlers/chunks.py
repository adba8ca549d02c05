"""A chunk of a map: the workflow whose runs call a function, or start a workflow, with some of the items."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic_core import to_json

from duramen._bridge import Halted, InvalidIdError
from duramen._values.payloads import failure_record
from duramen.errors import ChildFailed, PayloadTooLarge, RecordedError, RunEvicted, StepFailed

from .calls.maps import Parts, event_of
from .context import Context
from .mapping import Reached, chunk_workflow_name, in_parallel, item_type, locate, piece_bytes, result_bytes
from .step import plan_of
from .workflow import WorkflowDef

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

__all__ = ["chunk_workflow"]


def chunk_workflow(of: WorkflowDef[Any, Any]) -> WorkflowDef[dict[str, Any], dict[str, Any]]:
    """The workflow of the chunks of another's maps: of the same version, for it needs the same code."""
    definition: WorkflowDef[dict[str, Any], dict[str, Any]] = WorkflowDef(
        run_chunk,
        name=chunk_workflow_name(of.name),
        version=of.version,
        context=ChunkContext,
        retry=of.retry,
        on_exhausted="pause" if of.pauses_run else None,
        description=f"A chunk of the items of a map in {of.name!r}",
    )
    # Checked where they were given, with the names of that place.
    definition.step_context, definition.step_middleware = of.step_context, of.step_middleware
    return definition


async def run_chunk(ctx: ChunkContext, chunk: dict[str, Any]) -> dict[str, Any]:
    """The handler of a chunk."""
    return await ctx.do_chunk(chunk)


class ChunkContext(Context[Any]):
    """The context of a chunk."""

    async def do_chunk(self, chunk: dict[str, Any]) -> dict[str, Any]:
        """Take the items one after the other, as many at once as are to be, until enough is known.

        Gives what became of each: its index, how it ended, and with what.
        """
        call, takes, gives = await self._call_of(chunk)
        parts = Parts(self._host, self._failed)
        reached = Reached(chunk["wanted"], chunk["allowed"])
        outcomes: list[tuple[list[Any], int]] = []
        given: list[Any] = chunk["items"]
        items: Iterator[tuple[int, Any]] = iter(enumerate(given, chunk["first"]))

        async def take() -> None:
            for index, part in items:
                item = await parts.unpack(str(index), part, takes)
                kind, of_it, size = await self._outcome(call(index, item), parts, gives)
                outcomes.append(([index, kind, of_it], size))
                reached.count([kind])

        await in_parallel(take() for _ in range(min(chunk["width"], len(given))))
        return await self._told(chunk["of"], sorted(outcomes, key=_by_index))

    async def _outcome(self, ending: Awaitable[Any], parts: Parts, gives: Any) -> tuple[str, Any, int]:
        try:
            value = await ending
        except (StepFailed, ChildFailed) as failure:
            return self._failure(failure)
        part, size = await parts.pack(value, gives)
        limit = result_bytes(self._host.serializer)
        if limit is not None and size > limit:
            # It is a payload by itself, and too long to be a part of one.
            return self._failure(_too_large(size, limit))
        return "ok", part, size

    def _failure(self, failure: StepFailed | ChildFailed) -> tuple[str, Any, int]:
        record = failure_record(failure)
        return "failed", record, len(to_json(record))

    async def _told(self, of: str, outcomes: list[tuple[list[Any], int]]) -> dict[str, Any]:
        """Give the outcomes back: those that are too many for one payload as messages."""
        limit = piece_bytes(self._host.serializer)
        pieces: list[list[Any]] = [[]]
        length = 0
        for outcome, size in outcomes:
            if pieces[-1] and length + size > limit:
                pieces.append([])
                length = 0
            pieces[-1].append(outcome)
            length += size
        if len(pieces) == 1:
            return {"outcomes": pieces[0], "pieces": 0}
        for piece in pieces:
            data = await self._host.payload_of(piece, None)
            try:
                self._run.send_event(of, event_of(self.run_id), data)
            except (Halted, InvalidIdError) as error:
                await self._failed(error)
        return {"outcomes": [], "pieces": len(pieces)}

    async def _call_of(self, chunk: dict[str, Any]) -> tuple[Callable[[int, Any], Awaitable[Any]], Any, Any]:
        called: dict[str, Any] = chunk["map"]
        if "workflow" in called:
            name, version = called["workflow"]
            definition = self._host.services.definition(name, version)
            if definition is None:
                await self._park(
                    f"a map starts workflow {name!r} version {version!r}, which is not registered where the "
                    "map is driven: add it to Runtime(workflows=[…]) there, and retry this run"
                )
            # The chunk's number in its run id gives way to that of the item.
            before, after = self.run_id.rsplit(f"/chunk-{chunk['number']}", 1)

            def start(index: int, item: Any) -> Awaitable[Any]:
                return self.child(definition, item, id=str(index), run_id=f"{before}/{index}{after}")

            return start, definition.input_type, definition.output_type
        module, name = called["step"]
        try:
            fn = locate(module, name)
            return partial(_as_step, self, fn), item_type(fn), plan_of(fn).result
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a user's module may raise anything
            await self._park(
                f"a map calls {module}:{name}, which cannot be found: {error.__class__.__name__}: {error}: "
                "keep it there until no run needs it, and retry this run"
            )

    async def _park(self, why: str) -> NoReturn:
        """Only people can help: it is the code that has changed, and no item's fault."""
        self._run.cannot_read("", why)
        await self._failed(RunEvicted(why))


def _as_step(ctx: ChunkContext, fn: Any, index: int, item: Any) -> Awaitable[Any]:
    return ctx.step(str(index), fn, item)


def _by_index(outcome: tuple[list[Any], int]) -> int:
    return outcome[0][0]


def _too_large(size: int, limit: int) -> StepFailed:
    error = PayloadTooLarge(size, limit, "the result of an item")
    return StepFailed("", 1, RecordedError("duramen.errors.PayloadTooLarge", str(error)))
