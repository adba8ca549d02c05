"""The program: its commands."""

from __future__ import annotations

from typing import Annotated

import typer

import duramen

from . import (
    backup,
    demo,
    forks,
    messages,
    pausing,
    requests,
    runs,
    schedules,
    stores,
    versions,
    worker,
    workers,
)

__all__ = ["app"]

EPILOG = (
    "Exit codes: 0 done; 1 the run failed or is not in the state asked for; 2 wrong usage; 3 not found; "
    "4 the store cannot be used; 5 the application cannot be used; 6 the output cannot be written; "
    "70 a defect; 130 interrupted; 141 nobody reads the output."
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
app.command("backup")(backup.backup)
app.command("worker")(worker.worker)
app.command("sweep")(worker.sweep)
app.command("workers")(workers.workers)
app.command("versions")(versions.versions)
app.command("check")(versions.check)
app.command("signal")(messages.signal)
app.command("approve")(messages.approve)
app.command("update")(requests.update)
app.command("query")(requests.query)
runs.app.command("pause")(pausing.pause)
runs.app.command("resume")(pausing.resume)
runs.app.command("skip")(pausing.skip)
runs.app.command("fork")(forks.fork)
runs.app.command("diff")(forks.diff)
app.add_typer(runs.app, name="runs")
app.add_typer(schedules.app, name="schedules")
