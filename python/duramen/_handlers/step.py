"""`@step`, and direct calls of steps."""

from __future__ import annotations

import asyncio
import functools
import inspect
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from typing_extensions import override

from duramen._logging import logger
from duramen._values.serializer import Serializer, recorded_reader
from duramen.errors import DuramenError, WorkflowDefinitionError

from . import signatures
from .callables import Definition, is_async_callable, refusal, unwrap
from .options import checked_name, checked_on_exhausted, checked_retry, checked_timeout, place
from .remote import remote_of
from .step_context import current_step

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
    from datetime import timedelta

    from .options import OnExhausted
    from .remote import Remote
    from .retry import Retry

Where: TypeAlias = Literal["auto", "process"]

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
S = TypeVar("S")

_log = logger("duramen")


class DirectCaller(Protocol):
    """What a direct call of a step needs of the handler's `Context`."""

    def call_step(
        self, definition: StepDef[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], /
    ) -> Coroutine[Any, Any, Any]:
        """Run a step under its own name."""
        ...


current_context: ContextVar[DirectCaller | None] = ContextVar("duramen_context", default=None)
"""The `Context` of the handler that runs here; None outside of handlers, and inside of steps."""

PATIENCE = 10.0
"""Seconds for which a step may wait for a run that nobody takes up before that is said in the log."""


@asynccontextmanager
async def waits_for(run_id: str, is_begun: Callable[[str], Awaitable[bool]]) -> AsyncGenerator[None]:
    """Say in the log if a step waits long for a run that nobody takes up.

    The step keeps its run's place in the worker while it waits. If all places are kept so, and the run that
    is waited for needs one of them, nothing gets on any more.
    """
    step = current_step.get()
    if step is None:
        yield
        return

    async def say() -> None:
        await asyncio.sleep(PATIENCE)
        with suppress(DuramenError):  # trouble with the store is for the wait itself to tell
            if await is_begun(run_id):
                return
            _log.warning(
                "step %r of run %r waits for run %r, which nobody has taken up yet, and keeps its own run's "
                "place in the worker: begin such a run with runtime.start, which drives it here, or give "
                "result() a timeout",
                step.step_id,
                step.run_id,
                run_id,
            )

    saying = asyncio.create_task(say())
    try:
        yield
    finally:
        saying.cancel()
        await asyncio.wait([saying])


class StepPlan:
    """What is known about a step's function before it runs: worked out once for each function."""

    __slots__ = (
        "call", "fn", "heartbeat", "pauses_run", "read", "reads_for", "remote", "result", "retry", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        fn: Any,
        call: Any,
        result: Any,
        retry: Retry | None = None,
        timeout: float | None = None,
        pauses_run: bool | None = None,
        heartbeat: float | None = None,
        remote: Remote | None = None,
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
        self.heartbeat = heartbeat
        """Seconds after which an attempt has failed that shows no sign of life."""
        self.remote = remote
        """How another process finds it, if it runs in one."""
        self.pauses_run = pauses_run
        """Whether its run is paused when it fails for good; None: as the workflow says."""
        self.reads_for: Serializer | None = None
        """Whom `bind` was told of last."""
        self.read: Callable[[bytes], Any]
        """Reads a recorded result, after `bind`."""

    def bind(self, serializer: Serializer) -> None:
        """Work out how recorded results are read: not for each replayed step anew."""
        self.read = recorded_reader(serializer, self.result)
        self.reads_for = serializer


class StepDef(Definition, Generic[P, R]):
    """A function declared as a step: what `step` makes of it.

    Called in a handler it runs as a durable step whose id is the step's name; called anywhere else it just
    runs, so it can be tested as any function. Either way it has to be awaited.
    """

    defined_as = "step"

    def __init__(
        self,
        fn: Callable[P, Awaitable[R]] | Callable[P, R],
        *,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        heartbeat_timeout: timedelta | float | None = None,
        where: Where = "auto",
        on_exhausted: OnExhausted | None = None,
        local_names: Mapping[str, Any] | None = None,
    ) -> None:
        called = place("step", name, fn)
        base: Any = fn
        self._binds_to = "instance"
        """What a call through a class's attribute is given first."""
        if isinstance(base, staticmethod | classmethod):
            self._binds_to = "class" if isinstance(base, classmethod) else "nothing"
            base = cast("Any", base).__func__
        if isinstance(base, StepDef):
            raise WorkflowDefinitionError(f"{called}: it is a step already: decorate it once")
        if isinstance(base, type):
            raise WorkflowDefinitionError(
                f"{called}: {base.__name__} is a class: decorate a function that makes one and gives it back"
            )
        if reason := refusal(base):
            raise WorkflowDefinitionError(f"{called}: {reason}")
        self.name = checked_name(
            name if name is not None else getattr(base, "__name__", None), called, of_step=True
        )
        """The id of the steps that direct calls make."""
        given = dict(self.__dict__)
        functools.update_wrapper(cast("Callable[..., Any]", self), base)
        self.__dict__ |= given  # a function may have attributes of these names
        self.fn: Any = base
        """The function itself."""
        self.retry = checked_retry(retry, called)
        """The step's own rule; None takes the workflow's."""
        milliseconds = checked_timeout(timeout, called)
        self.timeout = None if milliseconds is None else milliseconds / 1000
        """Seconds for each attempt, or None."""
        milliseconds = checked_timeout(heartbeat_timeout, called, "heartbeat_timeout")
        self.heartbeat_timeout = None if milliseconds is None else milliseconds / 1000
        """Seconds between two signs of life of an attempt, or None."""
        if where not in {"auto", "process"}:
            raise WorkflowDefinitionError(f"{called}: where is {where!r}: 'auto' or 'process'")
        if where == "process" and self._binds_to != "nothing" and _is_method(base):
            raise WorkflowDefinitionError(
                f"{called}: where='process' needs a function that another process can import, and this is a "
                "method, whose object is here"
            )
        self.where: Where = where
        """Where it runs."""
        self.pauses_run = checked_on_exhausted(on_exhausted, where)
        """Whether its run is paused when it fails for good; None: as the workflow says."""
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
        signatures.check_stored(result, where)
        remote = remote_of(self.fn, f"step {self.name!r}") if self.where == "process" else None
        return StepPlan(
            self,
            self.fn,
            result,
            self.retry,
            self.timeout,
            self.pauses_run,
            self.heartbeat_timeout,
            remote,
        )

    @functools.cached_property
    def duramen_plan(self) -> StepPlan:
        """What the run's host needs to know; not for users."""
        try:
            return self._resolve()
        except NameError as error:
            raise signatures.unresolved(f"step {self.name!r}", error) from error

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[None, None, R]:
        """Run it: as a durable step in a handler, plainly elsewhere. Await what this returns."""
        context = current_context.get()
        if context is not None:
            return context.call_step(self, args, kwargs)
        return self._plainly(*args, **kwargs)

    async def _plainly(self, *args: Any, **kwargs: Any) -> Any:
        result: Any = self.fn(*args, **kwargs)
        if inspect.isawaitable(result):
            return await result
        return result

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: Any = None) -> StepDef[P, R]: ...
        @overload
        def __get__(
            self: StepDef[Concatenate[Any, Q], S], instance: object, owner: Any = None
        ) -> Callable[Q, Coroutine[None, None, S]]: ...
        def __get__(self, instance: Any, owner: Any = None) -> Any: ...

    else:

        def __get__(self, instance, owner=None):
            if self._binds_to == "instance":
                return self if instance is None else MethodType(self, instance)
            if self._binds_to == "class":
                return MethodType(self, type(instance) if owner is None else owner)
            return self

    @override
    def __repr__(self) -> str:
        return f"<step {self.name!r}>"


