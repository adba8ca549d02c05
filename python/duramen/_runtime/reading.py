"""Copies of runs that are built by replay of what is recorded, and what their handlers say in them."""

from __future__ import annotations

from contextvars import Context
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from duramen._bridge import ENCODING
from duramen._driving.exits import name_of, text_of
from duramen._driving.host import RunHost
from duramen._driving.services import Services
from duramen._handlers.requests import Query, check_name
from duramen._logging import logger
from duramen._values.checks import check_id
from duramen.errors import (
    DuramenError,
    NotADurableContext,
    QueryFailed,
    ReplayDiverged,
    RunEvicted,
    RuntimeClosed,
    StoreClosed,
    StoreNewer,
    UnknownQuery,
    UnknownRun,
    UnknownWorkflow,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from duramen._bridge import Run
    from duramen._driving.stepper import StepJob, Stepper
    from duramen._handlers.workflow import WorkflowDef
    from duramen._values.serializer import Serializer

    from .lifecycle import Lifecycle
    from .registry import Registry

__all__ = ["Reading"]

T = TypeVar("T")
Queries: TypeAlias = "dict[str, Callable[..., Any]]"

# What a host has to say of its handler was said when the run was driven.
_SILENT = logger("duramen.replay")
_SILENT.logger.disabled = True


class Reading:
    """The calls that ask a run's handler."""

    def __init__(self, lifecycle: Lifecycle, registry: Registry, serializer: Serializer) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._serializer = serializer

    async def query(self, run_id: str, query: Query[Any] | str, args: tuple[Any, ...]) -> Any:
        """See `Runtime.query`."""
        check_id("run id", run_id)
        name = query.name if isinstance(query, Query) else check_name("query", query)
        return await self._look(run_id, lambda host, queries: _answer(host, queries, name, args))

    async def token_type(self, run_id: str, token_id: str) -> tuple[Any] | None:
        """The type of the value that a token stands for; None if the handler has not made it (here).

        Raises:
            DuramenError: as `query`, if the run cannot be replayed here.
        """
        return await self._look(run_id, lambda host, _: host.tokens.get(token_id))

    async def _look(self, run_id: str, look: Callable[[RunHost, Queries], T]) -> T:
        """Replay a copy of a run, and look at it."""
        port = self._lifecycle.ready
        try:
            run: Run | None = await port.call(port.engine.read, run_id)
        except StoreClosed:
            raise RuntimeClosed("the runtime was closed during the call") from None
        if run is None:
            raise UnknownRun(run_id)
        definition = self._registry.get(run.workflow, run.version)
        if definition is None:
            raise UnknownWorkflow(run.workflow, run.version)
        if not run.driving and run.divergence() is None:
            raise StoreNewer(
                f"the journal of run {run_id!r} needs a newer duramen (this one reads format {ENCODING})"
            )
        looking = _Look(port.loop, run, definition, self._serializer, look)
        try:
            return await looking.done
        finally:
            looking.drop()


class _Look:
    """One copy. Handlers run in callbacks of the loop and not inside of a task; between slices others do."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        run: Run,
        definition: WorkflowDef[Any, Any],
        serializer: Serializer,
        look: Callable[[RunHost, Queries], Any],
    ) -> None:
        self.done: asyncio.Future[Any] = loop.create_future()
        self._loop = loop
        self._run = run
        self._look = look
        self._touched = False
        services = Services(
            stepper=cast("Stepper", _NoSteps()),
            serializer=serializer,
            touched=self._touch,
            context=Context(),
            log=_SILENT,
        )
        self._definition = definition
        self._host = RunHost(run, definition, services)
        self._queries = self._host.queries  # which forgets them when its handler has ended
        self._soon(self._host.start)

    def _soon(self, call: Callable[[], object]) -> None:
        self._loop.call_soon(self._go, call, context=Context())

    def _touch(self, _: object) -> None:
        self._touched = True

    def _go(self, call: Callable[[], object]) -> None:
        if self.done.done():
            return
        self._touched = False
        try:
            call()
            if self._touched:
                self._soon(self._host.advance)
                return
            self._check()
            found = self._look(self._host, self._queries)
        except DuramenError as error:
            self.done.set_exception(error)
        except BaseException:
            self.done.cancel()
            raise
        else:
            self.done.set_result(found)

    def _check(self) -> None:
        run, definition = self._run, self._definition
        text = run.divergence()
        if text is not None:
            code = f"workflow {definition.name!r} version {definition.version!r} ({definition.location})"
            raise ReplayDiverged(run.run_id, text, run.divergence_index() or 0, "", code)

    def drop(self) -> None:
        """Nobody looks any more."""
        self.done.cancel()
        # Not inside of the caller's task: what unwinds is the handler's code.
        if not self._loop.is_closed():
            self._loop.call_soon(self._end, context=Context())

    def _end(self) -> None:
        self._queries = {}
        self._host.evict()
        self._run.abandon()


class _NoSteps:
    """Stands where steps are run. No turn of a run that only reads along starts one."""

    def submit(self, job: StepJob) -> None:
        raise AssertionError(f"a copy started {job!r}")


def _answer(host: RunHost, queries: Queries, name: str, args: tuple[Any, ...]) -> Any:
    fn = queries.get(name)
    if fn is None:
        raise UnknownQuery(host.run_id, name, tuple(sorted(queries)))
    try:
        result = fn(*args)
        if isawaitable(result):
            result = _at_once(result)
    except KeyboardInterrupt:
        raise
    except (NotADurableContext, RunEvicted) as error:
        raise QueryFailed(
            host.run_id, name, "it made a durable call: a query only looks at what the handler has"
        ) from error
    except _Waits:
        raise QueryFailed(
            host.run_id, name, "it waits for something: a query only looks at what the handler has"
        ) from None
    except BaseException as error:
        raise QueryFailed(host.run_id, name, f"{name_of(error)}: {text_of(error)}") from error
    return result


class _Waits(Exception):
    """A coroutine would have to wait."""


def _at_once(coroutine: Any) -> Any:
    """What a coroutine returns that has nothing to wait for."""
    if not iscoroutine(coroutine):
        raise _Waits
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise _Waits
