"""What each figure is held against, and the table that says so.

The targets are for one machine with two cores whose client, engine and store share them. Where a target is
a ratio to what the machine allows, the bare limit measured in the same run is its other half: that ratio is
what counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

COMMIT = ("sqlite", "commit_ms_full_r1")
COMMITS = ("sqlite", "commits_per_s_full_r1")
ROWS = ("sqlite", "rows_per_s_full_r100")

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and its bound: absolute, or so many times a bare limit."""

    title: str
    workload: str
    metric: str
    bound: float
    """With `limit`: a factor of it; else the figure itself."""
    lower_is_better: bool
    limit: Key | None = None
    times: float = 1
    """How many of the limit the workload needs: two commits, say."""

    def aim(self, limit: float | None) -> float | None:
        """The figure to reach, given the bare limit beside it; None if that was not measured."""
        if self.limit is None:
            return self.bound
        return None if limit is None else self.bound * self.times * limit


SQLITE = [
    Target("W1 one step, c=1: p50 ms", "W1", "latency_p50_ms_c1", 1.6, True, COMMIT, 2),
    Target("W1 one step, c=64: runs/s", "W1", "runs_per_s_c64", 10_000, False),
    Target("W2 ten steps, c=1: ms a step", "W2", "ms_per_step_c1", 1.3, True, COMMIT),
    Target("W2 ten steps, c=64: steps/s", "W2", "steps_per_s_c64", 50_000, False),
    Target("W3 2,000 timers, 1 process: wakes/s", "W3", "wakes_per_s_1proc", 20_000, False),
    Target("W4 2,000 events: events/s", "W4", "events_per_s", 10_000, False),
    Target("W5 replay of 1,000 steps: steps/s", "W5", "replay_steps_per_s_1000", 1_000_000, False),
    Target("W5 replay of 5,000 steps: steps/s", "W5", "replay_steps_per_s_5000", 1_000_000, False),
    Target("W5 replay of 100,000 steps: steps/s", "W5", "replay_steps_per_s_100000", 1_000_000, False),
    Target("W6 200 parallel steps: ms", "W6", "fanout200_ms", 5, True),
    Target("W7 50,000 asleep: claim 25 due, ms", "W7", "claim25_ms", 1, True),
    Target("W7 1,000,000 asleep: claim 25 due, ms", "W7", "claim25_ms_1m", 1, True),
    Target("W8 starts, one at a time: starts/s", "W8", "starts_per_s_c1", 0.8, False, COMMITS),
    Target("W8 starts, 64 at a time: starts/s", "W8", "starts_per_s_c64", 25_000, False),
    Target("W8 starts in bulk: starts/s", "W8", "starts_per_s_bulk", 80_000, False),
    Target("10,000 runs in flight: MB over idle", "footprint", "rss_mb_in_flight_10000", 120, True),
    Target("idle worker: % of a core", "footprint", "idle_cpu_percent", 1, True),
    Target("idle worker: looks into the store a second", "footprint", "idle_claims_per_s", 2, True),
    Target("import on top of pydantic: ms", "footprint", "import_ms", 150, True),
]

PG_COMMIT = ("postgres", "insert1_ms_c1")
PG_COMMITS = ("postgres", "insert1_tx_per_s_c1")

