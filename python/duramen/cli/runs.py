"""`duramen runs …`: look at runs and intervene."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path  # noqa: TC003 - typer reads the hint
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from duramen import Event, Page, RunStatus, Runtime, RunView, SignalResult
from duramen.errors import InvalidArgument, InvalidId, StoreLocked, UnknownRun

from . import tables, timeline
from .exits import Exit
from .options import AsJson, RunId, Store, open_store, perform
from .output import complain, harmless, plain, print_json, stdout, to_json, write_file
from .progress import counting
from .times import ago, span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["app"]

AROUND = 3
"""So many entries are shown before the place where code and journal part."""

MOST_REASONS = 20
"""So many reasons are said of why a run cannot be retried."""

app = typer.Typer(
    help="Look at runs and intervene.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list")
def list_runs(
    store: Store,
    workflow: Annotated[str | None, typer.Option(help="Only of this workflow.", show_default=False)] = None,
    version: Annotated[str | None, typer.Option(help="Only of this version.", show_default=False)] = None,
    status: Annotated[
        list[RunStatus] | None, typer.Option(help="Only in this status; may be repeated.", show_default=False)
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.", show_default=False)] = None,
    waiting_for: Annotated[
        str | None,
        typer.Option(help="Only waiting for this: an event's name, timer, approval:ID.", show_default=False),
    ] = None,
    parent: Annotated[
        str | None, typer.Option(help="Only those that this run has started.", show_default=False)
    ] = None,
    root: Annotated[
        str | None, typer.Option(help="Only the family that this run began.", show_default=False)
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Only with ids that begin so.", show_default=False)
    ] = None,
    since: Annotated[
        float | None, typer.Option(help="Only created in the last so many hours.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=1000)] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="Go on after a page, with the cursor it gave.", show_default=False)
    ] = None,
    count: Annotated[bool, typer.Option("--count", help="Only say how many there are.")] = False,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    filters: dict[str, Any] = {
        "workflow": workflow,
        "version": version,
        "status": [each.value for each in status] if status else None,
        "tag": tag,
        "waiting_for": waiting_for,
        "parent": parent,
        "root": root,
        "id_prefix": prefix,
        "created_after": _hours_ago(since),
    }

    async def work() -> tuple[int | Page[RunView], dict[str, str]]:
        async with open_store(store) as runtime:
            if count:
                return await runtime.count(**filters), {}
            page = await runtime.list(**filters, limit=limit, cursor=cursor)
            return page, await _why_ended(runtime, page)

    found, ends = perform(work())
    if isinstance(found, int):
        print_json({"count": found}) if as_json else stdout().print(str(found))
    elif as_json:
        runs = [{**summary(run), "why": ends.get(run.run_id)} for run in found]
        print_json({"runs": runs, "cursor": found.cursor})
    else:
        console = stdout()
        for line in tables.runs_list(found.items, ends, datetime.now(UTC), console.width):
            console.print(line, soft_wrap=True)
        if found.cursor:
            console.print(Text(f"more: --cursor {found.cursor}", style="bright_black"), soft_wrap=True)


async def _why_ended(runtime: Runtime, page: Page[RunView]) -> dict[str, str]:
    """Why those runs of a page failed, were cancelled or terminated: lists do not have that."""
    ends: dict[str, str] = {}
    unhappy = [run.run_id for run in page if run.finished and run.status != "completed"]
    # In parts: what is read has the inputs in it, too.
    for start in range(0, len(unhappy), 50):
        for run in await runtime.get_many(unhappy[start : start + 50]):
            if run is not None and (run.error or run.reason):
                ends[run.run_id] = str(run.error or run.reason)
    return ends


def _hours_ago(hours: float | None) -> datetime | None:
    if hours is None:
        return None
    try:
        return datetime.now(UTC) - timedelta(hours=hours)
    except (OverflowError, ValueError):
        raise InvalidArgument(f"--since {hours}: give a number of hours, such as 24") from None


def summary(run: RunView) -> dict[str, Any]:
    """What a list knows of a run."""
    of_get = {"input", "output", "error", "reason", "state", "memo", "refused", "children", "detailed"}
    return {name: value for name, value in plain(run).items() if name not in of_get}


@app.command("show")
def show(run: RunId, store: Store, as_json: AsJson = False) -> None:
    """Show a run with its input and how it ended."""

    async def work() -> tuple[RunView, list[Event]]:
        async with open_store(store) as runtime:
            view = await runtime.get(run)
            if view.difference is not None:
                first = max(0, view.difference.index - AROUND)
                return view, await runtime.timeline(run, from_index=first, limit=2 * AROUND)
            # The questions that people are asked stand in the journal.
            return view, await runtime.timeline(run) if view.waiting_approvals else []

    found, journal = perform(work())
    if as_json:
        print_json({**plain(found), "difference": plain(found.difference)})
    else:
        stdout().print(tables.run_card(found, journal, datetime.now(UTC)))


@app.command("timeline")
def show_timeline(run: RunId, store: Store, as_json: AsJson = False) -> None:
    """Draw a run's journal as bars, or print its entries (--json)."""

    async def work() -> tuple[RunView, list[Event]]:
        async with open_store(store) as runtime:
            return await runtime.get(run), await runtime.timeline(run)

    view, journal = perform(work())
    if as_json:
        print_json(journal)
    else:
        console = stdout()
        console.print(picture(view, journal, datetime.now(UTC), console.width))


