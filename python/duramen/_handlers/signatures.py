"""Reads the annotations of handlers and step functions, also where they are strings."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import types
import typing
from typing import TYPE_CHECKING, Any

from duramen.errors import WorkflowDefinitionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_AWAITABLES: frozenset[Any] = frozenset(
    {collections.abc.Awaitable, collections.abc.Coroutine, collections.abc.Generator}
)


def unwrap(fn: Any) -> Any:
    """The function under partials, bound methods and callable objects: what carries the annotations."""
    while True:
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, types.MethodType):
            fn = fn.__func__
        else:
            return fn


def hint(fn: Callable[..., object], name: str, local_names: Mapping[str, Any] | None = None) -> Any:
    """One annotation of `fn`, evaluated, or None without it.

    The others are left alone: that of the context is often imported for type checkers only.

    Args:
        fn: a function.
        name: of the parameter, or ``"return"``.
        local_names: names of the place where it is defined, for annotations that are strings.

    Raises:
        NameError: the annotation names something that is not defined (yet).
    """
    annotations = _annotations(fn)
    if name not in annotations:
        return None
    inner: Any = inspect.unwrap(fn)
    holder = types.FunctionType((lambda: None).__code__, getattr(inner, "__globals__", {}))
    holder.__annotations__ = {name: annotations[name]}
    names = None if local_names is None else dict(local_names)
    return typing.get_type_hints(holder, localns=names, include_extras=True)[name]


def _annotations(fn: Any) -> Mapping[str, Any]:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(fn, format=annotationlib.Format.FORWARDREF)
    return getattr(fn, "__annotations__", {})


def result_type(fn: Any, where: str, local_names: Mapping[str, Any] | None = None) -> Any:
    """The type that a step's function ends with, or None without an annotation.

    Raises:
        NameError: as `hint`.
        WorkflowDefinitionError: the annotations cannot be evaluated for another reason.
    """
    fn = unwrap(fn)
    if isinstance(fn, type):
        return fn
    if not inspect.isroutine(fn) and hasattr(fn, "__call__"):  # noqa: B004 - the method is looked at
        fn = type(fn).__call__
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


def unresolved(where: str, error: NameError) -> WorkflowDefinitionError:
    """Say that an annotation names something that does not exist when the program runs."""
    return WorkflowDefinitionError(
        f"{where}: an annotation cannot be evaluated: {error} (import the name at run time, not under "
        "TYPE_CHECKING only, and define it at module level)"
    )
