"""What kind of callable a step is."""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["is_async_callable"]

_ASYNC_FLAGS = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE


def is_async_callable(fn: Callable[..., object]) -> bool:
    """Tell whether `fn` is async: an async function or method, a partial of one, an object called like that.

    A plain function that returns an awaitable cannot be told from its outside; the `Stepper` awaits what it
    returns.

    >>> async def reserve() -> None: ...
    >>> is_async_callable(partial(reserve)), is_async_callable(print)
    (True, False)
    """
    while isinstance(fn, partial):
        fn = fn.func
    code = getattr(fn, "__code__", None)
    if code is not None and code.co_flags & _ASYNC_FLAGS:
        return True
    if inspect.iscoroutinefunction(fn):
        return True
    if inspect.isroutine(fn) or isinstance(fn, type):
        return False
    return inspect.iscoroutinefunction(getattr(fn, "__call__", None))  # noqa: B004 - the method is looked at
