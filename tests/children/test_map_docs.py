"""The examples of docs/fan-out.md do what the page says."""

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from duramen import Runtime, WorkflowDef

PAGE = (Path(__file__).parents[2] / "docs" / "fan-out.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
IMPORTS = """
from pydantic import BaseModel
from duramen import Context, MapFailed, Retry, step, workflow
"""


def test_the_examples_do_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("fan_out_examples")  # chunks find functions by the names of their modules
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in (IMPORTS, *BLOCKS):
        exec(compile(block, "docs/fan-out.md", "exec"), module.__dict__)
    workflows: list[Any] = [each for each in vars(module).values() if isinstance(each, WorkflowDef)]
    assert len(workflows) == 5

    async def main() -> None:
        async with Runtime("memory://", workflows=workflows) as runtime:
            assert await (await runtime.start("gallery", 30)).result(timeout=20) == 300
            told = await (await runtime.start("broken_gallery", [10, 0, 10])).result(timeout=20)
            assert told == ["1: ValueError: 1.png is empty"]
            told = await (await runtime.start("broken_gallery", [10, 0, 0])).result(timeout=20)
            assert told == ["given up: 2 failed"]
            heard = await (await runtime.start("quorum", ["offline", "a", "b", "c"])).result(timeout=20)
            assert heard == ["answer of a", "answer of b"]
            shown = await (await runtime.start("exhibition", ["x", "y"], run_id="r")).result(timeout=20)
            assert shown == ["x: 10", "y: 10"]
            assert (await runtime.get("r/publish/1")).status == "completed"

    asyncio.run(main())
