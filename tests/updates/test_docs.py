"""The examples of docs/updates.md and docs/tokens.md run as they stand."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"

DOOR = """
async def shut() -> None:
    async with Runtime("memory://", workflows=[door]) as runtime:
        run = await runtime.start(door)
        print(await runtime.update(run.run_id, "close", "me"), await run.result(timeout=60))


asyncio.run(shut())
"""


@pytest.mark.parametrize(
    ("page", "more", "expected"),
    [
        ("updates.md", DOOR, ["5", "12", "12", "12", "closed by me closed"]),
        ("tokens.md", "", ["order-42: 12 pages"]),
    ],
)
def test_the_examples_run(page: str, more: str, expected: list[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join([*blocks, more])],
        capture_output=True,
        check=False,
        timeout=60,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == expected
