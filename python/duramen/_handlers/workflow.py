"""`@workflow`: what a workflow is called, takes, gives, and how its steps are retried."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypedDict, TypeVar, cast, get_origin, overload

from typing_extensions import override

from duramen._values.serializer import JsonSerializer
from duramen.errors import PayloadTooLarge, SerializationError, WorkflowDefinitionError

from . import signatures
from .callables import Definition, annotated, unwrap
from .context import Context
from .extensions import class_of
from .handlers import check_context, handler_of, parameters_of
from .inputs import NO_INPUT
from .middleware import Middleware, checked
from .options import (
    checked_events,
    checked_name,
    checked_on_exhausted,
    checked_retry,
    checked_tags,
    checked_timeout,
    checked_version,
    defining,
    place,
)
from .retry import Backoff, Retry
from .step import StepDef, StepPlan, caller_names, current_context, plan_of, step
from .step_context import StepContext, current_step, step_context

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from datetime import timedelta

    from typing_extensions import Unpack

    from .options import OnExhausted
    from .outcome import Outcome

__all__ = [
    "Backoff",
    "Retry",
    "StepContext",
    "StepDef",
    "StepPlan",
    "WorkflowDef",
    "current_context",
    "current_step",
    "plan_of",
    "step",
    "step_context",
    "workflow",
]

InputT_contra = TypeVar("InputT_contra", contravariant=True)
OutputT_co = TypeVar("OutputT_co", covariant=True)
I = TypeVar("I")  # noqa: E741 - the input of the overloads below
O = TypeVar("O")  # noqa: E741

_UNSET: Any = object()


class WorkflowDef(Definition, Generic[InputT_contra, OutputT_co]):
    """A workflow: what `workflow` makes of a handler.

    Calling it calls the handler, with the context of the caller.
    """

    defined_as = "workflow"

    def __init__(
        self,
        handler: Callable[..., Coroutine[Any, Any, Any]],
        *,
        name: str | None = None,
        version: str = "1",
        previous: Sequence[WorkflowDef[Any, Any]] = (),
        input: Any = _UNSET,  # noqa: A002
        output: Any = _UNSET,
        state: Callable[[], Any] | None = None,
        retry: Retry | None = None,
        timeout: timedelta | float | None = None,
        description: str | None = None,
        tags: Sequence[str] = (),
        events: Mapping[str, Any] | None = None,
        context: type[Context[Any]] = Context,
        middleware: Sequence[Middleware[Any]] = (),
        step_context: type[StepContext] = StepContext,
        step_middleware: Sequence[Middleware[Any]] = (),
        on_exhausted: OnExhausted | None = None,
        on_completed: WorkflowDef[Any, Any] | str | None = None,
        on_failed: WorkflowDef[Any, Any] | str | None = None,
        on_stuck: WorkflowDef[Any, Any] | str | None = None,
        local_names: Mapping[str, Any] | None = None,
    ) -> None:
        where = self._where = place("workflow", name, unwrap(handler))
        self.handler = handler_of(handler, where)
        code_of = annotated(self.handler)
        self.name: str = checked_name(
            name if name is not None else getattr(code_of if _is_named(handler) else None, "__name__", None),
            where,
        )
        self.version: str = checked_version(version, where)
        first, parameter = parameters_of(self.handler, where)
        with defining(where):
            self.context: type[Context[Any]] = class_of(context, Context, "context")
            """What the handler is given."""
            self.middleware = checked(middleware, self.context, "middleware", local_names)
            """Around the handler, the first one outermost."""
            self.step_context: type[StepContext] = class_of(step_context, StepContext, "step_context")
            """What the attempts of its steps see of themselves."""
            self.step_middleware = checked(step_middleware, self.step_context, "step_middleware", local_names)
            """Around each attempt of its steps."""
        check_context(self.handler, self.context, first, parameter, where, local_names)
        self._parameter = parameter
        if input is not _UNSET and parameter is None:
            raise WorkflowDefinitionError(f"{where}: input= is given, but the handler takes none")
        self.previous = _previous(previous, self)
        """Older definitions that runs begun under them still need."""
        self.retry = checked_retry(retry, where)
        """The rule for steps that have none of their own; None tries each once."""
        self.pauses_run = checked_on_exhausted(on_exhausted, where) or False
        """Whether a step that fails for good pauses the run, unless the step says otherwise."""
        self.timeout_ms = checked_timeout(timeout, where)
        """How long a run may take from its creation, in milliseconds; None for ever."""
        if description is not None and not isinstance(description, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WorkflowDefinitionError(f"{where}: description is {description!r}: give a text")
        self.description: str = description if description is not None else (inspect.getdoc(code_of) or "")
        self.tags = checked_tags(tags, where)
        self.state_type = state
        """Makes the first value of `Context.state`; None without state."""
        if state is not None:
            # It is the type by which the state is written, too: a function that makes one does not say that.
            if not callable(state) or not (isinstance(state, type) or get_origin(state)):
                raise WorkflowDefinitionError(f"{where}: state is {state!r}: give a class, such as a model")
            signatures.check_stored(state, f"state of {where}")
        self.events: dict[str, Any] = checked_events(events, where)
        """Types of events by name, to refuse a bad payload while its sender still listens."""
        hooks = {"completed": on_completed, "failed": on_failed, "stuck": on_stuck}
        self.hooks = {on: _hook(on, hook, where) for on, hook in hooks.items() if hook is not None}
        """Workflows of which a run is started when a run of this one comes to that."""
        self.module: str = getattr(code_of, "__module__", "?")
        code = getattr(code_of, "__code__", None)
        self.location = "?" if code is None else f"{code.co_filename}:{code.co_firstlineno}"
        """File and line, for messages."""
        self._input = input
        self._output = output
        self._resolved = False
        try:
            self._resolve(local_names)
        except NameError:
            pass  # a name that is defined further down: resolved at registration

    def _resolve(self, local_names: Mapping[str, Any] | None = None) -> None:
        given_input, given_output = self._input, self._output
        if (self.has_input and given_input is _UNSET) or given_output is _UNSET:
            try:
                if given_output is _UNSET:
                    given_output = signatures.hint(self.handler, "return", local_names)
                if self._parameter is not None and given_input is _UNSET:
                    given_input = signatures.hint(self.handler, self._parameter.name, local_names)
            except NameError:
                raise
            except Exception as error:
                raise WorkflowDefinitionError(
                    f"{self._where}: its annotations cannot be read: {error}"
                ) from error
        if not self.has_input:
            given_input = type(None)
        signatures.check_stored(given_input, f"input of {self._where}")
        signatures.check_stored(given_output, f"output of {self._where}")
        self._check_default(given_input)
        self._input, self._output, self._resolved = given_input, given_output, True

    def _check_default(self, input_type: Any) -> None:
        parameter = self._parameter
        if parameter is None or parameter.default is parameter.empty:
            return
        try:
            JsonSerializer().dumps(parameter.default, input_type)
        except (SerializationError, PayloadTooLarge) as error:
            raise WorkflowDefinitionError(
                f"{self._where}: the default of {parameter.name!r} is not what its annotation says: {error}"
            ) from None

    def resolve(self) -> None:
        """Evaluate annotations that named what was not defined yet. Called at registration.

        Raises:
            WorkflowDefinitionError: they still do, or they name types that cannot be stored.
        """
        if not self._resolved:
            try:
                self._resolve()
            except NameError as error:
                raise signatures.unresolved(self._where, error) from error

    @property
    def has_input(self) -> bool:
        """Whether the handler takes an input beside its context."""
        return self._parameter is not None

    def input_or_default(self, given: Any) -> Any:
        """What a run is created with: what was given, else the handler's default, else None."""
        if given is not NO_INPUT:
            return given
        parameter = self._parameter
        return None if parameter is None or parameter.default is parameter.empty else parameter.default

    @property
    def input_type(self) -> Any:
        """The annotation of the input; None for any JSON, `NoneType` if the handler takes none."""
        self.resolve()
        return self._input

    @property
    def output_type(self) -> Any:
        """The annotation of the result; None for any JSON."""
        self.resolve()
        return self._output

    def event_type(self, name: str) -> Any:
        """The declared type of an event, or None."""
        return self.events.get(name)

    if TYPE_CHECKING:

        @overload
        def __call__(self: WorkflowDef[None, O], ctx: Context[Any]) -> Coroutine[Any, Any, O]: ...
        @overload
        def __call__(self, ctx: Context[Any], input: InputT_contra) -> Coroutine[Any, Any, OutputT_co]: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    else:

        def __call__(self, *args, **kwargs):
            return self.handler(*args, **kwargs)

    @override
    def __repr__(self) -> str:
        return f"<workflow {self.name!r} version {self.version!r}>"


