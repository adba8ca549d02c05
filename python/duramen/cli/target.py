"""The application's runtime, found by `MODULE:RUNTIME`."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from textwrap import indent
from typing import Any

import typer

from duramen import Runtime
from duramen.errors import InvalidArgument

from .exits import Exit
from .output import complain, harmless

__all__ = ["find_runtime"]

_HERE, _IMPORTLIB = __file__, importlib.__file__ or ""


def find_runtime(target: str) -> Runtime:
    """Import the runtime that ``module:name`` names; the current folder is on the path, as for `python -m`.

    Raises:
        InvalidArgument: it is not of this form, or what it names is no `Runtime`.
        typer.Exit: there is no such module or name, or the application's code breaks.
    """
    module_name, _, path = target.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise InvalidArgument(f"{target!r} is not MODULE:RUNTIME, for instance app.main:runtime")
    with suppress(FileNotFoundError):  # the folder has been deleted: the module may be elsewhere
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise _broken(f"module {module_name!r} cannot be imported", error) from None
        complain(f"there is no module {error.name!r} here or in the environment of {sys.executable}")
        raise typer.Exit(Exit.NOT_FOUND) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the application's code raises
        raise _broken(f"module {module_name!r} cannot be imported", error) from None
    for name in path.split("."):
        if not hasattr(found, name):
            complain(f"module {module_name!r} has no {path!r}")
            raise typer.Exit(Exit.NOT_FOUND)
        found = getattr(found, name)
    if inspect.isfunction(found) and not inspect.signature(found).parameters:
        try:
            found = found()  # a factory
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the application's code raises
            raise _broken(f"{target!r} makes no runtime", error) from None
    if not isinstance(found, Runtime):
        if inspect.iscoroutine(found):
            found.close()
        raise InvalidArgument(f"{target!r} is a {type(found).__name__}, not a Runtime")
    return found


def _broken(what: str, error: BaseException) -> typer.Exit:
    """Show where the application broke, without the frames that lead there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(
        ("<frozen importlib", _HERE, _IMPORTLIB)
    ):
        trace = trace.tb_next
    shown = "".join(traceback.format_exception(type(error), error, trace or error.__traceback__))
    # Set in, so that no line of it can pretend to be said by somebody else.
    sys.stderr.write(indent(harmless(shown, lines=True), "  "))
    complain(f"{what}: {type(error).__name__}: {error}")
    return typer.Exit(Exit.APPLICATION)
