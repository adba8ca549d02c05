"""Steps and transactions."""

from __future__ import annotations

from functools import partial
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from typing_extensions import TypeVarTuple, Unpack

from duramen._bridge import CHECKPOINT_PAUSES, CHECKPOINT_SEALED, Halted, InvalidIdError
from duramen._handlers.options import pauses_run
from duramen._handlers.retry import check_retry
from duramen._handlers.step import StepDef, plan_of
from duramen._loop.insides import eager_starts, get_running_loop
from duramen._values.checks import check_id
from duramen._values.durations import duration_ms
from duramen.errors import InvalidArgument, InvalidId

from .base import Calls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping
    from datetime import timedelta

    from duramen._handlers.options import OnExhausted
    from duramen._handlers.retry import Retry
    from duramen._handlers.step import StepPlan

__all__ = ["StepCalls", "attempt_seconds", "bad_id", "new_plan"]

Ts = TypeVarTuple("Ts")
R = TypeVar("R")

_UNSET: Any = object()


class StepCalls(Calls):
    """See `Context`."""

    __slots__ = ()

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
        on_exhausted: OnExhausted | None = None,
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
        on_exhausted: OnExhausted | None = None,
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
        on_exhausted: OnExhausted | None = None,
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
            on_exhausted: ``"pause"``: if it fails for good the run is paused, instead of this call raising:
                `Runtime.retry` gives it fresh attempts, `Runtime.skip` a result. Default: that of the step,
                else that of the workflow.

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
            plan = new_plan("step", id, fn)
        rule = (plan.retry or host.retry) if retry is None else check_retry(retry)
        seconds = plan.timeout if timeout is None else attempt_seconds(timeout)
        how: int = checkpoint != "durable" and _is_lazy(checkpoint)
        pauses = plan.pauses_run if on_exhausted is None else pauses_run(on_exhausted)
        if host.pauses_run if pauses is None else pauses:
            how |= CHECKPOINT_PAUSES
        try:
            # The last argument is `loop.idle`, written out: this line is passed by each replayed step.
            found = self._request_step(
                id,
                None if rule is None else rule.wire,
                how,
                not loop.ready and not loop.parked and not eager_starts,
            )
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
        except (TypeError, UnicodeEncodeError):
            raise bad_id("step", id) from None
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
        plan = new_plan("transaction", id, fn)
        if plan.remote is not None:
            raise InvalidArgument(
                f"transaction {id!r}: its function runs beside its connection, and this step in a process of "
                "its own: leave where='process' out"
            )
        rule = (plan.retry or host.retry) if retry is None else check_retry(retry)
        how = CHECKPOINT_SEALED
        if host.pauses_run if plan.pauses_run is None else plan.pauses_run:
            how |= CHECKPOINT_PAUSES
        seconds = plan.timeout if timeout is None else attempt_seconds(timeout)
        try:
            found = self._request_step(id, None if rule is None else rule.wire, how, self._loop.idle)
        except (Halted, InvalidIdError) as error:
            await self._failed(error)
        except (TypeError, UnicodeEncodeError):
            raise bad_id("transaction", id) from None
        if isinstance(found, tuple):
            return await self._recorded(plan, found)
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


def new_plan(call: str, id: object, fn: Any) -> StepPlan:  # noqa: A002
    """The plan of a function, if the call is in order: the id comes first."""
    if not isinstance(id, str) or fn is _UNSET:
        raise bad_id(call, id)
    return plan_of(fn)


def bad_id(call: str, id: object) -> InvalidId:  # noqa: A002
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


def attempt_seconds(timeout: timedelta | float) -> float:
    seconds = duration_ms(timeout, "timeout") / 1000
    if not seconds:
        raise InvalidArgument("timeout is 0: give more, or leave it out (None) for no limit")
    return seconds


def _is_lazy(checkpoint: str) -> bool:
    if checkpoint != "lazy":
        raise InvalidArgument(f"checkpoint is {checkpoint!r}: 'durable' or 'lazy'")
    return True
