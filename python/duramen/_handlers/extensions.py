"""What a class that extends a context may add to it: attributes of names that are free."""

from __future__ import annotations

import typing
from typing import Any

from duramen.errors import InvalidArgument, WorkflowDefinitionError

from . import signatures

__all__ = ["class_of", "extend"]


def class_of(given: Any, base: type[Any], option: str) -> type[Any]:
    """The class that an option names: `base`, or one that extends it.

    Raises:
        InvalidArgument: it is something else.
    """
    cls: Any = typing.get_origin(given) or given
    if not isinstance(cls, type) or not issubclass(cls, base):
        raise InvalidArgument(
            f"{option} is {given!r}: give a class that extends it, class Mine({base.__name__}): …"
        )
    return cls


def extend(cls: type[Any], base: type[Any], call: str) -> None:
    """Look at a class that extends `base`, and have it say what is wrong with its attributes later.

    Args:
        cls: the class that is being defined.
        base: whose names are taken.
        call: how its object is called in messages.

    Raises:
        WorkflowDefinitionError: it takes a name away from `base`, or is made in a way of its own.
    """
    taken = frozenset(name for name in dir(base) if not _is_special(name))
    annotated: set[str] = set()
    for each in cls.__mro__:
        if issubclass(base, each):
            continue
        if made := min({"__init__", "__new__"} & vars(each).keys(), default=None):
            raise WorkflowDefinitionError(
                f"{cls.__name__} has {made} of its own, but the run makes it: give its attributes defaults "
                "in the class, or set them in a middleware"
            )
        own = signatures.annotations_of(each).keys()
        if clash := min(taken & (vars(each).keys() | own), default=None):
            raise WorkflowDefinitionError(
                f"{cls.__name__}.{clash}: {call}.{clash} is there already: give it another name"
            )
        annotated |= own

    def set_attribute(self: Any, name: str, value: Any) -> None:
        if name in public and not isinstance(getattr(base, name), property):
            raise AttributeError(f"{call}.{name} is a call of {base.__name__}: give yours another name")
        object.__setattr__(self, name, value)

    def get_attribute(self: Any, name: str) -> Any:  # noqa: ARG001 - it is called for what is not there
        if name in annotated:
            raise AttributeError(
                f"{call}.{name} is not set yet: set it in a middleware, before call_next, or give it a "
                f"default in {cls.__name__}"
            )
        raise AttributeError(f"{cls.__name__!r} has no attribute {name!r}")

    public = frozenset(name for name in taken if not name.startswith("_"))
    for name, way in (("__setattr__", set_attribute), ("__getattr__", get_attribute)):
        if name not in vars(cls):
            setattr(cls, name, way)


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")
