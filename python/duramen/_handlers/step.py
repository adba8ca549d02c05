"""`@step`, direct calls of steps, and what a step can learn about itself."""

# The names of the place of a definition are looked up in its frame.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MethodType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from duramen._values.durations import duration_ms
from duramen._values.serializer import Serializer, check_type, recorded_reader
from duramen.errors import NotADurableContext, WorkflowDefinitionError

from . import signatures
from .callables import is_async_callable
from .retry import Retry

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step can know about the attempt it is: see `step_context`."""

    run_id: str
    step_id: str
    """The operation's id: the step's id, with ``#2``, ``#3`` … where it was used before in the run."""
    attempt: int
    """From 1 up, over crashes and restarts."""
    idempotency_key: str
    """``{run_id}/{step_id}``: the same over attempts, replays and recoveries. Give it to what you call."""
    deadline: datetime | None
    """When the attempt runs into its timeout (UTC)."""
    meta: Mapping[str, Any] | None
    """What `Context.step` was given as `meta`."""


class RunningStep(Protocol):
    """What a step's attempt shows of itself to `step_context`."""

    run_id: str
    op: str
    attempt: int
    timeout: float | None
    started: float
    meta: Mapping[str, Any] | None


class DirectCaller(Protocol):
    """What a direct call of a step needs of the handler's `Context`."""

    def call_step(
        self, definition: StepDef[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], /
    ) -> Coroutine[Any, Any, Any]:
        """Run a step under its own name."""
        ...


current_context: ContextVar[DirectCaller | None] = ContextVar("duramen_context", default=None)
"""The `Context` of the handler that runs here; None outside of handlers, and inside of steps."""

current_step: ContextVar[RunningStep | None] = ContextVar("duramen_step", default=None)
"""The attempt of a step that runs here."""


def step_context() -> StepContext:
    """What the step that calls this can know about its attempt: its idempotency key above all.

    It works in async steps, in sync steps (in their threads) and in what they call.

    Raises:
        NotADurableContext: the caller is not inside a step.
    """
    running = current_step.get()
    if running is None:
        raise NotADurableContext(
            "step_context() was called outside of a step: call it in a function that runs through ctx.step"
        )
    deadline = None
    if running.timeout is not None:
        deadline = datetime.fromtimestamp(running.started, UTC) + timedelta(seconds=running.timeout)
    return StepContext(
        run_id=running.run_id,
        step_id=running.op,
        attempt=running.attempt,
        idempotency_key=f"{running.run_id}/{running.op}",
        deadline=deadline,
        meta=running.meta,
    )


class StepPlan:
    """What is known about a step's function before it runs: worked out once for each function."""

    __slots__ = ("call", "fn", "read", "reads_for", "result", "retry", "timeout")

    def __init__(
        self, fn: Any, call: Any, result: Any, retry: Retry | None = None, timeout: float | None = None
    ) -> None:
        self.fn = fn
        """What was given, to see whether the plan is still that of this function."""
        self.call = call
        """What is run."""
        self.result = result
        """The type of the result; None for any JSON."""
        self.retry = retry
        self.timeout = timeout
        """Seconds."""
        self.reads_for: Serializer | None = None
        """Whom `bind` was told of last."""
        self.read: Callable[[bytes], Any]
        """Reads a recorded result, after `bind`."""

    def bind(self, serializer: Serializer) -> None:
        """Work out how recorded results are read: not for each replayed step anew."""
        self.read = recorded_reader(serializer, self.result)
        self.reads_for = serializer


