"""Whether what was read back is what was given: equal, of the same types, all the way down.

``==`` is not enough: ``True == 1``, a member of a ``StrEnum`` equals its text, a ``Counter`` a dictionary,
and a time in Berlin one with a fixed offset, though none of them behaves as the other.

One kind of difference is meant: where a type is declared, plain JSON may be given for it, as it comes from
a client that does not have the type; and ``1`` may be given for a float.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict, deque
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from functools import cached_property
from marshal import dumps as marshalled
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from .paths import ASTERISKS, is_finite, member, non_finite, short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    _Comparer = Callable[[Any, Any, list[Any] | None], None]

__all__ = ["Difference", "comes_back", "find_difference", "is_plain_json"]

type_of: Callable[[Any], type[Any]] = type
_MISSING: Any = object()

_ATOMS = frozenset([str, int, bool, bytes, type(None)])
"""Types of which equal instances are the same."""

_JSON = frozenset([str, int, float, bool, type(None), list, dict])
"""The types of plain JSON."""

_NATIVE = _JSON | {bytes}


class Difference(NamedTuple):
    """Where two values part, and what to do about it."""

    path: str
    reason: str


class _Differs(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


def comes_back(given: Any, seen: Any) -> bool:
    """Whether two values of JSON's types are the same. False may also mean that others are among them.

    There may be no bytes in the second: whatever has a buffer (a bytearray, a class derived from bytes) is
    taken for bytes of the same contents.

    >>> comes_back({"a": [1]}, {"a": [1]}), comes_back([True], [1]), comes_back((1,), [1])
    (True, False, False)
    """
    # Version 2 of the format writes the exact type and the value of everything, and nothing about identity.
    # It is the one comparison of exact types that runs at the speed of C; nothing ever reads it.
    try:
        return marshalled(given, 2) == marshalled(seen, 2)
    except ValueError:
        return False


def is_plain_json(value: Any) -> bool:
    """Whether a value is made of JSON's own types, and comes back as it is."""
    try:
        return comes_back(value, from_json(to_json(value), allow_inf_nan=False))
    except Exception:  # noqa: BLE001 - anything may be in there
        return False


def find_difference(given: Any, seen: Any, conversions: list[Any] | None = None) -> Difference | None:
    """Compare a value with what it was read back as.

    Args:
        given: the value.
        seen: its copy.
        conversions: gets an element for each place where plain JSON was given for a declared type. If None,
            that is a difference too, as it always is inside of an object.

    >>> find_difference({"a": {1: "x"}}, {"a": {"1": "x"}})
    Difference(path='$.a', reason='the key 1 comes back as a str: use str keys, or declare their type')
    """
    try:
        _compare(given, seen, conversions)
    except _Differs as found:
        return Difference("$" + "".join(reversed(found.path)), found.reason)
    except RecursionError:
        return Difference("$", "nested too deeply")
    return None


def _compare(given: Any, seen: Any, conversions: list[Any] | None) -> None:
    cls = type_of(given)
    if cls is type(seen):
        (_comparers.get(cls) or _comparer_of(cls))(given, seen, conversions)
    else:
        _compare_types(given, seen, conversions)


def _compare_at(end: str, given: Any, seen: Any, conversions: list[Any] | None) -> None:
    try:
        _compare(given, seen, conversions)
    except _Differs as found:
        found.path.append(end)
        raise


# -- the same type on both sides -----------------------------------------------------------------------------


def _atom(given: Any, seen: Any, conversions: object) -> None:  # noqa: ARG001 - one shape for all of them
    if given != seen:
        raise _Differs(
            f"the {type(given).__name__} is changed when it is read by its type: give what it makes of it"
        )


def _float(given: float, seen: float, conversions: object) -> None:
    if not math.isfinite(given):
        raise _Differs(non_finite(given))
    _atom(given, seen, conversions)
    if math.copysign(1, given) != math.copysign(1, seen):
        raise _Differs("the sign of the zero is lost")


def _complex(given: complex, seen: complex, conversions: object) -> None:
    _float(given.real, seen.real, conversions)
    _float(given.imag, seen.imag, conversions)


def _decimal(given: Decimal, seen: Decimal, conversions: object) -> None:  # noqa: ARG001
    if not given.is_finite():
        raise _Differs(non_finite(given))
    if given.as_tuple() != seen.as_tuple():
        raise _Differs("the Decimal comes back with other digits")


