"""What stands around every command: streams that are there, and an exit code whatever happens."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from asyncio import CancelledError
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

import typer

from duramen import DuramenError

from .exits import Exit, code_of
from .output import OutputLost, Stream, complain, reason

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TRACEBACK", "guarded", "open_streams"]

TRACEBACK = "DURAMEN_TRACEBACK"
"""The environment variable that asks for the traceback of an error that nobody expected."""


def guarded(program: Callable[[], object]) -> int:
    """Run a program; gives its exit code. Every error becomes a sentence on stderr, none a traceback."""
    open_streams()
    code = _outcome(program)
    try:
        sys.stdout.flush()
    except OutputLost as lost:
        code = _lost(lost)
    return code


def open_streams() -> None:
    """Make sure that there are the three standard streams, and replace two of them by `Stream`s.

    A descriptor that was closed would be given to the next file that is opened, such as the store's, and
    whatever prints would write into that. Closed ones lead to where writing fails, as it should.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one. Not for writing: who prints nothing never notices.
            os.open(os.devnull, os.O_RDONLY)
    sys.stdout = _stream(sys.stdout, 1, lenient=False)
    sys.stderr = _stream(sys.stderr, 2, lenient=True)


def _stream(found: TextIO | None, number: int, *, lenient: bool) -> Stream:
    if isinstance(found, Stream):
        return found
    if found is None or not hasattr(found, "buffer"):
        return Stream(os.fdopen(number, "wb", closefd=False), "utf-8", lenient=lenient)
    return Stream(found.buffer, found.encoding, lenient=lenient)


def _outcome(program: Callable[[], object]) -> int:
    try:
        program()
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            complain(str(end.code))  # as Python does
            return Exit.FAILED
        return end.code or 0
    except typer.Exit as end:  # raised outside of a command, as workers do
        return end.exit_code
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except OutputLost as lost:
        return _lost(lost)
    except DuramenError as error:
        complain("\n".join([str(error), *getattr(error, "__notes__", ())]))
        return code_of(error)
    except CancelledError:
        complain(
            "the application cancelled all tasks of the process, the one that runs this command included: "
            "code in it should cancel its own alone"
        )
        return Exit.APPLICATION
    except BaseException as error:  # noqa: BLE001 - the outermost place: nobody else would say it
        return _unexpected(error)
    return Exit.OK


def _unexpected(error: BaseException) -> int:
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    if isinstance(error, RecursionError):
        complain("a value is nested too deeply to be read or shown")
        return Exit.FAILED
    if isinstance(error, UnicodeError):
        complain("an argument, or an environment variable that stands for one, is not text in UTF-8")
        return Exit.USAGE
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{error.strerror}")
        return Exit.FAILED
    complain(f"this should not happen: {reason(error)} ({TRACEBACK}=1 in the environment shows where)")
    return Exit.DEFECT


def _lost(lost: OutputLost) -> int:
    """Nobody reads what is printed, or it has no room; gives the exit code."""
    # What is still buffered goes nowhere, else the interpreter tries once more at its end.
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)
    with suppress(OSError):
        sys.stdout.flush()
    if lost.reason.errno == errno.EPIPE:
        return Exit.NO_READER  # as with any other program in front of `head`: without a word
    complain(f"the output cannot be written: {lost}")
    return Exit.OUTPUT
