"""The program as a whole: help, codes, migrate, worker, sweep, and what it must not cost others."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from duramen.cli.exits import Exit
from tests.cli.kinds import on_sqlite


@on_sqlite
def test_help_names_the_commands_and_the_codes(duramen) -> None:
    shown = duramen("--help")
    assert shown.code == 0
    for word in ("demo", "migrate", "worker", "sweep", "runs", "signal", "approve", "Exit codes"):
        assert word in shown.out
    assert duramen("--version").out.startswith("duramen ")
    assert duramen("runs", "fly").code == 2
    assert duramen("runs", "show").code == 2
    documented = (Path(__file__).parents[2] / "docs/cli.md").read_text()
    for code in Exit:
        assert f"\n| {code} | " in documented
        assert f" {code} " in shown.out.replace("\n", " ").replace("  ", " ")
    for command in re.findall(r"^  ([a-z]+)  ", shown.out, re.MULTILINE):
        assert f"`duramen {command}" in documented
    runs = duramen("runs", "--help").out
    for verb in ("list", "show", "timeline", "watch", "cancel", "terminate", "retry", "delete"):
        assert verb in runs
        assert f"duramen runs {verb}" in documented


@on_sqlite
def test_migrate_makes_a_store_and_can_be_repeated(duramen, folder: Path) -> None:
    made = duramen("migrate", "sqlite:///fresh.db", "--json").json
    assert made["found"] == made["needed"]
    assert (
        duramen("migrate", "sqlite:///fresh.db").out == f"nothing to do: the schema is at {made['needed']}\n"
    )
    assert duramen("runs", "list", "--count", store="sqlite:///fresh.db").out == "0\n"


def test_sweep_drives_what_is_due(duramen) -> None:
    swept = duramen(
        "sweep", "shop:runtime", "--max-queued", "5", "--max-duration", "30", "--log-summary", "--json"
    )
    assert swept.code == 0
    assert [(run["run_id"], run["kind"]) for run in swept.json["queued"]] == [("add:2", "completed")]
    assert "duramen: sweep: 1 completed" in swept.err
    assert "nothing was due" in duramen("sweep", "shop:runtime").out


def test_sweep_says_by_its_code_that_a_run_failed(duramen) -> None:
    duramen("runs", "retry", "fail:1")
    assert duramen("sweep", "shop:runtime").code == 1


@on_sqlite
@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("shop", 2),
        ("shop:nothing", 3),
        ("shop:fill", 2),
        ("nowhere:runtime", 3),
        ("shop:APP.x", 3),
        ("shop:add", 2),
    ],
)
def test_a_target_that_is_no_runtime(duramen, target: str, code: int) -> None:
    ran = duramen("sweep", target)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("duramen: ")


def test_worker_drives_until_it_is_asked_to_end(duramen, folder: Path, shop_url: str) -> None:
    command = [sys.executable, "-c", "from duramen.cli import main; main()", "worker", "shop:runtime"]
    environment = {**os.environ, "SHOP_URL": shop_url}
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, env=environment) as worker:
        try:
            deadline = time.monotonic() + 30
            while duramen("runs", "show", "add:2", "--json").json["status"] != "completed":
                assert time.monotonic() < deadline
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(30) == 0
        finally:
            worker.kill()


def test_importing_the_library_leaves_the_command_line_alone() -> None:
    check = "import sys, duramen; sys.exit(bool({'typer', 'rich', 'duramen.cli'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