def _sequence(given: Any, seen: Any, conversions: list[Any] | None) -> None:
    _lengths(given, seen)
    for index, (one, other) in enumerate(zip(given, seen, strict=True)):
        cls = type_of(one)
        if not (cls in _ATOMS and cls is type(other) and one == other):
            _compare_at(f"[{index}]", one, other, conversions)


def _lengths(given: Any, seen: Any) -> None:
    if len(given) != len(seen):
        raise _Differs(
            f"of {len(given)} entries {len(seen)} come back: some are alike once they are written, or are "
            "not declared"
        )


def _deque(given: deque[Any], seen: deque[Any], conversions: list[Any] | None) -> None:
    if given.maxlen != seen.maxlen:
        raise _Differs("the deque comes back without its maxlen: give a list")
    _sequence(given, seen, conversions)


def _set(given: Iterable[Any], seen: Any, conversions: list[Any] | None) -> None:
    _lengths(given, seen)
    there = {each: each for each in seen}
    for index, one in enumerate(given):
        _compare_at(f"[{index}]", one, there.get(one, _MISSING), conversions)


def _dict(given: dict[Any, Any], seen: dict[Any, Any], conversions: list[Any] | None) -> None:
    if len(given) < len(seen):
        more = next(key for key in seen if key not in given)
        raise _at(member(more), _Differs(_advice(_MISSING, seen[more])))
    if len(given) != len(seen):
        texts = all(type(key) is str for key in seen)
        for key in given:
            if type(key) is not str and texts:
                _key(key, "", conversions)
            elif texts and key not in seen:
                raise _at(member(key), _Differs(_UNKNOWN))
        raise _Differs(
            f"of {len(given)} entries {len(seen)} come back: some keys are alike once they are written"
        )
    for (key, one), (key_seen, other) in zip(given.items(), seen.items(), strict=True):
        kind = type_of(key)
        if kind is not type(key_seen):
            _key(key, key_seen, conversions)
        elif key != key_seen:
            _dict(given, _in_order_of(given, seen), conversions)
            return
        elif kind not in _ATOMS:
            _key(key, key_seen, conversions)
        cls = type_of(one)
        if not (cls in _ATOMS and cls is type(other) and one == other):
            _compare_at(member(key), one, other, conversions)


_UNKNOWN = "it does not come back: its type does not know that key, or changes it"


def _in_order_of(given: dict[Any, Any], seen: dict[Any, Any]) -> dict[Any, Any]:
    """The second in the order of the first: a TypedDict comes back in the order of its declaration."""
    own = {key: key for key in seen}
    for key in given:
        if key not in own:
            raise _at(member(key), _Differs(_UNKNOWN))
    return {own[key]: seen[key] for key in given}


def _at(end: str, found: _Differs) -> _Differs:
    found.path.append(end)
    return found


def _key(given: Any, seen: Any, conversions: list[Any] | None) -> None:
    if type(given) is str and type(seen) in (int, float) and conversions is not None:
        conversions.append(given)  # JSON has no other way to say it
        return
    if type(given) is not type(seen) and type(given) in _NATIVE | {tuple} and type(seen) in _NATIVE:
        name = type(seen).__name__
        raise _Differs(
            f"the key {short(given)} comes back as a {name}: use {name} keys, or declare their type"
        )
    try:
        _compare(given, seen, conversions)
    except _Differs as found:
        found.reason = f"as a key: {found.reason}"
        raise


def _defaultdict(given: Any, seen: Any, conversions: list[Any] | None) -> None:
    if given.default_factory is not seen.default_factory:
        raise _Differs("the defaultdict comes back with another default_factory: give a dict")
    _dict(given, seen, conversions)


def _moment(given: datetime | time, seen: datetime | time, conversions: object) -> None:  # noqa: ARG001
    if given.fold != seen.fold:
        raise _Differs(
            "it is the second of two equal times on the clock (fold=1), which is lost: use "
            ".astimezone(timezone.utc)"
        )
    zone = given.tzinfo
    if zone is not None and not _is_fixed(zone):
        raise _Differs(
            f"the time zone {str(zone)[:50]} comes back as a fixed offset: use .astimezone(timezone.utc), "
            "and store the zone's name beside it if it matters"
        )
    if given.replace(tzinfo=None) != seen.replace(tzinfo=None) or given.utcoffset() != seen.utcoffset():
        raise _Differs(f"the {type(given).__name__} comes back as another one")


def _is_fixed(zone: tzinfo) -> bool:
    try:
        return zone.utcoffset(None) is not None
    except Exception:  # noqa: BLE001 - some zones want a datetime
        return False


