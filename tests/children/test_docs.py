"""The examples of docs/children.md do what the page says."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import ChildCancelled, Context, Outcome, Runtime, workflow
from duramen.errors import RunFailed, UnknownRun

PAGE = (Path(__file__).parents[2] / "docs" / "children.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def examples() -> dict[str, Any]:
    async def weigh(number: int) -> float:
        return number / 2

    async def post(text: str) -> str:
        return text

    names: dict[str, Any] = {
        "asyncio": asyncio, "BaseModel": BaseModel, "ChildCancelled": ChildCancelled, "Context": Context,
        "Outcome": Outcome, "post": post, "weigh": weigh, "workflow": workflow,
    }  # fmt: skip
    for block in BLOCKS:
        exec(compile(block, "docs/children.md", "exec"), names)
    return names


def test_the_examples_do_what_the_page_says() -> None:
    names = examples()
    workflows = [each for each in names.values() if hasattr(each, "input_type")]
    assert len(workflows) == 9

    async def main() -> None:
        async with Runtime("memory://", workflows=workflows) as runtime:
            assert await (await runtime.start("ship", 3)).result(timeout=20) == 1.5
            answers = await (await runtime.start("survey", run_id="s")).result(timeout=20)
            assert answers == ["ann: yes", "bob: no", "nobody expects an answer any more"]
            assert (await runtime.get("s")).children == ("s/child-1", "s/child-2", "s/child-3")
            assert "cleaned up" in await (await runtime.start("impatient", run_id="i")).result(timeout=20)
            assert (await runtime.get("i/child-1")).status == "cancelled"
            await runtime.start("shop", run_id="shop:1")
            assert await (await runtime.start("customer", "shop:1")).result(timeout=20) == "one tea"
            with pytest.raises(RunFailed):
                await (await runtime.start("fragile", run_id="f")).result(timeout=20)
            async with asyncio.timeout(20):
                while True:
                    try:
                        told = await runtime.result("f/on_failed")
                        break
                    except UnknownRun:
                        await asyncio.sleep(0.01)
            assert told == "f has failed: ValueError: as expected"

    asyncio.run(main())
