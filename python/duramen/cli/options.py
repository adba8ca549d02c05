"""Arguments and options that several commands share, and the way to a store."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from duramen import Runtime
from duramen.errors import StoreUnavailable

from .exits import Exit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

__all__ = ["AsJson", "RunId", "Store", "open_store", "perform"]

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

    Raises:
        StoreUnavailable: there is no such file. (A runtime would make it; whoever asks about runs has
            mistyped the URL.)
    """
    require_file(url)
    async with Runtime(url) as runtime:
        yield runtime


def require_file(url: str) -> None:
    """Refuse the URL of a SQLite file that is not there."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///").partition("?")[0]).exists():
        raise StoreUnavailable(
            f"there is no file {url.removeprefix('sqlite:///')!r}: check --store (or DURAMEN_URL); "
            f"`duramen migrate {url}` makes an empty store"
        )


def perform(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end; Ctrl-C ends the process with the code that shells expect."""
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
