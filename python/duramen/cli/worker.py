"""`duramen worker` and `duramen sweep`: drive runs with the workflows of an application."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .exits import Exit
from .fleet import MOST_PROCESSES, SLOW, Settings, supervise
from .member import check_workflows, drive, set_up_logging
from .options import AsJson, perform
from .output import complain, print_json, stdout
from .target import find_runtime
from .telling import FactLog, JsonLines, Teller, log_event

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from duramen import Runtime, SweepResult

__all__ = ["sweep", "worker"]

LONGEST_DRAIN = 7 * 24 * 3600.0
"""Seconds. Whoever gives more means milliseconds, or no end, which is what not stopping the worker is for."""

PARTING = 2.0
"""Seconds that whoever reads the events has for the last of them."""

Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:RUNTIME",
        help="Where the Runtime is: a module and the name in it, for instance app.main:runtime.",
        show_default=False,
    ),
]


def worker(
    target: Target,
    concurrency: Annotated[
        int, typer.Option(help="How many runs to drive at a time, in each process.", min=1, max=100_000)
    ] = 100,
    processes: Annotated[
        int, typer.Option(help="How many processes to start and to keep running.", min=1, max=MOST_PROCESSES)
    ] = 1,
    drain_timeout: Annotated[
        float, typer.Option(help="Seconds that steps in flight have at the end.", min=0, max=LONGEST_DRAIN)
    ] = 25.0,
    as_json: AsJson = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log warnings and errors only.")] = False,
) -> None:
    """Drive due runs until SIGTERM or Ctrl-C; steps in flight are finished and recorded first.

    A second signal does not wait for them. With --processes, a supervisor starts that many workers, replaces
    those that die and passes signals on. Exit code 1: some had to be killed at the end, or the one alone.

    Exit code 5: the application has no workflow to drive, or cannot be imported.
    """
    if verbose and quiet:
        raise typer.BadParameter("--verbose and --quiet: give one of them")
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    set_up_logging(level)
    if processes > 1:
        member = Settings(target, concurrency, drain_timeout, level)
        with _telling(JsonLines() if as_json else log_event) as (tell, end):
            end(perform(supervise(member, processes, tell=tell, apart=as_json)))
    else:
        runtime = _found(target)
        with _telling(JsonLines() if as_json else FactLog()) as (tell, end):
            perform(drive(runtime, concurrency=concurrency, drain=drain_timeout, tell=tell, alone=True))
            end(Exit.OK)


@contextmanager
def _telling(
    say: Callable[[dict[str, Any]], None],
) -> Generator[tuple[Callable[[dict[str, Any]], None], Callable[[int], None]]]:
    """How to tell events, and how to end the process with a code when all have been told."""
    teller = Teller(say)
    code: list[int] = []
    try:
        yield teller, code.append
    finally:
        told = teller.close(PARTING)
        if code and not told:
            os._exit(code[0])  # see `Teller.close`
    raise typer.Exit(code[0])


def _found(target: str) -> Runtime:
    """Find the runtime, and mention it if that takes long: nothing else is seen of a module that hangs."""
    module = target.partition(":")[0]
    late = threading.Timer(SLOW, complain, [f"module {module!r} is still being imported after {SLOW:g} s"])
    late.daemon = True
    late.start()
    try:
        return find_runtime(target)
    finally:
        late.cancel()


def sweep(
    target: Target,
    limit: Annotated[
        int | None, typer.Option(help="Runs at most, of all kinds together.", min=1, show_default=False)
    ] = None,
    max_recovered: Annotated[int, typer.Option(help="Runs of dead processes at most.", min=0)] = 25,
    max_scheduled: Annotated[int, typer.Option(help="Due schedules at most.", min=0)] = 25,
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
    set_up_logging()
    runtime = _found(target)
    options: dict[str, Any] = {} if limit is None else {"limit": limit}
    if max_duration is not None:
        options["max_duration"] = max_duration

    async def work() -> SweepResult:
        async with runtime:
            check_workflows(runtime)
            return await runtime.sweep(
                max_recovered=max_recovered,
                max_scheduled=max_scheduled,
                max_timers=max_timers,
                max_queued=max_queued,
                **options,
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
