"""What docs/logging.md says: its example is set up, and its loggers are those of the sources."""

import logging
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "logging.md").read_text("utf-8")

PROGRAM = """
import asyncio
from duramen import Runtime
from tests.logging.kit import failing

async def main():
    async with Runtime("memory://", workflows=[failing]) as runtime:
        await runtime.start(failing, "no answer", run_id="r-1")
        while (await runtime.get("r-1")).status != "failed":
            await asyncio.sleep(0.01)

asyncio.run(main())
logging.getLogger("duramen.engine").info("to the other handler")
"""


def test_the_example_runs_as_it_stands() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    ended = subprocess.run(
        [sys.executable, "-c", example + PROGRAM],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    expected = "ERROR run=r-1 workflow=failing run 'r-1' (failing 1) failed: LookupError: no answer"
    assert ended.stdout.splitlines() == [expected]
    assert ended.stderr.splitlines()[-1].endswith("INFO duramen.engine: to the other handler")


def test_the_page_names_every_logger() -> None:
    named = set(re.findall(r"`(duramen(?:\.[a-z]+)*)`", PAGE.split("\nFailures")[0]))
    bridge = (ROOT / "crates/duramen-python/src/logs.rs").read_text("utf-8")
    used = set(re.findall(r'"(duramen\.[a-z.]+)"', bridge))
    for path in (ROOT / "python/duramen").rglob("*.py"):
        used |= set(re.findall(r'(?:getL|l)ogger\("([a-z.]+)"\)', path.read_text("utf-8")))
    assert used >= {"duramen", "duramen.run", "duramen.engine"}
    assert used - {"duramen.replay"} <= named
    assert all(logging.getLogger(name) for name in named)
