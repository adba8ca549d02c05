"""What a map is made of: its result, how its items are cut into chunks, how a chunk finds what it calls."""

from __future__ import annotations

import importlib
import inspect
import sys
from asyncio import FIRST_EXCEPTION, CancelledError, create_task, wait
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic_core import from_json, to_json
from typing_extensions import override

from duramen._values.serializer import DEFAULT_MAX_BYTES, CodecSerializer, JsonSerializer
from duramen.errors import MapFailed, WorkflowDefinitionError

from . import signatures
from .remote import program_name
from .step import StepDef

if TYPE_CHECKING:
    # ruff: noqa: TC004 - a dataclass names them, and nothing asks it what they are
    from collections.abc import Coroutine, Iterable

    from duramen._values.serializer import Serializer
    from duramen.errors import ChildFailed, StepFailed

__all__ = [
    "CHUNKS", "Decided", "MapResult", "Reached", "chunk_size", "chunk_workflow_name", "in_parallel",
    "item_type", "locate", "packed", "packing", "piece_bytes", "place_of", "result_bytes", "unpacked",
]  # fmt: skip

R = TypeVar("R")

CHUNKS = "__map:"
"""What the names of chunks' workflows begin with."""

_FEWEST, _MOST = 10, 250
"""Items of a chunk: it is a run of its own, and its journal is read as a whole."""

_ROOM = 1000
"""Bytes that are kept for what stands around an outcome."""

_SPREAD = 16
"""Chunks that there are at least, if there are items enough: each may be on another worker."""


@dataclass(frozen=True, slots=True)
class MapResult(Generic[R]):
    """What `Context.map` gives: what became of each item, by its index from 0."""

    total: int
    """How many items there are."""
    successes: dict[int, R] = field(default_factory=dict[int, R])
    """What came of the items that succeeded, in their order."""
    failures: dict[int, StepFailed | ChildFailed] = field(
        default_factory=dict[int, "StepFailed | ChildFailed"]
    )
    """Why the others did not, in their order: what `Context.step` or `Context.child` would have raised."""

    def __len__(self) -> int:
        return self.total

    @override
    def __str__(self) -> str:
        failed = f", {len(self.failures)} failed" if self.failures else ""
        missing = self.total - len(self.successes) - len(self.failures)
        unknown = f", {missing} have no outcome" if missing else ""
        return f"{len(self.successes)} of {self.total} items succeeded{failed}{unknown}"

    @property
    def missing(self) -> tuple[int, ...]:
        """The items of which nothing is known: they were not begun, or cancelled, because it was decided."""
        return tuple(n for n in range(self.total) if n not in self.successes and n not in self.failures)

    def values(self) -> list[R]:
        """What came of all the items, in their order.

        Raises:
            MapFailed: one of them has not succeeded.
        """
        if len(self.successes) < self.total:
            raise MapFailed("", self) from next(iter(self.failures.values()), None)
        return list(self.successes.values())


# -- when enough is known ------------------------------------------------------------------------------------


class Decided(Exception):
    """Enough have succeeded, or too many have failed: nothing else is begun."""


@dataclass(slots=True)
class Reached:
    """Counts outcomes until so many have succeeded, or more than so many have failed."""

    wanted: int | None
    """None waits for all of them."""
    allowed: int
    succeeded: int = 0
    failed: int = 0

    @property
    def has_failed(self) -> bool:
        """Whether more than those allowed have failed."""
        return self.failed > self.allowed

    def count(self, kinds: Iterable[str]) -> None:
        """Take outcomes.

        Raises:
            Decided: enough is known.
        """
        for kind in kinds:
            if kind == "ok":
                self.succeeded += 1
            else:
                self.failed += 1
        if self.has_failed or (self.wanted is not None and self.succeeded >= self.wanted):
            raise Decided

    def left(self) -> tuple[int | None, int]:
        """How many have yet to succeed, and how many more may fail."""
        return None if self.wanted is None else self.wanted - self.succeeded, self.allowed - self.failed


