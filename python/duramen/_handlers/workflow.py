"""`@workflow`: what a workflow is called, takes, gives, and how its steps are retried."""

# The names of the place of a definition are looked up in its frame.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast, overload

from duramen._values.durations import duration_ms
from duramen._values.serializer import check_type
from duramen.errors import InvalidArgument, WorkflowDefinitionError

from . import signatures
from .retry import Backoff, Retry
from .step import (
    StepContext,
    StepDef,
    StepPlan,
    current_context,
    current_step,
    plan_of,
    step,
    step_context,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from datetime import timedelta

    from .context import Context

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

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")
I = TypeVar("I")  # noqa: E741 - the input of the overloads below
O = TypeVar("O")  # noqa: E741

_UNSET: Any = object()


class WorkflowDef(Generic[InputT, OutputT]):
    """A workflow: what `workflow` makes of a handler.

    Calling it calls the handler, with the context of the caller.
    """

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
        local_names: Mapping[str, Any] | None = None,
    ) -> None:
        self.name: str = name if name is not None else getattr(handler, "__name__", "")
        self.version = version
        where = self._where = f"workflow {self.name!r}"
        _check_name(self.name, where, "name")
        _check_name(version, where, "version")
        if not inspect.iscoroutinefunction(handler):
            raise WorkflowDefinitionError(f"{where}: a handler is an `async def` function, not {handler!r}")
        self.handler = handler
        self.has_input = _takes_input(handler, where)
        """Whether the handler takes an input beside its context."""
        if input is not _UNSET and not self.has_input:
            raise WorkflowDefinitionError(f"{where}: input= is given, but the handler takes none")
        self.previous = _previous(previous, self)
        """Older definitions that runs begun under them still need."""
        if retry is not None and not isinstance(retry, Retry):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WorkflowDefinitionError(f"{where}: retry is {retry!r}: give a Retry(…)")
        self.retry = retry
        """The rule for steps that have none of their own; None tries each once."""
        self.timeout_ms = _timeout(timeout, where)
        """How long a run may take from its creation, in milliseconds; None for ever."""
        doc = inspect.getdoc(handler)
        self.description: str = description if description is not None else (doc or "")
        self.tags = _tags(tags, where)
        self.state_type = state
        """Makes the first value of `Context.state`; None without state."""
        if state is not None and not callable(state):
            raise WorkflowDefinitionError(f"{where}: state is {state!r}: give a class, such as a model")
        self.events: dict[str, Any] = dict(events or {})
        """Types of events by name, to refuse a bad payload while its sender still listens."""
        for event, annotation in self.events.items():
            _check_name(event, where, "event name")
            check_type(annotation, f"event {event!r} of {where}")
        if isinstance(state, type):
            check_type(state, f"state of {where}")
        self.module: str = getattr(handler, "__module__", "?")
        code = handler.__code__
        self.location = f"{code.co_filename}:{code.co_firstlineno}"
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
                if self.has_input and given_input is _UNSET:
                    parameter = list(inspect.signature(self.handler).parameters)[1]
                    given_input = signatures.hint(self.handler, parameter, local_names)
            except NameError:
                raise
            except Exception as error:
                raise WorkflowDefinitionError(
                    f"{self._where}: its annotations cannot be read: {error}"
                ) from error
        if not self.has_input:
            given_input = type(None)
        check_type(given_input, f"input of {self._where}")
        check_type(given_output, f"output of {self._where}")
        self._input, self._output, self._resolved = given_input, given_output, True

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
        def __call__(self, ctx: Context[Any], input: InputT) -> Coroutine[Any, Any, OutputT]: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...

    else:

        def __call__(self, *args, **kwargs):
            return self.handler(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<workflow {self.name!r} version {self.version!r}>"


def _check_name(name: Any, where: str, what: str) -> None:
    if not isinstance(name, str) or not name:
        raise WorkflowDefinitionError(f"{where}: its {what} is {name!r}: give a text")
    if len(name) > 255 or "\0" in name:
        raise WorkflowDefinitionError(f"{where}: its {what} has more than 255 characters, or a NUL in it")
    if what == "event name" and name.startswith("__"):
        raise WorkflowDefinitionError(f"{where}: event name {name!r}: names beginning with '__' are reserved")


def _takes_input(handler: Callable[..., object], where: str) -> bool:
    parameters = list(inspect.signature(handler).parameters.values())
    positional = [
        each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
    ]
    others = [
        each.name
        for each in parameters
        if each not in positional and (each.kind != each.KEYWORD_ONLY or each.default is each.empty)
    ]
    if not 1 <= len(positional) <= 2 or others:
        raise WorkflowDefinitionError(
            f"{where}: a handler takes the context and at most one input: put several values into a model"
        )
    return len(positional) == 2


def _previous(
    previous: Sequence[WorkflowDef[Any, Any]], newest: WorkflowDef[Any, Any]
) -> tuple[WorkflowDef[Any, Any], ...]:
    versions = {newest.version}
    where = f"workflow {newest.name!r}"
    for each in previous:
        if not isinstance(each, WorkflowDef):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise WorkflowDefinitionError(
                f"workflow {newest.name!r}: previous holds {each!r}, not a workflow"
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


def _timeout(timeout: timedelta | float | None, where: str) -> int | None:
    if timeout is None:
        return None
    try:
        milliseconds = duration_ms(timeout, "timeout")
    except InvalidArgument as error:
        raise WorkflowDefinitionError(f"{where}: {error}") from None
    if milliseconds == 0:
        raise WorkflowDefinitionError(f"{where}: timeout is 0: give more, or leave it out for no limit")
    return milliseconds


def _tags(tags: Sequence[str], where: str) -> tuple[str, ...]:
    if isinstance(tags, str):
        raise WorkflowDefinitionError(f"{where}: tags is a text: give a list of texts")
    for tag in tags:
        _check_name(tag, where, "tag")
    return tuple(tags)


class _Decorator(Protocol):
    @overload
    def __call__(
        self, handler: Callable[[Context[Any], I], Coroutine[Any, Any, O]], /
    ) -> WorkflowDef[I, O]: ...
    @overload
    def __call__(
        self, handler: Callable[[Context[Any]], Coroutine[Any, Any, O]], /
    ) -> WorkflowDef[None, O]: ...


@overload
def workflow(handler: Callable[[Context[Any], I], Coroutine[Any, Any, O]], /) -> WorkflowDef[I, O]: ...
@overload
def workflow(handler: Callable[[Context[Any]], Coroutine[Any, Any, O]], /) -> WorkflowDef[None, O]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    version: str = "1",
    previous: Sequence[WorkflowDef[Any, Any]] = (),
    input: Any = ...,
    output: Any = ...,
    state: Callable[[], Any] | None = None,
    retry: Retry | None = None,
    timeout: timedelta | float | None = None,
    description: str | None = None,
    tags: Sequence[str] = (),
    events: Mapping[str, Any] | None = None,
) -> _Decorator: ...
def workflow(handler: Any = None, /, **options: Any) -> Any:  # noqa: D417 - spelled out in the overload
    """Declare an `async def` function as a workflow's handler.

    A handler takes a `Context` and at most one input, whose type and that of the result are read from its
    annotations. What it does beside awaiting durable calls must depend on nothing but its input and their
    results: work with effects goes into steps.

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
    local_names = sys._getframe(1).f_locals

    def decorate(handler: Any) -> WorkflowDef[Any, Any]:
        return WorkflowDef(cast("Callable[..., Any]", handler), **options, local_names=local_names)

    return decorate if handler is None else decorate(handler)
