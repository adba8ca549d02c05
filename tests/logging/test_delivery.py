"""How records get from the engine to `logging`: at the end of a process, in forks, past handlers."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

START = """
import asyncio, logging, os, sys, threading
from duramen import Runtime
from tests.logging.kit import locked, short

url, file = sys.argv[1:]
said = open(2, "w", closefd=False, buffering=1)
logging.basicConfig(stream=said, format="%(name)s|%(levelname)s|%(message)s")

async def trouble(seen):
    # A runtime meets a locked file, and is left as it is.
    runtime = Runtime(url, workflows=[short], work=True, lease=2, busy_timeout=0.05)
    await runtime.open()
    other = locked(file)
    other.__enter__()
    asyncio.ensure_future(runtime.enqueue(short, 1))
    assert await asyncio.to_thread(seen.wait, 20)
    return runtime, other

class Seen(logging.Handler):
    def __init__(self):
        super().__init__()
        self.event = threading.Event()
    def emit(self, record):
        if "in trouble" in record.getMessage():
            self.event.set()

seen = Seen()
logging.getLogger("duramen").addHandler(seen)
"""


def play(tmp_path: Path, code: str, expected: int = 0) -> list[str]:
    """Run a program to its end; gives the lines of its log."""
    file = tmp_path / "runs.db"
    program = START + textwrap.dedent(code)
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, f"sqlite:///{file}", str(file)],
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == expected, ended.stderr
    assert "Fatal Python error" not in ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.stderr.splitlines()


@pytest.mark.parametrize("way", ["return", "sys.exit(3)", "raise SystemExit(3)"])
def test_a_process_ends_cleanly_in_the_middle_of_trouble(tmp_path: Path, way: str) -> None:
    code = f"""
    def end():
        kept = asyncio.run(trouble(seen.event))  # its loop is closed, its engine goes on
        globals().update(kept=kept)
        {way}
    end()
    """
    told = play(tmp_path, code, 0 if way == "return" else 3)
    assert sum("the store is in trouble" in line for line in told) == 1


def test_events_that_nobody_took_yet_are_told_at_the_end(tmp_path: Path) -> None:
    """A handler is held up until the process ends; what came meanwhile is told before handlers end."""
    code = """
    import atexit
    held = threading.Event()

    class Held(logging.Handler):
        def emit(self, record):
            seen.event.set()
            assert held.wait(30)

    logging.getLogger("duramen").addHandler(Held())

    async def main():
        kept = await trouble(seen.event)
        await asyncio.sleep(3)  # the trouble has to last: the next line is due after two seconds
        return kept

    kept = asyncio.run(main())
    atexit.register(held.set)
    """
    told = play(tmp_path, code)
    assert sum("the store is in trouble" in line for line in told) == 1
    assert sum("the store has been in trouble for" in line for line in told) == 1


def test_a_child_tells_what_happens_to_it_and_nothing_of_its_parent(tmp_path: Path) -> None:
    code = """
    kept = asyncio.run(trouble(seen.event))
    kept[1].__exit__(None, None, None)
    pid = os.fork()
    if pid == 0:
        logging.getLogger().handlers[0].setFormatter(logging.Formatter("child|%(name)s|%(message)s"))
        seen.event.clear()
        url, file = url + ".child", file + ".child"  # the parent still works on the other one
        again = asyncio.run(trouble(seen.event))
        assert seen.event.is_set()
        again[1].__exit__(None, None, None)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    """
    told = play(tmp_path, code)
    assert sum(line.startswith("child|duramen.store|the store is in trouble") for line in told) == 1


def test_a_handler_may_call_the_runtime_and_wait_for_it(tmp_path: Path) -> None:
    code = """
    runtime = Runtime(url, workflows=[short], work=True, lease=2, busy_timeout=0.05)
    class Asks(logging.Handler):
        def emit(self, record):
            if "in trouble" in record.getMessage():
                asked.append(runtime.sync.get("one").run_id)
                seen.event.set()
    asked = []
    with runtime.sync as sync:
        sync.start(short, 1, run_id="one")
        logging.getLogger("duramen").addHandler(Asks())
        seen.event.clear()
        other = locked(file)
        other.__enter__()
        logging.getLogger("duramen").removeHandler(seen)
        refused = []
        threading.excepthook = refused.append
        threading.Thread(target=sync.enqueue, args=(short, 2), daemon=True).start()
        assert seen.event.wait(30)
        other.__exit__(None, None, None)
    assert asked[0] == "one", asked
    """
    play(tmp_path, code)
