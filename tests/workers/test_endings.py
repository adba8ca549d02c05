"""Fleets that are told to end at any moment of their life, and those whose words nobody hears."""

import fcntl
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, workflow
from tests.workers.app import quick
from tests.workers.conftest import Shop
from tests.workers.fleets import ROOT, eventually, is_alive

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the tests look at processes through /proc"
)

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def children(pid: int) -> set[int]:
    """The processes that a process has started and that live."""
    found = set[int]()
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found |= {int(child) for child in (task / "children").read_text().split()}
    return {child for child in found if is_alive(child)}


@contextmanager
def supervisor(
    shop: Shop, *options: str, app: str = "tests.workers.app:make", **streams: Any
) -> Iterator[Any]:
    """A fleet of two with whatever streams."""
    command = [
        sys.executable,
        "-c",
        "from duramen.cli import main; main()",
        "worker",
        app,
        "--processes",
        "2",
    ]
    environment = {**os.environ, "APP_URL": shop.url, "APP_LEDGER": str(shop.folder / "ledger")}
    with subprocess.Popen([*command, *options], cwd=ROOT, env=environment, **streams) as process:
        started = set[int]()
        try:
            yield process
        finally:
            started = children(process.pid)
            process.kill()
            for pid in started:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def ended(fleet: Any, number: signal.Signals) -> None:
    """It ends in bounded time, and none of its workers is left."""
    code = fleet.wait(40)
    # What comes before the handlers are there ends it as it ends any program.
    assert code in {0, -number, 130}, fleet.errors
    assert not any(is_alive(event["pid"]) for event in fleet.of("started"))


@pytest.mark.parametrize(
    ("count", "number"), [(1, signal.SIGTERM), (2, signal.SIGHUP), (3, signal.SIGINT), (4, signal.SIGTERM)]
)
def test_a_signal_while_workers_are_started(shop: Shop, count: int, number: signal.Signals) -> None:
    fleet = shop.fleet("--processes", "4")
    fleet.await_("started", count)
    fleet.process.send_signal(number)
    ended(fleet, number)
    assert len(fleet.of("ended")) == 1


