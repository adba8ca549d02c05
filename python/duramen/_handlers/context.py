"""What a handler is given: its durable calls, the facts of its run, and its budget."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from inspect import isawaitable, iscoroutine
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar, overload
from uuid import UUID

from typing_extensions import TypeVar as DefaultTypeVar
from typing_extensions import TypeVarTuple, Unpack, override

from duramen._bridge import (
    CHECKPOINT_SEALED,
    TIMER_SLEEP,
    VALUE_NOW,
    VALUE_RANDOM,
    VALUE_UUID,
    Halted,
    InvalidIdError,
    invalid_id,
)
from duramen._logging import CarefulLogger, logger
from duramen._loop.insides import eager_starts, get_running_loop
from duramen._values.checks import check_id, check_text
from duramen._values.durations import duration_ms, from_ms, instant_ms
from duramen._values.payloads import Decision, step_failure
from duramen.errors import InvalidArgument, InvalidId, NotADurableContext, RunEvicted

from .retry import check_retry
from .step import StepDef, current_step, plan_of

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from duramen._driving.host import RunHost
    from duramen.errors import StepFailed

    from .retry import Retry
    from .step import StepPlan

__all__ = ["Approval", "Context"]

StateT = DefaultTypeVar("StateT", default=Any)
Ts = TypeVarTuple("Ts")
R = TypeVar("R")
D = TypeVar("D")

_UNSET: Any = object()

_MAX_APPROVAL_ID = 200
"""Leaves room for what is put around it in the id of the message that brings the decision."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A decision about what `Context.approve` asked."""

    approved: bool
    approval_id: str
    """Derived from the run and the operation; what `Runtime.approve` is told."""
    feedback: str | None
    by: str | None
    """Who decided, as the caller of `Runtime.approve` said."""
    at: datetime
    """When (UTC)."""


_DEAD_VALUES = {VALUE_NOW: b"0", VALUE_UUID: b'"00000000-0000-4000-8000-000000000000"', VALUE_RANDOM: b"0"}
"""What code gets that goes on and on asking although its run is no longer driven here."""


class _RunLog(CarefulLogger):
    """Adds the run's fields to each record, and says nothing while the run is replayed."""

    def __init__(self, host: RunHost) -> None:
        run = host.run
        facts = {"run_id": run.run_id, "workflow": run.workflow, "version": run.version}
        super().__init__(
            logger("duramen.run").logger,
            {**facts, **{f"duramen_{name}": fact for name, fact in facts.items()}},
        )
        self._host = host

    @override
    def isEnabledFor(self, level: int) -> bool:
        return not self._host.run.replaying and super().isEnabledFor(level)


