"""Functions that run in another process: how they are found there, and what they take."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

from duramen.errors import WorkflowDefinitionError

from . import signatures

if TYPE_CHECKING:
    # ruff: noqa: TC004 - a dataclass names them, and nothing asks it what they are
    from collections.abc import Callable, Mapping

__all__ = ["Remote", "call_of", "find", "program_name", "remote_of"]


@dataclass(frozen=True, slots=True)
class Remote:
    """A function as another process finds it."""

    module: str
    name: str
    """Qualified: ``function``, or ``Class.function``."""
    fn: Callable[..., Any]
    positional: tuple[Any, ...]
    """The annotations of parameters that may be given by their place."""
    more: Any
    """That of ``*args``."""
    by_name: Mapping[str, Any] = field(default_factory=dict[str, Any])
    more_by_name: Any = None
    """That of ``**kwargs``."""

    def type_at(self, place: int) -> Any:
        """The type of a positional argument; None for any JSON."""
        return self.positional[place] if place < len(self.positional) else self.more

    def type_of(self, name: str) -> Any:
        """The type of an argument that is given by name."""
        return self.by_name.get(name, self.more_by_name)


def remote_of(fn: Any, where: str) -> Remote:
    """Read what has to be known of a function.

    Raises:
        NameError: an annotation names something that is not defined (yet).
        WorkflowDefinitionError: another process cannot find it, or one of its parameters cannot be sent.
    """
    module, name = getattr(fn, "__module__", None), getattr(fn, "__qualname__", None)
    if not inspect.isfunction(fn) or not module or not name or "<" in name:
        raise WorkflowDefinitionError(
            f"{where}: where='process' needs a function that another process can import: define it at the "
            "level of its module"
        )
    if module == "__main__":
        module = _program(where)
    positional: list[Any] = []
    by_name: dict[str, Any] = {}
    more = more_by_name = None
    for each in inspect.signature(fn).parameters.values():
        annotation = _type_of(fn, each, where)
        if each.kind == each.VAR_POSITIONAL:
            more = annotation
        elif each.kind == each.VAR_KEYWORD:
            more_by_name = annotation
        else:
            by_name[each.name] = annotation
            if each.kind != each.KEYWORD_ONLY:
                positional.append(annotation)
    return Remote(module, name, fn, tuple(positional), more, by_name, more_by_name)


def _type_of(fn: Any, parameter: inspect.Parameter, where: str) -> Any:
    try:
        annotation = signatures.hint(fn, parameter.name)
    except NameError:
        raise
    except Exception as error:
        raise WorkflowDefinitionError(f"{where}: its annotations cannot be read: {error}") from error
    signatures.check_stored(annotation, f"parameter {parameter.name!r} of {where}")
    return annotation


def program_name() -> str | None:
    """The name under which another process imports the program that was started; None without a file."""
    main = sys.modules.get("__main__")
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:
        return str(spec.name)
    return PurePath(file).stem if isinstance(file, str) else None


def _program(where: str) -> str:
    name = program_name()
    if name is None:
        raise WorkflowDefinitionError(
            f"{where}: where='process' needs a function that another process can import, and this program "
            "has no file: move it into a module"
        )
    return name


def find(module: str, name: str) -> Any:
    """The step of that name: what is called in the other process.

    Raises:
        WorkflowDefinitionError: there is none.
        BaseException: what the import of its module raises.
    """
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    remote = getattr(getattr(found, "duramen_plan", None), "remote", None)
    if not isinstance(remote, Remote):
        raise WorkflowDefinitionError(
            f"{module}:{name} is no step with where='process': keep it under the name that it is defined with"
        )
    return found


def call_of(call: Any, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call under partials."""
    named: dict[str, Any] = {}
    while isinstance(call, functools.partial):
        partial = cast("functools.partial[Any]", call)
        args, named = (*partial.args, *args), {**partial.keywords, **named}
        call = partial.func
    return args, named
