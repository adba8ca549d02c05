"""W7: many sleeping runs in the store; 25 of them are due."""

import asyncio
import os
import select
import sqlite3
import time
from typing import Any

import flows
from harness import POSTGRES, Bench, Working, median, run, until_count

DUE = 25
ROUNDS = 17
SWEEPS = 8
YEAR_MS = 365 * 86_400_000
STEP_MS = 100
"""From one time that 25 runs are due to the next."""


async def sleeping(bench: Bench, count: int, name: str) -> int:
    """One run that fell asleep by itself, and clones of it; gives the instant at which the first are due.

    They come due by the clock, as they do for people: for a claim at an instant that is given a lease must be
    written that lasts until then, which is no part of a claim.
    """
    until = int(time.time() * 1000) + 3_000
    async with bench.runtime(flows.sleeper, name=name, synchronous="normal") as runtime, Working(runtime):
        await runtime.enqueue(flows.sleeper, until, run_id="run-0")
        await until_count(runtime, 1, within=30, status="waiting")
    return (clone_postgres if bench.store == "postgres" else clone_sqlite)(bench, count, name, until)


def cloned(columns: list[str], until: int) -> str:
    """The columns of a clone: run n is due a year and n seconds later."""
    values = {"run_id": "'run-' || n", "ready_at": f"{until + YEAR_MS} + n * 1000"}
    return ", ".join(values.get(column, column) for column in columns)


def soon(until: int) -> tuple[int, list[tuple[int, str]]]:
    """When the first are due, and when each of those is that come due while it is measured."""
    first = max(until, int(time.time() * 1000)) + 1_500
    return first, [(first + n // DUE * STEP_MS, f"run-{n}") for n in range(DUE * (ROUNDS + SWEEPS))]


def clone_sqlite(bench: Bench, count: int, name: str, until: int) -> int:
    db = sqlite3.connect(bench.path(name), isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    db.execute("BEGIN")
    for table in ("runs", "journal"):
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        db.execute(
            f"WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < {count - 1})"
            f" INSERT INTO {table} ({', '.join(columns)})"
            f" SELECT {cloned(columns, until)} FROM g, (SELECT * FROM {table} WHERE run_id = 'run-0')"
            " ORDER BY 'run-' || n"
        )
    first, due = soon(until)
    db.executemany("UPDATE runs SET ready_at = ? WHERE run_id = ?", due)
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return first


def clone_postgres(bench: Bench, count: int, name: str, until: int) -> int:
    import psycopg

    schema = bench.schema(name)
    with psycopg.connect(os.environ[POSTGRES], autocommit=True) as db:
        db.execute("SET synchronous_commit = off")
        for table in ("runs", "journal"):
            found = db.execute(
                "SELECT column_name FROM information_schema.columns"
                " WHERE table_schema = %s AND table_name = %s",
                (schema, table),
            )
            columns = [column for (column,) in found]
            db.execute(
                f"INSERT INTO {schema}.{table} ({', '.join(columns)})"
                f" SELECT {cloned(columns, until)} FROM generate_series(1, {count - 1}) AS n,"
                f" (SELECT * FROM {schema}.{table} WHERE run_id = 'run-0') AS one"
            )
        # As a server has it on its own after a while.
        db.execute(f"VACUUM ANALYZE {schema}.runs")
        db.execute("CHECKPOINT")
        first, due = soon(until)
        with db.transaction(), db.cursor() as cursor:
            cursor.executemany(f"UPDATE {schema}.runs SET ready_at = %s WHERE run_id = %s", due)
    return first


class Claims:
    """An engine of which only claims are asked: what it hands over is not driven."""

    def __init__(self, bench: Bench, name: str) -> None:
        from duramen._bridge import Drive, Engine, Reply

        self.drive, self.reply = Drive, Reply
        self.read, write = os.pipe()
        options: dict[str, Any] = {"migrate": False, "synchronous": "full", "busy_timeout": 5000}
        place = str(bench.path(name))
        if bench.store == "postgres":
            place, options = os.environ[POSTGRES], {"schema": bench.schema(name)}
        self.engine = Engine(
            bench.store, place, owner="bench", lease=30_000, hold=0, warm=0,
            wake_fd=write, wake=None, options=options,
        )  # fmt: skip
        self.engine.register([(flows.sleeper.name, flows.sleeper.version)])
        self.token = 0

    def claim(self) -> tuple[float, int]:
        """Milliseconds until what is due was handed over (or nothing was), and how many runs it was.

        A sweep with this little time left hands over and does not wait for the runs.
        """
        self.token += 1
        found = 0
        began = time.perf_counter()
        self.engine.sweep(
            self.token,
            {"limit": DUE, "max_recovered": 0, "max_timers": DUE, "max_queued": 0, "min_remaining": 0,
             "deadline": self.engine.now() + 1000},
        )  # fmt: skip
        while True:
            select.select([self.read], [], [], 5)
            os.read(self.read, 65536)
            for event in self.engine.drain():
                if isinstance(event, self.drive):
                    found += 1
                elif isinstance(event, self.reply) and event.token == self.token:
                    return 1e3 * (time.perf_counter() - began), found
            if found == DUE:
                return 1e3 * (time.perf_counter() - began), found


async def until_due(first: int, turn: int) -> None:
    """Wait until the runs of that turn are due, and none of a later one."""
    await asyncio.sleep(max(0.0, (first + turn * STEP_MS + 20) / 1000 - time.time()))


async def measure(bench: Bench, count: int, tag: str) -> None:
    name = f"w7-{count}.db"
    first = await sleeping(bench, count, name)
    claims = Claims(bench, name)
    empty: list[float] = []
    due: list[float] = []
    for turn in range(ROUNDS):
        await until_due(first, turn)
        taken, found = claims.claim()
        assert found == DUE, found
        due.append(taken)
        await asyncio.sleep(0.02)
        taken, found = claims.claim()
        assert found == 0, found
        empty.append(taken)
    note = f"{count} sleeping runs, cloned by SQL from one"
    bench.emit(
        f"claim25_ms{tag}", median(due[2:]), count, note + "; with their journals, up to the event loop"
    )
    bench.emit(f"empty_poll_ms{tag}", median(empty[2:]), count, note)
    swept: list[float] = []
    async with bench.runtime(flows.sleeper, name=name) as runtime:
        for turn in range(ROUNDS, ROUNDS + SWEEPS):
            await until_due(first, turn)
            began = time.perf_counter()
            result = await runtime.sweep(max_recovered=0, max_timers=DUE, max_queued=0)
            swept.append(1e3 * (time.perf_counter() - began))
            assert result.summary.get("completed", 0) == DUE, result
    bench.emit(f"sweep25_ms{tag}", median(swept[2:]), count, note + "; claimed and run to their ends")


async def main(bench: Bench) -> None:
    if bench.store == "memory":
        return  # its rows cannot be cloned
    await measure(bench, bench.count(50_000, 1000), "")
    if not bench.quick:
        await measure(bench, 1_000_000, "_1m")


if __name__ == "__main__":
    run("W7", main)
