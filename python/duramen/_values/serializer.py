"""Turns values into payload bytes and back. The default is JSON through pydantic; nothing here knows pickle.

A handler never sees a value itself, only ``loads(dumps(value))``, so that the first pass and every replay see
the same. What cannot make that trip is refused when it is dumped, with the path of the part that is to blame.

Values that JSON has no place for (NaN, infinities, lone surrogates) are refused rather than bent: pydantic's
own default writes a NaN inside a model as ``null``, which would come back as another value or not at all.
"""

from __future__ import annotations

import dataclasses
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

import pydantic
from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, SchemaValidator, from_json, to_json
from typing_extensions import TypeAliasType, is_typeddict

from duramen.errors import (
    DeserializationError,
    InvalidArgument,
    PayloadTooLarge,
    RecordedError,
    SerializationError,
    WorkflowDefinitionError,
)

from .exceptions import dump_error, load_error, rebuild_error, register_exception
from .paths import format_path, locate_non_finite, locate_unserializable

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
    "rebuild_error",
    "register_exception",
    "round_trip",
]

DEFAULT_MAX_BYTES = 2 * 1024 * 1024
"""The default limit of one payload: 2 MiB."""

_ANY: frozenset[Any] = frozenset({None, Any, object, inspect.Parameter.empty})
"""Annotations that mean "whatever JSON it is"; None stands for a missing one, NoneType for ``-> None``."""

_EXACT: frozenset[type] = frozenset({int, str, bool})
"""Types whose exact instances need no look at their payload: it always comes back as the same value."""

_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
"""For everything that has no configuration of its own. Models and pydantic's dataclasses do; theirs holds."""

_NAMES = tuple(int(part) for part in pydantic.VERSION.split(".")[:2]) >= (2, 11)
# Fields go out under their own names, and come in under their names or aliases: then a model whose aliases
# for the two directions differ survives the trip too. Older releases cannot do that, so aliases are used both
# ways.
_BY_ALIAS = not _NAMES

_MAX_DEPTH = 200
"""The JSON parser's limit. The writer's is higher; what lies between is refused when written."""


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


class _Adapter:
    """What pydantic knows about one annotation, with its attribute look-ups done once."""

    __slots__ = ("_floats", "adapter", "plain", "read", "to_json")

    def __init__(self, annotation: Any) -> None:
        self.adapter = _type_adapter(annotation)
        # Both are mock objects for models whose building is deferred; the first use swaps them, so the real
        # ones are fetched after it.
        self.adapter.rebuild(raise_errors=True)
        self.to_json = self.adapter.serializer.to_json
        validate = cast("SchemaValidator", self.adapter.validator).validate_json
        self.plain = schema_kinds(self.adapter.core_schema) <= _PLAIN
        """Whether it is made of built-in types without names and floats: their payloads need fewer looks."""
        if _NAMES and not self.plain:
            self.read: Callable[[bytes], Any] = lambda data: validate(data, by_alias=True, by_name=True)
        else:
            self.read = validate
        self._floats: bool | None = None

    @property
    def may_hold_floats(self) -> bool:
        """False only if no float can be anywhere in a value of this type."""
        if self._floats is None:
            kinds = schema_kinds(self.adapter.core_schema)
            self._floats = not kinds <= _FLOATLESS
        return self._floats


# fmt: off
_FLOATLESS = frozenset([
    "bool", "bytes", "dataclass", "dataclass-args", "dataclass-field", "date", "datetime", "default",
    "definition-ref", "definitions", "dict", "enum", "frozenset", "int", "list", "literal", "model",
    "model-field", "model-fields", "none", "nullable", "set", "str", "tagged-union", "time", "timedelta",
    "tuple", "typed-dict", "typed-dict-field", "union", "url", "uuid",
])
# fmt: on
"""Kinds of schema that hold no float and run no code of the user's."""

_PLAIN = frozenset(
    ["bool", "dict", "frozenset", "int", "list", "none", "nullable", "set", "str", "tuple", "uuid"]
)
"""Kinds of schema without aliases that skip nothing they are given, and refuse NaN and infinities."""


_NO_SCHEMA = frozenset({"metadata", "default", "config"})
"""Keys of a core schema under which anything may stand."""