POSTGRES = [
    Target("W1 one step, c=1: p50 ms", "W1", "latency_p50_ms_c1", 2, True, PG_COMMIT, 2),
    Target("W1 one step, c=64: runs/s", "W1", "runs_per_s_c64", 6_000, False),
    Target("W1 statements a run, c=1", "W1", "sql_statements_per_run_c1", 3, True),
    Target("W1 statements a run, c=64", "W1", "sql_statements_per_run_c64", 0.3, True),
    Target("W1 WAL bytes a run", "W1", "wal_bytes_per_run_c64", 1_800, True),
    Target("W2 WAL bytes a run", "W2", "wal_bytes_per_run_c64", 4_500, True),
    Target("W2 ten steps, c=1: ms a step", "W2", "ms_per_step_c1", 1.6, True, PG_COMMIT),
    Target("W2 ten steps, c=64: steps/s", "W2", "steps_per_s_c64", 25_000, False),
    Target("W3 2,000 timers, 1 process: wakes/s", "W3", "wakes_per_s_1proc", 8_000, False),
    Target("W3 2,000 timers, 2 processes: wakes/s", "W3", "wakes_per_s_2proc", 8_000, False),
    Target("W4 2,000 events: events/s", "W4", "events_per_s", 6_000, False),
    Target("W5 replay of 1,000 steps: steps/s", "W5", "replay_steps_per_s_1000", 800_000, False),
    Target("W5 replay of 5,000 steps: steps/s", "W5", "replay_steps_per_s_5000", 800_000, False),
    Target("W5 replay of 100,000 steps: steps/s", "W5", "replay_steps_per_s_100000", 800_000, False),
    Target("W6 200 parallel steps: ms", "W6", "fanout200_ms", 8, True),
    Target("W7 50,000 asleep: claim 25 due, ms", "W7", "claim25_ms", 1.5, True),
    Target("W7 1,000,000 asleep: claim 25 due, ms", "W7", "claim25_ms_1m", 1.5, True),
    Target("W8 starts, one at a time: starts/s", "W8", "starts_per_s_c1", 0.7, False, PG_COMMITS),
    Target("W8 starts, 64 at a time: starts/s", "W8", "starts_per_s_c64", 15_000, False),
    Target("W8 starts in bulk: starts/s", "W8", "starts_per_s_bulk", 50_000, False),
    Target("10,000 runs in flight: MB over idle", "footprint", "rss_mb_in_flight_10000", 120, True),
    Target("idle worker: % of a core", "footprint", "idle_cpu_percent", 1, True),
    Target("idle worker: statements a second", "footprint", "idle_statements_per_s", 2, True),
]

FURTHER = [
    ("W1", "latency_p99_ms_c1"),
    ("W1", "cpu_us_per_run_c64"),
    ("W1", "commits_per_run_c64"),
    ("W1", "batches_per_run_c64"),
    ("W2", "cpu_us_per_step_c64"),
    ("W2", "commits_per_run_c64"),
    ("W2", "batches_per_run_c64"),
    ("W1", "round_trips_per_run_c1"),
    ("W1", "wal_bytes_per_run_c1"),
    ("W2", "sql_statements_per_run_c64"),
    ("W3", "wakes_per_s_2proc"),
    ("W3", "wakes_per_s_4proc"),
    ("fleet", "runs_per_s_1proc"),
    ("fleet", "runs_per_s_2proc"),
    ("fleet", "runs_per_s_4proc"),
    ("fleet", "steps_per_s_1proc"),
    ("fleet", "steps_per_s_2proc"),
    ("fleet", "steps_per_s_4proc"),
    ("fleet", "events_per_s_1proc"),
    ("fleet", "events_per_s_2proc"),
    ("fleet", "events_per_s_4proc"),
    ("W4", "events_per_s_bulk"),
    ("W5", "resume_to_finish_ms_1000"),
    ("W5", "resume_to_finish_ms_5000"),
    ("W5", "resume_to_finish_ms_100000"),
    ("W7", "empty_poll_ms"),
    ("W7", "empty_poll_ms_1m"),
    ("W7", "sweep25_ms"),
    ("W7", "sweep25_ms_1m"),
    ("footprint", "rss_kib_per_sleeping_run"),
]
"""Figures without a target that belong beside the others."""

LIMITS = [
    ("fdatasync of 4 KiB, append: us", ("disk", "fdatasync_append_4k_us")),
    ("SQLite WAL FULL, 1 row a commit: ms", COMMIT),
    ("SQLite WAL FULL, 1 row a commit: commits/s", COMMITS),
    ("SQLite WAL FULL, 100 rows a commit: ms", ("sqlite", "commit_ms_full_r100")),
    ("SQLite WAL FULL, 100 rows a commit: rows/s", ROWS),
    ("Postgres, 1 row a commit, 1 client: ms", PG_COMMIT),
    ("Postgres, 1 row a commit, 1 client: commits/s", PG_COMMITS),
    ("Postgres, 1 row a commit, 16 clients: commits/s", ("postgres", "insert1_tx_per_s_c16")),
    ("Postgres, 1 row a commit, 64 clients: commits/s", ("postgres", "insert1_tx_per_s_c64")),
    ("Postgres, 100 rows a commit: rows/s", ("postgres", "insert100_rows_per_s_c1")),
    ("Postgres, SELECT 1: us", ("postgres", "select1_us_c1")),
]


