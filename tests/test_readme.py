"""The README's example is the one that is run."""

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

from duramen import Event, Runtime
from duramen.errors import StoreError, UnknownRun

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/hello.py"


def test_readme_shows_the_example_file() -> None:
    shown = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert EXAMPLE.read_text() in shown


def test_example_prints_what_the_readme_says(tmp_path: Path) -> None:
    for _ in range(2):  # the second time the run exists already: its result is read, nothing is done again
        ran = subprocess.run(
            [sys.executable, "-W", "error", EXAMPLE],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            timeout=60,
            text=True,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "Hello, world!\n", "")


def journal_in_its_sleep(folder: Path) -> list[Event]:
    """Wait until the example's run sleeps; gives its journal."""

    async def look() -> list[Event]:
        deadline = time.monotonic() + 30
        while True:
            assert time.monotonic() < deadline, "it did not begin to sleep"
            try:
                async with Runtime(f"sqlite:///{folder}/app.db", migrate=False) as runtime:
                    while (run := await runtime.get("hello:1")).status != "waiting":
                        assert time.monotonic() < deadline, "it did not begin to sleep"
                        await asyncio.sleep(0.02)
                    assert run.owner is None, "it sleeps in nobody's hands"
                    return await runtime.timeline("hello:1")
            except (StoreError, UnknownRun):  # not made yet
                await asyncio.sleep(0.02)

    return asyncio.run(look())


def test_example_killed_in_its_sleep_goes_on_from_there(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", EXAMPLE]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as first:
        before = journal_in_its_sleep(tmp_path)
        first.kill()
        assert first.communicate(timeout=30) == ("", None)
    assert [entry.kind for entry in before] == ["run_created", "step_completed", "wait_opened"]
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=60, text=True)
    assert (again.returncode, again.stdout, again.stderr) == (0, "Hello, world!\n", "")

    async def after() -> list[Event]:
        async with Runtime(f"sqlite:///{tmp_path}/app.db") as runtime:
            return await runtime.timeline("hello:1")

    journal = asyncio.run(after())
    assert journal[:3] == before
    assert [entry.kind for entry in journal[3:]] == ["timer_fired", "run_finished"]
