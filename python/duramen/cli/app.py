"""The program: its commands, and what becomes of errors."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import duramen

from . import demo, messages, runs, stores, worker, workers
from .exits import code_of
from .output import complain

__all__ = ["app", "run"]

EPILOG = (
    "Exit codes: 0 done; 1 the run failed or is not in the state asked for; 2 wrong usage; 3 not found; "
    "4 the store cannot be used; 5 the application cannot be imported; 130 interrupted."
)

app = typer.Typer(
    name="duramen",
    help="Durable execution on a database you own.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"duramen {duramen.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("demo")(demo.demo)
app.command("migrate")(stores.migrate)
app.command("worker")(worker.worker)
app.command("sweep")(worker.sweep)
app.command("workers")(workers.workers)
app.command("signal")(messages.signal)
app.command("approve")(messages.approve)
app.add_typer(runs.app, name="runs")


def run() -> None:
    """Run the program and end the process with a code that means something."""
    try:
        app()
    except duramen.DuramenError as error:
        complain(str(error))
        sys.exit(code_of(error))
