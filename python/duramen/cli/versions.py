"""`duramen versions` and `duramen check`: what open runs need of the code, before a deploy and after it."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from . import listing
from .exits import Exit
from .listing import Column
from .options import AsJson, open_store, perform
from .output import complain, harmless, one_line, plain, print_json, reason, stdout
from .progress import counting
from .tables import QUIET, STATUS_STYLES
from .target import find_runtime
from .times import age
from .worker import Target  # noqa: TC001 - typer reads the hint

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from duramen import CheckReport, PatchReport, PatchView, RunProblem, Runtime, VersionView

__all__ = ["check", "versions"]

Place = Annotated[
    str,
    typer.Argument(
        metavar="URL|MODULE:RUNTIME",
        envvar="DURAMEN_URL",
        help="A store, or an application's Runtime (app.main:runtime), whose code is looked at, too.",
        show_default=False,
    ),
]
Workflow = Annotated[str | None, typer.Option(help="Only runs of this workflow.", show_default=False)]


def versions(
    place: Place,
    patches: Annotated[
        bool, typer.Option("--patches", help="Say of each ctx.patched(…) which runs follow which branch.")
    ] = False,
    workflow: Workflow = None,
    limit: Annotated[
        int | None,
        typer.Option(help="With --patches: only the newest so many runs.", min=1, show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which versions of workflows open runs still need, and who serves them.

    With a store's URL a version is served if a process that is alive has it; with an application's runtime,
    if the application has it. Exit code 1: runs that have not ended need a version that is not served so.

    With --patches, the journals of all open runs are read; without the application's code no more is known
    than which runs have the mark of a patch.
    """
    of_store = "://" in place
    if patches:
        _patches(place, workflow, limit, as_json=as_json)
        return

    async def work() -> list[VersionView]:
        async with _open(place) as runtime:
            return [one for one in await runtime.versions() if workflow in {None, one.workflow}]

    found = perform(work())
    unserved = [one for one in found if one.runs and not (one.served if of_store else one.registered)]
    if as_json:
        print_json([_plain(one) for one in found])
    elif found:
        console = stdout()
        for line in _versions_list(found, datetime.now(UTC), console.width, of_store=of_store):
            console.print(line, soft_wrap=True)
    else:
        stdout().print("no run is open here")
    if unserved:
        runs = sum(one.runs for one in unserved)
        who = "no process that is alive" if of_store else "nothing in this application"
        complain(f"{runs} open runs need versions that {who} serves: {_names(unserved)}")
        raise typer.Exit(Exit.FAILED)