TOLD_MEANWHILE = """
import asyncio, os, signal, sys

real, left = asyncio.create_subprocess_exec, [int(sys.argv.pop(1))]

async def told_meanwhile(*arguments, **options):
    process = await real(*arguments, **options)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)  # the supervisor has begun to end, and does not know the process
    return process

asyncio.create_subprocess_exec = told_meanwhile

from duramen.cli import main
main()
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_between_the_start_of_a_process_and_its_being_known(shop: Shop, count: int) -> None:
    command = [sys.executable, "-c", TOLD_MEANWHILE, str(count), "worker", "tests.workers.app:make"]
    environment = {**os.environ, "APP_URL": shop.url, "APP_LEDGER": str(shop.folder / "ledger")}
    with subprocess.Popen([*command, "--processes", "3"], cwd=ROOT, env=environment) as process:
        workers = set[int]()
        try:
            while process.poll() is None:
                workers |= children(process.pid)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.01)
                assert process.poll() is not None or len(workers) <= 3
            assert process.returncode == 0
            assert workers
            assert not any(is_alive(pid) for pid in workers)
        finally:
            process.kill()
            for pid in workers:
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("seed", range(4))
def test_signals_at_any_moment(shop: Shop, seed: int) -> None:
    chance = random.Random(seed)
    shop.enqueue(quick, 20, 0.05)
    fleet = shop.fleet("--processes", "3")
    # Up to a while after all are ready; the moment itself is what is tried.
    number = chance.choice(SIGNALS)
    with suppress(subprocess.TimeoutExpired):
        fleet.process.wait(chance.uniform(0.0, 3.0))
    fleet.process.send_signal(number)
    if chance.random() < 0.5:
        with suppress(subprocess.TimeoutExpired):
            fleet.process.wait(chance.uniform(0.0, 0.3))
        fleet.process.send_signal(chance.choice(SIGNALS))
    code = fleet.wait(40)
    assert code in {0, 130, *(-each for each in SIGNALS)}, fleet.errors
    assert not any(is_alive(event["pid"]) for event in fleet.of("started"))


def test_a_signal_while_a_dead_worker_waits_for_its_successor(shop: Shop) -> None:
    fleet = shop.fleet("--processes", "2").ready(2)
    for turn, pid in enumerate(fleet.pids):
        os.kill(pid, signal.SIGKILL)
        fleet.await_("died", turn + 1)
    fleet.process.send_signal(signal.SIGTERM)
    ended(fleet, signal.SIGTERM)


def test_a_worker_that_hangs_at_import_is_mentioned_and_killed_at_the_end(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)\n"
    )
    options = ("--processes", "2", "--drain-timeout", "0.1")
    fleet = shop.fleet(
        *options, app="hangs:runtime", PYTHONPATH=f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    )
    slow = fleet.await_("slow_start")
    assert (slow["worker"], slow["doing"]) == (1, "imports hangs")
    assert fleet.end() == 1
    assert [event["pid"] for event in fleet.of("killed")] == [slow["pid"]]
    assert not is_alive(slow["pid"])


def test_a_process_that_a_worker_left_behind_holds_nobody_up(shop: Shop, tmp_path: Path) -> None:
    # It has all of the worker's descriptors, the one for its reports included.
    (tmp_path / "forks.py").write_text(
        "import os, time\n"
        "from tests.workers.app import make\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    time.sleep(120)\n"
        "    os._exit(0)\n"
        "open(os.environ['LEFT'], 'a').write(f'{child}\\n')\n"
    )
    left = tmp_path / "left"
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    fleet = shop.fleet("--processes", "2", app="forks:make", PYTHONPATH=path, LEFT=str(left)).ready(2)
    try:
        os.kill(fleet.pids[0], signal.SIGKILL)
        fleet.ready(3)
        assert fleet.end() == 0
    finally:
        for pid in left.read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def test_a_system_that_starts_no_process_for_a_while(shop: Shop) -> None:
    fleet = shop.fleet("--processes", "2").ready(2)
    before = resource.prlimit(fleet.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(fleet.process.pid, resource.RLIMIT_NOFILE, (3, before[1]))
    os.kill(fleet.pids[0], signal.SIGKILL)
    refused = fleet.await_("not_started")
    assert refused["reason"] == "Too many open files"
    resource.prlimit(fleet.process.pid, resource.RLIMIT_NOFILE, before)
    fleet.ready(3)
    assert fleet.end() == 0


def test_a_hangup_ends_it_in_order_and_nohup_keeps_it(shop: Shop) -> None:
    fleet = shop.fleet("--processes", "2").ready(2)
    assert fleet.end(signal.SIGHUP) == 0
    assert fleet.of("draining", signal="SIGHUP")
    alone = shop.fleet()
    alone.await_("ready")
    assert alone.end(signal.SIGHUP) == 0
    assert alone.of("drained")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is ignored stays so in children
    try:
        for options in (["--processes", "2"], []):
            kept = shop.fleet(*options)
            kept.await_("ready")
            kept.process.send_signal(signal.SIGHUP)
            kept.process.send_signal(signal.SIGTERM)
            assert kept.wait() == 0
            assert not kept.of("draining", signal="SIGHUP")
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def full_pipe() -> Iterator[int]:
    """The end to write to of a pipe that is full and that nobody reads."""
    heard, said = os.pipe()
    try:
        fcntl.fcntl(said, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(said, False)
        with suppress(BlockingIOError):
            while os.write(said, b"x" * 4096):
                pass
        os.set_blocking(said, True)
        yield said
    finally:
        os.close(heard)
        os.close(said)


@contextmanager
def closed_pipe() -> Iterator[int]:
    heard, said = os.pipe()
    os.close(heard)
    try:
        yield said
    finally:
        os.close(said)


@contextmanager
def full_disk() -> Iterator[int]:
    disk = os.open("/dev/full", os.O_WRONLY)
    try:
        yield disk
    finally:
        os.close(disk)


@pytest.mark.parametrize(
    ("stream", "as_json"),
    [(closed_pipe, True), (full_pipe, True), (full_disk, True), (closed_pipe, False), (full_pipe, False)],
)
def test_workers_are_replaced_and_ended_though_nobody_listens(shop: Shop, stream: Any, as_json: bool) -> None:
    log = shop.folder / "log"
    with stream() as said, log.open("wb") as other:
        streams = {"stdout": said, "stderr": other} if as_json else {"stdout": other, "stderr": said}
        options = (["--json"] if as_json else []) + ["--drain-timeout", "0.5"]
        with supervisor(shop, *options, **streams) as fleet:
            ids = shop.enqueue(quick, 4, 0)
            eventually(lambda: shop.all_are(ids, "completed"))
            eventually(lambda: len(children(fleet.pid)) == 2)
            before = children(fleet.pid)
            os.kill(min(before), signal.SIGKILL)
            eventually(lambda: len(children(fleet.pid) - before) == 1)
            workers = before | children(fleet.pid)
            fleet.send_signal(signal.SIGTERM)
            code = fleet.wait(40)
            # Workers whose own log blocks them have to be killed.
            assert code in ({0, 1} if stream is full_pipe and not as_json else {0})
            assert not any(is_alive(pid) for pid in workers)
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("stream", [closed_pipe, full_pipe])
def test_a_worker_alone_works_though_nobody_listens(shop: Shop, stream: Any) -> None:
    log = shop.folder / "log"
    with stream() as said, log.open("wb") as other:
        options = ("--processes", "1", "--json")
        with supervisor(shop, *options, stdout=said, stderr=other) as worker:
            ids = shop.enqueue(quick, 4, 0)
            eventually(lambda: shop.all_are(ids, "completed"))
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(40) == 0
    assert "Traceback" not in log.read_text()


USELESS = {
    "none": ("[]", "the runtime has no workflow that could be driven"),
    "broken": ("['nowhere:order', 'json:nothing']", "nowhere:order cannot be loaded: ModuleNotFoundError"),
}


@pytest.mark.parametrize("kind", USELESS)
@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["alone", "fleet"])
def test_a_worker_without_workflows_is_not_ready(
    shop: Shop, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    given, reason = USELESS[kind]
    (tmp_path / "useless.py").write_text(
        "import os\nfrom duramen import Runtime\n"
        f"runtime = Runtime(os.environ['APP_URL'], workflows={given})\n"
    )
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    fleet = shop.fleet(*options, app="useless:runtime", PYTHONPATH=path)
    assert fleet.wait() == 5
    assert reason in fleet.errors
    assert not fleet.of("ready")


def test_a_worker_says_what_it_serves_and_what_it_cannot(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "partly.py").write_text(
        "import os\nfrom duramen import Runtime\nfrom tests.workers.app import quick\n"
        "runtime = Runtime(os.environ['APP_URL'], workflows=[quick, 'nowhere:order'])\n"
    )
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    for options in ((), ("--processes", "2")):
        fleet = shop.fleet(*options, app="partly:runtime", PYTHONPATH=path)
        ready = fleet.await_("ready")
        assert ready["serves"] == ["quick 1"]
        assert ready["broken"] == {"nowhere:order": "ModuleNotFoundError: No module named 'nowhere'"}
        assert fleet.end() == 0


MANY = """
import os
from duramen import Context, Runtime, workflow

