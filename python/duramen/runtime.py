"""`Runtime`: one store, the workflows this process knows, and everything one can do with their runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ._bridge import Change
from ._handlers.inputs import NO_INPUT
from ._runtime.driver import Collector
from ._runtime.messages import Messages, id_held_by_others
from ._runtime.signals import caught_signals
from ._runtime.views import Event, RunHandle, RunRequest, RunResult, SweepResult, SweptRun
from ._values.checks import check_count, check_id, check_tags, new_run_id
from ._values.durations import duration_ms, instant_ms
from .errors import InvalidArgument, RunIdConflict, StoreLocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime, timedelta

    from ._bridge import Created, Started, Swept
    from ._handlers.workflow import WorkflowDef
    from ._runtime.sync import SyncRuntime

__all__ = ["Runtime"]

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")

_log = logging.getLogger("duramen")


def _seen(part: asyncio.Task[Any]) -> None:
    """Whoever waited for it has failed already: its own failure says nothing new."""
    if not part.cancelled():
        part.exception()


_PART = 500
"""So many runs of `enqueue_many` are one request to the store …"""

_PARTS = 3
"""… and so many requests are under way at once."""

_YIELD_GRACE = 1.0
"""How long, in seconds, `run` waits beyond its budget for the steps in flight."""


class Runtime(Messages):
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

    Raises:
        InvalidArgument: an argument makes no sense; nothing was opened.
        DuplicateWorkflow: two workflows have one name and version.

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

    # -- creating --------------------------------------------------------------------------------------------

    @overload
    async def start(
        self,
        workflow: WorkflowDef[None, OutputT],
        input: None = None,
        *,
        run_id: str | None = None,
        start_at: datetime | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
    ) -> RunHandle[OutputT]: ...
    @overload
    async def start(
        self,
        workflow: WorkflowDef[InputT, OutputT],
        input: InputT,
        *,
        run_id: str | None = None,
        start_at: datetime | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
    ) -> RunHandle[OutputT]: ...
    @overload
    async def start(
        self,
        workflow: str,
        input: Any = None,
        *,
        run_id: str | None = None,
        start_at: datetime | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
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
        port = self._ready
        request = RunRequest(workflow, input, run_id, start_at, tuple(check_tags(tags)), memo)
        row = self._new_row(request)
        if row[4] is not None and row[4] > port.engine.now():
            handle = (await self._create([row]))[0]
            if handle.created:
                self._delay((row[4] - port.engine.now()) / 1000 + 0.001, self._adopt_soon, handle.run_id)
            else:  # it has a start of its own, and may have begun long ago
                self._adopt_soon(handle.run_id)
            return handle
        handle, _ = await self._start(row)
        return handle

    async def _start(self, row: Row) -> tuple[RunHandle[Any], int | None]:
        port = self._ready
        run_id, name, version, data, _, tags, memo, timeout = row
        started: Started = await port.call(
            port.engine.start, run_id, name, version, data, tags, memo, timeout
        )
        if started.status == "blocked":
            raise id_held_by_others(run_id)
        if started.workflow != name:
            raise RunIdConflict(run_id, name, started.workflow)
        return self._handle(row, created=started.created), started.ticket

    @overload
    async def enqueue(
        self,
        workflow: WorkflowDef[None, OutputT],
        input: None = None,
        *,
        run_id: str | None = None,
        start_at: datetime | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
        connection: Any = None,
    ) -> RunHandle[OutputT]: ...
    @overload
    async def enqueue(
        self,
        workflow: WorkflowDef[InputT, OutputT],
        input: InputT,
        *,
        run_id: str | None = None,
        start_at: datetime | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
        connection: Any = None,
    ) -> RunHandle[OutputT]: ...
    @overload
    async def enqueue(
        self,
        workflow: str,
        input: Any = None,
        *,
        run_id: str | None = None,
        start_at: datetime | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
        connection: Any = None,
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
        row = self._enqueue_row(workflow, input, run_id=run_id, start_at=start_at, tags=tags, memo=memo)
        if connection is None:
            return (await self._create([row]))[0]
        change = Change.create(self._engine, row)
        return self._enqueued(row, await self._transactions.carry_out(connection, change))

    def _enqueue_row(
        self,
        workflow: Any,
        input: Any,  # noqa: A002
        *,
        run_id: str | None = None,
        start_at: datetime | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
    ) -> Row:
        return self._new_row(RunRequest(workflow, input, run_id, start_at, tuple(check_tags(tags)), memo))

    def _enqueued(self, row: Row, answer: tuple[Any, ...]) -> RunHandle[Any]:
        created, existing = answer
        if existing != row[1]:
            raise RunIdConflict(row[0], row[1], existing)
        return self._handle(row, created=bool(created))

    async def enqueue_many(
        self, requests: Iterable[RunRequest | tuple[WorkflowDef[Any, Any] | str, Any]]
    ) -> list[RunHandle[Any]]:
        """Create many runs with few transactions; nothing is written if one of them is invalid.

        Args:
            requests: `RunRequest`s, or pairs of a workflow and an input.

        Raises:
            RunIdConflict: a run id belongs to a run of another workflow; the other runs were created.
            StoreLocked: a transaction of somebody else's is about to create one of the ids, and has been open
                for as long as a lease; the other runs were created.
            UnknownWorkflow, InvalidId, SerializationError: as in `start`; nothing was created.
        """
        rows = [
            self._new_row(each if isinstance(each, RunRequest) else RunRequest(*each)) for each in requests
        ]
        handles: list[RunHandle[Any]] = []
        refused: RunIdConflict | StoreLocked | None = None
        # While the store writes one part, the next is on its way.
        starts, parts = iter(range(0, len(rows), _PART)), deque[asyncio.Task[list[RunHandle[Any]]]]()
        try:
            while True:
                for start in islice(starts, _PARTS - len(parts)):
                    parts.append(asyncio.create_task(self._create(rows[start : start + _PART])))
                if not parts:
                    break
                try:
                    handles += await parts.popleft()
                except (RunIdConflict, StoreLocked) as error:
                    refused = refused or error
        finally:
            for part in parts:
                part.cancel()
                part.add_done_callback(_seen)
        if refused is not None:
            raise refused
        return handles

    def _fresh_run_id(self) -> str:
        return new_run_id()

    def _new_row(self, request: RunRequest) -> Row:
        definition = self._registry.resolve(request.workflow)
        run_id = self._fresh_run_id() if request.run_id is None else check_id("run id", request.run_id)
        value = definition.input_or_default(request.input)
        if not definition.has_input and value is not None:
            raise InvalidArgument(f"workflow {definition.name!r} takes no input, so none can be given")
        return (
            run_id,
            definition.name,
            definition.version,
            self.serializer.dumps(value, definition.input_type),
            None if request.start_at is None else instant_ms(request.start_at, "start_at"),
            check_tags((*definition.tags, *check_tags(request.tags))),
            None if request.memo is None else self.serializer.dumps(request.memo),
            definition.timeout_ms,
        )

    async def _create(self, rows: list[Row]) -> list[RunHandle[Any]]:
        port = self._ready
        answers: list[Created] = await port.call(port.engine.create, rows)
        for row, answer in zip(rows, answers, strict=True):
            if answer.status == "blocked":
                raise id_held_by_others(row[0])
            if answer.workflow != row[1]:
                raise RunIdConflict(row[0], row[1], answer.workflow)
        return [self._handle(row, created=answer.created) for row, answer in zip(rows, answers, strict=True)]

    def _handle(self, row: Row, *, created: bool) -> RunHandle[Any]:
        output = self._registry.types(row[1], row[2])[1]
        return RunHandle(self, row[0], row[1], created=created, output_type=output)

    def handle(self, run_id: str) -> RunHandle[Any]:
        """A handle of a run by its id; nothing is read."""
        return RunHandle(self, check_id("run id", run_id), "")

    def _adopt_soon(self, run_id: str) -> None:
        future = asyncio.ensure_future(self._adopt(run_id))
        self._background.add(future)
        future.add_done_callback(self._background.discard)
        future.add_done_callback(_log_failure)

    # -- driving ---------------------------------------------------------------------------------------------

    @overload
    async def run(
        self,
        workflow: WorkflowDef[None, OutputT],
        input: None = None,
        *,
        run_id: str | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
        max_duration: timedelta | float | None = None,
        max_events: int = 1000,
    ) -> RunResult[OutputT]: ...
    @overload
    async def run(
        self,
        workflow: WorkflowDef[InputT, OutputT],
        input: InputT,
        *,
        run_id: str | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
        max_duration: timedelta | float | None = None,
        max_events: int = 1000,
    ) -> RunResult[OutputT]: ...
    @overload
    async def run(
        self,
        workflow: str,
        input: Any = None,
        *,
        run_id: str | None = None,
        tags: Iterable[str] = (),
        memo: Any = None,
        max_duration: timedelta | float | None = None,
        max_events: int = 1000,
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
        self._ready  # noqa: B018 - raises if no calls are possible
        limit = None if max_duration is None else duration_ms(max_duration, "max_duration") / 1000
        check_count("max_events", max_events, least=0)
        row = self._new_row(RunRequest(workflow, input, run_id, None, tuple(check_tags(tags)), memo))
        wanted = row[0]
        driver = self._driver
        collector = Collector(max_events)
        driver.collect(wanted, collector)
        if limit is not None:
            driver.budgets[wanted] = (time.monotonic() + limit, 0.0)
        left = driver.watch(wanted)
        try:
            if limit is None:
                handle, mine = await self._start(row)
                here = handle.created and mine is not None
            else:
                # Not by `start`, after which the engine goes on with the run whenever it is due.
                await self._create([row])
                here = False
            driven: str | None = None
            if here or await self._claim(wanted) or left.done():
                driven = await self._until_left(wanted, left, limit)
                if driven is None and limit is not None:
                    driver.yield_run(wanted)
                    driven = await self._until_left(wanted, left, _YIELD_GRACE)
        finally:
            driver.unwatch(wanted, left)
            driver.uncollect(wanted, collector)
            driver.budgets.pop(wanted, None)
        view = await self.get(wanted)
        kind: Any = view.status.value
        if not view.finished and kind != "stuck":
            kind = (
                "paused"
                if driven == "paused"
                else "not_claimable"
                if kind in {"waiting", "queued"}
                else "running"
            )
        return RunResult(
            kind,
            wanted,
            view,
            view.output,
            view.error,
            tuple(collector.events),
            collector.count,
            collector.count > len(collector.events),
        )

    async def sweep(
        self,
        *,
        limit: int | None = None,
        max_recovered: int = 25,
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

        Runs of crashed processes come first, then those with a timer or a message, then queued ones. Owner
        and lease are those of the runtime: one owner's leases are renewed together.

        Args:
            limit: how many runs at most, all kinds together.
            max_recovered: how many of the first kind.
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
        port = self._ready
        least = duration_ms(min_remaining, "min_remaining")
        end = None if deadline is None else instant_ms(deadline, "deadline")
        if max_duration is not None:
            mine = port.engine.now() + duration_ms(max_duration, "max_duration")
            end = mine if end is None else min(end, mine)
        options: dict[str, Any] = {
            "max_recovered": check_count("max_recovered", max_recovered, least=0),
            "max_timers": check_count("max_timers", max_timers, least=0),
            "max_queued": check_count("max_queued", max_queued, least=0),
            "deadline": end,
            "min_remaining": least,
            "now": None if now is None else instant_ms(now, "now"),
            "max_bytes": None if max_bytes is None else check_count("max_bytes", max_bytes, most=2**53),
        }
        if limit is not None:
            options["limit"] = check_count("limit", limit)
        collector = Collector(check_count("max_events", max_events, least=0), publish)
        driver = self._driver
        driver.collect("", collector)
        try:
            token, answer = port.call_with_token(port.engine.sweep, options)
            if end is not None:
                # What the sweep takes up comes in a later turn of the loop.
                left = max(0, end - port.engine.now()) / 1000
                driver.sweep_budgets[token] = (time.monotonic() + left, least / 1000)
                answer.add_done_callback(lambda _: driver.sweep_budgets.pop(token, None))
            # Whoever stops waiting for a sweep does not stop it: its runs keep to its budget.
            found = await asyncio.shield(answer)
        finally:
            driver.uncollect("", collector)
        return _swept(found, collector, tuple(collector.events) if include_events else ())

    async def work(
        self,
        *,
        concurrency: int = 100,
        poll_min: timedelta | float = 0.02,
        poll_max: timedelta | float = 1,
        drain: timedelta | float = 25,
        handle_signals: bool = True,
    ) -> None:
        """Take and drive whatever is due, until it is cancelled, or SIGTERM or SIGINT comes.

        At the end nothing new is taken, and runs are let go as soon as their steps in flight are recorded. A
        second signal does not wait for those.

        Args:
            concurrency: how many runs are driven at once, at most.
            poll_min: pause between two looks into the store while there is work.
            poll_max: the longest pause; changes made in this process are seen at once.
            drain: how long to wait for steps in flight at the end. Runs whose steps take longer go on
                elsewhere when their lease has ended.
            handle_signals: end on SIGTERM and SIGINT (in the main thread only). False leaves them to the
                program.
        """
        port = self._ready
        check_count("concurrency", concurrency, most=100_000)
        least, most = duration_ms(poll_min, "poll_min"), duration_ms(poll_max, "poll_max")
        if not 1 <= least <= most:
            raise InvalidArgument(
                f"poll_min is {poll_min!r} and poll_max {poll_max!r}: 0 < poll_min <= poll_max"
            )
        patience = duration_ms(drain, "drain") / 1000
        with caught_signals(port.loop, enabled=handle_signals) as caught:
            port.engine.work(concurrency, least, most)
            try:
                await caught.first.wait()
                _log.info("%s: letting go of %d runs", caught.name, port.engine.active())
            finally:
                await self._drain(patience, caught.second)
                self._in_haste = caught.first.is_set()

    async def _drain(self, patience: float, hurry: asyncio.Event) -> None:
        port, driver = self._port, self._driver_
        if port is None or driver is None:
            return
        port.engine.stop_work()
        port.engine.yield_all()
        port.engine.flush()
        waits = [asyncio.ensure_future(driver.idle.wait()), asyncio.ensure_future(hurry.wait())]
        try:
            await asyncio.wait(waits, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    # -- from other threads ----------------------------------------------------------------------------------

    @property
    def sync(self) -> SyncRuntime:
        """The same calls for code without an event loop (scripts, threads, Django); see `SyncRuntime`."""
        found = self.__dict__.get("_sync")
        if found is None:
            from ._runtime.sync import SyncRuntime

            found = self.__dict__.setdefault("_sync", SyncRuntime(self))
        return found


Row = tuple[str, str, str, bytes, int | None, list[str], bytes | None, int | None]


def _swept(found: Swept, collector: Collector, events: tuple[Event, ...]) -> SweepResult:
    groups = {
        group: tuple(SweptRun(run.run_id, run.kind) for run in runs)
        for group, runs in (
            ("recovered", found.recovered), ("timers", found.timers), ("queued", found.queued)
        )
    }  # fmt: skip
    summary: dict[str, int] = {}
    for runs in groups.values():
        for run in runs:
            summary[run.kind] = summary.get(run.kind, 0) + 1
    summary["event_count"] = collector.count
    summary["returned_event_count"] = len(events)
    return SweepResult(
        **groups,
        summary=summary,
        deadline_reached=found.deadline_reached,
        remaining_may_exist=found.more,
        events=events,
    )


def _log_failure(future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        _log.warning("a run that is due could not be taken: %s", error)
