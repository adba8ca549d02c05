"""Runs and workers for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from rich.console import Group
from rich.table import Table
from rich.text import Text

from . import listing
from .listing import Column
from .output import harmless, one_line, plain, words
from .times import age, ago, span

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from duramen import Event, RecordedError, RunView, WorkerView

__all__ = ["QUIET", "STATUS_STYLES", "run_card", "runs_list", "status_text", "workers_list"]

STATUS_STYLES = {
    "queued": "bright_black",
    "running": "cyan",
    "waiting": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
    "terminated": "magenta",
    "stuck": "bold red",
    "paused": "bold yellow",
}

QUIET = "bright_black"

NAMES = 9
"""Columns of the names in a card."""

MOST_CAUSES, MOST_MEMBERS = 20, 20
"""So much of a chain of causes, and of an exception group, is shown."""


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STATUS_STYLES.get(status, ""))


def runs_list(runs: Sequence[RunView], ends: Mapping[str, str], now: datetime, width: int) -> Iterator[Text]:
    """One line for each run, or two.

    Args:
        runs: what a list gave.
        ends: by run id, why a run ended as it did, if that is known.
        now: ages are measured from it.
        width: columns of the terminal.
    """
    return listing.lines(
        width,
        Column("run", [Text(harmless(run.run_id)) for run in runs]),
        (
            Column(
                "workflow", [Text(harmless(f"{run.workflow} {run.version}")) for run in runs], shrinks=True
            ),
            Column("status", [status_text(run.status) for run in runs], needed=True),
            Column("created", [Text(age(run.created_at, now)) for run in runs], right=True, needed=True),
            Column("took", [Text(_took(run, now)) for run in runs], right=True),
        ),
        Column("waits for, or why it ended", [_remark(run, ends, now) for run in runs]),
    )


def _remark(run: RunView, ends: Mapping[str, str], now: datetime) -> Text:
    if run.status in {"stuck", "failed", "paused"}:
        return Text(one_line(ends.get(run.run_id) or run.note or ""), STATUS_STYLES[run.status])
    return Text(one_line(ends.get(run.run_id) or _expects(run, now)))


def _took(run: RunView, now: datetime) -> str:
    if run.started_at is None:
        return ""
    return span(((run.finished_at or now) - run.started_at).total_seconds())


def _expects(run: RunView, now: datetime) -> str:
    """What a run that has not ended waits for."""
    if run.status == "running":
        return f"({run.owner})"
    if run.finished or run.status in {"stuck", "paused"}:
        return ""
    due = f"due {ago(run.ready_at, now)}" if run.ready_at else ""
    return ", ".join([*run.waits, *([due] if due else [])])


def run_card(run: RunView, journal: Sequence[Event], now: datetime) -> Group:
    """All there is to know about one run but its journal.

    Args:
        run: as `Runtime.get` gave it.
        journal: its entries, if it waits for approvals, which stand there; of a stuck run those around
            the place where it and the code part.
        now: ages are measured from it.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style=QUIET, min_width=NAMES)
    table.add_column(overflow="fold")

    def row(name: str, value: Any, style: str = "") -> None:
        if value not in (None, "", ()):
            table.add_row(name, value if isinstance(value, Text) else words(str(value), style))

    row("workflow", f"{run.workflow}, version {run.version}")
    row("status", status_text(run.status))
    row("waits for", _expects(run, now))
    for question in _questions(run, journal):
        row("approval", question)
    difference = run.difference
    if difference is None:
        row("note", run.note)
    else:
        row("note", f"{(run.note or '').partition(': ')[0]}, under version {difference.version}")
        row("expected", difference.expected)
        row("found", difference.found, "red")
        row("to do", difference.advice)
        for entry in journal:
            mark = ">" if entry.index == difference.index else " "
            name = "around it" if entry is journal[0] else " "
            row(name, f"{mark} {entry.index:>4}  {entry.kind:<20} {entry.op}")
    row("tags", ", ".join(run.tags))
    row("parent", run.parent)
    row("root", run.root if run.root != run.parent else None)
    row("children", ", ".join(run.children))
    for name, at in (
        ("created", run.created_at),
        ("started", run.started_at),
        ("ended", run.finished_at),
        ("times out", run.deadline),
    ):
        if at is not None:
            row(name, f"{at:%Y-%m-%d %H:%M:%S} UTC, {ago(at, now)}")
    row("took", _took(run, now))
    row("driven by", run.owner)
    # The row of a running run tells what its journal had when it was taken up; it has grown since.
    least = "at least " if run.status == "running" else ""
    entries = run.journal_len - run.journal_start
    anew = f", generation {run.generation}" if run.generation else ""
    row("journal", f"{least}{entries} entries, epoch {run.epoch}{anew}")
    row("unread", f"{run.unread} messages" if run.unread else "")
    for name, value in (
        ("input", run.input),
        ("state", run.state),
        ("memo", run.memo),
        ("output", run.output),
    ):
        if value is not None:
            row(name, _payload(value))
    if run.error is not None:
        table.add_row("error", _error(run.error))
    row("reason", run.reason)
    for refused in run.refused:
        row("refused", f"{refused.kind} {refused.name} ({refused.signal_id}): {refused.reason}")
    # Outside of the table: an id is never broken, it can be copied as it stands.
    return Group(
        Text.assemble(("run".ljust(NAMES + 2), QUIET), harmless(run.run_id), overflow="ignore", no_wrap=True),
        table,
    )


