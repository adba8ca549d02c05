"""The runtime's calls for code without an event loop: scripts, threads, Django views, steps in threads.

`SyncRuntime` is the table of them; here is what makes a blocking call of one that is awaited, with the same
arguments under the same types.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
import weakref
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from duramen._handlers.inputs import NO_INPUT
from duramen._logging import logger
from duramen.errors import ForkedProcess, RuntimeClosed, RuntimeNotOpen

from .carrying import carried_sync, check_interpreter
from .views import RunHandle, RunRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from duramen.runtime import Runtime

    from .connected import Planned
    from .services import Services

__all__ = [
    "Facade",
    "SyncRun",
    "blocking",
    "blocking_part",
    "iterating",
    "starting",
    "taking_many",
    "unopened",
]

_log = logger("duramen")

OutputT = TypeVar("OutputT")
T = TypeVar("T")
PartT = TypeVar("PartT")
PartT_co = TypeVar("PartT_co", covariant=True)
P = ParamSpec("P")


class Facade:
    """The loop on which the calls are made, and who may wait for it."""

    def __init__(self, runtime: Runtime, services: Services) -> None:
        self.runtime = runtime
        self._services = services
        self._lock = threading.Lock()
        self._host: _Host | None = None
        self._pid = 0

    @property
    def services(self) -> Services:
        """What the calls of a part of the runtime forward to."""
        return self._services

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
            lifecycle = self._services.lifecycle
            if lifecycle.port is not None:
                if lifecycle.is_foreign:
                    raise ForkedProcess(
                        "the runtime was opened before the fork: make a new Runtime in the child, or make "
                        "the first call after the fork"
                    )
                return lifecycle.port.loop
            host = _Host(self.runtime)
            loop = host.open()
            self._host, self._pid = host, os.getpid()
            _open_facades.add(self)
            return loop

    def close(self) -> None:
        """Close the runtime if a call of this façade opened it; else do nothing."""
        with self._lock:
            host = self._host
            if host is None or self._pid != os.getpid():
                return
            self._host = None
            _open_facades.discard(self)
            try:
                host.close()
            finally:
                self._services.lifecycle.abandon_closed()

    def call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Await what `make` gives on the runtime's loop and block until it is there.

        Raises:
            RuntimeNotOpen: the calling thread runs an event loop, which must not be blocked.
            RuntimeClosed: the runtime's loop does not run (any more), or the interpreter ends.
        """
        check_interpreter()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeNotOpen(
                "runtime.sync would block this thread's event loop: await the runtime's own call"
            )
        return carried_sync(self._the_loop(), make)

    @property
    def is_open(self) -> bool:
        """Whether the runtime is open, on whatever loop."""
        return self._services.lifecycle.port is not None

    def wait_for(
        self,
        call: Callable[Concatenate[Runtime, P], Coroutine[Any, Any, T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Make a call of the runtime, and block until it has been answered."""
        return self.call(lambda: call(self.runtime, *args, **kwargs))

    def wait_for_planned(
        self,
        plan: Callable[..., Coroutine[Any, Any, Planned[T]]],
        args: Iterable[Any],
        options: Mapping[str, Any],
    ) -> T:
        """Make a call with ``connection=`` among its options, which is used in this very thread."""
        others = {name: value for name, value in options.items() if name != "connection"}
        planned = self.call(lambda: plan(self._services, *args, **others))
        return planned.carry_out_sync(options["connection"], self.call)

    def run_of(self, handle: RunHandle[OutputT]) -> SyncRun[OutputT]:
        """The same run, for code without an event loop."""
        return SyncRun(self, handle)


class _Host:
    """A thread with an event loop on which a runtime is open."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ready: concurrent.futures.Future[asyncio.AbstractEventLoop] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name="duramen-sync", daemon=True)
        self._enough = asyncio.Event()

    def open(self) -> asyncio.AbstractEventLoop:
        """Start the thread; gives its loop when the runtime is open."""
        self._thread.start()
        try:
            return self._ready.result()
        except BaseException:
            if self._ready.done():
                self._thread.join()
            raise

    def close(self) -> None:
        """Close the runtime and end the thread, if it has not ended by itself."""
        if not self._thread.is_alive():
            return
        loop = self._ready.result()
        try:
            carried_sync(loop, self._runtime.close)
        except RuntimeClosed:
            pass  # the thread ended meanwhile
        finally:
            try:
                loop.call_soon_threadsafe(self._enough.set)
            except RuntimeError:
                pass  # so did its loop
            self._thread.join(5)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            try:
                runner.run(self._serve())
            except BaseException:  # noqa: BLE001 - an interrupt, raised by a step; it ends this loop
                _log.exception("the event loop of runtime.sync has ended; the next call opens another")
                # What is driven goes on elsewhere, and at once: no lease is renewed for it.
                runner.run(self._runtime.close())

    async def _serve(self) -> None:
        try:
            await self._runtime.open()
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            self._ready.set_exception(error)
            return
        self._ready.set_result(asyncio.get_running_loop())
        await self._enough.wait()


_open_facades: weakref.WeakSet[Facade] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for facade in list(_open_facades):
        try:
            facade.close()
        except Exception:  # noqa: BLE001, S110 - the interpreter ends; leases see to the rest
            pass


async def _planned_enqueue(
    services: Services,
    workflow: Any,
    input: Any = NO_INPUT,  # noqa: A002
    **options: Any,
) -> Planned[RunHandle[Any]]:
    """The beginning of `Runtime.enqueue` with a connection."""
    return await services.starting.planned(RunRequest(workflow, input, **options))


async def _planned_signal(
    services: Services, run_id: str, name: str, payload: Any = None, **options: Any
) -> Planned[Any]:
    """The beginning of `Runtime.signal` with a connection."""
    return await services.messages.planned(run_id, name, payload, **options)


_PLANNED: dict[str, Callable[..., Coroutine[Any, Any, Planned[Any]]]] = {
    "enqueue": _planned_enqueue,
    "signal": _planned_signal,
}
"""How a call with ``connection=`` begins. Its end happens in the caller's own thread."""


# -- from an awaited call to a blocking one ------------------------------------------------------------------
# Each of these takes the call and nothing else: type checkers carry overloads over to the blocking call then.


def blocking(
    call: Callable[Concatenate[Runtime, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade, P], T]:
    """Make a blocking call of one of the runtime's."""
    plan = _PLANNED.get(call.__name__)

    def block(facade: Facade, *args: P.args, **kwargs: P.kwargs) -> T:
        if plan is not None and kwargs.get("connection") is not None:
            return facade.wait_for_planned(plan, args, kwargs)
        return facade.wait_for(call, *args, **kwargs)

    return _named(block, call)


class _Part(Protocol[PartT_co]):
    """The blocking twin of a part of the runtime."""

    @property
    def sync(self) -> Facade: ...
    @property
    def part(self) -> PartT_co: ...


def blocking_part(
    call: Callable[Concatenate[PartT, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[_Part[PartT], P], T]:
    """Make a blocking call of one of a part's, such as `Runtime.schedules`."""

    def block(twin: _Part[PartT], *args: P.args, **kwargs: P.kwargs) -> T:
        return twin.sync.call(lambda: call(twin.part, *args, **kwargs))

    named = wraps(call)(block)
    named.__doc__ = f"See `{call.__qualname__}`."
    return named


def starting(
    call: Callable[Concatenate[Runtime, P], Coroutine[Any, Any, RunHandle[OutputT]]],
) -> Callable[Concatenate[Facade, P], SyncRun[OutputT]]:
    """The same for a call that answers with a run."""
    blocked = blocking(call)

    def block(facade: Facade, *args: P.args, **kwargs: P.kwargs) -> SyncRun[OutputT]:
        return facade.run_of(blocked(facade, *args, **kwargs))

    return _named(block, call)


def taking_many(
    call: Callable[Concatenate[Runtime, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade, P], T]:
    """The same for a call whose arguments are iterables: the caller's own thread goes through them."""

    def block(facade: Facade, *args: P.args, **kwargs: P.kwargs) -> T:
        items: Any = map(_all_of, args)
        named: Any = {name: _all_of(each) for name, each in kwargs.items()}
        return facade.wait_for(call, *items, **named)

    return _named(block, call)


def _all_of(items: Any) -> list[Any]:
    return [*items]


def unopened(
    call: Callable[Concatenate[Runtime, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Facade, P], T]:
    """The same for a call that does not open a runtime which is not open."""

    def block(facade: Facade, *args: P.args, **kwargs: P.kwargs) -> T:
        if facade.is_open:
            return facade.wait_for(call, *args, **kwargs)
        return asyncio.run(call(facade.runtime, *args, **kwargs))

    return _named(block, call)


def iterating(
    call: Callable[Concatenate[Runtime, P], AsyncGenerator[T]],
) -> Callable[Concatenate[Facade, P], Iterator[T]]:
    """The same for a call that is iterated over."""

    def block(facade: Facade, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = call(facade.runtime, *args, **kwargs)

        async def following() -> tuple[T] | None:
            try:
                return (await anext(items),)
            except StopAsyncIteration:
                return None

        try:
            while (item := facade.call(following)) is not None:
                yield item[0]
        finally:
            facade.call(items.aclose)

    return _named(block, call)


def _named(block: Callable[P, T], call: Callable[..., Any]) -> Callable[P, T]:
    """Let a blocking call look like the one that it was made of, and point to its documentation."""
    named = wraps(call)(block)
    named.__doc__ = f"See `Runtime.{call.__name__}`."
    named.__qualname__ = f"SyncRuntime.{call.__name__}"
    return named


# -- runs ----------------------------------------------------------------------------------------------------


def _of_handle(
    call: Callable[Concatenate[RunHandle[Any], P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncRun[Any], P], T]:
    """Make a blocking call of one of a handle's."""

    def block(run: SyncRun[Any], *args: P.args, **kwargs: P.kwargs) -> T:
        return run.sync.call(lambda: call(run.handle, *args, **kwargs))

    return _named(block, call)


class SyncRun(Generic[OutputT]):
    """A run, for code without an event loop: `RunHandle` with calls that block."""

    __slots__ = ("handle", "sync")

    def __init__(self, sync: Facade, handle: RunHandle[OutputT]) -> None:
        self.sync = sync
        self.handle = handle

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.handle.run_id

    @property
    def workflow(self) -> str:
        """Name of its workflow."""
        return self.handle.workflow

    @property
    def created(self) -> bool:
        """False if a run of that id existed already."""
        return self.handle.created

    def __repr__(self) -> str:
        return repr(self.handle)

    def result(self, timeout: timedelta | float | None = None) -> OutputT:
        """See `Runtime.result`."""
        return self.sync.call(lambda: self.handle.result(timeout))

    get = _of_handle(RunHandle[Any].get)
    signal = _of_handle(RunHandle[Any].signal)
    approve = _of_handle(RunHandle[Any].approve)
    cancel = _of_handle(RunHandle[Any].cancel)
    terminate = _of_handle(RunHandle[Any].terminate)
    timeline = _of_handle(RunHandle[Any].timeline)