def _is_named(handler: Any) -> bool:
    """Whether it has a name of its own: an object does not, though the method that calls it does."""
    return inspect.isroutine(unwrap(handler))


def _hook(on: str, hook: Any, where: str) -> WorkflowDef[Any, Any] | str:
    if isinstance(hook, str) and hook:
        return hook
    if not isinstance(hook, WorkflowDef):
        raise WorkflowDefinitionError(
            f"{where}: on_{on} is {hook!r}: give a workflow that takes a duramen.Outcome, or its name"
        )
    found: WorkflowDef[Any, Any] = hook  # pyright: ignore[reportUnknownVariableType]
    if not found.has_input:
        raise WorkflowDefinitionError(
            f"{where}: on_{on} is {found!r}, which takes no input: give its handler a duramen.Outcome"
        )
    return found


def _previous(
    previous: Sequence[WorkflowDef[Any, Any]], newest: WorkflowDef[Any, Any]
) -> tuple[WorkflowDef[Any, Any], ...]:
    versions = {newest.version}
    where = f"workflow {newest.name!r}"
    if not isinstance(previous, Iterable) or isinstance(previous, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise WorkflowDefinitionError(f"{where}: previous is {previous!r}: give a list, previous=[…]")
    for each in previous:
        if not isinstance(each, WorkflowDef):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WorkflowDefinitionError(
                f"{where}: previous holds {each!r}, not a workflow: decorate it with @workflow, under the "
                "same name and a version of its own"
            )
        if each.name != newest.name:
            raise WorkflowDefinitionError(
                f"{where}: its previous version is named {each.name!r}: give it the same name="
            )
        if each.version in versions:
            raise WorkflowDefinitionError(
                f"{where}: version {each.version!r} is there twice: give each its own version="
            )
        versions.add(each.version)
    return tuple(previous)


C = TypeVar("C", bound=Context[Any])
C_co = TypeVar("C_co", bound=Context[Any], covariant=True)
C_contra = TypeVar("C_contra", bound=Context[Any], contravariant=True)
S = TypeVar("S", bound=StepContext)


class WorkflowOptions(TypedDict, total=False):
    """Options that stand for themselves, in all forms of `workflow`, which says what they mean."""

    name: str | None
    version: str
    previous: Sequence[WorkflowDef[Any, Any]]
    input: Any
    output: Any
    state: Callable[[], Any] | None
    retry: Retry | None
    timeout: timedelta | float | None
    description: str | None
    tags: Sequence[str]
    events: Mapping[str, Any] | None
    on_exhausted: OnExhausted | None
    on_completed: WorkflowDef[Outcome, Any] | str | None
    on_failed: WorkflowDef[Outcome, Any] | str | None
    on_stuck: WorkflowDef[Outcome, Any] | str | None


class _DefaultedHandler(Protocol[C_contra, InputT_contra, OutputT_co]):
    """A handler that can do without its input."""

    def __call__(self, ctx: C_contra, given: InputT_contra = ..., /) -> Coroutine[Any, Any, OutputT_co]: ...


class _Decorator(Protocol[C_co]):
    @overload
    def __call__(self, handler: _DefaultedHandler[C_co, I, O], /) -> WorkflowDef[I | None, O]: ...
    @overload
    def __call__(self, handler: Callable[[C_co, I], Coroutine[Any, Any, O]], /) -> WorkflowDef[I, O]: ...
    @overload
    def __call__(self, handler: Callable[[C_co], Coroutine[Any, Any, O]], /) -> WorkflowDef[None, O]: ...


# A class that extends a context is named beside the middleware that needs it, so that none is given less.
@overload
def workflow(handler: _DefaultedHandler[Context[Any], I, O], /) -> WorkflowDef[I | None, O]: ...
@overload
def workflow(handler: Callable[[Context[Any], I], Coroutine[Any, Any, O]], /) -> WorkflowDef[I, O]: ...
@overload
def workflow(handler: Callable[[Context[Any]], Coroutine[Any, Any, O]], /) -> WorkflowDef[None, O]: ...
@overload
def workflow(
    *,
    middleware: Sequence[Middleware[Context[Any]]] = (),
    step_middleware: Sequence[Middleware[StepContext]] = (),
    **options: Unpack[WorkflowOptions],
) -> _Decorator[Context[Any]]: ...
@overload
def workflow(
    *,
    context: type[C],
    middleware: Sequence[Middleware[C]] = (),
    step_middleware: Sequence[Middleware[StepContext]] = (),
    **options: Unpack[WorkflowOptions],
) -> _Decorator[C]: ...
@overload
def workflow(
    *,
    middleware: Sequence[Middleware[Context[Any]]] = (),
    step_context: type[S],
    step_middleware: Sequence[Middleware[S]] = (),
    **options: Unpack[WorkflowOptions],
) -> _Decorator[Context[Any]]: ...
@overload
def workflow(
    *,
    context: type[C],
    middleware: Sequence[Middleware[C]] = (),
    step_context: type[S],
    step_middleware: Sequence[Middleware[S]] = (),
    **options: Unpack[WorkflowOptions],
) -> _Decorator[C]: ...
def workflow(handler: Any = None, /, **options: Any) -> Any:  # noqa: D417 - spelled out in the overloads
    """Declare an `async def` function as a workflow's handler.

    A handler takes a `Context` and at most one input, whose type and that of the result are read from its
    annotations; an input that has a default may be left out when a run is started. A bound method or a
    `functools.partial` (for what a handler needs beside its input) will do as well as a function. What it
    does beside awaiting durable calls must depend on nothing but its input and their results: work with
    effects goes into steps.

    Args:
        handler: the function.
        name: default: the function's name.
        version: which code a run belongs to; a run goes on under the version that it began with.
        previous: older versions (made by `workflow` too), for the runs that began under them.
        input: the input's type, in place of the annotation.
        output: the result's type, in place of the annotation.
        state: a class, such as a model with defaults, for `Context.state`.
        retry: for steps that have no rule of their own. Default: a step is tried once.
        timeout: seconds or `timedelta` for a whole run, from its creation on.
        description: default: the function's docstring.
        tags: given to every run.
        events: types of events by their name; a payload that does not fit is refused to its sender at once.
        context: a class that extends `Context`: what the handler and its middleware are given.
        middleware: functions around the handler, the first one outermost, inside of those of the runtime.
            Each is ``async def …(ctx, call_next)``, awaits ``call_next()`` once and gives back its result. It
            runs with the handler on every replay, and is bound by the same rules.
        step_context: a class that extends `StepContext`: what steps and their middleware are given.
        step_middleware: the same around each attempt of a step, as ``async def …(step, call_next)``. It runs
            on the program's event loop, within the step's time limit, and not on replays.
        on_exhausted: what becomes of a step that fails for good and does not say: ``"fail"`` (the default)
            raises in the handler, ``"pause"`` pauses the run until people say `Runtime.retry` or
            `Runtime.skip`.
        on_completed: a workflow (or its name) that takes an `Outcome`: a run of it is started when a run of
            this one completes, once, by the commit with which it does.
        on_failed: likewise when one fails; again if it is retried and fails again.
        on_stuck: likewise when one is parked because the code does not fit its journal.

    Raises:
        WorkflowDefinitionError: it cannot be a handler, or one of its types cannot be stored.

    >>> @workflow(name="greeting", version="2")
    ... async def greet(ctx: Context, name: str) -> str:
    ...     return f"hello {name}"
    >>> greet
    <workflow 'greeting' version '2'>
    >>> greet.input_type
    <class 'str'>
    """
    local_names = caller_names()

    def decorate(handler: Any) -> WorkflowDef[Any, Any]:
        return WorkflowDef(cast("Callable[..., Any]", handler), **options, local_names=local_names)

    return decorate if handler is None else decorate(handler)
