"""Middleware: functions around a handler, and around each attempt of a step."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from duramen.errors import InvalidArgument

from . import signatures
from .callables import is_async_callable

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Middleware", "Next", "checked", "go_through"]

ContextT = TypeVar("ContextT")

Next: TypeAlias = Callable[[], Coroutine[Any, Any, Any]]
"""What a middleware awaits once, and whose result it gives back: all that is further inside."""

Middleware: TypeAlias = Callable[[ContextT, Next], Awaitable[Any]]
"""An `async def` function of a context and what is further inside.

Around a handler its context is a `Context` (or a class that extends it), around an attempt of a step a
`StepContext`.
"""


def checked(
    given: Any, context: type[Any], option: str, local_names: Mapping[str, Any] | None = None
) -> tuple[Middleware[Any], ...]:
    """Give middleware as it is kept.

    Args:
        given: a list of functions.
        context: the class of what they are given first.
        option: how the list is called in messages.
        local_names: names of the place where it is given, for annotations that are strings.

    Raises:
        InvalidArgument: one of them cannot be middleware, or wants another context.
    """
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise InvalidArgument(f"{option} is {given!r}: give a list, {option}=[…]")
    found: list[Any] = list(given)  # pyright: ignore[reportUnknownArgumentType]
    for each in found:
        if not callable(each) or isinstance(each, type) or not is_async_callable(each):
            raise InvalidArgument(
                f"{option} holds {each!r}: give functions, `async def …(ctx: {context.__name__}, "
                "call_next: Next)`"
            )
        wanted = _wanted(each, option, local_names)
        if inspect.isclass(wanted) and not _is_met_by(wanted, context):
            raise InvalidArgument(
                f"{option}: {_name(each)} wants a {wanted.__name__}, and is given a {context.__name__}: "
                f"{_advice(wanted, option)}"
            )
    return tuple(found)


def _wanted(middleware: Any, option: str, local_names: Mapping[str, Any] | None) -> Any:
    """The class that its first parameter is annotated with; None if that is not known."""
    try:
        bound = inspect.signature(middleware).bind(None, None)
    except TypeError as error:
        raise InvalidArgument(
            f"{option}: {_name(middleware)} is called with a context and call_next, and that does not fit: "
            f"{error}"
        ) from None
    first = next(iter(bound.arguments))
    try:
        annotation = signatures.hint(middleware, first, local_names)
    except Exception:  # noqa: BLE001 - it is evaluated for this check alone
        return None
    return typing.get_origin(annotation) or annotation


def _is_met_by(wanted: type[Any], context: type[Any]) -> bool:
    # `Any` is a class from Python 3.11 on.
    return wanted is Any or getattr(wanted, "_is_protocol", False) or issubclass(context, wanted)


def _advice(wanted: type[Any], option: str) -> str:
    of = "step_context" if option.startswith("step_") else "context"
    return f"write @workflow({of}={wanted.__name__}, {option}=[…])"


def _name(middleware: Any) -> str:
    return getattr(middleware, "__qualname__", None) or repr(middleware)


async def go_through(middleware: tuple[Middleware[Any], ...], context: Any, inside: Next) -> Any:
    """Call what is inside through middleware, the first one outermost."""
    call = inside
    for each in reversed(middleware):
        call = _Layer(each, context, _Once(call))
    return await call()


class _Layer:
    """One middleware, with what is further inside."""

    __slots__ = ("_context", "_inside", "_middleware")

    def __init__(self, middleware: Middleware[Any], context: Any, inside: Next) -> None:
        self._middleware = middleware
        self._context = context
        self._inside = inside

    async def __call__(self) -> Any:
        return await self._middleware(self._context, self._inside)


class _Once:
    """What a middleware gets as `call_next`."""

    __slots__ = ("_call", "_was_called")

    def __init__(self, call: Next) -> None:
        self._call = call
        self._was_called = False

    def __call__(self) -> Coroutine[Any, Any, Any]:
        if self._was_called:
            raise InvalidArgument(
                "call_next was called a second time by one middleware: a handler is called once, and what a "
                "step is to do again is said with retry="
            )
        self._was_called = True
        return self._call()
