"""The application's runtime, found by `MODULE:RUNTIME`."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import typer

from duramen import Runtime
from duramen.errors import InvalidArgument

from .exits import Exit
from .output import complain, harmless, reason

if TYPE_CHECKING:
    from collections.abc import Generator

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
    with _application(f"module {module_name!r} cannot be imported"):
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            complain(f"there is no module {error.name!r} here or in the environment of {sys.executable}")
            raise typer.Exit(Exit.NOT_FOUND) from None
    with _application(f"{target!r} cannot be looked up"):
        for name in path.split("."):
            if not hasattr(found, name):
                complain(f"module {module_name!r} has no {path!r}")
                raise typer.Exit(Exit.NOT_FOUND)
            found = getattr(found, name)
    with _application(f"{target!r} makes no runtime"):
        if _is_factory(found):
            found = found()
        if isinstance(found, Runtime):
            return found
    if inspect.iscoroutine(found):
        found.close()
    raise InvalidArgument(f"{target!r} is a {type(found).__name__}, not a Runtime")


def _is_factory(found: Any) -> bool:
    """Whether it is a function, plain or partial, cached or bound, that can be called without arguments."""
    if not any(kind(found) for kind in (inspect.isroutine, _is_partial)):
        return False
    needed = (each for each in inspect.signature(found).parameters.values() if each.default is each.empty)
    return all(each.kind in {each.VAR_POSITIONAL, each.VAR_KEYWORD} for each in needed)


def _is_partial(found: Any) -> bool:
    return isinstance(found, partial)


@contextmanager
def _application(what: str) -> Generator[None]:
    """Whatever the application's code raises in here, it has broken.

    Raises:
        typer.Exit: it has, and where was shown.
    """
    try:
        yield
    except (KeyboardInterrupt, typer.Exit):
        raise
    except BaseException as error:  # noqa: BLE001 - its own SystemExit, too, or what is no Exception
        raise _broken(what, error) from None


def _broken(what: str, error: BaseException) -> typer.Exit:
    """Show where the application broke, without the frames that lead there."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(
        ("<frozen importlib", _HERE, _IMPORTLIB)
    ):
        trace = trace.tb_next
    shown = "".join(traceback.format_exception(error.with_traceback(trace)))
    # Set in, so that no line of it can pretend to be said by somebody else.
    sys.stderr.write(indent(harmless(shown, lines=True), "  "))
    complain(f"{what}: {reason(error)}")
    return typer.Exit(Exit.APPLICATION)
