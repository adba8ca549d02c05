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
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else member(part) for part in parts)


def member(key: object) -> str:
    """The end of a path that leads to a key or an attribute."""
    if isinstance(key, str):
        if _PLAIN_KEY.match(key):
            return f".{key}"
        safe = key.encode("utf-8", "backslashreplace").decode().replace('"', '\\"')
        return f'["{safe}"]'
    return f"[{short(key)}]"


def short(key: object) -> str:
    """A key for a message, whatever it is."""
    try:
        return repr(key)[:50]
    except Exception:  # noqa: BLE001 - also an int of more digits than Python writes
        return f"<{type(key).__name__}>"


def _children(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of a container with the ends of their paths; nothing for anything else."""
    if isinstance(value, dict):
        for key, item in cast("dict[Any, Any]", value).items():
            yield member(key), item
    elif isinstance(value, list | tuple | set | frozenset | deque):
        for index, item in enumerate(cast("list[Any]", value)):
            yield f"[{index}]", item
    elif isinstance(value, BaseModel):
        excluded = {name for name, field in type(value).model_fields.items() if field.exclude}
        for key, item in {**value.__dict__, **(value.__pydantic_extra__ or {})}.items():
            if key not in excluded:
                yield member(key), item
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield member(field.name), getattr(value, field.name, None)
    elif isinstance(value, Enum):
        yield "", value.value


def is_finite(number: float | Decimal) -> bool:
    """Whether it is a number that JSON knows."""
    # `math.isfinite` makes a float of a Decimal first, which a signalling NaN refuses.
    return number.is_finite() if isinstance(number, Decimal) else math.isfinite(number)


def non_finite(number: object) -> str:
    """Why a NaN or an infinity is refused."""
    return f"{number} is not JSON: use None or a string instead"


ASTERISKS = (
    "a secret is written as asterisks and would be lost: give the name under which it is kept, and fetch it "
    "in the step that needs it"
)

_LONG_INT = 4300 * math.log2(10)


def locate_lossy(value: Any, path: str = "$", depth: int = 0) -> Found | None:
    """The first part of a value that is written as something unreadable: no number of JSON's, or a secret."""
    if isinstance(value, float | Decimal):
        return None if is_finite(value) else (path, non_finite(value))
    if isinstance(value, int):
        return (path, _LONG) if value.bit_length() > _LONG_INT - 4 else None
    if hasattr(value, "get_secret_value"):
        return path, ASTERISKS
    if depth > _MAX_DEPTH or isinstance(value, str):
        return None
    if isinstance(value, dict):
        for key in cast("dict[Any, Any]", value):
            if isinstance(key, float | Decimal) and not is_finite(key):
                return path, f"{key} cannot be a key: use a string instead"
    for end, item in _children(value):
        found = locate_lossy(item, path + end, depth + 1)
        if found is not None:
            return found
    return None


_LONG = "an int of more than 4,300 digits cannot be read again: use a string"


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
                return path + member(key), f"as a key: {reason}"
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
