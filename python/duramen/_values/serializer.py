"""Turns values into payload bytes and back. The default is JSON through pydantic; nothing here knows pickle.

A handler never sees a value itself, only ``loads(dumps(value))``, so that the first pass and every replay see
the same. That copy is compared with the value when it is written (see `fidelity`): what would come back as
something else is refused, with the path of the part that is to blame, before anything is recorded.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from duramen.errors import (
    DeserializationError,
    InvalidArgument,
    PayloadTooLarge,
    RecordedError,
    SerializationError,
)

from .adapters import BY_ALIAS, Adapter, adapter_of, by_identity, check_type
from .exceptions import dump_error, load_error, rebuild_error, register_exception
from .fidelity import comes_back, find_difference
from .paths import format_path, locate_lossy, locate_unserializable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DEFAULT_MAX_BYTES",
    "Codec",
    "CodecSerializer",
    "JsonSerializer",
    "RecordedError",
    "Serializer",
    "check_type",
    "dump_error",
    "load_error",
    "message_type",
    "rebuild_error",
    "register_exception",
    "round_trip",
]

DEFAULT_MAX_BYTES = 2 * 1024 * 1024
"""The default limit of one payload: 2 MiB."""

_EXACT: frozenset[type] = frozenset({int, str, bool})
"""Types whose exact instances need no look at their payload: it always comes back as the same value."""

_LONG = 4300
"""Longer numbers are not read: the limit of Python's and of the JSON parser."""

_PLAIN_TYPES: frozenset[type] = frozenset({str, int, float, bool, type(None), list, dict})


class Serializer(Protocol):
    """Turns values into bytes and back. `type` is the annotation at that place, or None if there is none."""

    def dumps(self, value: Any, type: Any = None) -> bytes:  # noqa: A002
        """Give the payload of a value.

        Raises:
            SerializationError: the value, or a part of it, has no payload.
            PayloadTooLarge: the payload is over the limit.
        """
        ...

    def loads(self, data: bytes, type: Any = None) -> Any:  # noqa: A002
        """Give the value of a payload.

        Raises:
            DeserializationError: the payload does not fit the type.
        """
        ...


class Codec(Protocol):
    """A reversible change of payload bytes: compression, encryption, offloading to another place."""

    def encode(self, data: bytes) -> bytes:
        """Change a payload on its way into the store."""
        ...

    def decode(self, data: bytes) -> bytes:
        """Undo `encode`."""
        ...