def picture(run: RunView, journal: list[Event], now: datetime, width: int) -> RenderableType:
    """A run's line and its bars."""
    head = Text.assemble(
        (harmless(run.run_id), "bold"),
        harmless(f"  {run.workflow} {run.version}  "),
        tables.status_text(run.status),
        (f"  created {ago(run.created_at, now)}", "bright_black"),
    )
    if run.finished_at and run.started_at:
        took = span((run.finished_at - run.started_at).total_seconds())
        head.append(f", took {took}", style="bright_black")
    return Group(head, timeline.draw(journal, now, width=width))


@app.command("export")
def export(
    run: RunId,
    store: Store,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it to this file.", show_default=False)
    ] = None,
) -> None:
    """Print a run with its whole journal as JSON, for `duramen.testing.replay`."""

    async def work() -> Any:
        async with open_store(store) as runtime:
            return await runtime.export(run)

    found = perform(work())
    if output is None:
        print_json(found)
    else:
        write_file(output, to_json(found, indent=1) + "\n", "ascii")


@app.command("watch")
def watch(
    run: RunId,
    store: Store,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each journal entry as a line of JSON.")
    ] = False,
) -> None:
    """Follow a run until it ends; the exit code says how."""
    status = perform(_watch(run, store, as_json=as_json))
    raise typer.Exit(Exit.OK if status == "completed" else Exit.FAILED)


async def _watch(run_id: str, store: str, *, as_json: bool) -> str:
    async with open_store(store) as runtime:
        view = await runtime.get(run_id)
        if as_json:
            async for event in runtime.events(run_id, follow=True):
                print_json(event, compact=True)
            return (await runtime.get(run_id)).status
        console = stdout()
        journal: list[Event] = []
        with Live(console=console, auto_refresh=False) as live:
            while True:
                view = await runtime.get(run_id)
                index = 0 if not journal else (journal[-1].index or 0) + 1
                more = await runtime.timeline(run_id, from_index=index)
                if more and journal and more[0].index != index:
                    journal = []  # a new generation: what stood before is gone
                journal += more
                live.update(picture(view, journal, datetime.now(UTC), console.width), refresh=True)
                if view.finished or view.status == "stuck":
                    return view.status
                await asyncio.sleep(0.25)


@app.command("stream")
def stream(
    run: RunId,
    name: Annotated[str, typer.Argument(help="Which of its streams.", show_default=False)],
    store: Store,
    from_seq: Annotated[int, typer.Option("--from-seq", help="Begin with this item.", min=0)] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run has ended.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each item with its number, its place and its writer.")
    ] = False,
) -> None:
    """Print the items of one of a run's streams, one a line."""

    async def work() -> None:
        async with open_store(store) as runtime:
            async for item in runtime.stream(run, name, from_seq=from_seq, follow=follow):
                print_json(item if as_json else item.value, compact=True)

    perform(work())


# -- intervening


