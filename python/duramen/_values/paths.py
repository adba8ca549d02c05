"""Finds the part of a value that cannot be stored. Slow and careful: it runs when something may be wrong."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import deque
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, cast

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

_MAX_DEPTH = 260
"""Deeper than the serializer goes, so a value it gave up on is followed to the place where it did."""

Found = tuple[str, str]


def format_path(parts: Sequence[int | str]) -> str:
    """Write a location as ``$.items[3].price``.

    >>> format_path(("items", 3, "unit price"))
    '$.items[3]["unit price"]'
    """
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else _member(part) for part in parts)


def _member(key: object) -> str:
    if isinstance(key, str):
        if _PLAIN_KEY.match(key):
            return f".{key}"
        safe = key.encode("utf-8", "backslashreplace").decode().replace('"', '\\"')
        return f'["{safe}"]'
    return f"[{key!r}]"


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a container with the ends of their paths; nothing for anything else."""
    if isinstance(value, dict):
        for key, item in cast("dict[Any, Any]", value).items():
            yield _member(key), item
    elif isinstance(value, list | tuple | set | frozenset | deque):
        for index, item in enumerate(cast("list[Any]", value)):
            yield f"[{index}]", item
    elif isinstance(value, BaseModel):
        excluded = {name for name, field in type(value).model_fields.items() if field.exclude}
        for key, item in {**value.__dict__, **(value.__pydantic_extra__ or {})}.items():
            if key not in excluded:
                yield _member(key), item
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield _member(field.name), getattr(value, field.name, None)
    elif isinstance(value, Enum):
        yield "", value.value


def _is_finite(number: float | Decimal) -> bool:
    # `math.isfinite` makes a float of a Decimal first, which a signalling NaN refuses.
    return number.is_finite() if isinstance(number, Decimal) else math.isfinite(number)


def locate_non_finite(value: Any, path: str = "$", depth: int = 0) -> Found | None:
    """The first NaN or infinity in a value: in a float or a Decimal, also as a dictionary's key."""
    if isinstance(value, float | Decimal):
        if not _is_finite(value):
            return path, f"{value} is not JSON: use None or a string instead"
        return None
    if isinstance(value, BaseModel):
        # What counts is what the model writes: its serialisers may have dealt with the value.
        try:
            value = value.__pydantic_serializer__.to_python(value, mode="json", round_trip=True)
        except Exception:  # noqa: BLE001 - then it cannot be written either, and that is reported
            return None
    if depth > _MAX_DEPTH:
        return None
    if isinstance(value, dict):
        for key in cast("dict[Any, Any]", value):
            if isinstance(key, float | Decimal) and not _is_finite(key):
                return path, f"{key} cannot be a key: use a string instead"
    for end, item in _children(value):
        if isinstance(item, str | int | None):
            continue
        found = locate_non_finite(item, path + end, depth + 1)
        if found is not None:
            return found
    return None


def locate_unserializable(
    value: Any, path: str = "$", seen: tuple[int, ...] = (), *, in_model: bool = False
) -> Found | None:
    """The innermost part of a value that cannot be written as JSON, and why; None if all parts can."""
    if value is None or isinstance(value, bool | float):
        return None
    if isinstance(value, bytes):
        return (path, _BYTES) if in_model and not _is_text(value) else None
    if isinstance(value, str):
        reason = _bad_text(value)
        return (path, reason) if reason else None
    if id(value) in seen:
        return path, "it holds itself: JSON has no circular references"
    if len(seen) > _MAX_DEPTH:
        return path, "nested too deeply"
    inner = (*seen, id(value))
    if isinstance(value, dict):
        for key in cast("dict[Any, Any]", value):
            reason = _bad_text(key) if isinstance(key, str) else _bad_leaf({key: None})
            if reason:
                return path + _member(key), f"as a key: {reason}"
    in_model = in_model or isinstance(value, BaseModel)
    empty = True
    for end, item in _children(value):
        empty = False
        found = locate_unserializable(item, path + end, inner, in_model=in_model)
        if found is not None:
            return found
    reason = _bad_leaf(value) if empty else None
    return (path, reason) if reason else None


_BYTES = (
    "a pydantic model writes bytes as text, and these are none: give it "
    "model_config = ConfigDict(ser_json_bytes='base64', val_json_bytes='base64')"
)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _bad_text(text: str) -> str | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return (
            f"the text holds a lone surrogate (\\u{ord(text[error.start]):04x} at position {error.start}), "
            "which no JSON reader accepts: decode or clean it first"
        )
    return None


def _bad_leaf(value: Any) -> str | None:
    try:
        to_json(value, bytes_mode="base64")
    except PydanticSerializationError as error:
        text = str(error)
        if text.startswith("Unable to serialize unknown type"):
            return f"a {type(value).__name__} is not JSON: use plain data, a dataclass or a pydantic model"
        return text
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return None
