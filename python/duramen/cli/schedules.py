"""`duramen schedules …`: look at schedules and change them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from duramen.errors import InvalidArgument

from . import listing
from .listing import Column
from .options import AsJson, Store, open_store, perform
from .output import harmless, one_line, print_json, stdout, words
from .times import ago

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from duramen import Page, Runtime, ScheduleView

__all__ = ["app"]

app = typer.Typer(
    help="Look at schedules and change them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ScheduleId = Annotated[
    str, typer.Argument(metavar="SCHEDULE", help="Id of the schedule.", show_default=False)
]

QUIET = "bright_black"


@app.command("list")
def list_schedules(
    store: Store,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1, max=1000)] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="Go on after a page, with the cursor it gave.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List schedules by their ids."""

    async def work() -> Page[ScheduleView]:
        async with open_store(store) as runtime:
            return await runtime.schedules.list(limit=limit, cursor=cursor)

    found = perform(work())
    if as_json:
        print_json({"schedules": list(found), "cursor": found.cursor})
    elif not len(found):
        stdout().print("there are no schedules here")
    else:
        console = stdout()
        for line in _lines(found.items, datetime.now(UTC), console.width):
            console.print(line, soft_wrap=True)
        if found.cursor:
            console.print(Text(f"more: --cursor {harmless(found.cursor)}", style=QUIET), soft_wrap=True)


def _lines(schedules: Sequence[ScheduleView], now: datetime, width: int) -> Iterator[Text]:
    return listing.lines(
        width,
        Column("schedule", [Text(harmless(each.id)) for each in schedules]),
        (
            Column("workflow", [Text(harmless(each.workflow)) for each in schedules], shrinks=True),
            Column("next", [Text(_next(each, now)) for each in schedules], needed=True),
            Column("last", [Text(ago(each.last_fire, now)) for each in schedules], right=True),
            Column("when", [Text(harmless(each.when)) for each in schedules], shrinks=True),
        ),
        Column("remarks", [_remark(each) for each in schedules]),
    )


def _next(schedule: ScheduleView, now: datetime) -> str:
    if schedule.paused:
        return "paused"
    return ago(schedule.next_fire, now) or "never"


def _remark(schedule: ScheduleView) -> Text:
    if schedule.error:
        return Text(one_line(schedule.error), "red")
    if schedule.waiting:
        return Text(f"{len(schedule.waiting)} waiting", "yellow")
    return Text(one_line(schedule.note or ""))


@app.command("show")
def show(schedule: ScheduleId, store: Store, as_json: AsJson = False) -> None:
    """Show a schedule: when it fires, what it has started, why it does not."""
    _change(store, lambda runtime: runtime.schedules.get(schedule), as_json=as_json)


