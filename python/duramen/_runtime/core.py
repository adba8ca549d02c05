"""The part of `Runtime` that opens, closes and migrates; everything else is built on it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
import weakref
from typing import TYPE_CHECKING, Any

from duramen._bridge import NativeStore, StoreFailed, native_error
from duramen._driving.stepper import Stepper
from duramen._driving.transactions import Transactions
from duramen._stores.url import Target, parse_target
from duramen._values.checks import check_choice, check_count, check_identifier, check_tables, new_owner
from duramen._values.durations import duration_ms
from duramen._values.serializer import JsonSerializer
from duramen.errors import (
    ForkedProcess,
    InvalidArgument,
    RuntimeClosed,
    RuntimeNotOpen,
    StoreNewer,
    StoreUnmigrated,
)

from .driver import Driver
from .port import Port
from .registry import Registry
from .views import SchemaView
from .watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import timedelta
    from types import TracebackType
    from typing import Self

    from duramen._bridge import Engine, RunEvent, Schema
    from duramen._values.serializer import Serializer
    from duramen.store import Store

__all__ = ["RuntimeCore"]

_log = logging.getLogger("duramen")

_HOLD_MS = 1000
"""A deadline this near is waited for with the lease kept: cheaper than a release and a claim."""


class RuntimeCore:
    """See `Runtime`."""

    def __init__(
        self,
        url: str | Store,
        *,
        workflows: Iterable[Any] = (),
        serializer: Serializer | None = None,
        lease: timedelta | float = 30,
        owner: str | None = None,
        warm: int = 1000,
        max_threads: int | None = None,
        migrate: bool | None = None,
        synchronous: str = "full",
        busy_timeout: timedelta | float = 5,
        schema: str | None = None,
        tables: Mapping[str, str] | None = None,
        pool_size: int | None = None,
        statement_cache: str | None = None,
        shutdown_timeout: timedelta | float = 5,
        watchdog: timedelta | float = 1,
        database: Any = None,
    ) -> None:
        self._target = parse_target(url)
        self._registry = Registry(workflows)
        self.serializer: Serializer = JsonSerializer() if serializer is None else serializer
        self._lease_ms = duration_ms(lease, "lease")
        if not 1000 <= self._lease_ms <= 86_400_000:
            raise InvalidArgument(f"lease is {lease!r}: it must be from 1 second to 1 day")
        self._owner_label = owner
        new_owner(owner)  # refuses a bad one here, not when it opens
        self._warm = check_count("warm", warm, least=0)
        self._max_threads = (
            None if max_threads is None else check_count("max_threads", max_threads, most=10_000)
        )
        self._migrate = self._target.migrates_itself if migrate is None else bool(migrate)
        self._synchronous = check_choice("synchronous", synchronous, ("full", "normal"))
        self._busy_ms = duration_ms(busy_timeout, "busy_timeout")
        self._postgres = _postgres_options(
            self._target, schema=schema, tables=tables, pool_size=pool_size, statement_cache=statement_cache
        )
        self._shutdown = duration_ms(shutdown_timeout, "shutdown_timeout") / 1000
        self._watchdog_limit = duration_ms(watchdog, "watchdog") / 1000
        self._transactions = Transactions(
            self._target,
            database,
            synchronous=self._synchronous,
            busy_timeout=self._busy_ms / 1000,
            lease=self._lease_ms / 1000,
        )
        self._port: Port | None = None
        self._driver_: Driver | None = None
        self._was_open = False
        self._opening = False
        self._in_haste = False
        self._pid = os.getpid()
        self._delayed: set[asyncio.TimerHandle] = set()
        self._background: set[asyncio.Future[Any]] = set()

    def __repr__(self) -> str:
        state = "open" if self._port is not None else "closed" if self._was_open else "not open"
        return f"<Runtime {self._target} ({len(self._registry)} workflows, {state})>"

    # -- opening ---------------------------------------------------------------------------------------------

    async def open(self) -> Self:
        """Open the store, check its schema and start to drive; ``async with runtime:`` does it too.

        Raises:
            StoreUnmigrated: the schema is missing or older, and `migrate` is off.
            StoreNewer: a later version of Duramen wrote the schema.
            StoreError: the store cannot be reached, read or written.
            InvalidArgument: the runtime is open already.
        """
        if self._port is not None or self._opening:
            if self._port is not None and os.getpid() != self._pid:
                self._port.check()
            raise InvalidArgument("the runtime is open already: use it, or make another one for another loop")
        self._opening = True
        try:
            self._registry.load()
            loop = asyncio.get_running_loop()
            opened = await self._connected(self._migrate)
            stepper = self._new_stepper(loop)
            watchdog = Watchdog(loop, self._watchdog_limit)
            driver = Driver(loop, self._registry, self.serializer, stepper, watchdog, self._transactions)
            try:
                port = self._new_port(loop, driver, opened=opened)
            except BaseException:
                watchdog.stop()
                raise
            try:
                await _prepare(port, migrate=self._migrate, target=self._target)
                driver.attach(port.engine)
                self._transactions.attach(port)
                port.engine.register(self._registry.keys())
            except BaseException:
                watchdog.stop()
                await port.close(self._shutdown)
                raise
            self._port, self._driver_ = port, driver
            self._was_open, self._in_haste = True, False
            self._pid = os.getpid()
            _open_runtimes.add(self)
        finally:
            self._opening = False
        return self

    def _new_stepper(self, loop: asyncio.AbstractEventLoop) -> Stepper:
        return Stepper(loop, max_threads=self._max_threads)

    async def _connected(self, migrate: bool) -> NativeStore | None:
        """Open a distant store in a thread: the loop goes on while the network takes its time."""
        if self._target.scheme != "postgres":
            return None
        options = self._engine_settings(migrate=migrate)["options"]
        try:
            return await asyncio.to_thread(NativeStore, self._target.scheme, self._target.location, options)
        except StoreFailed as error:
            kind, message = error.args
            raise native_error((kind, message)) from None

    def _new_port(
        self,
        loop: asyncio.AbstractEventLoop,
        driver: Driver | None,
        *,
        migrate: bool | None = None,
        opened: NativeStore | None = None,
    ) -> Port:
        settings = self._engine_settings(migrate=self._migrate if migrate is None else migrate)
        on_events = driver.on_events if driver is not None else _ignore
        return Port(loop, self._target, settings, on_events, opened)

    def _engine_settings(self, *, migrate: bool) -> dict[str, Any]:
        return {
            "owner": new_owner(self._owner_label),
            "label": f"{socket.gethostname()[:100]}:{os.getpid()}",
            "serves": self._registry.names(),
            "lease": self._lease_ms,
            "hold": min(_HOLD_MS, self._lease_ms // 4),
            "warm": self._warm,
            "options": {
                "migrate": migrate,
                "synchronous": self._synchronous,
                "busy_timeout": self._busy_ms,
                **self._postgres,
            },
        }

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of every run and close the store. Safe to call twice.

        Runs that are being driven are released as soon as their steps in flight are recorded. Those whose
        steps take longer than `shutdown_timeout` are dropped: they go on elsewhere when their lease has
        ended.
        """
        port, driver = self._port, self._driver_
        if port is None or driver is None:
            return
        port.check()
        self._port = self._driver_ = None
        for timer in self._delayed:
            timer.cancel()
        self._delayed.clear()
        for future in list(self._background):
            future.cancel()
        try:
            # Whoever was told to hurry, or has drained before, does not wait a second time.
            await _let_go(port, driver, 0 if self._in_haste else self._shutdown)
        finally:
            driver.detach()
            self._transactions.detach()
            try:
                driver.stepper.close()
                await asyncio.wait_for(driver.stepper.aclose(), 1)
            except TimeoutError:
                _log.warning("a step swallows its cancellation; it is left to itself")
            finally:
                await port.close(self._shutdown)
                _open_runtimes.discard(self)

    # -- access for the calls --------------------------------------------------------------------------------

    @property
    def _ready(self) -> Port:
        """The port, if calls are possible.

        Raises:
            RuntimeNotOpen: it was never opened; RuntimeClosed: it was closed.
        """
        port = self._port
        if port is None:
            if os.getpid() != self._pid and self._was_open:
                raise ForkedProcess(
                    "the runtime was open in the parent process: make a new Runtime after the fork"
                )
            if self._was_open:
                raise RuntimeClosed("the runtime was closed: open it again with `async with runtime:`")
            raise RuntimeNotOpen(
                "the runtime is not open: use `async with runtime:` or `await runtime.open()`"
            )
        port.check()
        return port

    @property
    def _engine(self) -> Engine:
        return self._ready.engine

    @property
    def _driver(self) -> Driver:
        driver = self._driver_
        if driver is None:
            raise RuntimeClosed("the runtime was closed during the call")
        return driver

    @property
    def owner(self) -> str:
        """The name under which this runtime holds leases; new with each opening.

        Raises:
            RuntimeNotOpen: it is not open.
        """
        return self._engine.owner()

    @property
    def broken(self) -> dict[str, BaseException]:
        """Workflows given as ``"package.module:attribute"`` that could not be imported, and why."""
        return dict(self._registry.broken)

    def stats(self) -> dict[str, int]:
        """Counters since it was opened: commits, claims, runs ended and so on; `active`: now."""
        return self._engine.stats()

    def _delay(self, seconds: float, callback: Any, *args: Any) -> None:
        """Call something later, unless the runtime is closed before."""

        def fire() -> None:
            self._delayed.discard(handle)
            if self._port is not None:
                callback(*args)

        handle = self._ready.loop.call_later(seconds, fire)
        self._delayed.add(handle)

    # -- schema ----------------------------------------------------------------------------------------------

    async def migrate(self) -> SchemaView:
        """Bring the store's schema up to date. Works on a runtime that is not open, too.

        Raises:
            StoreNewer: a later version of Duramen wrote the schema.
            StoreError: the store cannot be reached, read or written.
        """
        return await self._schema("migrate")

    async def schema(self) -> SchemaView:
        """Read the version of the store's schema; changes nothing. Works on a runtime that is not open, too.

        Raises:
            StoreError: the store cannot be reached or read.
        """
        return await self._schema("schema")

    async def _schema(self, method: str) -> SchemaView:
        if self._port is not None:
            port = self._ready
            return schema_view(await port.call(getattr(port.engine, method)))
        # Only a store that may be migrated is created if it is missing.
        try:
            migrate = method == "migrate"
            opened = await self._connected(migrate)
            port = self._new_port(asyncio.get_running_loop(), None, migrate=migrate, opened=opened)
        except (StoreUnmigrated, StoreNewer) as error:
            # A store may look at its schema when it is opened; what it says then is the answer.
            found = _VERSIONS.search(str(error))
            if method == "migrate" or found is None:
                raise
            return SchemaView(int(found[1]), int(found[2]))
        try:
            applied = port.engine.applied_on_open()
            view = schema_view(await port.call(getattr(port.engine, method)))
            return SchemaView(view.found, view.needed, (*applied, *view.applied))
        finally:
            await port.close(self._shutdown)