class JsonSerializer:
    """The default `Serializer`: JSON through pydantic.

    Models, dataclasses, TypedDicts, enums, datetimes, UUIDs, Decimals and so on go by their annotation, bytes
    as base64 (in a pydantic model as its own configuration says), sets and tuples as arrays. Without an
    annotation a value must be plain JSON: anything else would come back as that.

    A value comes back equal and of the same types all through, or it is refused. Two things may be given for
    another: plain JSON for what the annotation says, which is then what comes back; and an int for a float.

    Args:
        max_bytes: the longest payload allowed, or None for no limit.

    Raises:
        InvalidArgument: the limit is not positive.

    >>> json = JsonSerializer()
    >>> json.dumps({"i": 1})
    b'{"i":1}'
    >>> json.loads(b'["2026-01-01"]', set[str])
    {'2026-01-01'}
    >>> json.dumps({"items": [{"price": float("nan")}]})
    Traceback (most recent call last):
    duramen.errors.SerializationError: $.items[0].price: nan is not JSON: use None or a string instead
    >>> json.dumps((1, 2))
    Traceback (most recent call last):
    duramen.errors.SerializationError: $: a tuple comes back as a list: declare it as tuple, or give a list
    >>> json.dumps((1, 2), tuple[int, int])
    b'[1,2]'
    """

    __slots__ = ("max_bytes",)

    def __init__(self, max_bytes: int | None = DEFAULT_MAX_BYTES) -> None:
        if max_bytes is not None and max_bytes <= 0:
            raise InvalidArgument(f"max_bytes is {max_bytes!r}: it must be positive, or None for no limit")
        self.max_bytes = max_bytes

    def dumps(self, value: Any, type: Any = None) -> bytes:  # noqa: A002
        """See `Serializer.dumps`. The payload is known to be readable, as the same value."""
        return self.round_trip(value, type)[0]

    def loads(self, data: bytes, type: Any = None) -> Any:  # noqa: A002
        """See `Serializer.loads`."""
        known = by_identity.get(id(type))  # as in adapter_of: a call for each replayed step counts
        adapter = known[1] if known is not None else adapter_of(type)
        if adapter is None:
            try:
                return from_json(data, allow_inf_nan=False)
            except ValueError as error:
                raise DeserializationError("$", f"not JSON: {error}") from None
        try:
            value = adapter.read(data)
        except ValidationError as error:
            raise DeserializationError(*_describe(error)) from None
        if _CAPITAL_N in data or _CAPITAL_I in data:
            find = data.find
            if find(b"NaN") >= 0 or find(b"Infinity") >= 0:
                self.loads(data)  # refuses the constants outside of strings
        return value

    def reader(self, type: Any = None) -> Callable[[bytes], Any]:  # noqa: A002
        """What `loads` does with payloads of that type which came from `dumps`: less has to be looked at.

        It raises whatever it likes for others: ask `loads` what is wrong with them.
        """
        adapter = adapter_of(type)
        return from_json if adapter is None else adapter.read

    def round_trip(self, value: Any, type: Any = None) -> tuple[bytes, Any]:  # noqa: A002
        """``data = dumps(value, type)`` and ``loads(data, type)`` in one go, cheaper than the two calls."""
        adapter = None if type is None or type is Any else adapter_of(type)
        if adapter is None:
            return self._trip_untyped(value)
        data = self._write(value, adapter)
        if value.__class__ is type and type in _EXACT and len(data) < _LONG:
            return data, value
        seen = _read_back(value, data, adapter, type)
        if adapter.same(value, seen, data):
            return data, seen
        conversions: list[Any] = []
        found = find_difference(value, seen, None if adapter.has(value) else conversions)
        if found is None and conversions:
            # What is recorded is what the type makes of it, with the defaults: each reading may make others.
            data = self._write(seen, adapter)
            value, seen = seen, _read_back(seen, data, adapter, type)
            found = find_difference(value, seen)
        if found is not None:
            raise SerializationError(*found)
        return data, seen

    def _trip_untyped(self, value: Any) -> tuple[bytes, Any]:
        if value is None:
            return b"null", None
        try:
            data = to_json(value, by_alias=BY_ALIAS, round_trip=True, bytes_mode="base64")
        except Exception as error:
            raise _unserializable(value, error) from error
        self._check_size(data)
        try:
            seen = from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise SerializationError(*(locate_lossy(value) or ("$", _unreadable(error)))) from None
        if not comes_back(value, seen):
            found = find_difference(value, seen)
            raise SerializationError(*(found or ("$", "it comes back as something else")))
        return data, seen

    def _write(self, value: Any, adapter: Adapter) -> bytes:
        try:
            data = adapter.to_json(value, by_alias=BY_ALIAS, round_trip=True, warnings=False)
        except Exception as error:
            raise _unserializable(value, error) from error
        self._check_size(data)
        return data

    def _check_size(self, data: bytes) -> None:
        if self.max_bytes is not None and len(data) > self.max_bytes:
            raise PayloadTooLarge(len(data), self.max_bytes)


_CAPITAL_N = ord("N")
_CAPITAL_I = ord("I")
# One of these is in NaN and in Infinity. `in` with an int is one memchr; with bytes it raises and swallows an
# error first.


def _read_back(value: Any, data: bytes, adapter: Adapter, type: Any) -> Any:  # noqa: A002
    try:
        return adapter.read_once(data)
    except ValidationError as error:
        found = locate_lossy(value)
        if found is None:
            path, reason = _describe(error)
            name = getattr(type, "__name__", None) or str(type)
            deep = "recursion limit" in reason
            found = path, _TOO_DEEP if deep else f"the value does not fit its type {name}: {reason}"
        raise SerializationError(*found) from None
    except Exception as error:  # what a user's validator raises beside pydantic's errors
        raise SerializationError(
            "$", f"it cannot be read back: {error.__class__.__name__}: {error}"
        ) from error


def _unreadable(error: ValueError) -> str:
    return _TOO_DEEP if "recursion limit" in str(error) else f"it cannot be read back: {error}"


_TOO_DEEP = "nested too deeply: the limit is 200 levels"