def schema_kinds(schema: Any) -> set[str]:
    """The kinds of schema that occur in a pydantic core schema."""
    kinds: set[str] = set()
    todo: list[Any] = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            node = cast("dict[str, Any]", node)
            kind = node.get("type")
            if isinstance(kind, str):
                kinds.add(kind)
            todo.extend(value for key, value in node.items() if key not in _NO_SCHEMA)
        elif isinstance(node, list | tuple):
            todo.extend(cast("list[Any]", node))
    return kinds


def _alias(annotation: Any) -> Any:
    make: Any = TypeAliasType
    return make("alias", annotation)


def _type_adapter(annotation: Any) -> TypeAdapter[Any]:
    if inspect.isclass(annotation):
        if issubclass(annotation, BaseModel):
            return TypeAdapter(annotation)
        if dataclasses.is_dataclass(annotation) or is_typeddict(annotation):
            if hasattr(annotation, "__pydantic_config__"):
                return TypeAdapter(annotation)
            # TypeAdapter takes no configuration for these by themselves, but it does for an alias of one.
            return TypeAdapter(_alias(annotation), config=_CONFIG)
    try:
        return TypeAdapter(annotation, config=_CONFIG)
    except PydanticUserError as error:
        if error.code != "type-adapter-config-unused":
            raise
        return TypeAdapter(annotation)


_by_identity: dict[int, tuple[Any, _Adapter | None]] = {}
_by_value: dict[tuple[Any, str], _Adapter] = {}


def _adapter(annotation: Any) -> _Adapter | None:
    """The adapter of an annotation, made once; None for those that mean any JSON.

    Looked up by identity first, which also serves annotations that cannot be hashed. A handler that says
    ``list[Item]`` makes a new object each time; these are found by value. Their text is part of the key
    because ``int | str`` equals ``str | int`` while pydantic may prefer the first of several types that fit.
    """
    known = _by_identity.get(id(annotation))
    if known is not None:
        return known[1]
    adapter = None
    try:
        if annotation not in _ANY:
            key = annotation, repr(annotation)
            adapter = _by_value.get(key)
            if adapter is None:
                adapter = _by_value[key] = _Adapter(annotation)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        adapter = _Adapter(annotation)
    if len(_by_identity) > 4096:
        _by_identity.clear()
    _by_identity[id(annotation)] = (annotation, adapter)
    return adapter


def check_type(annotation: Any, where: str) -> None:
    """Refuse an annotation whose values could not be stored. Meant for the moment of definition.

    Args:
        annotation: the type; None (no annotation) and `typing.Any` are fine.
        where: what the message begins with, for instance ``"input of workflow 'fulfillment'"``.

    Raises:
        WorkflowDefinitionError: with the reason, and what to use instead.

    >>> check_type(list[int], "result of step 'count'")
    >>> import threading
    >>> check_type(threading.Lock, "input of workflow 'w'")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    duramen.errors.WorkflowDefinitionError: input of workflow 'w': ... cannot be stored as JSON: ...
    """
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    try:
        adapter = _adapter(annotation)
        if adapter is None:
            return
        kinds = schema_kinds(adapter.adapter.core_schema)
    except Exception as error:
        reason = str(error).split("\n\n", maxsplit=1)[0].strip()
        raise WorkflowDefinitionError(
            f"{where}: {name} cannot be stored as JSON: {reason} (use plain data, a dataclass or a model)"
        ) from error
    if "callable" in kinds:
        raise WorkflowDefinitionError(
            f"{where}: {name} holds a callable, which cannot be stored: pass its name or its data"
        )
    if "generator" in kinds:
        raise WorkflowDefinitionError(
            f"{where}: {name} is read lazily, so it cannot be stored and read twice: use a list or tuple type"
        )


