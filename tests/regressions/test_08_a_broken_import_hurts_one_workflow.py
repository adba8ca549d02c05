"""Elsewhere the error of one loader ended a whole sweep."""

import sys
from pathlib import Path

import pytest

from duramen import Context, Runtime, workflow
from duramen.errors import UnknownWorkflow

pytestmark = pytest.mark.anyio


@workflow
async def sound(ctx: Context, number: int) -> int:
    return number + 1


BROKEN = """
from duramen import Context, workflow
{error}

@workflow
async def shaky(ctx: Context, number: int) -> int:
    return number - 1
"""


@pytest.mark.parametrize("error", ["import no_such_module_anywhere", "raise SystemExit(3)", "def"])
async def test_a_workflow_that_cannot_be_imported_leaves_the_sweep_of_the_others_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: str
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    module = tmp_path / "lazily_loaded.py"
    path = "lazily_loaded:shaky"
    try:
        module.write_text(BROKEN.format(error=""))
        async with Runtime(url, workflows=[sound, path]) as runtime:
            await runtime.enqueue("shaky", 1, run_id="shaky")
            await runtime.enqueue(sound, 1, run_id="sound")
        sys.modules.pop("lazily_loaded")
        module.write_text(BROKEN.format(error=error))
        async with Runtime(url, workflows=[path, sound]) as runtime:
            assert list(runtime.broken) == [path]
            assert path in caplog.text
            assert [(run.run_id, run.kind) for run in (await runtime.sweep()).queued] == [
                ("sound", "completed")
            ]
            assert (await runtime.get("shaky")).status == "queued"
            with pytest.raises(UnknownWorkflow) as caught:
                await runtime.enqueue("shaky", 2)
            assert path in "".join(caught.value.__notes__)
        sys.modules.pop("lazily_loaded", None)
        module.write_text(BROKEN.format(error=""))
        async with Runtime(url, workflows=[path, sound]) as runtime:
            await runtime.sweep()
            assert await runtime.result("shaky", timeout=10) == 0
    finally:
        sys.modules.pop("lazily_loaded", None)


async def test_a_module_without_the_attribute_is_reported_by_its_path(url: str) -> None:
    async with Runtime(url, workflows=["json:no_such_workflow", "json:dumps", sound]) as runtime:
        assert set(runtime.broken) == {"json:no_such_workflow", "json:dumps"}
        run = await runtime.start(sound, 1)
        assert await run.result(timeout=10) == 2