def message_type(payload: Any) -> Any:
    """The type by which a message is written whose reader's type is not known here: its own.

    Whoever reads it says what it is to be; until then it must not lose anything.

    >>> message_type([1]) is None, message_type(b"x")
    (True, <class 'bytes'>)
    """
    cls: type[Any] = payload.__class__
    if cls in _PLAIN_TYPES:
        return None
    try:
        adapter_of(cls)
    except Exception:  # noqa: BLE001 - a type that cannot be stored, which is found when it is written
        return None
    return cls


def _unserializable(value: Any, error: Exception) -> SerializationError:
    found = locate_unserializable(value)
    if found is None:
        reason = (
            str(error)
            if isinstance(error, PydanticSerializationError)
            else f"{type(error).__name__}: {error}"
        )
        found = "$", reason
    return SerializationError(*found)


def _describe(error: ValidationError) -> tuple[str, str]:
    """The path and the reason of a validation error, without the input: payloads do not belong in logs."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    place = first["loc"]
    if place and place[-1] == "[key]":  # as pydantic says it
        return format_path(place[:-1]), f"as a key: {first['msg']}{more}"
    return format_path(place), first["msg"] + more


class CodecSerializer:
    """A serializer whose payloads go through codecs: in the order given into the store, in reverse out of it.

    The size limit is that of what is stored. A `JsonSerializer` inside is used without a limit of its own, so
    that a codec may compress or offload what would have been too long.

    Args:
        inner: what turns values into bytes first.
        codecs: at least one.
        max_bytes: the longest encoded payload, or None for no limit.

    >>> import zlib
    >>> class Zlib:
    ...     def encode(self, data: bytes) -> bytes:
    ...         return zlib.compress(data)
    ...
    ...     def decode(self, data: bytes) -> bytes:
    ...         return zlib.decompress(data)
    >>> packed = CodecSerializer(JsonSerializer(), Zlib())
    >>> packed.loads(packed.dumps([0] * 1000)) == [0] * 1000
    True
    """

    __slots__ = ("codecs", "inner", "max_bytes")

    def __init__(self, inner: Serializer, *codecs: Codec, max_bytes: int | None = DEFAULT_MAX_BYTES) -> None:
        self.inner: Serializer = JsonSerializer(None) if isinstance(inner, JsonSerializer) else inner
        self.codecs = codecs
        self.max_bytes = max_bytes

    def dumps(self, value: Any, type: Any = None) -> bytes:  # noqa: A002
        """See `Serializer.dumps`."""
        return self.encode(self.inner.dumps(value, type))

    def loads(self, data: bytes, type: Any = None) -> Any:  # noqa: A002
        """See `Serializer.loads`."""
        return self.inner.loads(self.decode(data), type)

    def round_trip(self, value: Any, type: Any = None) -> tuple[bytes, Any]:  # noqa: A002
        """See `JsonSerializer.round_trip`. The codecs are trusted to be reversible."""
        data, seen = round_trip(self.inner, value, type)
        return self.encode(data), seen

    def encode(self, data: bytes) -> bytes:
        """Take payload bytes through the codecs; also for payloads made elsewhere, as by `dump_error`."""
        for codec in self.codecs:
            try:
                data = codec.encode(data)
            except Exception as error:
                raise SerializationError(
                    "$", f"{codec.__class__.__name__}.encode failed: {error!r}"
                ) from error
        if self.max_bytes is not None and len(data) > self.max_bytes:
            raise PayloadTooLarge(len(data), self.max_bytes)
        return data

    def decode(self, data: bytes) -> bytes:
        """Undo `encode`."""
        for codec in reversed(self.codecs):
            try:
                data = codec.decode(data)
            except Exception as error:
                raise DeserializationError(
                    "$", f"{codec.__class__.__name__}.decode failed: {error!r}"
                ) from error
        return data


def round_trip(serializer: Serializer, value: Any, type: Any = None) -> tuple[bytes, Any]:  # noqa: A002
    """Give the payload of a value, and the value as a handler will see it, the cheapest way there is."""
    combined = getattr(serializer, "round_trip", None)
    if combined is not None:
        return combined(value, type)
    data = serializer.dumps(value, type)
    return data, serializer.loads(data, type)


def recorded_reader(serializer: Serializer, type: Any = None) -> Callable[[bytes], Any]:  # noqa: A002
    """What reads payloads of that type which the serializer wrote. See `JsonSerializer.reader`."""
    if serializer.__class__ is JsonSerializer:
        return cast("JsonSerializer", serializer).reader(type)
    return partial(serializer.loads, type=type)
