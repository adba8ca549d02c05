"""What may be a workflow's handler: an `async def` function of the context and at most one input."""

from __future__ import annotations

import inspect
import types
import typing
from typing import TYPE_CHECKING, Any

from duramen.errors import WorkflowDefinitionError

from . import signatures
from .callables import Definition, is_async_callable, refusal, unwrap
from .context import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

__all__ = ["check_context", "handler_of", "parameters_of"]


def handler_of(given: Any, where: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Give what is called as the handler.

    Functions, bound methods, static methods in a class's body, partials and objects with an async `__call__`
    will do.

    Raises:
        WorkflowDefinitionError: it is something else; the message says what to write.
    """
    if isinstance(given, staticmethod):
        given = given.__func__
    base = unwrap(given)
    if isinstance(base, Definition):
        raise WorkflowDefinitionError(
            f"{where}: {base!r} is a {base.defined_as} already: decorate a function as one of the two, once"
        )
    if isinstance(given, type):
        raise WorkflowDefinitionError(
            f"{where}: {given.__name__} is a class: decorate an `async def` function, or give a bound method"
        )
    reason = refusal(given)
    if reason is None and not is_async_callable(given):
        reason = f"a handler is an `async def` function, not {given!r}: write `async def …(ctx: Context)`"
    if reason is not None:
        raise WorkflowDefinitionError(f"{where}: {reason}")
    return given


def parameters_of(handler: Any, where: str) -> tuple[inspect.Parameter, inspect.Parameter | None]:
    """The parameters of the context and of the input, if it takes one.

    Raises:
        WorkflowDefinitionError: it takes something else.
    """
    positional: list[inspect.Parameter] = []
    for each in inspect.signature(handler).parameters.values():
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            positional.append(each)
        elif each.kind != each.KEYWORD_ONLY:
            raise WorkflowDefinitionError(
                f"{where}: it takes {each}, and a run gives a handler the context and at most one input: "
                "leave it out; a decorator shows what it wraps with functools.wraps"
            )
        elif each.default is each.empty:
            raise WorkflowDefinitionError(
                f"{where}: it takes {each.name!r} by keyword only, and a run gives a handler the context "
                f"and at most one input: bind it, functools.partial(…, {each.name}=…), or make it the input"
            )
    if not positional:
        raise WorkflowDefinitionError(f"{where}: it takes no context: write `async def …(ctx: Context)`")
    if positional[0].name in ("self", "cls"):
        raise WorkflowDefinitionError(
            f"{where}: it is a method without its object: give a bound one, workflow(obj.method), or make it "
            "a function outside of the class"
        )
    if len(positional) > 2:
        names = ", ".join(each.name for each in positional[1:])
        raise WorkflowDefinitionError(
            f"{where}: a handler takes the context and at most one input, not {names}: put several values "
            "into a model or dataclass"
        )
    return positional[0], positional[1] if len(positional) == 2 else None


def check_context(
    handler: Any,
    context: type[Any],
    first: inspect.Parameter,
    second: inspect.Parameter | None,
    where: str,
    local_names: Mapping[str, Any] | None,
) -> None:
    """Refuse a handler whose first parameter cannot be the context by its annotation.

    Raises:
        WorkflowDefinitionError: see above. A name that is there for type checkers only is taken on trust.
    """
    annotation = _hint(handler, first, local_names)
    if not _may_be_context(annotation) or _is_context(_hint(handler, second, local_names)):
        raise WorkflowDefinitionError(
            f"{where}: the context is the first parameter, and here that is {str(first)!r}: "
            f"write `async def …(ctx: Context, {first.name}: …)`"
        )
    wanted: Any = typing.get_origin(annotation) or annotation
    if _is_context(wanted) and not issubclass(context, wanted):
        raise WorkflowDefinitionError(
            f"{where}: its context is a {wanted.__name__}, so the workflow has to say so: write "
            f"@workflow(context={wanted.__name__}, …)"
        )


def _hint(handler: Any, parameter: inspect.Parameter | None, local_names: Mapping[str, Any] | None) -> Any:
    try:
        return None if parameter is None else signatures.hint(handler, parameter.name, local_names)
    except Exception:  # noqa: BLE001 - it is evaluated for this check alone
        return None


def _is_context(annotation: Any) -> bool:
    cls = typing.get_origin(annotation) or annotation
    return inspect.isclass(cls) and issubclass(cls, Context)


def _may_be_context(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _may_be_context(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return any(_may_be_context(each) for each in typing.get_args(annotation))
    cls: Any = annotation if origin is None else origin
    if not inspect.isclass(cls):
        return True  # none at all, or something that only a type checker understands
    return getattr(cls, "_is_protocol", False) or issubclass(Context, cls) or issubclass(cls, Context)