def _payload(value: Any) -> str:
    try:
        return json.dumps(plain(value), ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply to be shown)"


def _questions(run: RunView, journal: Sequence[Event]) -> Iterator[str]:
    """What the approvals ask that a run waits for."""
    for entry in journal:
        if entry.kind != "approval_requested" or entry.op not in run.waiting_approvals:
            continue
        data: object = entry.data
        asked = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
        assignees = cast("Sequence[Any]", asked.get("assignees") or ())
        parts = [f"{entry.op}: {asked.get('title', '')}", str(asked.get("description") or "")]
        parts.append(f"for {', '.join(map(str, assignees))}" if assignees else "")
        yield "\n".join(part for part in parts if part)


def _error(error: RecordedError) -> Text:
    """An error with its traceback, its causes and the members of a group, each set in."""
    text = Text()

    def add(at: RecordedError, role: str, depth: int) -> None:
        inset = "  " * depth
        if text.plain:
            text.append("\n")
        text.append(inset + role, QUIET)
        text.append(harmless(str(at), lines=True).replace("\n", f"\n{inset}"), "red")
        for more in (*at.notes, at.traceback.rstrip()):
            if more:
                text.append("\n" + inset + harmless(more, lines=True).replace("\n", f"\n{inset}"))
        if depth >= MOST_CAUSES:
            return
        for number, member in enumerate(at.exceptions[:MOST_MEMBERS], start=1):
            add(member, f"{number} of {len(at.exceptions)}: ", depth + 1)
        if at.cause is not None:
            add(at.cause, "from ", depth + 1)

    add(error, "", 0)
    return text


def workers_list(workers: Sequence[WorkerView], now: datetime, width: int) -> Iterator[Text]:
    """One line for each process that drives runs, or two."""
    return listing.lines(
        width,
        Column("owner", [Text(harmless(worker.owner)) for worker in workers]),
        (
            Column("process", [Text(harmless(worker.label or "")) for worker in workers]),
            Column("state", [_state(worker, now) for worker in workers], needed=True),
            Column("since", [Text(age(worker.started_at, now)) for worker in workers], right=True),
            Column("last sign", [Text(age(worker.seen_at, now)) for worker in workers], right=True),
            Column("runs", [Text(str(worker.runs)) for worker in workers], right=True, needed=True),
        ),
        Column("serves", [Text(one_line(", ".join(worker.serves))) for worker in workers]),
    )


def _state(worker: WorkerView, now: datetime) -> Text:
    if worker.ended_at is not None:
        return Text(f"ended {age(worker.ended_at, now)}", style=QUIET)
    left = span(max(0.0, (worker.lease_until - now).total_seconds()))
    return Text(f"lease {left}", style="green") if worker.alive else Text("no sign of life", style="red")