def _postgres_options(target: Target, **given: Any) -> dict[str, Any]:
    """What the URL says, and over it what the caller says."""
    options = {name: value for name, value in given.items() if value is not None}
    if options and target.scheme != "postgres":
        raise InvalidArgument(f"{next(iter(options))}= is for Postgres; the store is {target}")
    options = {**target.options, **options}
    if "pool_size" in options:
        check_count("pool_size", options["pool_size"], most=64)
    for name, choices in (
        ("statement_cache", ("named", "off")),
        ("isolation", ("read_committed", "repeatable_read", "serializable")),
    ):
        if name in options:
            check_choice(name, options[name], choices)
    if "schema" in options:
        check_identifier("schema", options["schema"])
    if "tables" in options:
        options["tables"] = check_tables(options["tables"])
    return options


_VERSIONS = re.compile(r"at version (\d+), .*?(\d+)")

_open_runtimes: weakref.WeakSet[RuntimeCore] = weakref.WeakSet()


def _ignore(events: list[RunEvent]) -> None:
    pass


def schema_view(schema: Schema) -> SchemaView:
    """Make the view of a schema."""
    return SchemaView(schema.found, schema.needed, tuple(schema.applied))


async def _prepare(port: Port, *, migrate: bool, target: Target) -> None:
    written_in_python = target.scheme == "python"
    schema = schema_view(await port.call(port.engine.migrate if migrate else port.engine.schema))
    if schema.found < schema.needed:
        raise StoreUnmigrated(
            f"the schema of {target} is at version {schema.found} and this version of duramen needs "
            f"{schema.needed}: run `duramen migrate {target}`, or open the runtime with migrate=True"
        )
    # Our own stores have looked when they were opened, and know which newer schemas they can work with.
    if schema.found > schema.needed and written_in_python:
        raise StoreNewer(
            f"the schema of {target} is at version {schema.found}, newer than {schema.needed}, "
            "the newest that this version of duramen knows: upgrade duramen here"
        )


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