def check(
    target: Target,
    workflow: Workflow = None,
    version: Annotated[
        str | None, typer.Option(help="Only runs of this version.", show_default=False)
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(help="Only about so many runs, of all versions and ages.", min=1, show_default=False),
    ] = None,
    parallel: Annotated[int, typer.Option(help="Journals in memory at a time.", min=1, max=64)] = 4,
    patience: Annotated[
        float, typer.Option(help="Seconds that the replay of one run may take.", min=0)
    ] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Replay the open runs of the application's store under its code, before it is deployed.

    Nothing is claimed, written or executed, and workers may go on meanwhile. Exit code 1: runs would be stuck
    or fail, or their code is missing. Runs that are stuck already do not count.
    """

    async def work() -> CheckReport:
        async with _open(target) as runtime:
            with counting() as show:
                return await runtime.check(
                    workflow,
                    version=version,
                    sample=sample,
                    parallel=parallel,
                    patience=patience,
                    progress=show,
                )

    report = perform(work())
    if as_json:
        print_json({**plain(report), "ok": report.ok, "complete": report.complete})
    else:
        console = stdout()
        for line in _check_list(report, datetime.now(UTC), console.width):
            console.print(line, soft_wrap=True)
    if not report.ok:
        raise typer.Exit(Exit.FAILED)


@asynccontextmanager
async def _open(place: str) -> AsyncGenerator[Runtime]:
    """A store without code, or an application's runtime that only looks."""
    if "://" in place:
        async with open_store(place) as runtime:
            yield runtime
        return
    runtime = find_runtime(place)
    # What cannot be loaded is said below, in a line; an application that logs has it with its traceback, too.
    logging.getLogger("duramen").addHandler(logging.NullHandler())
    await runtime.open(only_look=True)
    try:
        for path, error in runtime.broken.items():
            complain(f"{path} cannot be loaded: {reason(error)}")
        yield runtime
    finally:
        await runtime.close()


def _patches(place: str, workflow: str | None, limit: int | None, *, as_json: bool) -> None:
    async def work() -> PatchReport:
        async with _open(place) as runtime:
            with counting() as show:
                return await runtime.patches(workflow, limit=limit, progress=show)

    report = perform(work())
    if as_json:
        found = [{**plain(one), "retirable": one.retirable} for one in report.patches]
        print_json({**plain(report), "patches": found, "complete": report.complete})
        return
    console = stdout()
    for line in _patches_list(report, datetime.now(UTC), console.width):
        console.print(line, soft_wrap=True)


# -- for people and for programs


def _plain(one: VersionView) -> dict[str, Any]:
    return {**plain(one), "runs": one.runs, "served": one.served, "removable": one.removable}


def _names(found: Sequence[VersionView]) -> str:
    named = [f"{one.workflow} {one.version}" for one in found]
    return ", ".join(named[:10]) + (f" and {len(named) - 10} more" if len(named) > 10 else "")


def _versions_list(
    found: Sequence[VersionView], now: datetime, width: int, *, of_store: bool
) -> Iterator[Text]:
    def numbers(status: str) -> Column:
        cells = [Text(str(one.counts.get(status) or ""), STATUS_STYLES.get(status, "")) for one in found]
        return Column(status, cells, right=True, needed=True)

    yield from listing.lines(
        width,
        Column("workflow", [Text(harmless(f"{one.workflow} {one.version}")) for one in found]),
        (
            *map(numbers, ("queued", "running", "waiting", "stuck")),
            Column("oldest", [_oldest(one, now) for one in found]),
            Column(
                "workers", [Text(str(len(one.workers)) if one.workers else "") for one in found], right=True
            ),
        ),
        Column("", [_verdict(one, of_store=of_store) for one in found]),
    )


def _oldest(one: VersionView, now: datetime) -> Text:
    known = sorted(one.oldest.values(), key=lambda run: run.created_at)
    return Text(f"{age(known[0].created_at, now)}: {harmless(known[0].run_id)}" if known else "", QUIET)


def _verdict(one: VersionView, *, of_store: bool) -> Text:
    if one.newer:
        return Text(f"{one.newer} need a newer duramen", "red")
    if of_store:
        return Text("" if one.served or not one.runs else "no live process serves it", "red")
    if not one.registered:
        return Text("not in this application", "red")
    if one.current:
        return Text("new runs get it", QUIET)
    return Text("no open run needs it: it can go", "green") if one.removable else Text("still needed")


def _check_list(report: CheckReport, now: datetime, width: int) -> Iterator[Text]:
    part = "" if report.complete else f" of {report.total}"
    yield Text(f"{report.checked}{part} open runs checked, {report.fits} fit this code")
    if report.problems:
        yield Text("")
        yield from _problems(report.problems, now, width)
        yield Text("")
    told = ", ".join(f"{count} {_KINDS[kind]}" for kind, count in report.counts.items())
    if told:
        yield Text(told, "" if report.ok else "red")
    if hidden := sum(report.counts.values()) - len(report.problems):
        yield Text(f"{hidden} more are not shown", QUIET)
    if report.stuck_before:
        yield Text(f"{report.stuck_before} of these are stuck already", QUIET)
    if report.mended:
        yield Text(f"{report.mended} stuck runs fit this code: once it is deployed, retry them", "green")


_KINDS = {
    "stuck": "would be stuck",
    "unreadable": "would not be read",
    "no_code": "have no code here",
    "newer": "need a newer duramen",
    "fails": "would fail",
    "hangs": "would hang",
}


def _problems(problems: Sequence[RunProblem], now: datetime, width: int) -> Iterator[Text]:
    return listing.lines(
        width,
        Column("run", [Text(harmless(one.run_id)) for one in problems]),
        (
            Column("workflow", [Text(harmless(f"{one.workflow} {one.version}")) for one in problems]),
            Column("status", [Text(one.status, STATUS_STYLES[one.status]) for one in problems], needed=True),
            Column("created", [Text(age(one.created_at, now)) for one in problems], right=True),
            Column("problem", [Text(one.kind, "red") for one in problems], needed=True),
        ),
        Column("why", [Text(one_line(one.reason, 2000)) for one in problems]),
    )


def _patches_list(report: PatchReport, now: datetime, width: int) -> Iterator[Text]:
    found = report.patches

    def numbers(title: str, counts: Sequence[int]) -> Column:
        return Column(title, [Text(str(count) if count else "") for count in counts], right=True, needed=True)

    if found:
        yield from listing.lines(
            width,
            Column("patch", [Text(harmless(one.patch)) for one in found]),
            (
                Column("workflow", [Text(harmless(f"{one.workflow} {one.version}")) for one in found]),
                numbers("marked", [one.marked for one in found]),
                numbers("older branch", [one.older for one in found]),
                numbers("ahead", [one.ahead for one in found]),
                numbers("unknown", [one.unknown for one in found]),
            ),
            Column("", [_advice(one, now, complete=report.complete) for one in found]),
        )
    else:
        yield Text("no open run has the mark of a patch, or is asked about one")
    if not report.complete:
        yield Text(f"{report.checked} of {report.total} open runs were looked at", QUIET)
    for kind, count in report.problems.items():
        yield Text(f"{count} could not be replayed: they {_KINDS[kind]}", "red")


def _advice(one: PatchView, now: datetime, *, complete: bool) -> Text:
    if one.oldest is not None:
        return Text(f"oldest {age(one.oldest.created_at, now)}: {harmless(one.oldest.run_id)}", QUIET)
    if one.unknown:
        return Text("give MODULE:RUNTIME to tell", QUIET)
    return Text("question and older branch can go", "green") if complete else Text("")