@app.command("cancel")
def cancel(
    run: RunId,
    store: Store,
    reason: Annotated[str, typer.Option(help="Why; the handler and the run's record get it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Ask a run to end: its handler is cancelled and may clean up."""

    async def work(runtime: Runtime) -> Any:
        result = await runtime.cancel(run, reason)
        if result is SignalResult.NOT_FOUND:
            raise UnknownRun(run)
        return result is not SignalResult.FINISHED

    _intervene(run, store, work, "cancellation requested", as_json=as_json)


@app.command("terminate")
def terminate(
    run: RunId,
    store: Store,
    reason: Annotated[str, typer.Option(help="Why; the run's record gets it.")] = "",
    as_json: AsJson = False,
) -> None:
    """End a run at once, without any clean-up."""
    _intervene(run, store, lambda runtime: runtime.terminate(run, reason), "terminated", as_json=as_json)


@app.command("retry")
def retry(
    store: Store,
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="Id of the run.", show_default=False)
    ] = None,
    version: Annotated[
        str | None,
        typer.Option(
            help="Go on with this version of the workflow; a waiting run may, too.", show_default=False
        ),
    ] = None,
    status: Annotated[
        list[RunStatus] | None,
        typer.Option(help="Instead of one: all in this status; may be repeated.", show_default=False),
    ] = None,
    workflow: Annotated[
        str | None, typer.Option(help="Of these, only of this workflow.", show_default=False)
    ] = None,
    from_version: Annotated[
        str | None, typer.Option(help="Of these, only of this version.", show_default=False)
    ] = None,
    tag: Annotated[str | None, typer.Option(help="Of these, only with this tag.", show_default=False)] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Of these, only with ids that begin so.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Of these, only the newest so many.", min=1, show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let failed, cancelled, terminated or stuck runs go on; a worker takes them.

    One run by its id, or with --status all that are in it. Exit code 1: some could not be retried.
    """
    if (run is None) == (not status):
        raise typer.BadParameter("give the id of a run, or --status for all that are in it")
    if run is None:
        filters: dict[str, Any] = {
            "status": [each.value for each in status or ()],
            "workflow": workflow,
            "version": from_version,
            "tag": tag,
            "id_prefix": prefix,
        }
        _retry_all(store, filters, version, limit, as_json=as_json)
        return
    if any((workflow, from_version, tag, prefix, limit)):
        raise typer.BadParameter("--workflow, --from-version, --tag, --prefix and --limit go with --status")

    async def work(runtime: Runtime) -> Any:
        await runtime.retry(run, version=version, drive=False)
        await _tell_unserved(runtime, [run])

    _intervene(run, store, work, "queued again", as_json=as_json)


def _retry_all(
    store: str, filters: dict[str, Any], version: str | None, limit: int | None, *, as_json: bool
) -> None:
    async def work() -> tuple[int, dict[str, str]]:
        async with open_store(store) as runtime:
            with counting() as show:
                return await _retried(runtime, filters, version, limit, show)

    done, refused = perform(work())
    if as_json:
        print_json({"done": done, "why_not": refused})
    else:
        stdout().print(f"queued again: {done} runs")
        for why in list(refused.values())[:MOST_REASONS]:
            complain(why)
        if len(refused) > MOST_REASONS:
            complain(f"{len(refused) - MOST_REASONS} more could not be retried")
    if refused:
        raise typer.Exit(Exit.FAILED)


async def _retried(
    runtime: Runtime,
    filters: dict[str, Any],
    version: str | None,
    limit: int | None,
    show: Callable[[int, int], None],
) -> tuple[int, dict[str, str]]:
    """Retry all runs of a filter, page by page: how many, and why others could not be."""
    total = await runtime.count(**filters)
    total = total if limit is None else min(limit, total)
    done, refused = 0, dict[str, str]()
    cursor: str | None = None
    last: list[str] = []

    async def one(run_id: str) -> str | None:
        try:
            await runtime.retry(run_id, version=version, drive=False)
        except (InvalidArgument, UnknownRun, StoreLocked) as error:
            return str(error)
        return None

    while (left := total - done - len(refused)) > 0:
        page = await runtime.list(**filters, limit=min(100, left), cursor=cursor)
        last = [run.run_id for run in page] or last
        for run, why in zip(page, await asyncio.gather(*(one(run.run_id) for run in page)), strict=True):
            if why is None:
                done += 1
            else:
                refused[run.run_id] = why
        show(done + len(refused), total)
        cursor = page.cursor
        if cursor is None:
            break
    await _tell_unserved(runtime, last[:1])
    return done, refused


async def _tell_unserved(runtime: Runtime, run_ids: list[str]) -> None:
    """Say so if nobody is there who would go on with a run that was retried."""
    for run in await runtime.get_many(run_ids):
        if run is None or run.finished:
            continue
        name = f"{run.workflow} {run.version}"
        if not any(worker.alive and name in worker.serves for worker in await runtime.workers()):
            complain(f"no process that is alive serves {name}: it waits for one")


@app.command("delete")
def delete(
    run: RunId,
    store: Store,
    force: Annotated[bool, typer.Option("--force", help="Also if it has not ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete a run and its journal. This cannot be undone."""
    _intervene(run, store, lambda runtime: runtime.delete(run, force=force), "deleted", as_json=as_json)


def _intervene(
    run: str, store: str, action: Callable[[Runtime], Awaitable[Any]], said: str, *, as_json: bool
) -> None:
    async def work() -> str | None:
        async with open_store(store) as runtime:
            try:
                done = await action(runtime)
            except InvalidId:
                raise
            except InvalidArgument as error:
                # The run is not in a state for this.
                return str(error)
            if done is False:
                return f"run {run!r} is {(await runtime.get(run)).status}: there is nothing to do"
            return None

    objection = perform(work())
    if as_json:
        print_json({"run_id": run, "done": objection is None, "why_not": objection})
    elif objection is None:
        stdout().print(f"{said}: {run}", soft_wrap=True)
    else:
        complain(objection)
    if objection is not None:
        raise typer.Exit(Exit.FAILED)
