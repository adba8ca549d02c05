"""`make bench` prints figures of one form, and a table. What they say is not tested: machines differ."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "benches" / "run.py"
KEYS = ["peer", "store", "workload", "metric", "value", "n", "note"]


def bench(out: Path, *arguments: str) -> tuple[str, list[dict[str, object]]]:
    done = subprocess.run(
        [sys.executable, str(RUN), "--quick", *arguments],
        env={"BENCH_OUT": str(out), "PATH": "/usr/bin:/bin"},
        cwd=out.parent,
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
        check=True,
    )
    return done.stdout, [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("store", ["sqlite", "memory"])
def test_figures_are_appended_as_json_lines(tmp_path: Path, store: str) -> None:
    out = tmp_path / "figures.jsonl"
    out.write_text('{"kept": true}\n')
    shown, (kept, *lines) = bench(out, "--workloads", "W1", "--store", store)
    assert kept == {"kept": True}
    assert all(list(line) == KEYS for line in lines)
    ours = [line for line in lines if line["peer"] == "ours"]
    assert {line["workload"] for line in ours} == {"W1"}
    assert {line["store"] for line in ours} == {store}
    assert {"latency_p50_ms_c1", "latency_p99_ms_c1", "runs_per_s_c64"} <= {line["metric"] for line in ours}
    bare = {line["metric"] for line in lines if line["peer"] == "baseline"}
    assert {"fdatasync_append_4k_us", "commit_ms_full_r1", "rows_per_s_full_r100"} <= bare
    for line in ours:
        assert isinstance(line["value"], float | int)
        assert isinstance(line["n"], int)
        assert line["value"] > 0
    assert "W1 one step, c=64: runs/s" in shown
    assert "SQLite WAL FULL, 1 row a commit: ms" in shown


def test_an_unknown_workload_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(RUN), "--workloads", "W1,W99"], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 2
    assert "W99" in done.stderr