def middle(values: list[float]) -> float:
    """The median; of two, the mean of both.

    >>> middle([4.0, 1.0, 2.0, 3.0])
    2.5
    """
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def figure(value: float) -> str:
    """A number as people read it: three digits that count.

    >>> figure(12345.6), figure(123.4), figure(12.34), figure(0.1234)
    ('12,346', '123', '12.3', '0.123')
    """
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3g}"


def spread(values: list[float]) -> str:
    if len(values) == 1:
        return figure(values[0])
    return f"{figure(middle(values))} ({figure(min(values))}..{figure(max(values))})"


class Figures:
    """The lines of a run, each beside the bare limits that were measured just before and just after it."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.ours: dict[Key, list[float]] = {}
        self.bare: dict[Key, list[float]] = {}
        self._beside: dict[Key, list[dict[Key, list[float]]]] = {}
        before: dict[Key, list[float]] = {}  # of the workload that is over when limits are measured again
        beside: dict[Key, list[float]] = {}  # of the one that comes
        for line in lines:
            if line["value"] is None:
                continue
            value = float(line["value"])
            if line["peer"] == "baseline":
                key = line["store"], line["metric"]
                if key in beside:
                    before, beside = beside, {}
                beside[key] = [value]
                before.setdefault(key, []).append(value)
                self.bare.setdefault(key, []).append(value)
            else:
                key = line["workload"], line["metric"]
                self.ours.setdefault(key, []).append(value)
                self._beside.setdefault(key, []).append(beside)

    def limit(self, target: Target) -> float | None:
        """The bare limit of a target, as it was around the measurements of that target."""
        if target.limit is None:
            return None
        beside = [
            middle(around[target.limit])
            for around in self._beside.get((target.workload, target.metric), [])
            if target.limit in around
        ]
        return middle(beside) if beside else None


def table(lines: list[dict[str, Any]], store: str) -> str:
    """All figures of a run: the bare limits, those with a target, the others."""
    figures = Figures(lines)
    out = ["", "What the machine allows, measured between the workloads", ""]
    out += [f"  {title:<46} {spread(figures.bare[key])}" for title, key in LIMITS if key in figures.bare]
    rows = [("", f"ours ({store})", "target", "ours : target", "ours : limit beside it", "")]
    rows += [
        _row(target, figures)
        for target in (POSTGRES if store == "postgres" else SQLITE)
        if (target.workload, target.metric) in figures.ours
    ]
    if len(rows) > 1:
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        out += ["", "Ours"]
        for row in rows:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:5], widths[1:5], strict=True)]
            out.append(("  " + "  ".join(cells) + "  " + row[5]).rstrip())
    further = [key for key in FURTHER if key in figures.ours]
    if further:
        out += ["", "Further", ""]
        out += [f"  {' '.join(key):<46} {spread(figures.ours[key])}" for key in further]
    return "\n".join(out)


def _row(target: Target, figures: Figures) -> tuple[str, str, str, str, str, str]:
    values = figures.ours[target.workload, target.metric]
    ours = middle(values)
    limit = figures.limit(target)
    aim = target.aim(limit)
    to_limit = ""
    if limit is not None:
        needed = f" x {target.times:g}" if target.times != 1 else ""
        to_limit = f"{ours / limit / target.times:.2f} (of {figure(limit)}{needed})"
    if aim is None:
        return (target.title, spread(values), "?", "", to_limit, "")
    reached = ours <= aim if target.lower_is_better else ours >= aim
    sign = "<=" if target.lower_is_better else ">="
    missed = "" if reached else "missed"
    return (target.title, spread(values), f"{sign} {figure(aim)}", f"{ours / aim:.2f}", to_limit, missed)
