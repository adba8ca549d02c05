"""The demonstration with fewer orders, and that its proof can fail."""

import json
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from duramen.demo import files
from duramen.demo.proof import Claim, expect
from tests.workers.fleets import eventually

ROOT = Path(__file__).parents[2]


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from duramen.cli import main; main()", "demo", *arguments]
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=100)


@pytest.mark.slow
def test_the_demonstration_proves_what_it_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "last.svg"
    # Slowly, so that on a busy machine too there is work in flight when a worker is to be stopped in it.
    monkeypatch.setenv("DURAMEN_DEMO_PACE", "3")
    ran = demo("--orders", "120", "--json", "--folder", str(tmp_path / "d"), "--picture", str(picture))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    facts = json.loads(ran.stdout)
    assert facts["holds"]
    assert facts["orders"] == 120
    assert max(each.get("refused", 0) for each in facts["processes"].values()) > 0
    said = " ".join(incident["what"] for incident in facts["incidents"])
    assert "SIGKILL" in said
    assert "SIGSTOP" in said
    assert "every line holds" in picture.read_text().replace("&#160;", " ")


def processes_on(folder: Path) -> set[int]:
    """The processes that have the folder in their command line."""
    found = set[int]()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if str(folder) in path.read_text("utf-8", "replace").split("\0"):
                found.add(int(path.parent.name))
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are looked for in /proc")
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda each: each.name
)
def test_a_demonstration_that_is_ended_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "d"
    command = [sys.executable, "-c", "from duramen.cli import main; main()", "demo", "--folder", str(folder)]
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **streams) as process:
        eventually(lambda: len(processes_on(folder)) >= 4)  # with itself
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        assert process.returncode == (-9 if number is signal.SIGKILL else 128 + number)
        assert b"Traceback" not in said
    eventually(lambda: not processes_on(folder))


@pytest.mark.slow
@pytest.mark.parametrize("orders", ["20", "60"])
def test_few_orders_are_enough(orders: str) -> None:
    ran = demo("--orders", orders, "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    ran = demo("--folder", str(tmp_path))
    assert (ran.returncode, ran.stderr) == (
        2,
        f"duramen: {str(tmp_path)!r} is not empty: name a new folder\n",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_shipped_files_are_what_the_generator_writes() -> None:
    ran = subprocess.run([sys.executable, ROOT / "tools/make_orders.py", "--check"], check=False)
    assert ran.returncode == 0


def test_the_files_take_every_path() -> None:
    stock = files.stock()
    events: dict[str, list[dict[str, object]]] = {}
    for line in files.payments():
        try:
            event = json.loads(line)
            events.setdefault(event["order_id"], []).append(event)
        except (ValueError, TypeError, KeyError):
            pass
    found = Counter(
        expect(order, events.get(order["order_id"], []), stock).why for order in files.raw_orders()
    )
    assert sum(found.values()) == 500
    assert set(found) == {
        "",
        "out of stock",
        "not paid in time",
        "payment declined",
        "wrong amount",
        "a new customer starts smaller",
    }
    assert min(found.values()) >= 5


def test_readme_shows_the_workflow_that_runs() -> None:
    code = (ROOT / "python/duramen/demo/workflow.py").read_text()
    begin = code.index('@workflow(name="fulfillment"')
    assert code[begin:].strip() in (ROOT / "README.md").read_text()


def test_a_claim_can_be_changed() -> None:
    assert not replace(Claim("x", "1", "1", True), holds=False).holds
