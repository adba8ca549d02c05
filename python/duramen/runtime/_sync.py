"""`SyncRuntime`: the table of the blocking calls, each made of the one of `Runtime` that is awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duramen._runtime.sync import Facade, blocking, iterating, starting, taking_many, unopened

from ._face import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterable

    from duramen._handlers.workflow import WorkflowDef
    from duramen._runtime.sync import SyncRun
    from duramen._runtime.views import RunRequest

__all__ = ["SyncRuntime"]

_List = list
"""The built-in one, where the class has a method of that name."""


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
    cancel = blocking(Runtime.cancel)
    terminate = blocking(Runtime.terminate)
    retry = blocking(Runtime.retry)
    delete = blocking(Runtime.delete)
    get = blocking(Runtime.get)
    get_many = taking_many(Runtime.get_many)
    result = blocking(Runtime.result)
    list = blocking(Runtime.list)
    count = blocking(Runtime.count)
    workers = blocking(Runtime.workers)
    timeline = blocking(Runtime.timeline)
    export = blocking(Runtime.export)
    fork = starting(Runtime.fork)
    diff = blocking(Runtime.diff)
    events = iterating(Runtime.events)
    # Opening might refuse the very schema that is asked for.
    migrate = unopened(Runtime.migrate)
    schema = unopened(Runtime.schema)

    def enqueue_many(
        self, requests: Iterable[RunRequest | tuple[WorkflowDef[Any, Any] | str, Any]]
    ) -> _List[SyncRun[Any]]:
        """See `Runtime.enqueue_many`."""
        return [self.run_of(handle) for handle in self.wait_for(Runtime.enqueue_many, [*requests])]

    def handle(self, run_id: str) -> SyncRun[Any]:
        """See `Runtime.handle`."""
        return self.run_of(self.runtime.handle(run_id))
