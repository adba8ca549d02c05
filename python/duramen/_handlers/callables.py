"""What kind of callable a step or a handler is."""

from __future__ import annotations

import functools
import inspect
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Definition", "annotated", "is_async_callable", "refusal", "unwrap"]

_ASYNC_FLAGS = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE


def unwrap(fn: Any) -> Any:
    """The function under partials and bound methods, or the callable object there."""
    while True:
        if isinstance(fn, functools.partial):
            fn = fn.func
        elif isinstance(fn, MethodType):
            fn = fn.__func__
        else:
            return fn


def annotated(fn: Any) -> Any:
    """As `unwrap`, and the method that a callable object is called by: what carries annotations and code."""
    fn = unwrap(fn)
    if inspect.isroutine(fn) or isinstance(fn, type) or not callable(fn):
        return fn
    return type(fn).__call__


def is_async_callable(fn: Callable[..., object]) -> bool:
    """Tell whether `fn` is async: an async function or method, a partial of one, an object called like that.

    A plain function that returns an awaitable cannot be told from its outside; the `Stepper` awaits what it
    returns.

    >>> async def reserve() -> None: ...
    >>> is_async_callable(functools.partial(reserve)), is_async_callable(print)
    (True, False)
    """
    while isinstance(fn, functools.partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    if code is not None and code.co_flags & _ASYNC_FLAGS:
        return True
    if inspect.iscoroutinefunction(fn):
        return True
    if inspect.isroutine(fn) or isinstance(fn, type):
        return False
    return inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 - the method is looked at


class Definition:
    """What `@workflow` and `@step` make of a function, as each sees the other's."""

    defined_as: ClassVar[str]
    """The decorator's word for it."""


def refusal(fn: Any) -> str | None:
    """Say why `fn` can be neither a step nor a handler, and what to write instead; None if nothing is known.

    >>> def numbers():
    ...     yield 1
    >>> refusal(numbers)
    'numbers is a generator: let it return one value, such as a list of what it yields'
    """
    base = unwrap(fn)
    name = getattr(base, "__name__", None) or repr(fn)
    called = annotated(base)
    if isinstance(base, Definition) and base.defined_as == "workflow":
        return f"{fn!r} is a workflow, which runs by itself: start it with runtime.start, inside of a step"
    if isinstance(base, classmethod):
        return f"{name} is a class method that belongs to no class yet: write @classmethod over the decorator"
    if inspect.isawaitable(fn):
        return f"{fn!r} has been called already: give the function and its arguments, not the call"
    if isinstance(fn, str):
        return f"it is {fn!r}: give a function; a name is given as name={fn!r}"
    if not callable(base):
        return f"it is {fn!r}: give a function"
    if inspect.isasyncgenfunction(called):
        return f"{name} is an async generator: let it return one value, and tell of progress with emit"
    if inspect.isgeneratorfunction(called) and not is_async_callable(base):
        return f"{name} is a generator: let it return one value, such as a list of what it yields"
    return None