@app.command("pause")
def pause(
    schedule: ScheduleId,
    store: Store,
    note: Annotated[str | None, typer.Option(help="Why, for people.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Let a schedule start nothing until it is resumed."""
    _change(store, lambda runtime: runtime.schedules.pause(schedule, note=note), as_json=as_json)


@app.command("resume")
def resume(
    schedule: ScheduleId,
    store: Store,
    catch_up: Annotated[
        str,
        typer.Option(help="What starts of that which came meanwhile: none, latest, or all of so many hours."),
    ] = "none",
    as_json: AsJson = False,
) -> None:
    """Let a paused schedule go on."""
    chosen: Any = catch_up
    if catch_up not in {"none", "latest"}:
        try:
            chosen = timedelta(hours=float(catch_up))
        except (ValueError, OverflowError):
            raise InvalidArgument(
                f"--catch-up {one_line(catch_up)}: give none, latest, or a number of hours"
            ) from None
    _change(store, lambda runtime: runtime.schedules.resume(schedule, catch_up=chosen), as_json=as_json)


@app.command("trigger")
def trigger(
    schedule: ScheduleId,
    store: Store,
    trigger_id: Annotated[
        str | None,
        typer.Option("--id", help="Id of the trigger: the same id counts once.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start a run of a schedule now; a process that works and knows the workflow does it."""

    async def work() -> str:
        async with open_store(store) as runtime:
            return (await runtime.schedules.trigger(schedule, trigger_id=trigger_id)).run_id

    run_id = perform(work())
    print_json({"run_id": run_id}) if as_json else stdout().print(words(run_id), soft_wrap=True)


@app.command("backfill")
def backfill(
    schedule: ScheduleId,
    store: Store,
    start: Annotated[str, typer.Argument(help="First instant, as 2026-01-31T09:00Z.", show_default=False)],
    end: Annotated[str, typer.Argument(help="Last instant.", show_default=False)],
    at_once: Annotated[
        bool, typer.Option("--at-once", help="Start them all at once, not one after the other.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start runs for fire times that have passed and started none."""
    first, last = _instant(start), _instant(end)

    async def work() -> list[str]:
        async with open_store(store) as runtime:
            return await runtime.schedules.backfill(
                schedule, first, last, overlap="allow" if at_once else "in_turn"
            )

    run_ids = perform(work())
    if as_json:
        print_json({"run_ids": run_ids})
        return
    for run_id in run_ids:
        stdout().print(words(run_id), soft_wrap=True)


@app.command("delete")
def delete(schedule: ScheduleId, store: Store) -> None:
    """Remove a schedule. Runs that it has started go on; what an application declares comes back with it."""

    async def work() -> None:
        async with open_store(store) as runtime:
            await runtime.schedules.delete(schedule)

    perform(work())


@app.command("preview")
def preview(
    schedule: ScheduleId,
    store: Store,
    count: Annotated[int, typer.Option("--count", "-n", help="How many.", min=1, max=10_000)] = 10,
    after: Annotated[str | None, typer.Option(help="Behind which instant.", show_default="now")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the next fire times of a schedule, in UTC."""
    begin = None if after is None else _instant(after)

    async def work() -> list[datetime]:
        async with open_store(store) as runtime:
            return await runtime.schedules.preview(schedule, count, after=begin)

    times = perform(work())
    if as_json:
        print_json(times)
        return
    for at in times:
        stdout().print(at.isoformat(), soft_wrap=True)


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArgument(f"{one_line(text)!r} is no instant: write it as 2026-01-31T09:00Z") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _change(store: str, call: Callable[[Runtime], Awaitable[ScheduleView]], *, as_json: bool) -> None:
    async def work() -> ScheduleView:
        async with open_store(store) as runtime:
            return await call(runtime)

    found = perform(work())
    print_json(found) if as_json else stdout().print(_card(found, datetime.now(UTC)))


def _card(schedule: ScheduleView, now: datetime) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style=QUIET, min_width=9)
    table.add_column(overflow="fold")

    def row(name: str, value: object, style: str = "") -> None:
        if value not in (None, "", (), 0, 0.0):
            table.add_row(name, words(str(value), style))

    def instant(at: datetime | None) -> str:
        return f"{at.isoformat()} ({ago(at, now)})" if at else ""

    row("schedule", schedule.id)
    row("workflow", schedule.workflow)
    row("when", schedule.when)
    row("overlap", schedule.overlap)
    row("catch up", schedule.catch_up)
    row("jitter", f"{schedule.jitter:g} s" if schedule.jitter else "")
    row("start", instant(schedule.start))
    row("end", instant(schedule.end))
    row("tags", ", ".join(schedule.tags))
    row("declared", "by an application" if schedule.declared else "no: it lives in the store alone")
    row("paused", (schedule.note or "yes") if schedule.paused else "")
    row("next", "" if schedule.paused else instant(schedule.next_fire) or "never")
    row("last", instant(schedule.last_fire))
    row("last run", schedule.last_run)
    row("running", ", ".join(schedule.running))
    row("waiting", ", ".join(at.isoformat() for at in schedule.waiting))
    row("started", schedule.fired)
    row("skipped", schedule.skipped)
    row("error", schedule.error, "red")
    row("failures", schedule.failures)
    return table
