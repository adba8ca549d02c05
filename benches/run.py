"""The workloads W1 to W8 and what the machine allows, in one run; ends with a table of ratios.

    make bench                              everything once on SQLite and on Postgres, a few minutes
    make bench ARGS="--store postgres"
    make bench ARGS="--workloads W1,W2 --rounds 5"
    BENCH_OUT=figures.jsonl make bench      also appends each figure to that file as a JSON line

Each workload is a fresh process with a fresh store. The bare limits are measured anew before and after each
of them, and it is compared with those two: disks change their pace by the minute.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import PGBENCH, POSTGRES
from targets import table

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

HERE = Path(__file__).parent
WORKLOADS = {
    "W1": ("w1.py", "one run of one step"),
    "W2": ("w2.py", "one run of ten steps"),
    "W3": ("w3.py", "2,000 timers of one instant"),
    "W4": ("w4.py", "2,000 events"),
    "W5": ("w5.py", "replay in a fresh process"),
    "W6": ("w6.py", "200 parallel steps"),
    "W7": ("w7.py", "claims among many sleepers"),
    "W8": ("w8.py", "starts without waiting"),
    "fleet": ("fleet.py", "one-step and ten-step runs by worker processes"),
    "footprint": ("footprint.py", "memory, idle worker, import"),
}
SECONDS = 120
"""A workload that takes longer is ended, and counts as failed."""

FORM = {
    "peer": str,
    "store": str,
    "workload": str,
    "metric": str,
    "value": (int, float, type(None)),
    "n": int,
    "note": str,
}


def main() -> int:
    given = arguments()
    chosen = [name.strip() for name in given.workloads.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in WORKLOADS]
    if unknown:
        print(f"unknown workloads: {', '.join(unknown)}; there are {', '.join(WORKLOADS)}", file=sys.stderr)
        return 2
    stores = [store.strip() for store in given.store.split(",") if store.strip()]
    if set(stores) - {"sqlite", "postgres", "memory"}:
        print(f"--store {given.store}: there are sqlite, postgres and memory", file=sys.stderr)
        return 2
    failed: list[str] = []
    for store in stores:
        given.store = store
        with postgres_server() if store == "postgres" else nullcontext():
            failed += figures_of(chosen, given)
    if given.quick:
        print("\n--quick is for checking that everything runs: its figures mean nothing.")
    if failed:
        print(f"\nfailed: {'; '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def figures_of(chosen: list[str], given: argparse.Namespace) -> list[str]:
    """Measure one store and print its table; what went wrong."""
    lines: list[dict[str, Any]] = []
    failed: list[str] = []
    try:
        for found, problem in measured(chosen, given):
            lines += found
            keep(given.out, found)
            if problem:
                failed.append(problem)
                print(f"        failed: {problem}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted; what was measured so far:", file=sys.stderr)
        failed.append("interrupted")
    print(table(lines, given.store), flush=True)
    return failed


@contextmanager
def postgres_server() -> Generator[None]:
    """A server with the settings that it comes with, on this machine's disk, for as long as it is measured.

    `DURAMEN_BENCH_POSTGRES_URL` and `DURAMEN_BENCH_PGBENCH` name another one, and the load generator.
    """
    if os.environ.get(POSTGRES) and os.environ.get(PGBENCH):
        yield
        return
    sys.path.insert(0, str(HERE.parent))
    from tests.postgres.server import server

    with server() as pg:
        pg.conf(shared_buffers="128MB", max_wal_size="1GB", autovacuum_naptime="60s")
        pg.restart()
        os.environ[POSTGRES] = pg.new_database("bench")
        os.environ[PGBENCH] = str(pg.bin / "pgbench")
        try:
            yield
        finally:
            del os.environ[POSTGRES], os.environ[PGBENCH]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="which, with commas between")
    parser.add_argument("--rounds", type=int, default=1, help="how often all of them")
    parser.add_argument("--store", default="sqlite,postgres", help="which of sqlite, postgres, memory")
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it runs")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the stores are made: on the disk to measure"
    )
    parser.add_argument("--out", default=os.environ.get("BENCH_OUT") or None, help="file for the JSON lines")
    return parser.parse_args()


def measured(chosen: list[str], given: argparse.Namespace) -> Iterator[tuple[list[dict[str, Any]], str]]:
    """Measure everything in turn, the bare limits in between: figures, and what went wrong."""
    began = time.monotonic()
    for turn in range(given.rounds):
        for name in chosen:
            script, what = WORKLOADS[name]
            yield measure("limits.py", given)
            found, problem = measure(script, given)
            progress(given, turn, name, what, found, time.monotonic() - began)
            yield found, problem
    yield measure("limits.py", given)


def keep(path: str | None, lines: list[dict[str, Any]]) -> None:
    """Append figures to the file for them, if there is one."""
    if path and lines:
        with Path(path).open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(line) + "\n" for line in lines)


def measure(script: str, given: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Run one program in a fresh folder: its figures, and what went wrong."""
    folder = Path(tempfile.mkdtemp(prefix="duramen-bench-", dir=given.folder))
    command = [sys.executable, str(HERE / script), "--store", given.store, "--folder", str(folder)]
    command += ["--quick"] * given.quick
    problem = ""
    text: str | bytes
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=SECONDS, check=False)
        text = done.stdout
        if done.returncode:
            problem = f"{script} ended with {done.returncode}"
    except subprocess.TimeoutExpired as late:
        text = late.stdout or b""
        problem = f"{script} took longer than {SECONDS} s"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    lines: list[dict[str, Any]] = []
    for each in text.splitlines():
        line = parsed(each)
        if line is None:
            problem = problem or f"{script} printed {each[:80]!r}"
        else:
            lines.append(line)
    return lines, problem


def parsed(text: str) -> dict[str, Any] | None:
    """A figure, if this is one."""
    try:
        line = json.loads(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or list(line) != list(FORM):
        return None
    return line if all(isinstance(line[key], kind) for key, kind in FORM.items()) else None


def progress(
    given: argparse.Namespace, turn: int, name: str, what: str, found: list[dict[str, Any]], seconds: float
) -> None:
    figures = ", ".join(
        f"{line['metric']} {line['value']:,.4g}" for line in found[:3] if line["value"] is not None
    )
    of = f" {turn + 1}/{given.rounds}" if given.rounds > 1 else ""
    more = ", ..." if len(found) > 3 else ""
    print(
        f"{seconds:6.1f} s{of}  {name} {what}: {figures or 'nothing here'}{more}", file=sys.stderr, flush=True
    )


if __name__ == "__main__":
    sys.exit(main())
