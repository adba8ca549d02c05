"""Opening and closing: who has the port and the driver, and whether calls are possible now."""

from __future__ import annotations

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from duramen._bridge import NativeStore, StoreFailed, native_error
from duramen._driving.services import Around
from duramen._logging import logger
from duramen._values.checks import new_owner
from duramen.errors import ForkedProcess, InvalidArgument, RuntimeClosed, RuntimeNotOpen

from .driver import Driver
from .port import Port
from .watchdog import Watchdog

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Coroutine

    from duramen._bridge import Engine, RunEvent
    from duramen._driving.transactions import Transactions

    from .registry import Registry
    from .settings import Settings
    from .surroundings import Surroundings

__all__ = ["Lifecycle"]

_log = logger("duramen")


class Lifecycle:
    """One runtime's life: open, closed, open again.

    Args:
        settings: what the runtime was told.
        registry: its workflows.
        surroundings: what it stands in.
        transactions: its part in transactions of the user's, which needs the port, too.
        prepare: looks at the store's schema before anything else is done with it; may be told to migrate.
    """

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        surroundings: Surroundings,
        transactions: Transactions,
        prepare: Callable[[Port, bool], Coroutine[Any, Any, None]],
    ) -> None:
        self.port: Port | None = None
        """None while no calls are possible."""
        self.in_haste = False
        """Whoever works here was told to hurry, or has drained before: closing waits for nobody."""
        self._settings = settings
        self._registry = registry
        self._surroundings = surroundings
        self._transactions = transactions
        self._prepare = prepare
        self._driver: Driver | None = None
        self._was_open = False
        self._opening = False
        self._pid = os.getpid()
        self._delayed: set[asyncio.TimerHandle] = set()
        self._background: set[asyncio.Future[Any]] = set()

    @property
    def state(self) -> str:
        """For people: ``open``, ``closed`` or ``not open``."""
        return "open" if self.port is not None else "closed" if self._was_open else "not open"

    @property
    def is_foreign(self) -> bool:
        """Whether it was opened in another process, of which this one is a child."""
        return os.getpid() != self._pid

    # -- opening ---------------------------------------------------------------------------------------------

    async def open(self, *, only_look: bool = False) -> None:
        """See `Runtime.open`."""
        if self.port is not None and self.is_foreign:
            self.port.check()
        # Left open by a program whose loop has ended, such as an earlier `asyncio.run`.
        self.abandon_closed()
        if self.port is not None or self._opening:
            raise InvalidArgument("the runtime is open already: use it, or make another one for another loop")
        self._opening = True
        try:
            self._registry.load()
            loop = asyncio.get_running_loop()
            opened = await self.connected(self._settings.migrate and not only_look)
            self.port, self._driver = await self._started(loop, opened, only_look=only_look)
            self._was_open, self.in_haste = True, False
            self._pid = os.getpid()
        finally:
            self._opening = False

    async def _started(
        self, loop: asyncio.AbstractEventLoop, opened: NativeStore | None, *, only_look: bool
    ) -> tuple[Port, Driver]:
        settings, registry = self._settings, self._registry
        migrate = settings.migrate and not only_look
        stepper = self._surroundings.stepper(loop, settings.max_threads)
        if settings.processes is not None:
            stepper.processes.most = settings.processes
        watchdog = Watchdog(loop, settings.watchdog)
        driver = Driver(
            loop,
            registry,
            settings.serializer,
            stepper,
            watchdog,
            self._transactions,
            budget=self._surroundings.budget,
            around=Around(settings.middleware, settings.step_middleware),
        )
        try:
            port = self.new_port(loop, driver.on_events, migrate=migrate, opened=opened)
        except BaseException:
            watchdog.stop()
            raise
        try:
            await self._prepare(port, migrate)
            await self._check_texts(port)
            driver.attach(port)
            self._transactions.attach(port)
            port.engine.register(registry.served())
            if settings.work is not None and not only_look:
                port.engine.work(*settings.work.for_engine)
        except BaseException:
            watchdog.stop()
            await port.close(settings.shutdown_timeout)
            raise
        return port, driver

    async def _check_texts(self, port: Port) -> None:
        """Refuse names that the store cannot keep: every claim and every heartbeat of this process has them.

        Raises:
            InvalidArgument: the database's encoding lacks a character of one.
        """
        named = {f"the workflow's name {name!r}": name for name in self._registry.names()}
        keys = self._registry.keys()
        named |= {f"the version {version!r} of workflow {name!r}": version for name, version in keys}
        if (label := self._settings.owner_label) is not None:
            named[f"the owner {label!r}"] = label
        for what, text in named.items():
            if text.isascii():
                continue
            try:
                await port.call(port.engine.get, [text])  # no matter what it finds
            except InvalidArgument as error:
                raise InvalidArgument(f"{what} cannot be kept: {error}") from None

    async def connected(self, migrate: bool) -> NativeStore | None:
        """Open a distant store in a thread: the loop goes on while the network takes its time.

        The thread is its own: those of the loop may all be busy with the program's work.
        """
        target = self._settings.target
        if target.scheme != "postgres":
            return None
        options = self._settings.store_options(migrate=migrate)
        thread = ThreadPoolExecutor(1, thread_name_prefix="duramen-open")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                thread, NativeStore, target.scheme, target.location, options
            )
        except StoreFailed as error:
            kind, message = error.args
            raise native_error((kind, message)) from None
        finally:
            thread.shutdown(wait=False)

    def new_port(
        self,
        loop: asyncio.AbstractEventLoop,
        on_events: Callable[[deque[RunEvent]], None],
        *,
        migrate: bool,
        opened: NativeStore | None,
    ) -> Port:
        """An engine on the store, and this end of it."""
        settings = self._settings
        of_the_engine = {
            "owner": new_owner(settings.owner_label),
            "label": f"{socket.gethostname()[:100]}:{os.getpid()}",
            "serves": [f"{name} {version}" for name, version in sorted(self._registry.keys())],
            "options": settings.store_options(migrate=migrate),
            **self._surroundings.engine_settings(lease_ms=settings.lease_ms, warm=settings.warm),
        }
        return Port(loop, settings.target, of_the_engine, on_events, opened)

    # -- closing ---------------------------------------------------------------------------------------------

    def taken_down(self) -> tuple[Port, Driver] | None:
        """No calls from now on; gives what has to be closed, None if nothing is open."""
        port, driver = self.port, self._driver
        if port is None or driver is None:
            return None
        port.check()
        self.port = self._driver = None
        for timer in self._delayed:
            timer.cancel()
        self._delayed.clear()
        for future in list(self._background):
            future.cancel()
        return port, driver

    def abandon_closed(self) -> None:
        """Forget what was left open on a loop that is closed; its runs go on elsewhere after their lease."""
        port, driver = self.port, self._driver
        if port is None or driver is None or not port.loop.is_closed():
            return
        self.port = self._driver = None
        driver.detach()
        driver.stepper.processes.close()
        self._delayed.clear()
        self._background.clear()
        self._transactions.detach()
        port.release()

    async def close(self) -> None:
        """See `Runtime.close`."""
        found = self.taken_down()
        if found is None:
            return
        port, driver = found
        work = self._settings.work
        patience = self._settings.shutdown_timeout if work is None else work.drain
        try:
            await _let_go(port, driver, 0 if self.in_haste else patience)
        finally:
            driver.detach()
            self._transactions.detach()
            try:
                driver.stepper.close()
                await asyncio.wait_for(driver.stepper.aclose(), 1)
            except TimeoutError:
                _log.warning("a step swallows its cancellation; it is left to itself")
            finally:
                await port.close(patience)

    # -- access for the calls --------------------------------------------------------------------------------

    @property
    def ready(self) -> Port:
        """The port, if calls are possible.

        Raises:
            RuntimeNotOpen: it was never opened; RuntimeClosed: it was closed.
        """
        port = self._opened()
        port.check()
        return port

    @property
    def facts(self) -> tuple[Engine, Driver]:
        """What knows how it goes, for any thread that wants to look.

        Raises:
            RuntimeNotOpen: it was never opened; RuntimeClosed: it was closed.
        """
        driver, port = self._driver, self._opened()
        port.check(anywhere=True)
        if driver is None:
            raise RuntimeClosed("the runtime was closed meanwhile")
        return port.engine, driver

    def _opened(self) -> Port:
        port = self.port
        if port is None:
            if self.is_foreign and self._was_open:
                raise ForkedProcess(
                    "the runtime was open in the parent process: make a new Runtime after the fork"
                )
            if self._was_open:
                raise RuntimeClosed("the runtime was closed: open it again with `async with runtime:`")
            raise RuntimeNotOpen(
                "the runtime is not open: use `async with runtime:` or `await runtime.open()`"
            )
        return port

    @property
    def engine(self) -> Engine:
        """The engine, if calls are possible."""
        return self.ready.engine

    @property
    def driver(self) -> Driver:
        """What drives the runs.

        Raises:
            RuntimeClosed: nothing does any more.
        """
        driver = self._driver
        if driver is None:
            raise RuntimeClosed("the runtime was closed during the call")
        return driver

    def delay(self, seconds: float, callback: Callable[..., object], *args: Any) -> None:
        """Call something later, unless the runtime is closed before."""

        def fire() -> None:
            self._delayed.discard(handle)
            if self.port is not None:
                callback(*args)

        handle = self.ready.loop.call_later(seconds, fire)
        self._delayed.add(handle)

    def beside(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Let something run beside the calls, at the latest until the runtime is closed."""
        future = asyncio.ensure_future(coroutine)
        self._background.add(future)
        future.add_done_callback(self._background.discard)
        return future


async def _let_go(port: Port, driver: Driver, timeout: float) -> None:
    """Release what is driven, for `timeout` seconds at the most."""
    engine = port.engine
    engine.stop_work()
    engine.yield_all()
    engine.flush()
    try:
        async with asyncio.timeout(timeout):
            await driver.idle.wait()
    except TimeoutError:
        _log.warning(
            "%d runs had steps in flight for more than %g s; they go on elsewhere when their lease has ended",
            engine.active(),
            timeout,
        )
