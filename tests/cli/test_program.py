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
from tests.cli.programs import environment, run


@on_sqlite
def test_help_names_the_commands_and_the_codes(duramen) -> None:
    shown = duramen("--help")
    assert shown.code == 0
    for word in (
        "demo",
        "migrate",
        "worker",
        "sweep",
        "runs",
        "signal",
        "approve",
        "update",
        "query",
        "Exit codes",
    ):
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
    for verb in (
        "list",
        "show",
        "timeline",
        "watch",
        "cancel",
        "terminate",
        "retry",
        "fork",
        "diff",
        "delete",
    ):
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


TARGETS = """
import functools, shop
class Fails:
    def __str__(self): raise ValueError("no text")
class Silent(Exception):
    __str__ = Fails.__str__
class Apart(BaseException): pass
class Made:
    def runtime(self, *parts, **more): return shop.runtime
    @property
    def unbound(self): raise RuntimeError("not bound yet")
class Proxy:
    @property
    def __class__(self): raise RuntimeError("not bound yet")
made, proxy = Made(), Proxy()
@functools.cache
def cached(): return shop.runtime
def given(runtime=shop.runtime): return runtime
def needy(runtime): return runtime
partly = functools.partial(needy, shop.runtime)
def apart(): raise Apart("aside")
def silent(): raise Silent
def cancelled(): raise __import__("asyncio").CancelledError
def ends(): raise SystemExit([1])
"""


@on_sqlite
@pytest.mark.parametrize("path", ["cached", "given", "partly", "made.runtime"])
def test_whatever_can_be_called_without_arguments_makes_a_runtime(duramen, folder: Path, path: str) -> None:
    (folder / "targets.py").write_text(TARGETS)
    ran = duramen("sweep", f"targets:{path}", "--max-queued", "0")
    assert (ran.code, ran.out) == (0, "nothing was due; more may be due\n")


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [
        ("needy", 2, "'targets:needy' is a function, not a Runtime"),
        ("Made", 2, "'targets:Made' is a type, not a Runtime"),
        ("apart", 5, "'targets:apart' makes no runtime: Apart: aside"),
        ("silent", 5, "'targets:silent' makes no runtime: Silent: (its text cannot be read)"),
        ("cancelled", 5, "'targets:cancelled' makes no runtime: CancelledError"),
        ("ends", 5, "'targets:ends' makes no runtime: SystemExit: [1]"),
        ("made.unbound", 5, "'targets:made.unbound' cannot be looked up: RuntimeError: not bound yet"),
        ("proxy", 5, "'targets:proxy' makes no runtime: RuntimeError: not bound yet"),
    ],
)
def test_an_application_that_breaks(folder: Path, path: str, code: int, reason: str) -> None:
    (folder / "targets.py").write_text(TARGETS)
    ran = run(folder, "sweep", f"targets:{path}", env=environment(SHOP_URL="sqlite:///app.db"))
    assert (ran.returncode, ran.stdout) == (code, b"")
    assert ran.stderr.decode().splitlines()[-1] == f"duramen: {reason}"


@pytest.mark.parametrize("error", ["BaseException('aside')", "__import__('asyncio').CancelledError"])
def test_a_module_that_raises_what_is_no_exception(folder: Path, error: str) -> None:
    (folder / "aside.py").write_text(f"raise {error}")
    ran = run(folder, "sweep", "aside:runtime")
    assert (ran.returncode, ran.stdout) == (5, b"")
    assert ran.stderr.splitlines()[-1].startswith(b"duramen: module 'aside' cannot be imported: ")
    # As a module of one workflow it costs that one.
    (folder / "partly.py").write_text(
        "import shop\nfrom duramen import Runtime\n"
        "runtime = Runtime('sqlite:///app.db', workflows=['aside:x', shop.add])"
    )
    env = environment(SHOP_URL="sqlite:///app.db")
    assert run(folder, "sweep", "partly:runtime", "--max-queued", "0", env=env).returncode == 0


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