async def nothing(ctx: Context) -> None: ...

served = [workflow(name=f"{'é' * 200}{number}")(nothing) for number in range(100)]
broken = [f"nowhere.{'x' * 200}{number}:order" for number in range(300)]
runtime = Runtime(os.environ["APP_URL"], workflows=[*served, *broken])
"""


def test_a_worker_that_serves_very_much_is_ready(shop: Shop, tmp_path: Path) -> None:
    """What it says of that has to get through the pipe to its supervisor in one piece."""
    (tmp_path / "many.py").write_text(MANY)
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    for options in ((), ("--processes", "2")):
        fleet = shop.fleet(*options, app="many:runtime", PYTHONPATH=path)
        ready = fleet.await_("ready")
        shown = len(ready["serves"]) - 1
        assert ready["serves"][-1] == f"{100 - shown} more"
        assert f"{301 - len(ready['broken'])} more" in ready["broken"]
        assert fleet.end() == 0


ENDS = """
import os
from duramen import Context, Runtime, workflow

@workflow
async def ends(ctx: Context, how: str) -> None:
    if how == "failed":
        raise ValueError(how)
    if how == "stuck" and os.environ.get("DRIFTED"):
        await ctx.step("new", len, [])
    else:
        await ctx.step("old", len, [])
        if how == "stuck":
            await ctx.wait_for_event("go")

