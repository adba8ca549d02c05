"""`duramen demo`."""

from __future__ import annotations

import asyncio
import io
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console

from duramen.errors import InvalidArgument

from .exits import Exit
from .options import AsJson, perform
from .output import complain, print_json, stdout, write_file

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["demo"]

T = TypeVar("T")


def demo(
    orders: Annotated[int, typer.Option(help="How many of the orders to process.", min=20, max=500)] = 500,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Keep store, warehouse and logs in this folder (it must be empty or new).",
            show_default=False,
        ),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Write the last screen to this SVG file.", show_default=False)
    ] = None,
    limit: Annotated[float, typer.Option(help="Seconds after which it gives up.", min=1, max=86_400)] = 180,
    as_json: AsJson = False,
) -> None:
    """Process 500 orders with two workers; kill one, stop the other, and prove that nothing was lost.

    Needs nothing but this package. Exit code 1 if a line of the proof does not hold.
    """
    # Here: the other commands have no use for it.
    from duramen.demo import play
    from duramen.demo.conductor import Trouble

    home = Path(tempfile.mkdtemp(prefix="duramen-demo-")) if folder is None else _made(folder)
    console = Console(file=io.StringIO()) if as_json else stdout()
    try:
        result = perform(_until_told(play.play(home, orders, console, limit)))
    except Trouble as trouble:
        complain(f"the demonstration broke off: {trouble}")
        raise typer.Exit(Exit.FAILED) from None
    if picture is not None:
        with suppress(OSError):  # it is said below
            picture.parent.mkdir(parents=True, exist_ok=True)
        write_file(picture, result.picture(), "utf-8")
    if as_json:
        print_json(result.facts())
    if not result.holds:
        complain(f"the proof does not hold; stores and logs are in {home}")
        raise typer.Exit(Exit.FAILED)
    if folder is None:
        shutil.rmtree(home, ignore_errors=True)


def _made(folder: Path) -> Path:
    """Make a folder, or make sure that there is nothing in it.

    Raises:
        InvalidArgument: there is, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            return folder
    except OSError as error:
        raise InvalidArgument(f"{str(folder)!r} cannot be used: {error.strerror}") from None
    raise InvalidArgument(f"{str(folder)!r} is not empty: name a new folder")


async def _until_told(work: Coroutine[Any, Any, T]) -> T:
    """Do it, and end it in order on SIGTERM and SIGHUP as on Ctrl-C: the processes it started end with it.

    Raises:
        typer.Exit: a signal came.
    """
    task = asyncio.ensure_future(work)
    told: list[int] = []

    def end(number: int) -> None:
        told.append(number)
        task.cancel()

    with suppress(NotImplementedError):  # Windows
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not told:
            raise
        raise typer.Exit(128 + told[0]) from None
