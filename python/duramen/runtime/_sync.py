"""`SyncRuntime`: the table of the blocking calls, each made of the one of `Runtime` that is awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, overload

from duramen._runtime.sync import (
    Facade,
    blocking,
    blocking_part,
    iterating,
    starting,
    taking_many,
    unopened,
)

from ._face import Runtime
from ._schedules import ScheduleCalls

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from duramen._handlers.requests import Query, Update
    from duramen._handlers.workflow import WorkflowDef
    from duramen._runtime.sync import SyncRun
    from duramen._runtime.views import RunRequest

__all__ = ["SyncRuntime", "SyncSchedules"]

P = TypeVar("P")
R = TypeVar("R")

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")

_List = list
"""The built-in one, where the class has a method of that name."""


class SyncSchedules:
    """`SyncRuntime.schedules`: `Runtime.schedules` with calls that block."""

    def __init__(self, sync: Facade) -> None:
        self.sync = sync
        self.part = ScheduleCalls(sync.services)

    upsert = blocking_part(ScheduleCalls.upsert)
    get = blocking_part(ScheduleCalls.get)
    list = blocking_part(ScheduleCalls.list)
    pause = blocking_part(ScheduleCalls.pause)
    resume = blocking_part(ScheduleCalls.resume)
    backfill = blocking_part(ScheduleCalls.backfill)
    delete = blocking_part(ScheduleCalls.delete)
    preview = blocking_part(ScheduleCalls.preview)

    def trigger(self, schedule_id: str, *, trigger_id: str | None = None) -> SyncRun[Any]:
        """See `ScheduleCalls.trigger`."""
        return self.sync.run_of(self.sync.call(lambda: self.part.trigger(schedule_id, trigger_id=trigger_id)))


class SyncRuntime(Facade):
    """`Runtime.sync`: every call of the runtime, blocking, from any thread but that of an event loop.

    If the runtime is open, the calls are made on its loop. If not, the first call opens it on a loop in a
    thread of its own, which drives what is started until `close`, the end of a ``with runtime.sync:``, or
    the interpreter's exit. Create the Runtime where you like, but make the first call after a fork (as web
    servers do), not before.

    The ``connection=`` of `enqueue` and `signal` is used in the calling thread, and not by an async driver.

    >>> from duramen import Context, Runtime, workflow
    >>> @workflow
    ... async def double(ctx: Context, number: int) -> int:
    ...     return 2 * number
    >>> with Runtime("memory://", workflows=[double]).sync as runtime:
    ...     runtime.start(double, 21).result(timeout=10)
    42
    """

    start = starting(Runtime.start)
    enqueue = starting(Runtime.enqueue)
    run = blocking(Runtime.run)
    sweep = blocking(Runtime.sweep)
    signal = blocking(Runtime.signal)
    signal_many = taking_many(Runtime.signal_many)
    approve = blocking(Runtime.approve)
    complete = blocking(Runtime.complete)
    fail = blocking(Runtime.fail)
    cancel = blocking(Runtime.cancel)
    terminate = blocking(Runtime.terminate)
    retry = blocking(Runtime.retry)
    delete = blocking(Runtime.delete)
    pause = blocking(Runtime.pause)
    resume = blocking(Runtime.resume)
    skip = blocking(Runtime.skip)
    pause_many = blocking(Runtime.pause_many)
    resume_many = blocking(Runtime.resume_many)
    get = blocking(Runtime.get)
    get_many = taking_many(Runtime.get_many)
    result = blocking(Runtime.result)
    list = blocking(Runtime.list)
    count = blocking(Runtime.count)
    workers = blocking(Runtime.workers)
    versions = blocking(Runtime.versions)
    check = blocking(Runtime.check)
    patches = blocking(Runtime.patches)
    timeline = blocking(Runtime.timeline)
    export = blocking(Runtime.export)
    fork = starting(Runtime.fork)
    diff = blocking(Runtime.diff)
    events = iterating(Runtime.events)
    stream = iterating(Runtime.stream)
    # Opening might refuse the very schema that is asked for.
    migrate = unopened(Runtime.migrate)
    schema = unopened(Runtime.schema)

    @overload
    def update(
        self,
        run_id: str,
        update: Update[P, R],
        payload: P,
        *,
        update_id: str | None = None,
        timeout: timedelta | float | None = None,
        drive: bool = False,
    ) -> R: ...
    @overload
    def update(
        self,
        run_id: str,
        update: str,
        payload: Any = None,
        *,
        update_id: str | None = None,
        timeout: timedelta | float | None = None,
        drive: bool = False,
    ) -> Any: ...
    def update(
        self,
        run_id: str,
        update: Update[Any, Any] | str,
        payload: Any = None,
        *,
        update_id: str | None = None,
        timeout: timedelta | float | None = None,
        drive: bool = False,
    ) -> Any:
        """See `Runtime.update`."""
        call: Any = self.runtime.update
        options: dict[str, Any] = {"update_id": update_id, "timeout": timeout, "drive": drive}
        return self.call(lambda: call(run_id, update, payload, **options))

    @overload
    def query(self, run_id: str, query: Query[R], /, *args: Any) -> R: ...
    @overload
    def query(self, run_id: str, query: str, /, *args: Any) -> Any: ...
    def query(self, run_id: str, query: Query[Any] | str, /, *args: Any) -> Any:
        """See `Runtime.query`."""
        return self.call(lambda: self.runtime.query(run_id, query, *args))

    @overload
    def enqueue_many(
        self, requests: Iterable[tuple[WorkflowDef[InputT, OutputT], InputT]]
    ) -> _List[SyncRun[OutputT]]: ...
    @overload
    def enqueue_many(
        self, requests: Iterable[RunRequest | tuple[WorkflowDef[Any, Any] | str, Any]]
    ) -> _List[SyncRun[Any]]: ...
    def enqueue_many(self, requests: Iterable[Any]) -> _List[SyncRun[Any]]:
        """See `Runtime.enqueue_many`."""
        return [self.run_of(handle) for handle in self.wait_for(Runtime.enqueue_many, [*requests])]

    @property
    def schedules(self) -> SyncSchedules:
        """See `Runtime.schedules`."""
        return SyncSchedules(self)

    @overload
    def handle(self, run_id: str, workflow: WorkflowDef[Any, OutputT]) -> SyncRun[OutputT]: ...
    @overload
    def handle(self, run_id: str, workflow: str | None = None) -> SyncRun[Any]: ...
    def handle(self, run_id: str, workflow: Any = None) -> SyncRun[Any]:
        """See `Runtime.handle`."""
        return self.run_of(self.runtime.handle(run_id, workflow))
