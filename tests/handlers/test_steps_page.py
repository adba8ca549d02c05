"""The examples of docs/steps.md run."""

import re
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, RunCancelled, Runtime, workflow
from duramen.testing import Environment
from tests.regressions.support import until_true

PAGE = Path(__file__).parents[2] / "docs" / "steps.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def names_of(block: str, **names: Any) -> dict[str, Any]:
    exec(compile(BLOCKS[0], str(PAGE), "exec"), names)
    exec(compile(block, str(PAGE), "exec"), names)
    return names


async def test_an_import_goes_on_where_the_last_attempt_has_ended() -> None:
    inserted: list[int] = []

    async def insert(row: int) -> None:
        if row == 3 and len(inserted) == 3:
            inserted.append(-1)
            raise ConnectionError("the database is away")
        inserted.append(row)

    names = names_of("", rows_of=lambda file: range(6), insert=insert)
    async with Environment([names["import_file"]]) as env:
        run = await env.runtime.start(names["import_file"], "f")
        await env.advance(seconds=5)
        assert await run.result() == 6
    assert inserted == [0, 1, 2, -1, 3, 4, 5]


async def test_a_watch_ends_when_its_run_is_cancelled() -> None:
    looked: list[str] = []

    def look_into(folder: str) -> list[str]:
        looked.append(folder)
        return []

    watch = names_of(BLOCKS[1], look_into=look_into)["watch"]

    @workflow
    async def wf(ctx: Context) -> list[str]:
        return await watch("in")

    async with Runtime("memory://", workflows=[wf]) as runtime:
        run = await runtime.start(wf)
        await until_true(lambda: looked)
        await runtime.cancel(run.run_id, "enough")
        with pytest.raises(RunCancelled):
            await run.result(timeout=20)


async def test_a_scene_is_rendered_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = "class Scene(BaseModel):\n    name: str\n"
    draw = "def draw(scene, frame):\n    return f'{scene.name} {frame} {os.getpid()}'\n"
    code = f"import os\nfrom pydantic import BaseModel\n{BLOCKS[0]}\n{scene}\n{draw}\n{BLOCKS[2]}"
    (tmp_path / "page_of_steps.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    import page_of_steps  # type: ignore[import-not-found]

    @workflow
    async def wf(ctx: Context) -> list[str]:
        return await page_of_steps.render(page_of_steps.Scene(name="cat"), 2)

    async with Runtime("memory://", workflows=[wf], processes=1) as runtime:
        found = await (await runtime.start(wf)).result(timeout=60)
    assert [each.rpartition(" ")[0] for each in found] == ["cat 0", "cat 1"]
    assert len({each.rpartition(" ")[2] for each in found}) == 1