class JsonSerializer:
    """The default `Serializer`: JSON through pydantic.

    Models, dataclasses, TypedDicts, enums, datetimes, UUIDs, Decimals and so on go by their annotation, bytes
    as base64 (in a pydantic model as its own configuration says), sets and tuples as arrays. Without an
    annotation a value is written by its run-time type and read back as plain JSON.

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
    """

    __slots__ = ("max_bytes",)

    def __init__(self, max_bytes: int | None = DEFAULT_MAX_BYTES) -> None:
        if max_bytes is not None and max_bytes <= 0:
            raise InvalidArgument(f"max_bytes is {max_bytes!r}: it must be positive, or None for no limit")
        self.max_bytes = max_bytes

    def dumps(self, value: Any, type: Any = None) -> bytes:  # noqa: A002
        """See `Serializer.dumps`. With a type, the payload is known to be readable as that type."""
        if type is None or type is Any:
            return self._dump_any(value)
        return self.round_trip(value, type)[0]

    def loads(self, data: bytes, type: Any = None) -> Any:  # noqa: A002
        """See `Serializer.loads`."""
        known = _by_identity.get(id(type))  # as in _adapter: a call for each replayed step counts
        adapter = known[1] if known is not None else _adapter(type)
        if adapter is None:
            try:
                return from_json(data, allow_inf_nan=False)
            except ValueError as error:
                raise DeserializationError("$", f"not JSON: {error}") from None
        try:
            value = adapter.read(data)
        except ValidationError as error:
            raise DeserializationError(*_describe(error)) from None
        if not adapter.plain and (_N in data or _CAPITAL_N in data):
            find = data.find
            if find(b"NaN") >= 0 or find(b"Infinity") >= 0:
                self.loads(data)  # refuses the constants outside of strings
        return value

    def reader(self, type: Any = None) -> Callable[[bytes], Any]:  # noqa: A002
        """What `loads` does with payloads of that type which came from `dumps`: less has to be looked at.

        It raises whatever it likes for others: ask `loads` what is wrong with them.
        """
        adapter = _adapter(type)
        return from_json if adapter is None else adapter.read

    def round_trip(self, value: Any, type: Any = None) -> tuple[bytes, Any]:  # noqa: A002
        """``data = dumps(value, type)`` and ``loads(data, type)`` in one go, cheaper than the two calls."""
        adapter = None if type is None or type is Any else _adapter(type)
        if adapter is None:
            data = self._dump_any(value)
            return data, from_json(data, allow_inf_nan=False)
        try:
            data = adapter.to_json(value, by_alias=_BY_ALIAS, round_trip=True, warnings=False)
        except Exception as error:
            raise _unserializable(value, error) from error
        if _N in data or _CAPITAL_N in data:
            _refuse_non_finite(value, data, adapter)
        self._check_size(data)
        if value.__class__ is type and type in _EXACT:
            return data, value
        try:
            return data, adapter.read(data)
        except ValidationError as error:
            path, reason = _describe(error)
            name = getattr(type, "__name__", None) or str(type)
            raise SerializationError(path, f"the value does not fit its type {name}: {reason}") from None

    def _dump_any(self, value: Any) -> bytes:
        if value is None:
            return b"null"
        try:
            data = to_json(value, by_alias=_BY_ALIAS, round_trip=True, bytes_mode="base64")
        except Exception as error:
            raise _unserializable(value, error) from error
        if _N in data or _CAPITAL_N in data:
            _refuse_non_finite(value, data, None)
        if len(data) > _MAX_DEPTH:
            if data.count(b"[") + data.count(b"{") > _MAX_DEPTH:
                _refuse_too_deep(data)
            self._check_size(data)
        return data

    def _check_size(self, data: bytes) -> None:
        if self.max_bytes is not None and len(data) > self.max_bytes:
            raise PayloadTooLarge(len(data), self.max_bytes)


# One of these letters is in every sign of a NaN or an infinity. `in` with an int is one memchr; with bytes it
# raises and swallows an error first.
_N = ord("n")
_CAPITAL_N = ord("N")


def _refuse_non_finite(value: Any, data: bytes, adapter: _Adapter | None) -> None:
    """Look closer at a payload in which a NaN or an infinity may hide, the cheapest looks first."""
    find = data.find
    keys = find(b'"nan"') >= 0 or find(b'inf"') >= 0
    if not keys and find(b"NaN") < 0 and find(b"Infinity") < 0:
        # Left is `null`, which is what a NaN inside a model becomes.
        if find(b"null") < 0:
            return
        if adapter is not None and not adapter.may_hold_floats:
            return
    if adapter is None and not keys:
        try:
            if from_json(data, allow_inf_nan=False) == value:
                return
        except ValueError:
            pass
    found = locate_non_finite(value)
    if found is not None:
        raise SerializationError(*found)


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


def _refuse_too_deep(data: bytes) -> None:
    try:
        from_json(data)
    except ValueError as error:
        raise SerializationError(
            "$", f"nested too deeply ({error}): the limit is {_MAX_DEPTH} levels"
        ) from None


def _describe(error: ValidationError) -> tuple[str, str]:
    """The path and the reason of a validation error, without the input: payloads do not belong in logs."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    first = problems[0]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return format_path(first["loc"]), first["msg"] + more


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
