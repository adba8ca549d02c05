"""What pydantic knows about an annotation, once for each: how values are written, read, compared."""

from __future__ import annotations

import dataclasses
import inspect
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, cast

import pydantic
from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter
from typing_extensions import TypeAliasType, is_typeddict

from duramen.errors import DeserializationError, WorkflowDefinitionError

from .fidelity import comes_back, find_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic_core import SchemaValidator

_ANY: frozenset[Any] = frozenset({None, Any, object, inspect.Parameter.empty})
"""Annotations that mean "whatever JSON it is"; None stands for a missing one, NoneType for ``-> None``."""

_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="constants")
"""For everything that has no configuration of its own. Models and pydantic's dataclasses do; theirs holds."""

_NAMES = tuple(int(part) for part in pydantic.VERSION.split(".")[:2]) >= (2, 11)
# Fields go out under their own names, and come in under their names or aliases: then a model whose aliases
# for the two directions differ survives the trip too. Older releases cannot do that, so aliases are used both
# ways.
BY_ALIAS = not _NAMES

# fmt: off
_PLAIN = frozenset([
    "bool", "dict", "float", "frozenset", "int", "list", "none", "nullable", "set", "str", "tuple",
])
# fmt: on
"""Kinds of schema whose values are all through of built-in types that `comes_back` can tell apart."""

_STEADY: frozenset[Any] = frozenset([list, dict, set, frozenset, tuple, str, int, float, deque, defaultdict])
"""Makers of defaults that make the same each time."""

_NO_SCHEMA = frozenset({"metadata", "default", "config"})
"""Keys of a core schema under which anything may stand."""


class Adapter:
    """What pydantic knows about one annotation, with its attribute look-ups done once."""

    __slots__ = ("_ambiguous", "adapter", "plain", "read", "read_once", "same", "to_json")

    def __init__(self, annotation: Any) -> None:
        self.adapter = _type_adapter(annotation)
        # Both are mock objects for models whose building is deferred; the first use swaps them, so the real
        # ones are fetched after it.
        self.adapter.rebuild(raise_errors=True)
        self.to_json = self.adapter.serializer.to_json
        validate = cast("SchemaValidator", self.adapter.validator).validate_json
        kinds, factories = schema_facts(self.adapter.core_schema)
        self.plain = kinds <= _PLAIN
        """Whether it is made of built-in types: then a value and its copy are compared as a whole."""
        self._ambiguous = "union" in kinds
        self.read_once: Callable[[bytes], Any] = validate
        if _NAMES and not self.plain:
            self.read_once = lambda data: validate(data, by_alias=True, by_name=True)
        self.read: Callable[[bytes], Any] = self.read_once if factories <= _STEADY else self._read_twice
        """Reads a payload, and only if it will read as the same value the next time."""
        self.same: Callable[[Any, Any, bytes], bool] = _same_plain if self.plain else _same
        """Whether a value is the same, in value and type, as its copy that was read from those bytes."""

    def has(self, value: Any) -> bool:
        """Whether a value is of a type of a union as it is, so that no JSON stands for another one."""
        try:
            return self._ambiguous and self.adapter.validator.isinstance_python(value, strict=True)
        except Exception:  # noqa: BLE001 - users' validators
            return False

    def _read_twice(self, data: bytes) -> Any:
        value, other = self.read_once(data), self.read_once(data)
        found = find_difference(value, other)
        if found is not None:
            raise DeserializationError(
                found.path,
                "it is not in the payload, and its default is made anew at each reading: send a value, or "
                "give the field a fixed default",
            )
        return value


_N = ord("n")
_CAPITAL_N = ord("N")


def _same_plain(given: Any, seen: Any, data: bytes) -> bool:
    if not comes_back(given, seen):
        return False
    # One of these letters is in every sign of a NaN or an infinity. `in` with an int is one memchr; with
    # bytes it raises and swallows an error first.
    return (_N not in data and _CAPITAL_N not in data) or find_difference(given, seen) is None


def _same(given: Any, seen: Any, data: bytes) -> bool:  # noqa: ARG001 - as `_same_plain`
    return find_difference(given, seen) is None


def schema_facts(schema: Any) -> tuple[set[str], set[Any]]:
    """The kinds of schema that occur in a pydantic core schema, and the makers of defaults."""
    kinds: set[str] = set()
    factories: set[Any] = set()
    for node in _nodes(schema):
        kind = node.get("type")
        if isinstance(kind, str):
            kinds.add(kind)
        if "default_factory" in node:
            factories.add(_hashable(node["default_factory"]))
    return kinds, factories


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """All that a core schema is made of."""
    todo: list[Any] = [schema]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            node = cast("dict[str, Any]", node)
            yield node
            todo.extend(value for key, value in node.items() if key not in _NO_SCHEMA)
        elif isinstance(node, list | tuple):
            todo.extend(cast("list[Any]", node))


def _depends(schema: Any) -> str | None:
    """On what it depends, beside the payload, whether and as what a payload is read; None if on nothing."""
    for node in _nodes(schema):
        if node.get("now_op") == "future":
            return "the clock"
        function = node.get("function")
        if isinstance(function, dict):
            function = cast("dict[str, Any]", function).get("function")
        if str(getattr(function, "__module__", "")).startswith("pydantic."):
            name = str(getattr(function, "__qualname__", ""))
            if name.startswith("PathType.validate_"):
                return "the files of the machine"
            if name == "import_string":
                return "the names of modules"
    return None


def _hashable(thing: Any) -> Any:
    try:
        hash(thing)
    except TypeError:
        return id(thing)
    return thing


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


by_identity: dict[int, tuple[Any, Adapter | None]] = {}
_by_value: dict[tuple[Any, str], Adapter] = {}


def adapter_of(annotation: Any) -> Adapter | None:
    """The adapter of an annotation, made once; None for those that mean any JSON.

    Looked up by identity first, which also serves annotations that cannot be hashed. A handler that says
    ``list[Item]`` makes a new object each time; these are found by value. Their text is part of the key
    because ``int | str`` equals ``str | int`` while pydantic may prefer the first of several types that fit.
    """
    known = by_identity.get(id(annotation))
    if known is not None:
        return known[1]
    adapter = None
    try:
        if annotation not in _ANY:
            key = annotation, repr(annotation)
            adapter = _by_value.get(key)
            if adapter is None:
                adapter = _by_value[key] = Adapter(annotation)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        adapter = Adapter(annotation)
    if len(by_identity) > 4096:
        by_identity.clear()
    by_identity[id(annotation)] = (annotation, adapter)
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
        adapter = adapter_of(annotation)
        if adapter is None:
            return
        kinds, _ = schema_facts(adapter.adapter.core_schema)
    except Exception as error:
        reason = str(error).split("\n\n", maxsplit=1)[0].strip()
        raise WorkflowDefinitionError(
            f"{where}: {name} cannot be stored as JSON: {reason} (use plain data, a dataclass or a model)"
        ) from error
    if (what := _depends(adapter.adapter.core_schema)) is not None:
        raise WorkflowDefinitionError(
            f"{where}: {name} is read by {what}: a value that is accepted now may be refused by a replay. "
            "Declare a plain type (date, datetime, Path, str), and look at the value in a step"
        )
    if "callable" in kinds:
        raise WorkflowDefinitionError(
            f"{where}: {name} holds a callable, which cannot be stored: pass its name or its data"
        )
    if "generator" in kinds:
        raise WorkflowDefinitionError(
            f"{where}: {name} is read lazily, so it cannot be stored and read twice: use a list or tuple type"
        )
