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
from duramen.errors import InvalidArgument, InvalidId, UnknownRun

from . import tables, timeline
from .exits import Exit
from .options import AsJson, RunId, Store, open_store, perform
from .output import complain, harmless, plain, print_json, stdout, to_json, write_file
from .times import ago, span

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["app"]

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
    unread_by_lists = {"input", "output", "error", "reason", "state", "memo", "refused", "detailed"}
    return {name: value for name, value in plain(run).items() if name not in unread_by_lists}


@app.command("show")
def show(run: RunId, store: Store, as_json: AsJson = False) -> None:
    """Show a run with its input and how it ended."""

    async def work() -> tuple[RunView, list[Event]]:
        async with open_store(store) as runtime:
            view = await runtime.get(run)
            # The questions that people are asked stand in the journal.
            return view, await runtime.timeline(run) if view.waiting_approvals else []

    found, journal = perform(work())
    if as_json:
        print_json(found)
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
def retry(run: RunId, store: Store, as_json: AsJson = False) -> None:
    """Let a failed, cancelled, terminated or stuck run go on; a worker takes it."""

    async def work(runtime: Runtime) -> Any:
        return await runtime.retry(run, drive=False)

    _intervene(run, store, work, "queued again", as_json=as_json)


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
