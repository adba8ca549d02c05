"""`duramen worker` and `duramen sweep`: drive runs with the workflows of an application."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from duramen import Runtime, SweepResult
from duramen.errors import InvalidArgument

from .exits import Exit
from .options import AsJson, perform
from .output import complain, print_json, stdout

__all__ = ["find_runtime", "sweep", "worker"]

Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:RUNTIME",
        help="Where the Runtime is: a module and the name in it, for instance app.main:runtime.",
        show_default=False,
    ),
]


def find_runtime(target: str) -> Runtime:
    """Import the runtime that ``module:name`` names; the current folder is on the path, as for `python -m`.

    Raises:
        InvalidArgument: it is not of this form, or what it names is no `Runtime`.
        typer.Exit: there is no such module or name.
    """
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise InvalidArgument(f"{target!r} is not MODULE:RUNTIME, for instance app.main:runtime")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # Another module that this one imports is a defect of the application: let it show where.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        complain(f"there is no module {error.name!r} here or in the environment of {sys.executable}")
        raise typer.Exit(Exit.NOT_FOUND) from None
    for name in path.split("."):
        if not hasattr(found, name):
            complain(f"module {module_name!r} has no {path!r}")
            raise typer.Exit(Exit.NOT_FOUND)
        found = getattr(found, name)
    if inspect.isfunction(found) and not inspect.signature(found).parameters:
        found = found()  # a factory
    if not isinstance(found, Runtime):
        raise InvalidArgument(f"{target!r} is a {type(found).__name__}, not a Runtime")
    return found


def worker(
    target: Target,
    concurrency: Annotated[int, typer.Option(help="How many runs to drive at a time.", min=1)] = 100,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Drive due runs until SIGTERM or Ctrl-C; steps in flight are finished and recorded first."""
    _logging(verbose=verbose)
    runtime = find_runtime(target)

    async def work() -> None:
        async with runtime:
            await runtime.work(concurrency=concurrency)

    perform(work())


def sweep(
    target: Target,
    limit: Annotated[
        int | None, typer.Option(help="Runs at most, of all kinds together.", min=1, show_default=False)
    ] = None,
    max_recovered: Annotated[int, typer.Option(help="Runs of dead processes at most.", min=0)] = 25,
    max_timers: Annotated[int, typer.Option(help="Runs with a due timer or message at most.", min=0)] = 25,
    max_queued: Annotated[int, typer.Option(help="Queued runs at most.", min=0)] = 25,
    max_duration: Annotated[
        float | None, typer.Option(help="Seconds this pass may take.", min=0, show_default=False)
    ] = None,
    log_summary: Annotated[
        bool, typer.Option("--log-summary", help="Say on stderr in one line what was done.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Drive what is due, once and bounded; for cron and other hosts that come and go.

    Exit code 1 if a run of this pass failed or got stuck.
    """
    _logging(verbose=False)
    runtime = find_runtime(target)
    options: dict[str, Any] = {} if limit is None else {"limit": limit}
    if max_duration is not None:
        options["max_duration"] = max_duration

    async def work() -> SweepResult:
        async with runtime:
            return await runtime.sweep(
                max_recovered=max_recovered, max_timers=max_timers, max_queued=max_queued, **options
            )

    result = perform(work())
    line = (
        ", ".join(f"{count} {kind}" for kind, count in result.summary.items() if count) or "nothing was due"
    )
    if result.deadline_reached:
        line += "; the time was up"
    if result.remaining_may_exist:
        line += "; more may be due"
    if log_summary:
        sys.stderr.write(f"duramen: sweep: {line}\n")
    if as_json:
        print_json(result)
    elif not log_summary:
        stdout().print(line)
    if any(run.kind in {"failed", "stuck"} for run in result.driven):
        raise typer.Exit(Exit.FAILED)


def _logging(*, verbose: bool) -> None:
    # Only if the application has not set up its own before: basicConfig does nothing then.
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        level=logging.DEBUG if verbose else logging.INFO,
    )
