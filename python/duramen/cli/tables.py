"""Runs and workers as tables."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

from .output import plain
from .times import ago, span

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from duramen import RunView, WorkerView

__all__ = ["STATUS_STYLES", "run_card", "runs_table", "status_text", "workers_table"]

STATUS_STYLES = {
    "queued": "bright_black",
    "running": "cyan",
    "waiting": "yellow",
    "completed": "green",
    "failed": "red",
    "cancelled": "magenta",
    "terminated": "magenta",
    "stuck": "bold red",
}


def status_text(status: str) -> Text:
    """A status in its colour."""
    return Text(status, style=STATUS_STYLES.get(status, ""))


def runs_table(runs: Iterable[RunView], now: datetime) -> Table:
    """One line for each run."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("workflow", overflow="fold")
    table.add_column("status")
    table.add_column("created", justify="right")
    table.add_column("took", justify="right")
    table.add_column("waits for", overflow="fold")
    for run in runs:
        table.add_row(
            Text(run.run_id),
            Text(f"{run.workflow} {run.version}"),
            status_text(run.status),
            ago(run.created_at, now),
            _took(run, now),
            Text(_expects(run, now)),
        )
    return table


def _took(run: RunView, now: datetime) -> str:
    if run.started_at is None:
        return ""
    return span(((run.finished_at or now) - run.started_at).total_seconds())


def _expects(run: RunView, now: datetime) -> str:
    if run.status == "stuck":
        return run.note or ""
    if run.status == "running":
        return f"({run.owner})"
    if run.finished:
        return ""
    due = f"due {ago(run.ready_at, now)}" if run.ready_at else ""
    return ", ".join([*run.waits, *([due] if due else [])])


def run_card(run: RunView, now: datetime) -> Table:
    """All there is to know about one run but its journal."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bright_black")
    table.add_column(overflow="fold")

    def row(name: str, value: Any) -> None:
        if value not in (None, "", ()):
            table.add_row(name, value if isinstance(value, Text) else Text(str(value)))

    row("run", run.run_id)
    row("workflow", f"{run.workflow}, version {run.version}")
    row("status", status_text(run.status))
    row("waits for", _expects(run, now))
    row("note", run.note)
    row("tags", ", ".join(run.tags))
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
    row("journal", f"{least}{run.journal_len} entries, epoch {run.epoch}")
    row("unread", f"{run.unread} messages" if run.unread else "")
    for name, value in (
        ("input", run.input),
        ("state", run.state),
        ("memo", run.memo),
        ("output", run.output),
    ):
        if value is not None:
            row(name, json.dumps(plain(value), ensure_ascii=False))
    if run.error is not None:
        row("error", Text(str(run.error), style="red"))
        row("", run.error.traceback.rstrip())
    row("reason", run.reason)
    for refused in run.refused:
        row("refused", f"{refused.kind} {refused.name} ({refused.signal_id}): {refused.reason}")
    return table


def workers_table(workers: Iterable[WorkerView], now: datetime) -> Table:
    """One line for each process that drives runs."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("process", overflow="fold")
    table.add_column("owner", overflow="fold")
    table.add_column("state")
    table.add_column("since", justify="right")
    table.add_column("last sign", justify="right")
    table.add_column("runs", justify="right")
    table.add_column("serves", overflow="fold")
    for worker in workers:
        table.add_row(
            Text(worker.label or ""),
            Text(worker.owner),
            _state(worker, now),
            ago(worker.started_at, now),
            ago(worker.seen_at, now),
            str(worker.runs),
            Text(", ".join(worker.serves)),
        )
    return table


def _state(worker: WorkerView, now: datetime) -> Text:
    if worker.ended_at is not None:
        return Text(f"ended {ago(worker.ended_at, now)}", style="bright_black")
    left = span(max(0.0, (worker.lease_until - now).total_seconds()))
    return Text(f"lease {left}", style="green") if worker.alive else Text("no sign of life", style="red")
