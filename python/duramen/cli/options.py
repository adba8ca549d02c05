"""Arguments and options that several commands share, and the way to a store."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from duramen import Runtime
from duramen.errors import InvalidArgument, StoreUnavailable

from .exits import Exit
from .output import one_line

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

__all__ = ["AsJson", "RunId", "Store", "open_store", "parsed_json", "perform"]

T = TypeVar("T")

Store = Annotated[
    str,
    typer.Option(
        "--store",
        "-s",
        envvar="DURAMEN_URL",
        help="URL of the store, for instance sqlite:///app.db (three slashes: relative, four: absolute).",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.", show_default=False)]


@asynccontextmanager
async def open_store(url: str) -> AsyncGenerator[Runtime]:
    """Open a store that exists, without any workflow code.

    Nothing is made and nothing migrated: whoever looks has mistyped the URL, or comes before those who work.

    Raises:
        StoreError: it is not there, is not as new as this program, or cannot be read.
    """
    # A store in memory is empty, and gone with this process.
    runtime = Runtime(url, migrate=url.startswith("memory:"))
    try:
        await runtime.open()
    except StoreUnavailable as error:
        if not url.startswith("sqlite:"):
            raise
        raise StoreUnavailable(f"{error}; `duramen migrate {url}` makes an empty store") from None
    try:
        yield runtime
    finally:
        await runtime.close()


def perform(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end; Ctrl-C ends the process with the code that shells expect."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


def parsed_json(text: str, what: str) -> Any:
    """Read JSON that was given on the command line.

    Raises:
        InvalidArgument: it is none.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise InvalidArgument(f"the {what} is nested too deeply") from None
    except ValueError as error:
        raise InvalidArgument(
            f"the {what} {one_line(text)!r} is not JSON ({error}): put text in quotes, as '\"text\"'"
        ) from None