def _enum(given: Enum, seen: Enum, conversions: object) -> None:  # noqa: ARG001
    if given is not seen and given != seen:
        raise _Differs(f"the member of {type(given).__name__} comes back as another one")


def _other(given: Any, seen: Any, conversions: list[Any] | None) -> None:
    if type(given).__eq__ is object.__eq__ and given is not seen:
        # Without an equality of its own, the state must do; also where that is some C code's secret.
        state: Any = given.__getstate__()
        if state is not None:
            _compare(state, seen.__getstate__(), conversions)
            return
    try:
        equal = bool(given == seen)
    except Exception:  # noqa: BLE001 - a user's equality
        equal = False
    if not equal:
        raise _Differs(_advice(given, seen))


def _cached(cls: type[Any]) -> frozenset[str]:
    """The names under which a class's instances keep what they have worked out from the rest."""
    return frozenset(
        name for each in cls.__mro__ for name, what in vars(each).items() if isinstance(what, cached_property)
    )


def _attributes(given: Any, seen: Any, known: frozenset[str]) -> None:
    """Compare the attributes of two objects, but for those that are known."""
    theirs = seen.__dict__
    for name, one in given.__dict__.items():
        if name not in known and not name.startswith("__"):
            _compare_at(member(name), one, theirs.get(name, _MISSING), None)


def _with_attributes(compare: _Comparer, cls: type[Any]) -> _Comparer:
    """For a class derived from a built-in one: instances may have attributes, of which `==` knows nothing."""
    known = _cached(cls)

    def both(given: Any, seen: Any, conversions: list[Any] | None) -> None:
        compare(given, seen, conversions)
        if given.__dict__:
            _attributes(given, seen, known)

    return both


def _model_comparer(cls: type[BaseModel]) -> _Comparer:
    fields = tuple((name, member(name)) for name in cls.model_fields)
    known = _cached(cls).union(cls.model_fields)
    excluded = frozenset(name for name, field in cls.model_fields.items() if field.exclude)

    def compare(given: Any, seen: Any, conversions: object) -> None:  # noqa: ARG001 - one shape for all
        mine, others = given.__dict__, seen.__dict__
        for name, end in fields:
            one, other = mine.get(name, _MISSING), others.get(name, _MISSING)
            kind = type_of(one)
            if one is other or (kind in _ATOMS and kind is type(other) and one == other):
                continue
            try:
                _compare(one, other, None)
            except _Differs as found:
                if name in excluded:
                    raise _at(end, _Differs(_EXCLUDED)) from None
                raise _at(end, found) from None
        if len(mine) > len(fields):
            _attributes(given, seen, known)
        if given.__pydantic_extra__ or seen.__pydantic_extra__:
            _dict(given.__pydantic_extra__ or {}, seen.__pydantic_extra__ or {}, None)
        if given.__pydantic_private__ or seen.__pydantic_private__:
            private: dict[str, Any] = given.__pydantic_private__ or {}
            theirs: dict[str, Any] = seen.__pydantic_private__ or {}
            for name in {**private, **theirs}:
                try:
                    _compare(private.get(name, _MISSING), theirs.get(name, _MISSING), None)
                except _Differs:
                    raise _at(member(name), _Differs(_PRIVATE)) from None

    return compare


_EXCLUDED = (
    "the field is not written (exclude=True), so its value is lost: leave it at its default, or write it"
)
_PRIVATE = (
    "a private attribute is not written, so its value is lost: make it a field, or a cached_property that "
    "is made from the fields"
)


def _dataclass_comparer(cls: type[Any]) -> _Comparer:
    fields = tuple((field.name, member(field.name)) for field in dataclasses.fields(cls))
    known = _cached(cls).union(name for name, _ in fields)
    room = sum(not isinstance(getattr(cls, name, None), MemberDescriptorType) for name, _ in fields)
    """How many fields are kept in an instance's dictionary, and not in slots."""

    def compare(given: Any, seen: Any, conversions: object) -> None:  # noqa: ARG001 - one shape for all
        for name, end in fields:
            one, other = getattr(given, name, _MISSING), getattr(seen, name, _MISSING)
            kind = type_of(one)
            if not (kind in _ATOMS and kind is type(other) and one == other):
                _compare_at(end, one, other, None)
        more = getattr(given, "__dict__", None)
        if more is not None and len(more) != room:
            _attributes(given, seen, known)

    return compare


_comparers: dict[type, _Comparer] = {
    **dict.fromkeys(_ATOMS, _atom),
    float: _float,
    complex: _complex,
    Decimal: _decimal,
    list: _sequence,
    tuple: _sequence,
    deque: _deque,
    set: _set,
    frozenset: _set,
    dict: _dict,
    defaultdict: _defaultdict,
    datetime: _moment,
    time: _moment,
}