class StepDef(Generic[P, R]):
    """A function declared as a step: what `step` makes of it.

    Called in a handler it runs as a durable step whose id is the step's name; called anywhere else it just
    runs, so it can be tested as any function. Either way it has to be awaited.
    """

    def __init__(
        self,
        fn: Callable[P, Awaitable[R]] | Callable[P, R],
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        local_names: Mapping[str, Any] | None = None,
    ) -> None:
        where = f"step {name or getattr(fn, '__name__', fn)!r}"
        if not callable(fn) or isinstance(fn, type):
            raise WorkflowDefinitionError(f"{where}: @step goes on a function, not on {fn!r}")
        if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
            raise WorkflowDefinitionError(f"{where}: a step returns one value; this one is a generator")
        if retry is not None and not isinstance(retry, Retry):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WorkflowDefinitionError(f"{where}: retry is {retry!r}: give a Retry(…)")
        inferred = name if name is not None else getattr(fn, "__name__", None)
        if not inferred or not isinstance(inferred, str):
            raise WorkflowDefinitionError(f"{where}: it has no name of its own: give @step(name=…)")
        if len(inferred) > 255 or "\0" in inferred or "#" in inferred:
            raise WorkflowDefinitionError(f"{where}: a name has at most 255 characters, no NUL and no '#'")
        functools.update_wrapper(cast("Callable[..., Any]", self), fn)
        self.name = inferred
        """The id of the steps that direct calls make."""
        self.fn = fn
        """The function itself."""
        self.retry = retry
        """The step's own rule; None takes the workflow's."""
        self.timeout = _seconds(timeout)
        """Seconds for each attempt, or None."""
        self.__dict__.pop(
            "duramen_plan", None
        )  # that of the function, if it was a step without the decorator
        try:
            self.__dict__["duramen_plan"] = self._resolve(local_names)
        except NameError:
            pass  # a name that is defined further down: resolved at first use

    def _resolve(self, local_names: Mapping[str, Any] | None = None) -> StepPlan:
        where = f"result of step {self.name!r}"
        result = signatures.result_type(self.fn, where, local_names)
        check_type(result, where)
        return StepPlan(self, self.fn, result, self.retry, self.timeout)

    @functools.cached_property
    def duramen_plan(self) -> StepPlan:
        """What the run's host needs to know; not for users."""
        try:
            return self._resolve()
        except NameError as error:
            raise signatures.unresolved(f"step {self.name!r}", error) from error

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run it: as a durable step in a handler, plainly elsewhere. Await what this returns."""
        context = current_context.get()
        if context is not None:
            return context.call_step(self, args, kwargs)
        return self._plainly(*args, **kwargs)

    async def _plainly(self, *args: Any, **kwargs: Any) -> Any:
        result: Any = cast("Any", self.fn)(*args, **kwargs)
        if inspect.isawaitable(result):
            return await result
        return result

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: Any = None) -> StepDef[P, R]: ...
        @overload
        def __get__(
            self: StepDef[Concatenate[Any, Q], S], instance: object, owner: Any = None
        ) -> Callable[Q, Coroutine[Any, Any, S]]: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    else:

        def __get__(self, instance, owner=None):
            return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<step {self.name!r}>"


def _seconds(timeout: timedelta | float | None) -> float | None:
    if timeout is None:
        return None
    milliseconds = duration_ms(timeout, "timeout")
    if milliseconds == 0:
        raise WorkflowDefinitionError("timeout is 0: give more, or leave it out (None) for no limit")
    return milliseconds / 1000


@overload
def step(fn: Callable[P, Awaitable[R]], /) -> StepDef[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> StepDef[P, R]: ...
@overload
def step(
    *, name: str | None = None, retry: Retry | None = None, timeout: timedelta | float | None = None
) -> _Decorator: ...
def step(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | float | None = None,
) -> Any:
    """Declare a function as a step: work with effects, whose result (or error) is recorded once.

    Async functions run on the program's event loop, others in a thread. In a handler, ``await reserve(x)``
    runs it as a step named after the function; ``await ctx.step("an-id", reserve, x)`` does under another
    id. Outside of a run the same call simply runs the function.

    Args:
        fn: the function.
        name: the id of direct calls. Default: the function's name.
        retry: default: the workflow's; if that has none either, a step is tried once.
        timeout: seconds or `timedelta`, for each attempt. One that takes longer fails with `TimeoutError` and
            may be retried; a thread cannot be stopped, so there only its result is dropped.

    Raises:
        WorkflowDefinitionError: it cannot be a step, or its result type cannot be stored.

    >>> import asyncio
    >>> @step(retry=Retry(attempts=5), timeout=30)
    ... async def reserve(order_id: str) -> str:
    ...     return f"reserved {order_id}"
    >>> asyncio.run(reserve("42"))
    'reserved 42'
    """
    local_names = sys._getframe(1).f_locals

    def decorate(fn: Any) -> StepDef[..., Any]:
        return StepDef(fn, name=name, retry=retry, timeout=timeout, local_names=local_names)

    return decorate if fn is None else decorate(fn)


class _Decorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Awaitable[R]], /) -> StepDef[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> StepDef[P, R]: ...


def plan_of(fn: Any) -> StepPlan:
    """What is known about anything that `Context.step` may be given.

    Raises:
        WorkflowDefinitionError: it cannot run as a step.
    """
    if isinstance(fn, StepDef):
        return cast("StepDef[..., Any]", fn).duramen_plan
    try:
        plan: Any = fn.duramen_plan
    except AttributeError:
        pass
    else:
        # A bound method and a function made with `functools.wraps` show the plan of another function.
        if plan.fn is fn:
            return plan
    return _new_plan(fn)


def _new_plan(fn: Any) -> StepPlan:
    base = signatures.unwrap(fn)
    if isinstance(base, StepDef):
        plan = cast("StepDef[..., Any]", base).duramen_plan
        return StepPlan(fn, _without_definition(fn), plan.result, plan.retry, plan.timeout)
    where = f"step function {getattr(base, '__name__', base)!r}"
    if not callable(fn):
        type_name = type(fn).__name__
        awaited = " (give the function and its arguments, not the call)" if inspect.isawaitable(fn) else ""
        if inspect.iscoroutine(fn):
            fn.close()  # or "was never awaited" is printed
        raise WorkflowDefinitionError(f"ctx.step was given a {type_name!r}, not a function{awaited}")
    try:
        result = signatures.result_type(base, where)
    except NameError as error:
        raise signatures.unresolved(where, error) from error
    check_type(result, f"result of {where}")
    plan = StepPlan(fn, fn, result)
    try:
        cast("Any", fn).duramen_plan = plan
    except (AttributeError, TypeError):
        pass  # bound methods, built-in functions: worked out each time
    return plan


def _without_definition(fn: Any) -> Any:
    """The same call with the step's function in place of the `StepDef` deep inside it."""
    if isinstance(fn, functools.partial):
        partial = cast("functools.partial[Any]", fn)
        return functools.partial(_without_definition(partial.func), *partial.args, **partial.keywords)
    if isinstance(fn, MethodType):
        return MethodType(_without_definition(fn.__func__), fn.__self__)
    return cast("StepDef[..., Any]", fn).fn


def is_async(fn: Any) -> bool:
    """Whether a step's function runs on the loop (else it runs in a thread)."""
    return is_async_callable(fn)
