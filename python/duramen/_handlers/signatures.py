"""Reads the annotations of handlers and step functions, also where they are strings."""

from __future__ import annotations

import collections.abc
import inspect
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from duramen._values.serializer import check_type
from duramen.errors import WorkflowDefinitionError

from .callables import annotated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_AWAITABLES: frozenset[Any] = frozenset(
    {collections.abc.Awaitable, collections.abc.Coroutine, collections.abc.Generator}
)


_NOTHING_COMES = (typing.NoReturn, typing.Never)

_LAZY: frozenset[Any] = frozenset({
    collections.abc.AsyncGenerator, collections.abc.AsyncIterable, collections.abc.AsyncIterator,
    collections.abc.Generator, collections.abc.Iterator,
})  # fmt: skip


def hint(fn: Callable[..., object], name: str, local_names: Mapping[str, Any] | None = None) -> Any:
    """One annotation of `fn`, evaluated, or None without it.

    The others are left alone: that of the context is often imported for type checkers only.

    Args:
        fn: a function, or whatever is called like one.
        name: of the parameter, or ``"return"``.
        local_names: names of the place where it is defined, for annotations that are strings.

    Raises:
        NameError: the annotation names something that is not defined (yet).
    """
    carrier = annotated(fn)
    annotations = annotations_of(carrier)
    if name not in annotations:
        return None
    inner: Any = inspect.unwrap(carrier)
    holder = types.FunctionType((lambda: None).__code__, getattr(inner, "__globals__", {}))
    holder.__annotations__ = {name: annotations[name]}
    names = None if local_names is None else dict(local_names)
    found = typing.get_type_hints(holder, localns=names, include_extras=True)[name]
    return None if found in _NOTHING_COMES else found


def annotations_of(fn: Any) -> Mapping[str, Any]:
    """The annotations of a function, or those of a class itself, as they are written."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(fn, format=annotationlib.Format.FORWARDREF)
    return vars(fn).get("__annotations__", {}) if isinstance(fn, type) else getattr(fn, "__annotations__", {})


def result_type(fn: Any, where: str, local_names: Mapping[str, Any] | None = None) -> Any:
    """The type that a step's function ends with, or None without an annotation.

    Raises:
        NameError: as `hint`.
        WorkflowDefinitionError: the annotations cannot be evaluated for another reason.
    """
    fn = annotated(fn)
    if isinstance(fn, type):
        return fn
    if inspect.isbuiltin(fn) or not hasattr(fn, "__annotations__"):
        return None
    try:
        annotation = hint(fn, "return", local_names)
    except NameError:
        raise
    except Exception as error:
        raise WorkflowDefinitionError(f"{where}: its annotations cannot be read: {error}") from error
    if typing.get_origin(annotation) in _AWAITABLES and not inspect.iscoroutinefunction(fn):
        # A plain function that returns an awaitable: what that ends with is the last argument.
        return typing.get_args(annotation)[-1]
    return annotation


def check_stored(annotation: Any, where: str) -> None:
    """As `check_type`, with a sentence for types that are written where a value's type belongs.

    >>> check_stored(typing.Self, "result of step 'copy'")
    Traceback (most recent call last):
    duramen.errors.WorkflowDefinitionError: result of step 'copy': Self says no class: name it instead
    """
    if annotation is typing.Self:  # pyright: ignore[reportUnknownMemberType]
        raise WorkflowDefinitionError(f"{where}: Self says no class: name it instead")
    origin = typing.get_origin(annotation) or annotation
    if isinstance(annotation, typing.ParamSpec):
        raise WorkflowDefinitionError(f"{where}: {annotation} stands for parameters: name a type instead")
    if isinstance(origin, collections.abc.Hashable) and origin in _LAZY:
        name = getattr(origin, "__name__", origin)
        raise WorkflowDefinitionError(
            f"{where}: an {name} is read once and cannot be stored: return a list[…] (of what it yields)"
        )
    if isinstance(origin, collections.abc.Hashable) and origin in _AWAITABLES:
        raise WorkflowDefinitionError(
            f"{where}: an {origin.__name__} cannot be stored: await it, and annotate what it gives"
        )
    check_type(annotation, where)


def unresolved(where: str, error: NameError) -> WorkflowDefinitionError:
    """Say that an annotation names something that does not exist when the program runs."""
    return WorkflowDefinitionError(
        f"{where}: an annotation cannot be evaluated: {error} (import the name at run time, not under "
        "TYPE_CHECKING only, and define it at module level)"
    )