def _comparer_of(cls: type[Any]) -> _Comparer:
    compare = _comparers[cls] = _make_comparer(cls)
    return compare


def _make_comparer(cls: type[Any]) -> _Comparer:
    if issubclass(cls, Enum):
        return _enum
    if issubclass(cls, BaseModel):
        return _model_comparer(cls)
    if dataclasses.is_dataclass(cls):
        return _dataclass_comparer(cls)
    compare = next((_comparers[base] for base in _DERIVED if issubclass(cls, base)), _other)
    return _with_attributes(compare, cls) if _has_more(cls) else compare


_DERIVED: tuple[type[Any], ...] = (float, Decimal, datetime, time, dict, tuple, list, set, frozenset)
_BUILT_IN = (*_DERIVED, str, int, bytes, complex, date, timedelta, deque)


def _has_more(cls: type[Any]) -> bool:
    """Whether a class is derived from a built-in one and gives its instances room for attributes."""
    return cls.__dictoffset__ != 0 and any(issubclass(cls, base) for base in _BUILT_IN)


# -- another type on the other side --------------------------------------------------------------------------


def _compare_types(given: Any, seen: Any, conversions: list[Any] | None) -> None:
    cls = type_of(given)
    other = type_of(seen)
    if given is _MISSING or seen is _MISSING:
        raise _Differs(_advice(given, seen))
    if cls is int and other is float and given == seen:
        return
    if issubclass(other, BaseModel) and _origin(other) is cls:
        # `Box(x=1)` is a `Box[int]` to type checkers, and to pydantic equal to one.
        _make_comparer(other)(given, seen, conversions)
        return
    if conversions is not None and other not in _NATIVE and cls in {str, int, float, list, dict}:
        conversions.append(given)
        if cls is list and issubclass(other, tuple | deque):
            _sequence(given, seen, conversions)
            return
        if cls is list and issubclass(other, set | frozenset):
            _lengths(given, seen)
        if cls is dict and issubclass(other, dict):
            _dict(given, seen, conversions)
            return
        if is_plain_json(given):
            return
        raise _Differs(
            f"plain JSON may stand for a {other.__name__}, but there are other objects in it: give the "
            f"{other.__name__} itself"
        )
    raise _Differs(_advice(given, seen))


def _origin(cls: type[BaseModel]) -> object:
    # `BaseModel` itself has no such attribute.
    return getattr(cls, "__pydantic_generic_metadata__", {}).get("origin")


def _advice(given: Any, seen: Any) -> str:
    name, other = type(given).__name__, type(seen).__name__
    mine, theirs = _a(name), _a(other)
    if isinstance(given, float | Decimal) and not is_finite(given):
        return non_finite(given)
    if hasattr(given, "get_secret_value"):
        return ASTERISKS
    if seen is _MISSING:
        return f"the {name} does not come back: it is not written, or not read"
    if given is _MISSING:
        return f"it is missing, and comes back as {theirs}: set it"
    if type(given) is type(seen):
        return f"the {name} comes back as another one: its type does not write all of it"
    if isinstance(given, Enum):
        return f"{mine} comes back as {theirs}: declare it as {name}, or give its .value"
    if isinstance(given, type(seen)):
        if type(seen).__module__ == "builtins":
            return (
                f"{mine} comes back as {theirs}: give {theirs}, or declare it as {name} if that can be read"
            )
        return (
            f"{mine} comes back as its base {other}, without what is its own: declare it as {name}, or as "
            "a union with a discriminator"
        )
    if seen is None:
        return f"the {name} comes back as None: its type does not write it"
    if type(given) in _NATIVE and type(seen) in _NATIVE:
        return f"{mine} comes back as {theirs}: give {theirs}, or declare it as {name}"
    if _has_fields(given) and _has_fields(seen):
        return (
            f"the JSON of {mine} reads as {theirs}: tell them apart by a field of their own "
            "(kind: Literal[…]) and Field(discriminator=…)"
        )
    return f"{mine} comes back as {theirs}: declare it as {_DECLARED.get(name, name)}, or give {theirs}"


_DECLARED = {"bytearray": "bytes"}
"""What to declare in place of types that nothing is read as."""


def _a(name: str) -> str:
    return f"an {name}" if name[0] in "AEIOaeio" else f"a {name}"


def _has_fields(value: Any) -> bool:
    return isinstance(value, BaseModel) or dataclasses.is_dataclass(value)
