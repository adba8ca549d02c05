"""`duramen worker --processes`: processes that die, hang, drain and start anew."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.workers.app import blocking, hungry, poison, quick, slow_once
from tests.workers.conftest import Shop
from tests.workers.fleets import eventually, is_alive

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the tests look at processes through /proc"
)


def test_a_fleet_drives_everything_once_and_ends_on_sigterm(any_shop: Shop) -> None:
    ids = any_shop.enqueue(quick, 60, 0.01)
    fleet = any_shop.fleet("--processes", "3", "--concurrency", "4").ready(3)
    assert len(set(fleet.pids)) == 3
    eventually(lambda: any_shop.all_are(ids, "completed"))
    assert fleet.end() == 0
    assert not any(is_alive(pid) for pid in fleet.pids)
    assert set(any_shop.ledger.values()) == {1}
    (ended,) = fleet.of("ended")
    assert (ended["ended"], ended["lost"], ended["active"], ended["killed"]) == (60, 0, 0, 0)


def test_a_worker_that_is_killed_is_replaced_and_its_runs_go_on(postgres_shop: Shop) -> None:
    ids = postgres_shop.enqueue(quick, 40, 0.1)
    fleet = postgres_shop.fleet("--processes", "2", "--concurrency", "10").ready(2)
    eventually(lambda: len(postgres_shop.ledger) >= 20)
    victim = fleet.pids[0]
    os.kill(victim, signal.SIGKILL)
    died = fleet.await_("died", pid=victim)
    assert (died["how"], died["worker"], died["restart_in"]) == ("killed by SIGKILL", 1, 0.5)
    fleet.ready(3)
    eventually(lambda: postgres_shop.all_are(ids, "completed"))
    assert fleet.end() == 0
    assert not postgres_shop.ran_again_after_its_record()


def begun_runs(shop: Shop) -> set[str]:
    steps = [line.partition(" ")[2] for line in shop.lines if line.startswith("begins")]
    return {step.partition("/")[0] for step in steps}


def test_a_drain_finishes_steps_in_flight_and_claims_nothing_more(shop: Shop) -> None:
    # Three steps each: none of the ten ends before the fleet is told to.
    shop.enqueue(quick, 30, 1.5)
    fleet = shop.fleet("--processes", "2", "--concurrency", "5").ready(2)
    eventually(lambda: len(begun_runs(shop)) == 10)
    begun = time.monotonic()
    assert fleet.end() == 0
    assert time.monotonic() - begun < 15
    # What began has ended and is recorded; nothing fresh was begun, and nobody waits for a lease.
    begun_steps = {line.partition(" ")[2] for line in shop.lines if line.startswith("begins")}
    assert begun_steps == {line.partition(" ")[2] for line in shop.lines if line.startswith("ends")}
    assert len(begun_runs(shop)) == 10
    assert sorted(set(shop.runs().values())) == ["queued", "waiting"]
    again = shop.fleet("--processes", "2").ready(2)
    eventually(lambda: set(shop.runs().values()) == {"completed"})
    assert again.end() == 0
    assert set(shop.ledger.values()) == {1}


def test_what_outlasts_the_drain_time_goes_on_elsewhere(shop: Shop) -> None:
    (run_id,) = shop.enqueue(slow_once, 1)
    begins, ends = f"begins {run_id}/once", f"ends {run_id}/once"
    fleet = shop.fleet("--processes", "2", "--drain-timeout", "0.3").ready(2)
    eventually(lambda: shop.ledger[begins] == 1)
    begun = time.monotonic()
    assert fleet.end() == 0
    assert 0.25 < time.monotonic() - begun < 15
    assert (shop.ledger[begins], shop.ledger[ends]) == (1, 0)
    other = shop.fleet("--processes", "2").ready(2)
    eventually(lambda: shop.all_are([run_id], "completed"))
    assert other.end() == 0
    assert (shop.ledger[begins], shop.ledger[ends]) == (2, 1)


def test_a_second_signal_waits_for_nothing(shop: Shop) -> None:
    (run_id,) = shop.enqueue(quick, 1, 20)
    fleet = shop.fleet("--processes", "2").ready(2)
    eventually(lambda: shop.ledger[f"begins {run_id}/a"] == 1)
    fleet.process.send_signal(signal.SIGINT)
    fleet.await_("draining", signal="SIGINT")
    time.sleep(0.5)
    assert fleet.process.poll() is None
    begun = time.monotonic()
    assert fleet.end(signal.SIGINT) == 0
    assert time.monotonic() - begun < 10
    assert not any(is_alive(pid) for pid in fleet.pids)


def test_a_worker_that_hangs_is_killed_in_the_end(shop: Shop) -> None:
    fleet = shop.fleet("--processes", "2", "--drain-timeout", "0.1").ready(2)
    os.kill(fleet.pids[0], signal.SIGSTOP)
    assert fleet.end() == 1
    assert [event["pid"] for event in fleet.of("killed")] == [fleet.pids[0]]


def test_a_stopped_worker_costs_no_run_and_writes_nothing_when_it_goes_on(postgres_shop: Shop) -> None:
    ids = postgres_shop.enqueue(quick, 20, 0.3)
    fleet = postgres_shop.fleet("--processes", "2", "--concurrency", "5").ready(2)
    eventually(lambda: len(postgres_shop.ledger) >= 10)
    os.kill(fleet.pids[0], signal.SIGSTOP)
    try:
        eventually(lambda: postgres_shop.all_are(ids, "completed"))
    finally:
        os.kill(fleet.pids[0], signal.SIGCONT)
    before = {line: times for line, times in postgres_shop.ledger.items() if line.startswith("begins")}
    time.sleep(1)
    after = {line: times for line, times in postgres_shop.ledger.items() if line.startswith("begins")}
    assert after == before, "a step began in a worker that had lost its leases"
    assert not postgres_shop.ran_again_after_its_record()
    assert postgres_shop.all_are(ids, "completed")
    assert fleet.end() == 0


def test_no_worker_outlives_a_supervisor_that_is_killed(shop: Shop) -> None:
    ids = shop.enqueue(quick, 4, 0.5)
    fleet = shop.fleet("--processes", "2", "--concurrency", "2").ready(2)
    eventually(lambda: len(shop.ledger) >= 4)
    fleet.process.kill()
    eventually(lambda: not any(is_alive(pid) for pid in fleet.pids), 10)
    # They ended in order: what was in flight is recorded.
    assert set(shop.ledger.values()) == {1}
    assert "running" not in shop.runs().values()
    shop.fleet("--processes", "2").ready(2)
    eventually(lambda: shop.all_are(ids, "completed"))
    assert set(shop.ledger.values()) == {1}


def test_a_worker_with_a_blocked_thread_does_not_outlive_its_supervisor_either(shop: Shop) -> None:
    (run_id,) = shop.enqueue(blocking, 1, 60)
    fleet = shop.fleet("--processes", "2", "--drain-timeout", "0.2").ready(2)
    eventually(lambda: shop.ledger[f"begins {run_id}/block"] == 1)
    fleet.process.kill()
    eventually(lambda: not any(is_alive(pid) for pid in fleet.pids), 20)


@pytest.mark.parametrize(("workflow", "how"), [(poison, "exit code 9"), (hungry, "killed by SIGKILL")])
def test_a_run_that_kills_its_process_holds_nobody_up(
    postgres_shop: Shop, workflow: object, how: str
) -> None:
    (killer,) = postgres_shop.enqueue(workflow, 1, prefix="killer")
    fleet = postgres_shop.fleet("--processes", "2", "--concurrency", "10").ready(2)
    fleet.await_("died", 1, how=how)
    others = postgres_shop.enqueue(quick, 30, 0.02)
    eventually(lambda: postgres_shop.all_are(others, "completed"), 20)
    # Taken over once at the end of its lease; from the second time on it is set back.
    fleet.await_("died", 2, how=how)
    assert fleet.end() == 0
    assert postgres_shop.ledger[f"kills {killer}"] == len(fleet.of("died", how=how))
    assert postgres_shop.runs()[killer] in {"running", "waiting"}


def test_an_application_that_cannot_be_imported_is_shown_once(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_thing\n")
    fleet = shop.fleet("--processes", "4", app="broken:runtime", PYTHONPATH=str(tmp_path))
    assert fleet.wait() == 5
    assert (
        fleet.errors.count("ModuleNotFoundError: No module named 'no_such_thing'") == 2
    )  # trace and sentence
    assert "broken.py" in fleet.errors
    assert "importlib" not in fleet.errors
    assert len(fleet.of("started")) == 1


@pytest.mark.parametrize(
    ("app", "code"),
    [
        ("nowhere:runtime", 3),
        ("json:dumps", 2),
        ("tests.workers.app:WORKFLOWS", 2),
        ("unreachable:runtime", 4),
    ],
)
def test_a_fleet_that_cannot_start_says_why_in_its_code(
    shop: Shop, tmp_path: Path, app: str, code: int
) -> None:
    (tmp_path / "unreachable.py").write_text(
        "from duramen import Runtime\nruntime = Runtime('sqlite:////nowhere/at/all.db')\n"
    )
    fleet = shop.fleet("--processes", "2", app=app, PYTHONPATH=str(tmp_path))
    assert fleet.wait() == code
    assert "duramen: " in fleet.errors
    assert [event["event"] for event in fleet.events] == ["started", "gave_up", "ended"]


def test_what_the_application_prints_does_not_come_between_the_events(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("print('hello')\nfrom tests.workers.app import make\n")
    fleet = shop.fleet("--processes", "2", app="loud:make", PYTHONPATH=str(tmp_path)).ready(2)
    assert fleet.end() == 0
    assert fleet.errors.count("hello") == 2


def test_one_process_alone_reports_as_well(shop: Shop) -> None:
    ids = shop.enqueue(quick, 3, 0.01)
    worker = shop.fleet()
    worker.await_("ready")
    eventually(lambda: shop.all_are(ids, "completed"))
    assert worker.end() == 0
    drained = worker.await_("drained")
    assert (drained["ended"], drained["active"], drained["lost"]) == (3, 0, 0)


def test_a_fleet_of_which_no_worker_can_start_any_more_gives_up(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "fickle.py").write_text(
        "import os\n"
        "from tests.workers.app import make\n"
        "if os.path.exists(os.environ['FLAG']):\n"
        "    raise RuntimeError('a bad deploy')\n"
    )
    flag = tmp_path / "flag"
    fleet = shop.fleet("--processes", "2", app="fickle:make", PYTHONPATH=str(tmp_path), FLAG=str(flag)).ready(
        2
    )
    flag.touch()
    os.kill(fleet.pids[0], signal.SIGKILL)
    # As long as another works, it is tried again and again.
    fleet.await_("died", 2, worker=1)
    assert fleet.process.poll() is None
    os.kill(fleet.pids[1], signal.SIGKILL)
    assert fleet.wait() == 5
    assert fleet.errors.count("RuntimeError: a bad deploy") >= 5
    pauses = [event["restart_in"] for event in fleet.of("died", worker=1)]
    assert pauses == [0.5 * 2**n for n in range(len(pauses))]