class Context(Generic[StateT]):
    """The first argument of every handler.

    Its durable calls belong to the handler and the tasks it makes, on the handler's own event loop. From
    anywhere else (a thread, a step, after the end) they raise `NotADurableContext`.
    """

    __slots__ = ("_host", "_input", "_log", "_loop", "_request_step", "_run", "_state")

    def __init__(self, host: RunHost, state: Any, input: Any = None) -> None:  # noqa: A002
        self._host = host
        self._run = host.run
        self._request_step = host.run.step
        self._loop = host.loop
        self._input: Any = input
        self._state = state
        self._log: _RunLog | None = None

    def __repr__(self) -> str:
        return f"<Context of run {self._run.run_id!r}>"

    # -- steps -----------------------------------------------------------------------------------------------

    @overload
    async def step(
        self,
        id: str,
        fn: Callable[[Unpack[Ts]], Awaitable[R]],
        /,
        *args: *Ts,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        meta: Mapping[str, Any] | None = None,
        checkpoint: Literal["durable", "lazy"] = "durable",
    ) -> R: ...
    @overload
    async def step(
        self,
        id: str,
        fn: Callable[[Unpack[Ts]], R],
        /,
        *args: *Ts,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        meta: Mapping[str, Any] | None = None,
        checkpoint: Literal["durable", "lazy"] = "durable",
    ) -> R: ...
    async def step(
        self,
        id: str,  # noqa: A002
        fn: Callable[..., Any] = _UNSET,
        /,
        *args: Any,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        meta: Mapping[str, Any] | None = None,
        checkpoint: Literal["durable", "lazy"] = "durable",
    ) -> Any:
        """Run `fn(*args)` and record its result, or its error, once.

        Async functions run on the program's event loop, others in a thread. What comes back has gone through
        the serializer, by the function's return annotation, so the first pass sees what replays see.

        Args:
            id: the operation's id; used again in the run it gets ``#2``, ``#3`` … in the order of the calls.
            fn: the function; use `functools.partial` for keywords, as in asyncio.
            *args: its arguments. They are not recorded.
            retry: default: that of the step, else that of the workflow, else a single attempt.
            timeout: seconds or `timedelta`, for each attempt. Default: that of the step.
            meta: whatever the function should find in `step_context().meta`. It is not recorded.
            checkpoint: ``"lazy"``: recorded with the next durable commit; may run again after a crash.

        Raises:
            StepFailed: it failed for good; the exception is its cause if its class is built in or registered
                (`register_exception`). `StepTimeout` if the last attempt ran into its timeout.
            InvalidId: the id is empty, too long, holds a control character or a ``#``, or is that of an
                approval or another kind of operation in this run.
            InvalidArgument: an option cannot be used.
            WorkflowDefinitionError: `fn` cannot be a step.
            NotADurableContext: called outside of the handler.
        """
        loop = self._loop
        if get_running_loop() is not loop:
            self._refuse("ctx.step")
        host = self._host
        try:
            plan: StepPlan = fn.duramen_plan  # pyright: ignore[reportFunctionMemberAccess]
            if plan.fn is not fn:
                plan = plan_of(fn)
        except AttributeError:
            plan = _new_plan("step", id, fn)
        rule = (plan.retry or host.retry) if retry is None else check_retry(retry)
        seconds = plan.timeout if timeout is None else _attempt_seconds(timeout)
        lazy = checkpoint != "durable" and _is_lazy(checkpoint)
        try:
            # The last argument is `loop.idle`, written out: this line is passed by each replayed step.
            found = self._request_step(
                id,
                None if rule is None else rule.wire,
                lazy,
                not loop.ready and not loop.parked and not eager_starts,
            )
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
        except (TypeError, UnicodeEncodeError):
            raise _bad_id("step", id) from None
        if isinstance(found, tuple):
            ok, payload, at = found
            loop.now = at / 1000
            if ok:
                if plan.reads_for is not host.serializer:
                    plan.bind(host.serializer)
                try:
                    return plan.read(payload)
                except Exception:  # noqa: BLE001 - recorded under other code, with another type
                    return await self._read_with_care(plan, payload)
            raise await self._recorded_failure(payload)
        return await host.await_step(found, plan, args, rule, seconds, meta)

    @overload
    async def transaction(
        self,
        id: str,
        fn: Callable[[Any, Unpack[Ts]], Awaitable[R]],
        /,
        *args: *Ts,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        meta: Mapping[str, Any] | None = None,
        database: Any = None,
    ) -> R: ...
    @overload
    async def transaction(
        self,
        id: str,
        fn: Callable[[Any, Unpack[Ts]], R],
        /,
        *args: *Ts,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        meta: Mapping[str, Any] | None = None,
        database: Any = None,
    ) -> R: ...
    async def transaction(
        self,
        id: str,  # noqa: A002
        fn: Callable[..., Any] = _UNSET,
        /,
        *args: Any,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        meta: Mapping[str, Any] | None = None,
        database: Any = None,
    ) -> Any:
        """Run `fn(connection, *args)` in a transaction of the store's database, exactly once.

        Its result is recorded in the same transaction: what `fn` did and its result are there together or
        not at all, whatever crashes. On Postgres the connection is one of your driver's (psycopg 3, asyncpg,
        SQLAlchemy 2); on SQLite a `duramen.sqlite.Connection` to the store's file. An exception rolls back
        and is a failed attempt. Leave COMMIT and ROLLBACK to this call, and keep the transaction short.

        Args:
            id: as in `step`.
            fn: async for an async driver; else it runs in a thread. It is called again after a crash only if
                its transaction did not take place.
            *args: its arguments after the connection. They are not recorded.
            retry: as in `step`. Serialization failures and deadlocks are failed attempts like others.
            timeout: seconds or `timedelta` for connecting and `fn`, not for COMMIT. Default: as in `step`.
            meta: as in `step`.
            database: where connections come from: a pool, an engine, a connection, or a function that
                connects. Default: that of the runtime.

        Raises:
            StepFailed: it failed for good, as a step. `UnusableConnection`, `WrongDatabase` and
                `TransactionsUnsupported` are never retried.
            InvalidId, InvalidArgument, WorkflowDefinitionError, NotADurableContext: as in `step`.
        """
        self._check("ctx.transaction")
        host = self._host
        plan = _new_plan("transaction", id, fn)
        rule = (plan.retry or host.retry) if retry is None else check_retry(retry)
        seconds = plan.timeout if timeout is None else _attempt_seconds(timeout)
        try:
            found = self._request_step(
                id, None if rule is None else rule.wire, CHECKPOINT_SEALED, self._loop.idle
            )
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
        except (TypeError, UnicodeEncodeError):
            raise _bad_id("transaction", id) from None
        if isinstance(found, tuple):
            ok, payload, at = found
            self._loop.now = at / 1000
            if ok:
                return await self._read_with_care(plan, payload)
            raise await self._recorded_failure(payload)
        return await host.await_step(
            found, plan, args, rule, seconds, meta, transaction=True, database=database
        )

    def call_step(
        self, definition: StepDef[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], /
    ) -> Coroutine[Any, Any, Any]:
        """Run a step under its own name: what a direct call of one does."""
        step: Any = self.step
        if kwargs:
            return step(definition.name, partial(definition, **kwargs), *args)
        return step(definition.name, definition, *args)

    # -- waits -----------------------------------------------------------------------------------------------

    async def sleep(self, duration: timedelta | float) -> None:
        """Wait for a while (seconds or `timedelta`), over restarts and with nothing kept running.

        The deadline is fixed when the call is first reached. `asyncio.sleep` in a handler does the same.

        Raises:
            InvalidArgument: the duration is negative, not finite, or over 100 years.
        """
        milliseconds = duration_ms(duration)
        self._check("ctx.sleep")
        await self._timer(self._run.now() + milliseconds)

    async def sleep_until(self, instant: datetime) -> None:
        """Wait until an aware `datetime`. One that has passed lets the handler go on at once.

        Raises:
            InvalidArgument: the datetime is naive.
        """
        deadline = instant_ms(instant)
        self._check("ctx.sleep_until")
        await self._timer(deadline)

    async def _timer(self, deadline: int) -> None:
        try:
            slot = self._run.timer(TIMER_SLEEP, deadline)
        except Halted as error:
            await self._failed(error)
        await self._host.await_slot(slot, Future(loop=self._loop))

    @overload
    async def wait_for_event(
        self, name: str, type: type[R], *, id: str | None = None, timeout: timedelta | float | None = None
    ) -> R: ...
    @overload
    async def wait_for_event(
        self,
        name: str,
        type: type[R],
        *,
        id: str | None = None,
        timeout: timedelta | float | None = None,
        default: D,
    ) -> R | D: ...
    @overload
    async def wait_for_event(
        self,
        name: str,
        type: Any = ...,
        *,
        id: str | None = None,
        timeout: timedelta | float | None = None,
        default: Any = ...,
    ) -> Any: ...
    async def wait_for_event(
        self,
        name: str,
        type: Any = _UNSET,  # noqa: A002
        *,
        id: str | None = None,  # noqa: A002
        timeout: timedelta | float | None = None,
        default: Any = _UNSET,
    ) -> Any:
        """Wait for the next event of a name. One that came early was kept, and is taken at once.

        A payload that does not fit the type is refused (or set aside with the reason), and the wait goes on.

        Args:
            name: the event's name.
            type: what the payload is read as. Default: the type declared in ``@workflow(events=…)``.
            id: the operation's id. Default: ``event-1``, ``event-2`` … in the order of the calls.
            timeout: seconds or `timedelta`.
            default: what to return on time-out.

        Raises:
            TimeoutError: none came in time, and there is no default.
            InvalidId: the name or the id cannot be used, or the id is that of a step, say, in this run.
        """
        self._check("ctx.wait_for_event")
        host = self._host
        check_id("event name", name)
        if id is not None:
            check_id("operation id", id)
        if type is _UNSET:
            type = host.definition.event_type(name)  # noqa: A001
        deadline = None if timeout is None else self._run.now() + duration_ms(timeout, "timeout")
        try:
            slot = self._run.event(name, id, deadline)
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
        arrived, value = await host.await_message(slot, type)
        if arrived:
            return value
        if default is not _UNSET:
            return default
        raise TimeoutError(f"no event {name!r} came within {timeout} (seconds, or a timedelta)")

    async def approve(
        self,
        title: str,
        *,
        id: str | None = None,  # noqa: A002
        description: str | None = None,
        assignees: Sequence[str] = (),
        timeout: timedelta | float | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> Approval:
        """Ask people for a decision and wait for it.

        The request is recorded for whoever shows it to them; `Runtime.approve` brings the decision.

        Args:
            title: the question in a line.
            id: the approval's id in the run, up to 200 characters. Default: ``approval-1``, ``approval-2``, …
                in order.
            description: more about it.
            assignees: who is asked; recorded, not enforced.
            timeout: seconds or `timedelta`.
            meta: JSON for whoever shows the request.

        Raises:
            TimeoutError: nobody decided in time.
            SerializationError: `meta` is not JSON.
            InvalidId: the id cannot be used, or is that of a step, say, in this run.
            InvalidArgument: another argument cannot be used.
        """
        self._check("ctx.approve")
        check_text("title", title)
        if id is not None and len(check_id("operation id", id)) > _MAX_APPROVAL_ID:
            raise InvalidId(f"the approval id has {len(id)} characters: use {_MAX_APPROVAL_ID} at the most")
        if description is not None:
            check_text("description", description)
        if isinstance(assignees, str) or not isinstance(assignees, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"assignees is {assignees!r}: give a list, assignees=[{assignees!r}]")
        if meta is not None and not isinstance(meta, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument(f"meta is {meta!r}: give a dict")
        host = self._host
        request = host.serializer.dumps(
            {
                "title": title,
                "description": description,
                "assignees": list(assignees),
                "meta": None if meta is None else dict(meta),
            }
        )
        deadline = None if timeout is None else self._run.now() + duration_ms(timeout, "timeout")
        try:
            slot, approval_id = self._run.approval(id, request, deadline)
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
        arrived, decision = await host.await_message(slot, Decision)
        if not arrived:
            raise TimeoutError(f"nobody decided about {approval_id!r} within {timeout}")
        return Approval(decision.approved, approval_id, decision.feedback, decision.by, from_ms(decision.at))

    # -- recorded values -------------------------------------------------------------------------------------

    def _value(self, kind: int, call: str) -> bytes:
        self._check(call)
        try:
            return self._run.value(kind)
        except Halted as error:
            self._ended(error)
            return _DEAD_VALUES[kind]

    def _ended(self, error: Halted) -> None:
        """Nobody drives the run any more, and this call cannot wait for that to take effect."""
        self._host.halt()
        self._loop.unwind(str(error) or "this run is no longer driven here")

    def now(self) -> datetime:
        """The run's time (UTC), to the millisecond: recorded, so replays see the same."""
        return from_ms(int(self._value(VALUE_NOW, "ctx.now")))

    def uuid(self) -> UUID:
        """A new random UUID (version 4): recorded."""
        return UUID(self._value(VALUE_UUID, "ctx.uuid")[1:-1].decode())

    def random(self) -> float:
        """A random number from 0 up to but not including 1: recorded."""
        return float(self._value(VALUE_RANDOM, "ctx.random"))

    def patched(self, id: str) -> bool:  # noqa: A002
        """Whether this run follows code that was changed here, so that runs under way go on as they began.

        True for a run that comes to this place for the first time; that is recorded, once for each id. False
        for a run that was further when the changed code was deployed: it goes on with the branch that its
        journal knows. Each replay is told the same, and so is each further question about the same id. When
        no run without the mark is left, delete the question and the older branch.

        Args:
            id: a name of the change, unique in the workflow, up to 255 characters; it may be that of a step.

        Raises:
            InvalidId: the id cannot be used.

        Example:
            >>> import asyncio
            >>> from duramen import Context, Runtime, workflow
            >>> @workflow
            ... async def ordering(ctx: Context, order: str) -> str:
            ...     if ctx.patched("fraud-check"):
            ...         order = await ctx.step("check", "{} checked".format, order)
            ...     return await ctx.step("ship", "{}, shipped".format, order)
            >>> async def main() -> str:
            ...     async with Runtime("memory://", workflows=[ordering]) as runtime:
            ...         return await (await runtime.start(ordering, "o-1")).result()
            >>> asyncio.run(main())
            'o-1 checked, shipped'
        """
        self._check("ctx.patched")
        check_id("patch id", id)
        try:
            return self._run.patched(id)
        except Halted as error:
            self._ended(error)
            return False
        except InvalidIdError as error:
            raise InvalidId(str(error)) from None

    # -- what others see -------------------------------------------------------------------------------------

    @property
    def state(self) -> StateT:
        """The run's state object, to be changed in place; others read it with ``runtime.get(run_id).state``.

        It goes into the store with the next commit, and is built up again by replay.

        Raises:
            InvalidArgument: the workflow has none: declare it with ``@workflow(state=…)``.
        """
        if self._host.definition.state_type is None:
            raise InvalidArgument("this workflow has no state: declare its type with @workflow(state=…)")
        return self._state

    @state.setter
    def state(self, value: StateT) -> None:
        if self._host.definition.state_type is None:
            raise InvalidArgument("this workflow has no state: declare its type with @workflow(state=…)")
        self._state = value

    def emit(self, name: str, value: Any = None) -> None:
        """Send a live event to whoever listens right now. It is not recorded, and not sent by replays.

        A step of this run may call it too (or ``step_context().emit``), also from its thread.

        Raises:
            InvalidId: the name cannot be used.
            NotADurableContext: called outside of the handler and its steps.
        """
        check_id("event name", name)
        if get_running_loop() is not self._loop:
            step = current_step.get()
            if step is not None and step.run_id == self._host.run_id:
                step.emit(name, value)
                return
            self._refuse("ctx.emit")
        if not self._run.replaying:
            self._host.services.emit(self._run.run_id, name, value)

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger (``duramen.run``) whose records carry the run's fields; replays do not repeat them."""
        if self._log is None:
            self._log = _RunLog(self._host)
        return self._log

    # -- facts -----------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self._host.run_id

    @property
    def input(self) -> Any:
        """The run's input, as the handler got it."""
        return self._input

    @property
    def attempt(self) -> int:
        """How often the run was taken up by a process so far, from 1. Do not base decisions on it."""
        return self._run.epoch

    @property
    def version(self) -> str:
        """The version of the workflow that the run began under."""
        return self._run.version

    @property
    def tags(self) -> tuple[str, ...]:
        """The run's tags."""
        return tuple(self._run.tags)

    @property
    def deadline(self) -> datetime | None:
        """When the run's own time is over (UTC), or None."""
        deadline = self._run.deadline
        return None if deadline is None else from_ms(deadline)

    @property
    def replaying(self) -> bool:
        """Whether the handler repeats what is recorded. Do not base decisions on it."""
        return self._run.replaying

    # -- the budget ------------------------------------------------------------------------------------------

    def time_remaining(self) -> float | None:
        """Seconds that are left of the host's budget for this pass, or None without a limit.

        It is no recorded value: use it to decide about `yield_`, or inside of what one step does.
        """
        deadline = self._host.services.deadline
        return None if deadline is None else max(0.0, deadline - monotonic())

    def should_yield(self, min_remaining: timedelta | float | None = None) -> bool:
        """Whether less than `min_remaining` of the host's budget is left: a good moment for `yield_`.

        Always False on replay, where nothing is done that could take long.

        Args:
            min_remaining: seconds or `timedelta`. Default: what the host was told.
        """
        deadline = self._host.services.deadline
        if deadline is None or self._run.replaying:
            return False
        least = (
            self._host.services.min_remaining
            if min_remaining is None
            else duration_ms(min_remaining, "min_remaining") / 1000
        )
        return deadline - monotonic() < least

    async def yield_(self) -> None:
        """Hand the run over at the next durable call: it is released there, and due at once for the next one.

        Nothing is recorded, and on replay it does nothing.
        """
        self._check("ctx.yield_")
        self._host.yield_now()

    # -- refusals --------------------------------------------------------------------------------------------

    def _check(self, call: str) -> None:
        if get_running_loop() is not self._loop:
            self._refuse(call)

    def _refuse(self, call: str) -> None:
        if self._loop.evicted and current_step.get() is None:
            self._loop.unwind(f"the run was dropped from memory while its code called {call}")
            return  # the engine says `Halted` to whatever follows
        where = "after its handler had ended" if self._host.closed else "outside of its handler"
        raise NotADurableContext(
            f"{call} was called {where}: durable calls belong to the handler and the tasks that it makes, "
            "not to steps, threads or other event loops"
        )

    async def _recorded_failure(self, payload: bytes) -> StepFailed:
        op = self._run.last_op()
        while True:
            try:
                return step_failure(self._host.serializer, op, payload)
            except Exception as error:  # noqa: BLE001 - whatever a user's codec raises
                if not await self._host.out(error):
                    self._run.cannot_read(op, str(error))
                    await self._failed(error)

    async def _read_with_care(self, plan: StepPlan, payload: bytes) -> Any:
        op = self._run.last_op()
        while True:
            try:
                return self._host.loads(payload, plan.result)
            except Exception as error:  # noqa: BLE001 - whatever a user's serializer raises
                if not await self._host.out(error):
                    self._run.cannot_read(op, str(error))
                    await self._failed(error)

    async def _failed(self, error: BaseException) -> NoReturn:
        """End a call that the engine refused."""
        if isinstance(error, InvalidIdError):
            raise invalid_id(error) from None
        self._host.halt()
        # No exception, for the code may swallow it and ask again without end: it waits here until it is
        # dropped.
        await Future(loop=self._loop)
        raise RunEvicted(str(error) or "this run is no longer driven here") from None


def _new_plan(call: str, id: object, fn: Any) -> StepPlan:  # noqa: A002
    """The plan of a function, if the call is in order: the id comes first."""
    if not isinstance(id, str) or fn is _UNSET:
        raise _bad_id(call, id)
    return plan_of(fn)


def _bad_id(call: str, id: object) -> InvalidId:  # noqa: A002
    if iscoroutine(id):
        id.close()  # or "was never awaited" is printed
    try:
        check_id("operation id", id)
    except InvalidId as error:
        if not callable(id) and not isawaitable(id):
            return error
        name = getattr(id, "__name__", "reserve")
        return InvalidId(
            f"ctx.{call} was given {id!r} in place of the operation's id: write "
            f"ctx.{call}({name!r}, {name}, …)"
        )
    return InvalidId(
        f"ctx.{call} was given the id {id!r} and no function: write ctx.{call}({id!r}, function, …)"
    )


def _attempt_seconds(timeout: timedelta | float) -> float:
    seconds = duration_ms(timeout, "timeout") / 1000
    if not seconds:
        raise InvalidArgument("timeout is 0: give more, or leave it out (None) for no limit")
    return seconds


def _is_lazy(checkpoint: str) -> bool:
    if checkpoint != "lazy":
        raise InvalidArgument(f"checkpoint is {checkpoint!r}: 'durable' or 'lazy'")
    return True
