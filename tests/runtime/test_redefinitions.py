"""Definitions that are made anew while a runtime is open: cells that are run again, modules reloaded."""

import asyncio
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, Runtime, WorkflowDef, workflow
from duramen.errors import UnknownWorkflow

CELL = """
from duramen import Context, workflow
@workflow
async def greet(ctx: Context, name: str) -> str:
    await ctx.wait_for_event("go")
    return WORD + ' ' + name
"""


def cell(word: str) -> WorkflowDef[str, str]:
    """What a notebook does with a cell: it is run in the same module each time."""
    space: dict[str, Any] = {"__name__": "notebook"}
    exec(CELL.replace("WORD", repr(word)), space)
    return space["greet"]


def test_a_cell_that_was_run_again_is_the_workflow_from_then_on() -> None:
    first, second = cell("hello"), cell("goodbye")

    async def main() -> None:
        async with Runtime("memory://", workflows=[first]) as runtime:
            old = await runtime.start(first, "you", run_id="old")
            new = await runtime.start(second, "you", run_id="new")
            by_name = await runtime.start("greet", "you", run_id="name")
            for run in (old, new, by_name):
                await run.signal("go")
            # What is in memory goes on with the code that it began with.
            assert await old.result(10) == "hello you"
            assert await new.result(10) == "goodbye you"
            assert await by_name.result(10) == "goodbye you"

    asyncio.run(main())


def test_a_module_that_was_reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "reloaded_module.py"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    file.write_text("from duramen import workflow\n@workflow\nasync def fine(ctx):\n    return 1\n")
    module = importlib.import_module("reloaded_module")

    async def main() -> None:
        async with Runtime("memory://", workflows=[module.fine]) as runtime:
            assert await (await runtime.start(module.fine)).result(10) == 1
            file.write_text("from duramen import workflow\n@workflow\nasync def fine(ctx):\n    return 22\n")
            importlib.invalidate_caches()
            importlib.reload(module)
            assert await (await runtime.start(module.fine)).result(10) == 22
            assert (await runtime.run(module.fine)).output == 22
            assert await runtime.count(workflow=module.fine) == 3

    asyncio.run(main())


def test_the_prompt_of_python(tmp_path: Path) -> None:
    lines = [
        "import asyncio",
        "from duramen import Context, Runtime, workflow",
        "@workflow\nasync def greet(ctx: Context) -> int:\n    return 1\n",
        "runtime = Runtime('memory://', workflows=[greet])",
        "runtime.sync.start(greet).result(10)",
        "@workflow\nasync def greet(ctx: Context) -> int:\n    return 2\n",
        "runtime.sync.start(greet).result(10)",
        "runtime.sync.close()",
    ]
    done = subprocess.run(  # noqa: PLW1510 - what it said is looked at
        [sys.executable, "-i", "-q"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["1", "2"], done.stderr


def made(word: str) -> WorkflowDef[None, str]:
    @workflow(name="made")
    async def handler(ctx: Context) -> str:
        return word

    return handler


@workflow(name="made")
async def elsewhere(ctx: Context) -> str:
    return "elsewhere"


@pytest.mark.parametrize("other", [made("two"), elsewhere])
def test_another_definition_is_not_taken_for_the_registered_one(other: WorkflowDef[None, str]) -> None:
    async def main() -> None:
        async with Runtime("memory://", workflows=[made("one")]) as runtime:
            with pytest.raises(UnknownWorkflow) as caught:
                await runtime.start(other)
            (note,) = caught.value.__notes__
            assert "another definition of that name and version is registered, made at" in note
            assert await (await runtime.start("made")).result(10) == "one"

    asyncio.run(main())
