"""The same calls for code without an event loop: scripts, threads, Django views, steps in threads."""

# A façade looks into what it stands before.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, TypeVar, overload

from duramen._bridge import Change
from duramen._handlers.inputs import NO_INPUT
from duramen.errors import ForkedProcess, RuntimeNotOpen

from .views import SignalResult

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Self

    from duramen._handlers.workflow import WorkflowDef
    from duramen.runtime import Runtime

    from .history import History
    from .views import (
        Event,
        Page,
        RunHandle,
        RunRequest,
        RunResult,
        RunView,
        SchemaView,
        SweepResult,
        WorkerView,
    )

__all__ = ["SyncRun", "SyncRuntime"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")
T = TypeVar("T")


class SyncRun:
    """A run, for code without an event loop: `RunHandle` with calls that block."""

    __slots__ = ("_handle", "_sync")

    def __init__(self, sync: SyncRuntime, handle: RunHandle[Any]) -> None:
        self._sync = sync
        self._handle = handle

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._handle.run_id

    @property
    def workflow(self) -> str:
        """Name of its workflow."""
        return self._handle.workflow

    @property
    def created(self) -> bool:
        """False if a run of that id existed already."""
        return self._handle.created

    def __repr__(self) -> str:
        return repr(self._handle)

    def result(self, timeout: timedelta | float | None = None) -> Any:
        """See `Runtime.result`."""
        return self._sync.call(lambda: self._handle.result(timeout))

    def get(self) -> RunView:
        """See `Runtime.get`."""
        return self._sync.call(self._handle.get)

    def signal(self, name: str, payload: Any = None, *, signal_id: str | None = None) -> SignalResult:
        """See `Runtime.signal`."""
        return self._sync.call(lambda: self._handle.signal(name, payload, signal_id=signal_id))

    def cancel(self, reason: str = "") -> SignalResult:
        """See `Runtime.cancel`."""
        return self._sync.call(lambda: self._handle.cancel(reason))


class SyncRuntime:
    """`Runtime.sync`: every call of the runtime, blocking, from any thread but that of an event loop.

    If the runtime is open, the calls are made on its loop. If not, the first call opens it on a loop in a
    thread of its own, which drives what is started until `close`, the end of a ``with runtime.sync:``, or
    the interpreter's exit. Create the Runtime where you like, but make the first call after a fork (as web
    servers do), not before.

    >>> from duramen import Context, Runtime, workflow
    >>> @workflow
    ... async def double(ctx: Context, number: int) -> int:
    ...     return 2 * number
    >>> with Runtime("memory://", workflows=[double]).sync as runtime:
    ...     runtime.start(double, 21).result(timeout=10)
    42
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0

    # -- the loop --------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open the runtime on a thread of its own, if it is not open; the first call does it, too.

        Raises:
            StoreError: as `Runtime.open`.
        """
        self._the_loop()

    def _the_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            port = self._runtime._port
            if port is not None:
                if os.getpid() != self._runtime._pid:
                    raise ForkedProcess(
                        "the runtime was opened before the fork: make a new Runtime in the child, or make "
                        "the first call after the fork"
                    )
                return port.loop
            ready: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
            thread = threading.Thread(target=self._serve, args=(ready,), name="duramen-sync", daemon=True)
            thread.start()
            try:
                loop = ready.result()
            except BaseException:
                if ready.done():
                    thread.join()
                raise
            self._thread, self._loop, self._pid = thread, loop, os.getpid()
            _open_facades.add(self)
            return loop

    def _serve(self, ready: concurrent.futures.Future[asyncio.AbstractEventLoop]) -> None:
        loop = asyncio.new_event_loop()
        try:
            try:
                loop.run_until_complete(self._runtime.open())
            except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
                ready.set_exception(error)
                return
            loop.call_soon(ready.set_result, loop)
            loop.run_forever()
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def close(self) -> None:
        """Close the runtime if a call of this façade opened it; else do nothing."""
        with self._lock:
            thread, loop = self._thread, self._loop
            if thread is None or loop is None or self._pid != os.getpid():
                return
            self._thread = self._loop = None
            _open_facades.discard(self)
            try:
                asyncio.run_coroutine_threadsafe(self._runtime.close(), loop).result()
            finally:
                loop.call_soon_threadsafe(loop.stop)
                thread.join(5)

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await what `make` gives on the runtime's loop and block until it is there.

        Raises:
            RuntimeNotOpen: the calling thread runs an event loop, which must not be blocked.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeNotOpen(
                "runtime.sync would block this thread's event loop: await the runtime's own call"
            )
        loop = self._the_loop()
        future = asyncio.run_coroutine_threadsafe(make(), loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C, or whatever else ended the wait: the call must not go on without anybody.
            future.cancel()
            raise

    # -- the calls -------------------------------------------------------------------------------------------

    def start(
        self,
        workflow: WorkflowDef[InputT, Any] | str,
        input: InputT | None = NO_INPUT,  # noqa: A002
        **options: Any,
    ) -> SyncRun:
        """See `Runtime.start`."""
        start: Any = self._runtime.start
        return SyncRun(self, self.call(lambda: start(workflow, input, **options)))

    def enqueue(
        self,
        workflow: WorkflowDef[InputT, Any] | str,
        input: InputT | None = NO_INPUT,  # noqa: A002
        *,
        connection: Any = None,
        **options: Any,
    ) -> SyncRun:
        """See `Runtime.enqueue`. A `connection` is used in the calling thread, and not by an async driver."""
        if connection is not None:
            return SyncRun(self, self._enqueue_on(connection, workflow, input, options))
        enqueue: Any = self._runtime.enqueue
        return SyncRun(self, self.call(lambda: enqueue(workflow, input, **options)))

    def _enqueue_on(
        self,
        connection: Any,
        workflow: Any,
        input: Any,  # noqa: A002
        options: dict[str, Any],
    ) -> RunHandle[Any]:
        runtime = self._runtime

        async def prepare() -> tuple[Any, Change, str | None]:
            row = runtime._enqueue_row(workflow, input, **options)
            return row, Change.create(runtime._engine, row), await runtime._transactions.identity()

        row, change, identity = self.call(prepare)
        return runtime._enqueued(row, runtime._transactions.carry_out_sync(connection, change, identity))

    def enqueue_many(self, requests: Iterable[RunRequest | tuple[Any, Any]]) -> _List[SyncRun]:
        """See `Runtime.enqueue_many`."""
        wanted = _all(requests)
        return [SyncRun(self, handle) for handle in self.call(lambda: self._runtime.enqueue_many(wanted))]

    def handle(self, run_id: str) -> SyncRun:
        """See `Runtime.handle`."""
        return SyncRun(self, self._runtime.handle(run_id))

    @overload
    def run(
        self,
        workflow: WorkflowDef[Any, OutputT],
        input: Any = None,
        **options: Any,
    ) -> RunResult[OutputT]: ...
    @overload
    def run(self, workflow: str, input: Any = None, **options: Any) -> RunResult[Any]: ...
    def run(self, workflow: Any, input: Any = NO_INPUT, **options: Any) -> RunResult[Any]:  # noqa: A002
        """See `Runtime.run`."""
        return self.call(lambda: self._runtime.run(workflow, input, **options))

    def signal(
        self,
        run_id: str,
        name: str,
        payload: Any = None,
        *,
        signal_id: str | None = None,
        drive: bool = False,
        connection: Any = None,
    ) -> SignalResult:
        """See `Runtime.signal`. A `connection` is used in the calling thread, and not by an async driver."""
        if connection is not None:
            return self._signal_on(connection, run_id, name, payload, signal_id, drive)
        return self.call(
            lambda: self._runtime.signal(run_id, name, payload, signal_id=signal_id, drive=drive)
        )

    def _signal_on(
        self, connection: Any, run_id: str, name: str, payload: Any, signal_id: str | None, drive: bool
    ) -> SignalResult:
        runtime = self._runtime

        async def prepare() -> tuple[Change, str | None]:
            message = await runtime._event(run_id, name, payload, signal_id, connected_and_driven=drive)
            return Change.deliver(runtime._engine, message), await runtime._transactions.identity()

        change, identity = self.call(prepare)
        return SignalResult(runtime._transactions.carry_out_sync(connection, change, identity)[0])

    def signal_many(
        self, signals: Iterable[tuple[str, str, Any] | tuple[str, str, Any, str]]
    ) -> _List[SignalResult]:
        """See `Runtime.signal_many`."""
        wanted = _all(signals)
        return self.call(lambda: self._runtime.signal_many(wanted))

    def approve(
        self,
        run_id: str,
        approval_id: str,
        approved: bool = True,
        *,
        feedback: str | None = None,
        by: str | None = None,
        drive: bool = False,
    ) -> SignalResult:
        """See `Runtime.approve`."""
        return self.call(
            lambda: self._runtime.approve(
                run_id, approval_id, approved, feedback=feedback, by=by, drive=drive
            )
        )

    def cancel(self, run_id: str, reason: str = "", *, drive: bool = False) -> SignalResult:
        """See `Runtime.cancel`."""
        return self.call(lambda: self._runtime.cancel(run_id, reason, drive=drive))

    def terminate(self, run_id: str, reason: str = "") -> bool:
        """See `Runtime.terminate`."""
        return self.call(lambda: self._runtime.terminate(run_id, reason))

    def retry(self, run_id: str, *, drive: bool = True) -> None:
        """See `Runtime.retry`."""
        self.call(lambda: self._runtime.retry(run_id, drive=drive))

    def delete(self, run_id: str, *, force: bool = False) -> bool:
        """See `Runtime.delete`."""
        return self.call(lambda: self._runtime.delete(run_id, force=force))

    def get(self, run_id: str) -> RunView:
        """See `Runtime.get`."""
        return self.call(lambda: self._runtime.get(run_id))

    def export(self, run_id: str) -> History:
        """See `Runtime.export`."""
        return self.call(lambda: self._runtime.export(run_id))

    def get_many(self, run_ids: Iterable[str]) -> _List[RunView | None]:
        """See `Runtime.get_many`."""
        wanted = _all(run_ids)
        return self.call(lambda: self._runtime.get_many(wanted))

    def result(self, run_id: str, timeout: timedelta | float | None = None) -> Any:
        """See `Runtime.result`."""
        return self.call(lambda: self._runtime.result(run_id, timeout))

    def list(
        self,
        *,
        workflow: Any = None,
        version: str | None = None,
        status: str | Iterable[str] | None = None,
        tag: str | None = None,
        waiting_for: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        id_prefix: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page[RunView]:
        """See `Runtime.list`."""
        return self.call(
            lambda: self._runtime.list(
                workflow=workflow,
                version=version,
                status=status,
                tag=tag,
                waiting_for=waiting_for,
                created_after=created_after,
                created_before=created_before,
                id_prefix=id_prefix,
                limit=limit,
                cursor=cursor,
            )
        )

    def count(self, **filters: Any) -> int:
        """See `Runtime.count`."""
        return self.call(lambda: self._runtime.count(**filters))

    def workers(self) -> _List[WorkerView]:
        """See `Runtime.workers`."""
        return self.call(self._runtime.workers)

    def timeline(self, run_id: str, *, from_index: int = 0, limit: int | None = None) -> _List[Event]:
        """See `Runtime.timeline`."""
        return self.call(lambda: self._runtime.timeline(run_id, from_index=from_index, limit=limit))

    def events(
        self, run_id: str, from_index: int = 0, follow: bool = True, *, live: bool = True
    ) -> Iterator[Event]:
        """See `Runtime.events`."""
        events = self._runtime.events(run_id, from_index, follow, live=live)

        async def following() -> Event | None:
            return await anext(events, None)

        try:
            while (event := self.call(following)) is not None:
                yield event
        finally:
            self.call(events.aclose)

    def sweep(self, **options: Any) -> SweepResult:
        """See `Runtime.sweep`."""
        return self.call(lambda: self._runtime.sweep(**options))

    def migrate(self) -> SchemaView:
        """See `Runtime.migrate`; the runtime is opened for it if it is not open."""
        return self._schema(self._runtime.migrate)

    def schema(self) -> SchemaView:
        """See `Runtime.schema`."""
        return self._schema(self._runtime.schema)

    def _schema(self, method: Callable[[], Coroutine[Any, Any, SchemaView]]) -> SchemaView:
        # Opening might refuse the very schema that is asked for.
        if self._runtime._port is None:
            return asyncio.run(method())
        return self.call(method)


_List = list
"""The built-in one, where the class has a method of that name."""


def _all(values: Iterable[T]) -> list[T]:
    """Take a caller's iterable in the caller's own thread."""
    return [*values]


_open_facades: weakref.WeakSet[SyncRuntime] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for facade in list(_open_facades):
        try:
            facade.close()
        except Exception:  # noqa: BLE001, S110 - the interpreter ends; leases see to the rest
            pass
