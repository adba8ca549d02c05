"""`Runtime`: one store, the workflows this process knows, and everything one can do with their runs.

It says what the calls are called, take and promise; what they do stands in the services of `_runtime`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from duramen._handlers.inputs import NO_INPUT
from duramen._runtime.services import Services
from duramen._runtime.settings import Settings, Work
from duramen._runtime.views import RunRequest
from duramen._values.checks import check_id

from ._forks import ForkCalls
from ._messages import MessageCalls
from ._pausing import PauseCalls
from ._queries import QueryCalls
from ._requests import RequestCalls
from ._schedules import ScheduleCalls
from ._streams import StreamCalls
from ._tokens import TokenCalls
from ._versions import VersionCalls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from types import TracebackType
    from typing import Self

    from typing_extensions import Unpack

    from duramen._handlers.context import Context
    from duramen._handlers.middleware import Middleware
    from duramen._handlers.step_context import StepContext
    from duramen._handlers.workflow import WorkflowDef
    from duramen._runtime.requests import RunOptions, StartOptions
    from duramen._runtime.settings import WorkOptions
    from duramen._runtime.views import (
        Event,
        RunHandle,
        RunResult,
        SchemaView,
        SweepResult,
    )
    from duramen._schedules.schedule import Schedule
    from duramen._values.serializer import Serializer
    from duramen.store import Store

    from ._sync import SyncRuntime

__all__ = ["Runtime"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")

_List = list
"""The built-in one, where the class has a method of that name."""


class Runtime(
    MessageCalls, QueryCalls, VersionCalls, StreamCalls, RequestCalls, TokenCalls, PauseCalls, ForkCalls
):
    """A store and the workflows that this process knows. It belongs to the event loop on which it is opened.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db``, ``postgresql://user:password@host/db``
            (with libpq's parameters), ``memory://``, ``memory://name`` (shared by all runtimes of the
            process), or a store object written in Python.
        workflows: definitions (made by `@workflow`), or ``"package.module:attribute"`` for those to
            import when the runtime opens. An import that fails is logged, and only that workflow is missing.
        serializer: turns values into payloads; default `JsonSerializer`.
        lease: for how long a run is this process's without a sign of life, in seconds or as a `timedelta`.
            After a crash others take over when it has passed.
        owner: a label in front of this runtime's unique owner name; default host and process id.
        warm: how many paused runs stay in memory, to go on without a replay.
        max_threads: the most steps that run in threads at once.
        processes: the most steps with ``where="process"`` at once; default: as many as there are processors.
        migrate: bring the schema up to date when opening. Default: yes for SQLite and memory, no for
            Postgres.
        synchronous: ``full`` (a power cut loses nothing), or ``normal`` (SQLite: it may lose the
            last commits).
        busy_timeout: how long to wait for another process's lock on an SQLite file.
        schema: Postgres: the schema of the tables; default ``duramen``. This and the next three may stand
            in the URL as well (``?schema=jobs&pool_size=2``).
        tables: Postgres: other names for tables, such as ``{"runs": "app_runs"}``.
        pool_size: Postgres: the most connections for reading and writing; default 4, more are not used. One
            more listens for wake-up hints.
        statement_cache: Postgres: ``named`` (prepared once for each connection), or ``off`` behind a pooler
            that gives each transaction another connection.
        shutdown_timeout: how long `close` waits for steps in flight.
        watchdog: warn when something holds the event loop up for longer than this; 0: never.
        database: where `ctx.transaction` gets connections from, for a store in Postgres: a pool, an engine,
            or a function that connects, of psycopg 3, asyncpg or SQLAlchemy 2, to the store's database.
        middleware: functions around every handler, outside of those of its workflow, the first one outermost;
            see `workflow`.
        step_middleware: the same around each attempt of every step.
        schedules: written into the store when the runtime opens, if they are not there as they are declared.
            Processes that work (or sweep) and know the workflow fire them.
        stale_schedules: ``remove`` takes out of the store, when the runtime opens, what was declared before
            and is not in `schedules` any more. Only for a store of which one application declares schedules.
        work: take up and drive whatever is due while it is open, beside everything else: for the lifespan
            of a web application. A dict says how, with `concurrency`, `poll_min`, `poll_max` and `drain` as
            in `Runtime.work`. `close` waits for steps in flight as long as `drain` says.

    Raises:
        InvalidArgument: an argument makes no sense; nothing was opened.
        DuplicateWorkflow: two workflows have one name and version.

    >>> import asyncio
    >>> from duramen import Context, workflow
    >>> @workflow
    ... async def greet(ctx: Context, name: str) -> str:
    ...     return f"hello {name}"
    >>> async def main() -> None:
    ...     async with Runtime("memory://", workflows=[greet]) as runtime:
    ...         run = await runtime.start(greet, "you", run_id="greeting:1")
    ...         print(run.created, await run.result(timeout=10))
    ...         print((await runtime.get("greeting:1")).status)
    >>> asyncio.run(main())
    True hello you
    completed
    """

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
        processes: int | None = None,
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
        middleware: Sequence[Middleware[Context[Any]]] = (),
        step_middleware: Sequence[Middleware[StepContext]] = (),
        schedules: Iterable[Schedule[Any]] = (),
        stale_schedules: Literal["keep", "remove"] = "keep",
        work: bool | WorkOptions = False,
    ) -> None:
        try:
            settings = Settings.checked(
                url,
                serializer=serializer,
                lease=lease,
                owner=owner,
                warm=warm,
                max_threads=max_threads,
                processes=processes,
                migrate=migrate,
                synchronous=synchronous,
                busy_timeout=busy_timeout,
                schema=schema,
                tables=tables,
                pool_size=pool_size,
                statement_cache=statement_cache,
                shutdown_timeout=shutdown_timeout,
                watchdog=watchdog,
                database=database,
                middleware=middleware,
                step_middleware=step_middleware,
                schedules=schedules,
                stale_schedules=stale_schedules,
                work=work,
            )
        finally:
            # A password may be in it, and tracebacks are shown with the values of variables by some programs.
            del url
        super().__init__(Services(self, workflows, settings))

    def __repr__(self) -> str:
        services: Services | None = getattr(self, "_services", None)
        if services is None:
            return "<Runtime (its arguments were refused)>"  # in a traceback with local variables
        known, state = len(services.registry), services.lifecycle.state
        return f"<Runtime {services.settings.target} ({known} workflows, {state})>"

    # -- opening ---------------------------------------------------------------------------------------------

    async def open(self, *, only_look: bool = False) -> Self:
        """Open the store, check its schema and start to drive; ``async with runtime:`` does it too.

        Args:
            only_look: nothing is migrated and no work begun, whatever the runtime was told: for tools that
                open an application's runtime beside those who work.

        Raises:
            StoreUnmigrated: the schema is missing or older, and `migrate` is off.
            StoreNewer: a later version of Duramen wrote the schema.
            StoreError: the store cannot be reached, read or written.
            InvalidArgument: the runtime is open already.
        """
        await self._services.open(only_look=only_look)
        return self

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
        await self._services.here(self._services.lifecycle.close)

    # -- about itself ----------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether it has been opened and not closed since."""
        return self._services.lifecycle.port is not None

    @property
    def serializer(self) -> Serializer:
        """What turns values into payloads."""
        return self._services.settings.serializer

    @property
    def owner(self) -> str:
        """The name under which this runtime holds leases; new with each opening. Any thread may ask.

        Raises:
            RuntimeNotOpen: it is not open.
        """
        return self._services.lifecycle.facts[0].owner()

    @property
    def broken(self) -> dict[str, BaseException]:
        """Workflows given as ``"package.module:attribute"`` that could not be imported, and why."""
        return dict(self._services.registry.broken)

    @property
    def workflows(self) -> tuple[tuple[str, str], ...]:
        """Name and version of each workflow that this runtime can drive, `previous` ones included.

        Those given as ``"package.module:attribute"`` are among them once it has been opened.
        """
        return tuple(sorted(self._services.registry.keys()))

    def stats(self) -> dict[str, int]:
        """Counters since it was opened: commits, claims, runs ended and so on; `active`: now.

        Of the runs that `ended` in this process, `completed`, `failed`, `cancelled` and `stuck` say how. Any
        thread may ask, whatever event loop it has.

        Raises:
            RuntimeNotOpen: it is not open.
        """
        engine, driver = self._services.lifecycle.facts
        return {**engine.stats(), **driver.ends}

    async def migrate(self) -> SchemaView:
        """Bring the store's schema up to date. Works on a runtime that is not open, too.

        Raises:
            StoreNewer: a later version of Duramen wrote the schema.
            StoreError: the store cannot be reached, read or written.
        """
        return await self._services.here(self._services.schemas.migrate)

    async def schema(self) -> SchemaView:
        """Read the version of the store's schema; changes nothing. Works on a runtime that is not open, too.

        Raises:
            StoreError: the store cannot be reached or read.
        """
        return await self._services.here(self._services.schemas.read)

    # -- schedules -------------------------------------------------------------------------------------------

    @property
    def schedules(self) -> ScheduleCalls:
        """The schedules of the store, and the calls that change them."""
        return ScheduleCalls(self._services)

    # -- creating --------------------------------------------------------------------------------------------

    @overload
    async def start(
        self, workflow: WorkflowDef[None, OutputT], input: None = None, **options: Unpack[StartOptions]
    ) -> RunHandle[OutputT]: ...
    @overload
    async def start(
        self, workflow: WorkflowDef[InputT, OutputT], input: InputT, **options: Unpack[StartOptions]
    ) -> RunHandle[OutputT]: ...
    @overload
    async def start(
        self, workflow: str, input: Any = None, **options: Unpack[StartOptions]
    ) -> RunHandle[Any]: ...
    async def start(
        self,
        workflow: Any,
        input: Any = NO_INPUT,  # noqa: A002
        *,
        run_id: str | None = None,
        start_at: datetime | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
    ) -> RunHandle[Any]:
        """Create a run and drive it in this process, in the background. The run is durable when this returns.

        While this runtime is open it also wakes the run again when it paused and is due; another process may
        as well.

        Args:
            workflow: a registered workflow, or its name.
            input: what the handler gets; checked against its type before anything is written. Left out, it is
                the default of the handler's parameter, else None.
            run_id: 1 to 255 characters; default: a fresh one that sorts by time. If there is a run of that id
                already, its handle is returned with ``created=False``, and it keeps its first input; unless
                it has ended it is gone on with here: a program that crashed goes on by the same call.
            start_at: aware; not before that instant.
            tags: texts to find it by, beside those of the workflow.
            memo: any value to keep with the run; handlers do not see it.

        Raises:
            UnknownWorkflow: it is not registered here.
            RunIdConflict: the run id belongs to a run of another workflow.
            InvalidId: the run id or a tag cannot be stored.
            StoreLocked: a transaction of somebody else's is about to create that id, and has been open for as
                long as a lease.
            SerializationError: the input does not fit its type, or cannot be stored.
        """
        request = RunRequest(workflow, input, run_id, start_at, _unchecked(tags), memo)
        return await self._services.here(self._services.starting.start, request)

    @overload
    async def enqueue(
        self,
        workflow: WorkflowDef[None, OutputT],
        input: None = None,
        *,
        connection: Any = None,
        **options: Unpack[StartOptions],
    ) -> RunHandle[OutputT]: ...
    @overload
    async def enqueue(
        self,
        workflow: WorkflowDef[InputT, OutputT],
        input: InputT,
        *,
        connection: Any = None,
        **options: Unpack[StartOptions],
    ) -> RunHandle[OutputT]: ...
    @overload
    async def enqueue(
        self, workflow: str, input: Any = None, *, connection: Any = None, **options: Unpack[StartOptions]
    ) -> RunHandle[Any]: ...
    async def enqueue(
        self,
        workflow: Any,
        input: Any = NO_INPUT,  # noqa: A002
        *,
        run_id: str | None = None,
        start_at: datetime | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
        connection: Any = None,
    ) -> RunHandle[Any]:
        """Create a run without driving it: any worker or sweep takes it. See `start`.

        Args:
            workflow: as in `start`.
            input: as in `start`.
            run_id: as in `start`.
            start_at: as in `start`.
            tags: as in `start`.
            memo: as in `start`.
            connection: a connection of yours to the store's database, with a transaction open: the run is
                created if and only if that transaction commits. Nothing is committed or rolled back here.
                Of psycopg 3, asyncpg, SQLAlchemy 2 (a session, too), or `duramen.sqlite`.

        Raises:
            UnusableConnection: the connection is closed, has no transaction, or is of an unknown driver.
            WrongDatabase: it leads to another database than the store's.
            TransactionsUnsupported: the store is neither in Postgres nor in SQLite.
        """
        request = RunRequest(workflow, input, run_id, start_at, _unchecked(tags), memo)
        if connection is None:
            return await self._services.here(self._services.starting.enqueue, request)
        return await (await self._services.here(self._services.starting.planned, request)).carry_out(
            connection
        )

    @overload
    async def enqueue_many(
        self, requests: Iterable[tuple[WorkflowDef[InputT, OutputT], InputT]]
    ) -> _List[RunHandle[OutputT]]: ...
    @overload
    async def enqueue_many(
        self, requests: Iterable[RunRequest | tuple[WorkflowDef[Any, Any] | str, Any]]
    ) -> _List[RunHandle[Any]]: ...
    async def enqueue_many(self, requests: Iterable[Any]) -> _List[RunHandle[Any]]:
        """Create many runs with few transactions; nothing is written if one of them is invalid.

        Args:
            requests: `RunRequest`s, or pairs of a workflow and an input.

        Raises:
            RunIdConflict: a run id belongs to a run of another workflow; the other runs were created.
            StoreLocked: a transaction of somebody else's is about to create one of the ids, and has been open
                for as long as a lease; the other runs were created.
            UnknownWorkflow, InvalidId, SerializationError: as in `start`; nothing was created.
        """
        return await self._services.here(self._services.starting.enqueue_many, [*requests])

    @overload
    def handle(self, run_id: str, workflow: WorkflowDef[Any, OutputT]) -> RunHandle[OutputT]: ...
    @overload
    def handle(self, run_id: str, workflow: str | None = None) -> RunHandle[Any]: ...
    def handle(self, run_id: str, workflow: Any = None) -> RunHandle[Any]:
        """A handle of a run by its id; nothing is read.

        Args:
            run_id: which run.
            workflow: what it is a run of: `RunHandle.result` gives what that workflow does, and refuses a run
                of another one (`InvalidArgument`). It need not be registered here; its name will do if it is.

        Raises:
            UnknownWorkflow: a name that is not registered here.
        """
        check_id("run id", run_id)
        if workflow is None:
            return self._services.handle(run_id)
        definition = self._services.registry.named(workflow)
        return self._services.handle(run_id, definition.name, output_type=definition.output_type)

    # -- driving ---------------------------------------------------------------------------------------------

    @overload
    async def run(
        self,
        workflow: WorkflowDef[None, OutputT],
        input: None = None,
        *,
        max_duration: timedelta | float | None = None,
        max_events: int = 1000,
        **options: Unpack[RunOptions],
    ) -> RunResult[OutputT]: ...
    @overload
    async def run(
        self,
        workflow: WorkflowDef[InputT, OutputT],
        input: InputT,
        *,
        max_duration: timedelta | float | None = None,
        max_events: int = 1000,
        **options: Unpack[RunOptions],
    ) -> RunResult[OutputT]: ...
    @overload
    async def run(
        self,
        workflow: str,
        input: Any = None,
        *,
        max_duration: timedelta | float | None = None,
        max_events: int = 1000,
        **options: Unpack[RunOptions],
    ) -> RunResult[Any]: ...
    async def run(
        self,
        workflow: Any,
        input: Any = NO_INPUT,  # noqa: A002
        *,
        run_id: str | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
        max_duration: timedelta | float | None = None,
        max_events: int = 1000,
    ) -> RunResult[Any]:
        """Create a run (or take the one of that id) and drive it here until it ends, pauses, or time is up.

        Args:
            workflow: as in `start`.
            input: as in `start`.
            run_id: as in `start`.
            tags: as in `start`.
            memo: as in `start`.
            max_duration: after that time no further step is started; the run is left due at once, and nothing
                more happens with it here. Without, it is woken again like one that was begun with `start`.
            max_events: how many live events to return at most.

        Returns:
            Its `kind` is ``completed``, ``failed``, ``cancelled``, ``terminated``, ``stuck`` or ``paused``;
            ``running`` if another process drives it or its steps outlast the budget; ``not_claimable`` if it
            exists and nothing of it is due.
        """
        request = RunRequest(workflow, input, run_id, None, _unchecked(tags), memo)
        return await self._services.here(
            self._services.running.run, request, max_duration=max_duration, max_events=max_events
        )

    async def sweep(
        self,
        *,
        limit: int | None = None,
        max_recovered: int = 25,
        max_scheduled: int = 25,
        max_timers: int = 25,
        max_queued: int = 25,
        max_duration: timedelta | float | None = None,
        deadline: datetime | None = None,
        min_remaining: timedelta | float = 1,
        now: datetime | None = None,
        max_bytes: int | None = None,
        include_events: bool = False,
        max_events: int = 1000,
        publish: Callable[[Event], object] | None = None,
    ) -> SweepResult:
        """Make one bounded pass: take what is due, drive it until it ends or pauses, say what was done.

        Schedules that are due start their runs first. Of the runs, those of crashed processes come first,
        then those with a timer or a message, then queued ones. Owner and lease are those of the runtime: one
        owner's leases are renewed together.

        Args:
            limit: how many runs at most, all kinds together.
            max_recovered: how many of the first kind.
            max_scheduled: how many schedules that are due start their runs.
            max_timers: how many of the second.
            max_queued: how many of the third.
            max_duration: stop after this time: no run is taken and no step started any more.
            deadline: the same as an instant, aware.
            min_remaining: take no run with less time left than this.
            now: for tests: what is due is decided by this instant.
            max_bytes: stop taking runs when their journals are larger together than this.
            include_events: also return live events.
            max_events: how many of them at most.
            publish: called with each live event at once, whatever `max_events` is. What it raises is logged.
        """
        return await self._services.here(
            self._services.sweeping.sweep,
            limit=limit,
            max_recovered=max_recovered,
            max_scheduled=max_scheduled,
            max_timers=max_timers,
            max_queued=max_queued,
            max_duration=max_duration,
            deadline=deadline,
            min_remaining=min_remaining,
            now=now,
            max_bytes=max_bytes,
            include_events=include_events,
            max_events=max_events,
            publish=publish,
        )

    async def work(
        self,
        *,
        concurrency: int = 100,
        poll_min: timedelta | float = 0.02,
        poll_max: timedelta | float = 1,
        drain: timedelta | float = 25,
        handle_signals: bool | None = None,
    ) -> None:
        """Take and drive whatever is due, until it is cancelled, or SIGTERM or SIGINT comes.

        At the end nothing new is taken, and runs are let go as soon as their steps in flight are recorded. A
        second signal does not wait for those. In the lifespan of a web application, ``Runtime(work=True)``
        does it.

        Args:
            concurrency: how many runs are driven at once, at most.
            poll_min: pause between two looks into the store while there is work.
            poll_max: the longest pause; changes made in this process are seen at once.
            drain: how long to wait for steps in flight at the end. Runs whose steps take longer go on
                elsewhere when their lease has ended.
            handle_signals: end on SIGTERM and SIGINT (in the main thread only), whoever handles them. False
                leaves both to the program; None those that somebody handles, such as a web server.
        """
        work = Work.checked(concurrency=concurrency, poll_min=poll_min, poll_max=poll_max, drain=drain)
        services = self._services
        await services.here(services.working.work, work, handle_signals=handle_signals)

    # -- from other threads ----------------------------------------------------------------------------------

    @property
    def sync(self) -> SyncRuntime:
        """The same calls for code without an event loop (scripts, threads, Django); see `SyncRuntime`."""
        found = self.__dict__.get("_sync")
        if found is None:
            from ._sync import SyncRuntime

            found = self.__dict__.setdefault("_sync", SyncRuntime(self, self._services))
        return found


def _unchecked(tags: Iterable[str]) -> Any:
    """They are checked with the rest of the request, and made a tuple then."""
    return tags
