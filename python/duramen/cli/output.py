"""What commands print: JSON for programs, rich tables for people."""

from __future__ import annotations

import json
import sys
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any, cast

from rich.console import Console

__all__ = ["complain", "plain", "print_json", "stdout"]


def stdout() -> Console:
    """The console for people; in pipes and logs at least 120 columns wide."""
    console = Console(highlight=False)
    if not console.is_terminal and not console.options.legacy_windows:
        console = Console(highlight=False, width=max(console.width, 120))
    return console


def complain(sentence: str) -> None:
    """Say on stderr what went wrong."""
    sys.stderr.write(f"duramen: {sentence}\n")


def plain(value: Any) -> Any:
    """A value as JSON can hold it: instants as ISO 8601 in UTC, views as objects, the rest as text.

    >>> plain({"at": datetime.fromisoformat("2026-01-01T00:00:00+00:00"), "of": (1, 2)})
    {'at': '2026-01-01T00:00:00+00:00', 'of': [1, 2]}
    """
    match value:
        case Enum():
            return plain(value.value)
        case None | bool() | int() | float() | str():
            return value
        case datetime():
            return value.isoformat()
        case dict():
            return {str(key): plain(item) for key, item in cast("dict[Any, Any]", value).items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in cast("list[Any]", value)]
        case _ if is_dataclass(value):
            return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
        case _:
            return str(value)


def print_json(value: Any, *, compact: bool = False) -> None:
    """Print one JSON value; `compact` on one line, for streams."""
    text = json.dumps(plain(value), ensure_ascii=False, indent=None if compact else 2)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
