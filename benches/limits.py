"""What the machine allows, without us: appends made durable, and SQLite's commits.

Printed under the names that the same measurements have elsewhere (workloads B4 and B5, peer ``baseline``).
They are taken before each workload, because a disk's speed changes by the minute: only ratios within one run
mean something.
"""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING

from harness import BARE, PGBENCH, POSTGRES, emit, median, parse, percentile

if TYPE_CHECKING:
    from pathlib import Path

PAYLOAD = "x" * 150
INSERT = "INSERT INTO evt(run, seq, kind, at, payload) VALUES (?, ?, ?, ?, ?)"


def fdatasync(folder: Path, seconds: float) -> None:
    path = folder / "append"
    block = os.urandom(4096)
    file = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        os.pwrite(file, block, 4096 * len(times))
        began = time.perf_counter()
        os.fdatasync(file)
        times.append(time.perf_counter() - began)
    os.close(file)
    path.unlink()
    note = f"median; p99 {1e6 * percentile(times, 99):.0f} us"
    emit("disk", "B5", "fdatasync_append_4k_us", 1e6 * median(times), len(times), note, BARE)


def commits(folder: Path, rows: int, seconds: float) -> None:
    path = folder / f"bare{rows}.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(
        "CREATE TABLE evt(id INTEGER PRIMARY KEY, run INT NOT NULL, seq INT NOT NULL, kind TEXT NOT NULL,"
        " at REAL NOT NULL, payload TEXT NOT NULL)"
    )
    times: list[float] = []
    began = time.perf_counter()
    end = began + seconds
    while (before := time.perf_counter()) < end:
        run = len(times)
        db.execute("BEGIN IMMEDIATE")
        if rows == 1:
            db.execute(INSERT, (run, 1, "step", 1.5, PAYLOAD))
        else:
            db.executemany(INSERT, [(run, seq, "step", 1.5, PAYLOAD) for seq in range(rows)])
        db.execute("COMMIT")
        times.append(time.perf_counter() - before)
    taken = time.perf_counter() - began
    db.close()
    count = len(times)
    note = f"python sqlite3 {sqlite3.sqlite_version}, WAL, synchronous=FULL, {rows} row(s) per commit"
    emit("sqlite", "B4", f"commits_per_s_full_r{rows}", count / taken, count, note, BARE)
    emit("sqlite", "B4", f"rows_per_s_full_r{rows}", rows * count / taken, rows * count, note, BARE)
    emit("sqlite", "B4", f"commit_ms_full_r{rows}", 1e3 * median(times), count, note + ", median", BARE)


def pgbench(script: str, clients: int, seconds: float, folder: Path) -> tuple[float, float, int]:
    """Transactions a second, milliseconds each, and how many they were, by Postgres's own load generator."""
    path = folder / "script.sql"
    path.write_text(script)
    count = max(50, int(seconds * 4_000 / (1 if clients == 1 else clients / 4)))
    done = subprocess.run(
        [os.environ[PGBENCH], "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)),
         "-t", str(count), "-f", str(path), os.environ[POSTGRES]],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60, check=True,
    )  # fmt: skip
    tps = re.search(r"tps = ([0-9.]+)", done.stdout)
    latency = re.search(r"latency average = ([0-9.]+) ms", done.stdout)
    assert tps, done.stdout
    assert latency, done.stdout
    return float(tps[1]), float(latency[1]), count * clients


def postgres(folder: Path, seconds: float) -> None:
    """The same of a server: commits of one row by 1, 16 and 64 clients, of 100 rows, and bare round trips."""
    import psycopg

    with psycopg.connect(os.environ[POSTGRES], autocommit=True) as db:
        db.execute("DROP TABLE IF EXISTS evt")
        db.execute(
            "CREATE TABLE evt(id bigserial PRIMARY KEY, run int NOT NULL, seq int NOT NULL,"
            " kind text NOT NULL, at timestamptz NOT NULL DEFAULT now(), payload text NOT NULL)"
        )
    insert = "INSERT INTO evt(run, seq, kind, payload)"
    one = f"{insert} VALUES (1, 1, 'step', '{PAYLOAD}');\n"
    many = f"{insert} SELECT 1, n, 'step', '{PAYLOAD}' FROM generate_series(1, 100) n;\n"
    for clients in (1, 16, 64):
        tps, ms, count = pgbench(one, clients, seconds, folder)
        note = "pgbench, one row of 200 bytes a commit, prepared, TCP"
        emit("postgres", "B1", f"insert1_tx_per_s_c{clients}", tps, count, note, BARE)
        emit("postgres", "B1", f"insert1_ms_c{clients}", ms, count, note, BARE)
    tps, _, count = pgbench(many, 1, seconds / 8, folder)
    emit(
        "postgres",
        "B2",
        "insert100_rows_per_s_c1",
        100 * tps,
        100 * count,
        "pgbench, 100 rows a commit",
        BARE,
    )
    _, ms, count = pgbench("SELECT 1;\n", 1, seconds, folder)
    emit("postgres", "B3", "select1_us_c1", 1000 * ms, count, "pgbench, a round trip", BARE)


def main() -> None:
    bench = parse("limits")
    seconds = 0.1 if bench.quick else 0.4
    fdatasync(bench.folder, seconds)
    if bench.store == "postgres":
        postgres(bench.folder, seconds)
        return
    commits(bench.folder, 1, seconds)
    commits(bench.folder, 100, seconds)


if __name__ == "__main__":
    main()