def _is_method(fn: Any) -> bool:
    """Whether a function stands in a class's body and is given the object."""
    name: str = getattr(fn, "__qualname__", "")
    return "." in name and not name.rpartition(".")[0].endswith("<locals>")


def caller_names() -> Mapping[str, Any]:
    """Local names of the place where a decorator is used, for annotations that are strings."""
    here = inspect.currentframe()
    decorator = None if here is None else here.f_back
    place = None if decorator is None else decorator.f_back
    return {} if place is None else place.f_locals


@overload
def step(fn: Callable[P, Awaitable[R]], /) -> StepDef[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> StepDef[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | float | None = None,
    on_exhausted: OnExhausted | None = None,
    heartbeat_timeout: timedelta | float | None = None,
    where: Where = "auto",
) -> _Decorator: ...
def step(
    fn: Any = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: timedelta | float | None = None,
    heartbeat_timeout: timedelta | float | None = None,
    where: Where = "auto",
    on_exhausted: OnExhausted | None = None,
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
        heartbeat_timeout: seconds or `timedelta`. An attempt that calls `StepContext.heartbeat` less often
            fails as one that takes longer than `timeout`.
        where: ``"process"``: for work that keeps a processor busy. It runs in a process of its own, which is
            killed when the attempt is given up. The function stands at the level of its module; arguments and
            result go there and back as JSON, by their annotations. ``"auto"``: see above.
        on_exhausted: what becomes of one that fails for good: ``"fail"`` raises in the handler, ``"pause"``
            pauses the run until people say `Runtime.retry` or `Runtime.skip`. Default: the workflow's.

    Raises:
        WorkflowDefinitionError: it cannot be a step, or its result type cannot be stored.

    >>> import asyncio
    >>> from duramen import Retry
    >>> @step(retry=Retry(attempts=5), timeout=30)
    ... async def reserve(order_id: str) -> str:
    ...     return f"reserved {order_id}"
    >>> asyncio.run(reserve("42"))
    'reserved 42'
    """
    local_names = caller_names()

    def decorate(fn: Any) -> StepDef[..., Any]:
        return StepDef(
            fn,
            name=name,
            retry=retry,
            timeout=timeout,
            on_exhausted=on_exhausted,
            heartbeat_timeout=heartbeat_timeout,
            where=where,
            local_names=local_names,
        )

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
    base = unwrap(fn)
    if isinstance(base, StepDef):
        plan = cast("StepDef[..., Any]", base).duramen_plan
        return StepPlan(
            fn,
            _without_definition(fn),
            plan.result,
            plan.retry,
            plan.timeout,
            plan.pauses_run,
            plan.heartbeat,
            plan.remote,
        )
    where = f"step function {getattr(base, '__name__', base)!r}"
    if reason := refusal(fn):
        if inspect.iscoroutine(fn):
            fn.close()  # or "was never awaited" is printed
        raise WorkflowDefinitionError(f"ctx.step cannot run this: {reason}")
    try:
        result = signatures.result_type(fn, where)
    except NameError as error:
        raise signatures.unresolved(where, error) from error
    signatures.check_stored(result, f"result of {where}")
    plan = StepPlan(fn, fn, result)
    try:
        fn.duramen_plan = plan
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