async def in_parallel(parts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Await all of them. Once one raises the others are cancelled, and their clean-up is waited for.

    It is no `asyncio.TaskGroup`, which says nothing of a cancellation that comes when one has raised.
    """
    tasks = [create_task(part) for part in parts]
    if not tasks:
        return
    cancelled: CancelledError | None = None
    try:
        await wait(tasks, return_when=FIRST_EXCEPTION)
    except CancelledError as error:
        cancelled = error
    late = [task for task in tasks if not task.done()]
    for task in late:
        task.cancel()
    if late:
        await wait(late)
    if cancelled is not None:
        raise cancelled
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    for error in errors:
        if not isinstance(error, Decided):
            raise error
    if not errors and any(task.cancelled() for task in tasks):
        raise CancelledError  # what a task awaited was cancelled, and not from here


# -- chunks --------------------------------------------------------------------------------------------------


def chunk_size(total: int) -> int:
    """How many items a chunk has at most: about as many as the others.

    >>> chunk_size(3), chunk_size(12), chunk_size(1000), chunk_size(100_000)
    (3, 6, 63, 250)
    """
    most = max(_FEWEST, min(_MOST, -(-total // _SPREAD)))
    return max(1, -(-total // max(1, -(-total // most))))


def piece_bytes(serializer: Serializer) -> int:
    """How long the items of a chunk, or outcomes that are recorded at once, may be together.

    It is half of what the serializer lets pass, for they are written with what belongs to them.
    """
    limit = getattr(serializer, "max_bytes", DEFAULT_MAX_BYTES)
    return (limit if isinstance(limit, int) and limit < DEFAULT_MAX_BYTES else DEFAULT_MAX_BYTES) // 2


def result_bytes(serializer: Serializer) -> int | None:
    """How long what came of one item may be, if that can be said: codecs make of it what they like."""
    limit = serializer.max_bytes if isinstance(serializer, JsonSerializer) else None
    return None if limit is None else limit - _ROOM


def chunk_workflow_name(workflow: str) -> str:
    """The name of the workflow whose runs are the chunks of maps of another.

    Whoever serves that one serves it, too, and so has the code that its maps call.
    """
    name = f"{CHUNKS}{workflow}"
    return name if len(name) <= 255 else f"{name[:180]}:{sha256(workflow.encode()).hexdigest()}"


def packing(serializer: Serializer) -> JsonSerializer | None:
    """What packs values: they are JSON inside of JSON. None for payloads that may be anything else."""
    inner = serializer.inner if isinstance(serializer, CodecSerializer) else serializer
    return inner if isinstance(inner, JsonSerializer) else None


def packed(payload: bytes, *, is_json: bool) -> Any:
    """A payload as a part of another one."""
    return from_json(payload) if is_json else b64encode(payload).decode()


def unpacked(part: Any, *, is_json: bool) -> bytes:
    """Undo `packed`."""
    return to_json(part) if is_json else b64decode(part)


# -- functions -----------------------------------------------------------------------------------------------


def place_of(fn: Any) -> tuple[str, str]:
    """Module and qualified name by which whoever drives a chunk finds a function.

    Raises:
        WorkflowDefinitionError: it cannot be found so.
    """
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str) and "<" not in name:
        if module == "__main__":
            module = program_name() or module
        try:
            if locate(module, name) is fn:
                return module, name
        except (ImportError, AttributeError):
            pass
    raise WorkflowDefinitionError(
        f"ctx.map cannot call {fn!r}: each chunk of the items finds the function by its name, wherever it is "
        "driven: give a step or a function of the level of its module, under the name that it is defined "
        "with, or a workflow; what else it needs belongs into the items"
    )


def locate(module: str, name: str) -> Any:
    """What stands under that name.

    Raises:
        AttributeError: nothing does.
        BaseException: what the import of its module raises.
    """
    is_program = module in ("__main__", program_name())
    found: Any = sys.modules["__main__"] if is_program else importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def item_type(fn: Any) -> Any:
    """The type of a function's first parameter; None for any JSON.

    Raises:
        WorkflowDefinitionError: it cannot be called with one item.
    """
    code = fn.fn if isinstance(fn, StepDef) else fn
    where = f"ctx.map of {getattr(code, '__name__', code)!r}"
    try:
        parameters = inspect.signature(code)
    except (TypeError, ValueError):
        return None  # some that are built in do not say
    try:
        bound = parameters.bind(None)
    except TypeError as error:
        raise WorkflowDefinitionError(
            f"{where}: it is called with one item each, and takes others: {error}"
        ) from None
    try:
        annotation = signatures.hint(code, next(iter(bound.arguments)))
    except NameError as error:
        raise signatures.unresolved(where, error) from error
    signatures.check_stored(annotation, f"the item of {where}")
    return annotation
