"""Whether a step changes what it was given: such a change is lost when its run is taken up again."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import partial
from pathlib import PurePath
from typing import Any, cast
from uuid import UUID

from pydantic import BaseModel

__all__ = ["ArgumentChanged", "Given"]

_TEXTS = (str, bytes, bytearray, int, float, complex, date, time, timedelta, tzinfo, Decimal, Fraction, UUID,
          PurePath, range, Enum, type(None))  # fmt: skip
_LISTS = (list, tuple, deque)
_SETS = (set, frozenset)
_DEEPEST = 100


class ArgumentChanged(UserWarning):
    """A step has changed what it was given.

    When its run is taken up again the step is answered from the journal and does not run: the handler goes on
    with an argument that nobody has changed, and may take another way.
    """


class Given:
    """What a step was given, and what that looked like before it ran.

    Data is looked into (built-in containers, dataclasses, models of pydantic, classes of attrs and msgspec);
    other objects are taken as they are, for a client or a lock may change as it likes.

    Args:
        fn: the step's function, or a partial of it, whose arguments count as well.
        args: what it is called with beside those.

    >>> def ship(order: dict[str, list[str]]) -> None:
    ...     order["parcels"].append("box")
    >>> order = {"parcels": []}
    >>> given = Given(ship, (order,))
    >>> ship(order)
    >>> given.changed()
    ["argument 'order' (at .parcels)"]
    """

    def __init__(self, fn: Any, args: tuple[Any, ...]) -> None:
        self._named = _named(fn, args)
        self._before = {name: _picture(value) for name, value in self._named.items()}

    def changed(self) -> list[str]:
        """Each argument that looks different by now, and where."""
        found: list[str] = []
        for name, value in self._named.items():
            before, now = self._before[name], _picture(value)
            if before is not None and now is not None and before != now:
                places = (place for place in before | now if before.get(place) != now.get(place))
                place = next(places)
                found.append(f"{name} (at {place})" if place else name)
        return found


def _named(fn: Any, args: tuple[Any, ...]) -> dict[str, Any]:
    """Everything that a call is given, by a name for people: also what it takes from its own defaults."""
    options: dict[str, Any] = {}
    while isinstance(fn, partial):
        whole = cast("partial[Any]", fn)
        fn, args, options = whole.func, (*whole.args, *args), {**whole.keywords, **options}
    try:
        signature = inspect.signature(fn)
        bound = signature.bind(*args, **options).arguments
    except (TypeError, ValueError):  # of C, or about to fail
        everything = {**{str(number): arg for number, arg in enumerate(args, 1)}, **options}
        return {f"argument {name}": value for name, value in everything.items()}
    named = {f"argument {name!r}": value for name, value in bound.items()}
    for name, parameter in signature.parameters.items():
        if name not in bound and parameter.default is not parameter.empty:
            named[f"the default of {name!r}"] = parameter.default
    return named


def _picture(value: Any) -> dict[str, str] | None:
    """What a value looks like: a text for each place in it. None: it does not let itself be looked at."""
    found: dict[str, str] = {}
    try:
        _draw(value, "", found, ())
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001 - it asks the user's objects for what they hold
        return None
    return found


def _draw(value: Any, place: str, found: dict[str, str], around: tuple[int, ...]) -> None:
    cls = cast("type[Any]", type(value))
    if id(value) in around or len(around) > _DEEPEST:
        return
    around = (*around, id(value))
    parts: list[tuple[str, Any]]
    if issubclass(cls, _TEXTS):
        found[place] = f"{cls.__name__} {value!r}"
        return
    if issubclass(cls, _LISTS):
        parts = [(f"[{number}]", item) for number, item in enumerate(value)]
    elif issubclass(cls, _SETS):
        # Their members have no places; those that compare equal look alike.
        found[place] = f"{cls.__name__} {sorted(repr(_picture(item)) for item in value)}"
        return
    elif issubclass(cls, Mapping):
        entries = cast("Mapping[Any, Any]", value).items()
        parts = [(f".{key}" if isinstance(key, str) else f"[{key!r}]", item) for key, item in entries]
    elif (names := _fields(cls)) is not None:
        parts = [(f".{name}", getattr(value, name)) for name in names if hasattr(value, name)]
        if issubclass(cls, BaseModel):
            extra: dict[str, Any] = value.__pydantic_extra__ or {}
            parts += [(f".{name}", item) for name, item in extra.items()]
    else:
        found[place] = f"{cls.__name__} {id(value)}"
        return
    found[place] = f"{cls.__name__} of {[name for name, _ in parts]}"
    for name, item in parts:
        _draw(item, f"{place}{name}", found, around)


def _fields(cls: type[Any]) -> list[str] | None:
    """The fields of a class that stands for data; None for any other class."""
    if issubclass(cls, BaseModel):
        return list(cls.model_fields)
    if is_dataclass(cls):
        return [field.name for field in fields(cls)]
    of_attrs: Any = getattr(cls, "__attrs_attrs__", None)
    if of_attrs is not None:
        return [each.name for each in of_attrs]
    of_msgspec: Any = getattr(cls, "__struct_fields__", None)
    return None if of_msgspec is None else list(of_msgspec)
