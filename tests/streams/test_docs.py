"""The examples of docs/streams.md."""

import re
from pathlib import Path
from typing import Any

import pytest

from duramen import Runtime

PAGE = (Path(__file__).parents[2] / "docs" / "streams.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_the_examples_work(any_url: str) -> None:
    names: dict[str, Any] = {"__name__": "docs"}
    for block in BLOCKS:
        exec(compile(block, "docs/streams.md", "exec"), names)
    async with Runtime(any_url, workflows=[names["ask"]]) as runtime:
        run = await runtime.start(names["ask"], "Why?", run_id="r")
        assert await names["text_of"](runtime, "r") == "It depends."
        assert await run.result(timeout=10) == "It depends."
        told = [item.value async for item in runtime.stream("r", "progress", type=str)]
        assert told == ["thinking", "done"]
        sent = [text async for text in names["events"](runtime, "r", None)]
        assert sent == [
            'id: 1\ndata: {"index": 0, "text": "It "}\n\n',
            'id: 2\ndata: {"index": 1, "text": "depends"}\n\n',
            'id: 3\ndata: {"index": 2, "text": "."}\n\n',
            "event: end\ndata:\n\n",
        ]
        assert [text async for text in names["events"](runtime, "r", "2")] == sent[2:]