runtime = Runtime(os.environ["APP_URL"], workflows=[ends], lease=1)
"""


@workflow
async def ends(ctx: Context, how: str) -> None:
    """For those who enqueue."""
    raise NotImplementedError


@pytest.mark.parametrize("options", [(), ("--processes", "2")], ids=["alone", "fleet"])
def test_runs_that_failed_and_that_are_stuck_are_counted_apart(
    shop: Shop, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "unhappy.py").write_text(ENDS)
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    stuck = shop.enqueue(ends, 1, "stuck", prefix="stuck")
    first = shop.fleet("-v", *options, app="unhappy:runtime", PYTHONPATH=path)
    eventually(lambda: shop.all_are(stuck, "waiting"))
    assert first.end() == 0
    shop.signal(stuck, "go")
    failed = shop.enqueue(ends, 2, "failed", prefix="failed")
    completed = shop.enqueue(ends, 3, "completed", prefix="completed")
    worker = shop.fleet("-v", *options, app="unhappy:runtime", PYTHONPATH=path, DRIFTED="1")
    eventually(lambda: shop.all_are(completed, "completed") and shop.all_are(failed, "failed"))
    eventually(lambda: shop.all_are(stuck, "stuck"))
    assert worker.end() == 0
    told = worker.await_("ended" if options else "drained")
    counts = {name: told[name] for name in ("completed", "failed", "stuck", "cancelled")}
    assert counts == {"completed": 3, "failed": 2, "stuck": 1, "cancelled": 0}


def said_by(shop: Shop, tmp_path: Path, *options: str) -> str:
    """What a worker says on stderr while it drives a run that completes and one that fails."""
    (tmp_path / "unhappy.py").write_text(ENDS)
    failed = shop.enqueue(ends, 1, "failed", prefix="failed")
    completed = shop.enqueue(ends, 1, "completed", prefix="completed")
    command = [sys.executable, "-c", "from duramen.cli import main; main()", "worker", "unhappy:runtime"]
    environment = {**os.environ, "APP_URL": shop.url}
    with subprocess.Popen(
        [*command, *options], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as worker:
        try:
            eventually(lambda: shop.all_are(completed, "completed") and shop.all_are(failed, "failed"))
            worker.send_signal(signal.SIGTERM)
            _, said = worker.communicate(timeout=60)
        finally:
            worker.kill()
    return said


def test_the_log_of_a_worker_says_how_runs_ended(shop: Shop, tmp_path: Path) -> None:
    said = said_by(shop, tmp_path, "-v")
    assert "drained: 0 runs active, 2 claimed, 1 completed, 1 failed, 0 lost" in said
    assert "serves ends 1" in said


@pytest.mark.parametrize("options", [("-q",), ("--quiet", "--processes", "2")], ids=["alone", "fleet"])
def test_a_quiet_worker_says_what_went_wrong_and_nothing_else(
    shop: Shop, tmp_path: Path, options: tuple[str, ...]
) -> None:
    (line,) = said_by(shop, tmp_path, *options).splitlines()
    assert " ERROR " in line
    assert "run 'failed:0' (ends 1) failed: ValueError: failed" in line


# -- workers in which something hangs

HANGING = """
import asyncio, os, threading, time
from concurrent.futures import ThreadPoolExecutor
from duramen import Context, Runtime, workflow
from tests.workers.app import note

def in_a_thread():
    note("begun")
    time.sleep(600)

async def swallowing():
    note("begun")
    while True:
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            pass

async def in_the_loops_executor():
    note("begun")
    await asyncio.to_thread(time.sleep, 600)

async def in_a_pool_of_its_own():
    pool = ThreadPoolExecutor(1)
    note("begun")
    await asyncio.wrap_future(pool.submit(time.sleep, 600))

async def beside_a_task():
    keep.append(asyncio.create_task(swallowing()))
    await asyncio.sleep(600)

keep = []

@workflow
async def hangs(ctx: Context, how: str) -> None:
    await ctx.step("hang", globals()[how])

runtime = Runtime(os.environ["APP_URL"], workflows=[hangs], lease=1)
"""


@workflow
async def hangs(ctx: Context, how: str) -> None:
    """For those who enqueue."""
    raise NotImplementedError


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("in_a_thread", 0), ("swallowing", 1), ("in_the_loops_executor", 1), ("in_a_pool_of_its_own", 1),
        ("beside_a_task", 1),
    ],
)  # fmt: skip
def test_a_worker_alone_ends_whatever_hangs_in_it(shop: Shop, tmp_path: Path, how: str, code: int) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    shop.enqueue(hangs, 1, how)
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    worker = shop.fleet("--drain-timeout", "0.2", app="hanging:runtime", PYTHONPATH=path)
    eventually(lambda: shop.ledger["begun"] > 0)
    # The signals are heeded from its being ready on, which a step may be ahead of.
    worker.await_("ready")
    assert worker.end(limit=60) == code, worker.errors
    assert ("the worker has not ended in time" in worker.errors) is bool(code)


ENDING = """
import asyncio, os
from duramen import Context, Runtime, workflow

async def cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()

@workflow
async def hangs(ctx: Context, how: str) -> None:
    await ctx.step("cancel", cancel_all)

runtime = Runtime(os.environ["APP_URL"], workflows=[hangs], lease=1)
"""


def test_an_application_that_cancels_all_tasks_ends_its_worker_with_a_sentence(
    shop: Shop, tmp_path: Path
) -> None:
    (tmp_path / "ending.py").write_text(ENDING)
    shop.enqueue(hangs, 1, "")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    worker = shop.fleet(app="ending:runtime", PYTHONPATH=path)
    assert worker.wait(60) == 5
    assert "the application cancelled all tasks of the process" in worker.errors
    assert "Traceback" not in worker.errors
