"""What commands print: JSON for programs, rich tables for people, sentences on stderr.

Texts of others (errors, reasons, ids, names, tags, payloads) may hold what a terminal obeys: escape sequences
that clear the screen or write the clipboard, characters that turn the direction of reading. None of it gets
through here: `harmless` is the rule, and whatever is printed for people passes it, in `Screen.render` or in
`complain`. JSON is ASCII, so it has no such characters either.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import re
import sys
import unicodedata
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.segment import Segment
from rich.text import Text
from typing_extensions import override

from duramen.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from rich.console import ConsoleOptions, RenderableType
    from rich.style import Style

__all__ = [
    "OutputLost",
    "Screen",
    "Stream",
    "complain",
    "harmless",
    "one_line",
    "plain",
    "print_json",
    "reason",
    "stdout",
    "to_json",
    "words",
    "write_file",
]


# -- texts of others


def harmless(text: str, *, lines: bool = False) -> str:
    r"""A text with everything in it that is not plainly visible written as an escape.

    That is what Unicode calls control and format characters, line separators, surrogates and unassigned
    ones. Blanks stay.

    Args:
        text: of whatever origin.
        lines: keep line feeds, and tabs as blanks.

    >>> print(harmless("red \x1b[31m, C1 \x9b, bidi \u202e, bell \a, new\nline"))
    red \x1b[31m, C1 \x9b, bidi \u202e, bell \x07, new\nline
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or unicodedata.category(character) == "Zs" or (lines and character == "\n")
        else "    "
        if lines and character == "\t"
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def one_line(text: str, most: int = 200) -> str:
    r"""A harmless text on one line, shortened.

    >>> one_line("no such\n  card"), one_line("x" * 9, 5)
    ('no such card', 'xxxx…')
    """
    # Of a text of megabytes the beginning will do.
    text = harmless(" ".join(text[: 4 * most].split()))
    return text if len(text) <= most else text[: most - 1] + "…"


def reason(error: BaseException) -> str:
    """An exception's class and text, whatever its own methods do.

    >>> reason(ValueError("no such card")), reason(KeyError())
    ('ValueError: no such card', 'KeyError')
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - it is an exception of the application's
        text = "(its text cannot be read)"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def words(text: str, style: str | Style = "") -> Text:
    """A text of others for a table, laid out as it will be printed."""
    return Text(harmless(text, lines=True), style=style)


# -- streams


class OutputLost(OSError):
    """What a command had to print could not be written. Has no `errno`, so that nobody explains it away."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason.strerror or str(reason))
        self.reason = reason


_PLAIN = {"━": "=", "┈": ".", "…": "~", "─": "-", "✓": "+", "✗": "x", "–": "-", "’": "'"}


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Characters that an output's encoding has not: a likeness of one column, else an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    written = (_PLAIN.get(one) or one.encode("unicode_escape").decode("ascii") for one in characters)
    return "".join(written), error.end


codecs.register_error("duramen.plain", _in_ascii)


def write_file(path: Path, text: str, encoding: str) -> None:
    """Write a file that was asked for.

    Raises:
        InvalidArgument: there can be no such file.
        OutputLost: there is no room for it.
    """
    try:
        path.write_text(text, encoding)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}:
            raise OutputLost(error) from None
        raise InvalidArgument(f"{path} cannot be written: {error.strerror}") from None


class Stream(io.TextIOWrapper):
    """A standard stream that can say everything in its encoding, and fails in one way only.

    Args:
        below: the bytes.
        encoding: of the terminal or file.
        lenient: what cannot be written is dropped; else `OutputLost` is raised.
    """

    def __init__(self, below: IO[bytes], encoding: str, *, lenient: bool) -> None:
        super().__init__(
            cast("Any", below),
            encoding=encoding,
            errors="duramen.plain",
            line_buffering=lenient or below.isatty(),
        )
        self._lenient = lenient

    @override
    def write(self, s: str, /) -> int:
        try:
            return super().write(s)
        except OSError as error:
            return self._failed(error, len(s))

    @override
    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._failed(error, 0)

    def _failed(self, error: OSError, written: int) -> int:
        if not self._lenient:
            raise OutputLost(error) from None
        return written


class Screen(Console):
    """A console on which nothing of what is printed can act."""

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control or segment.text == "\n" or segment.text.isprintable():
                yield segment
            else:
                yield Segment(harmless(segment.text, lines=True), segment.style)


def stdout() -> Console:
    """The console for people; in pipes and logs at least 120 columns wide."""
    console = Screen(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and not console.options.legacy_windows:
        console = Screen(highlight=False, markup=False, emoji=False, width=max(console.width, 120))
    return console


_LONG = re.compile(r"(\S{120})\S{200,}(\S{40})")
"""A path, say, of thousands of characters, which would bury the sentence. (An id has 255 at most.)"""


def complain(sentence: str) -> None:
    """Say on stderr what went wrong. Lines after the first are set in: none can pretend to be another's."""
    with suppress(OSError, ValueError):  # nobody to say it to; the exit code says it as well
        text = _LONG.sub(r"\1…\2", harmless(sentence, lines=True)).replace("\n", "\n  ")
        sys.stderr.write(f"duramen: {text}\n")
        sys.stderr.flush()


# -- JSON


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


def to_json(value: Any, *, indent: int | None = None) -> str:
    r"""A value as JSON in ASCII: what a terminal would obey, and what an encoding might not have, is escaped.

    >>> print(to_json({"name": "Zoë\x9b"}))
    {"name": "Zo\u00eb\u009b"}
    """
    return json.dumps(plain(value), indent=indent)


def print_json(value: Any, *, compact: bool = False) -> None:
    """Print one JSON value; `compact` on one line, for streams."""
    sys.stdout.write(to_json(value, indent=None if compact else 2) + "\n")
    sys.stdout.flush()
