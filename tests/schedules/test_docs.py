"""docs/schedules.md: its code runs, and does what the page says."""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from duramen import Runtime

PAGE = (Path(__file__).parents[2] / "docs" / "schedules.md").read_text("utf-8")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's code defines."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(compile(block, "docs/schedules.md", "exec"), names)
    return names


def test_the_runs_are_those_that_it_shows(page: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(page["main"]())
    (shown,) = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert capsys.readouterr().out == shown


def test_the_calls_are_those_that_there_are(page: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        runtime: Runtime = page["runtime"]
        async with runtime:
            assert [view.id for view in await runtime.schedules.list()] == ["poll", "report"]
            await page["change"](runtime)
            assert [view.id for view in await runtime.schedules.list()] == ["poll", "report"]

    asyncio.run(main())
    assert "ScheduleView(id='hourly'" in capsys.readouterr().out
