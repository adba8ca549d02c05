"""Workflows given as ``"module:attribute"``: whatever their import does hurts them alone."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from duramen import Context, Runtime, workflow
from duramen._runtime import registry
from duramen.errors import DuplicateWorkflow, UnknownWorkflow, WorkflowDefinitionError

pytestmark = pytest.mark.anyio

HEAD = "from duramen import Context, workflow\n"
SOUND = f"""{HEAD}
@workflow(name="lazy")
async def lazy(ctx: Context) -> str:
    return "lazy"
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@workflow
async def sound(ctx: Context) -> str:
    return "sound"


Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules that are forgotten after the test."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    names: list[str] = []

    def make(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        names.append(name)

    yield make
    for name in names:
        sys.modules.pop(name, None)


CASES = {
    "syntax": ("def", "SyntaxError"),
    "exit": ("import sys; sys.exit(3)", "SystemExit"),
    "no exception": ("class Odd(BaseException): pass\nraise Odd('why')", "Odd: why"),
    "generator exit": ("raise GeneratorExit", "GeneratorExit"),
    "cancelled": ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
    "no text": (
        "class Mute(Exception):\n  def __str__(self): raise LookupError\n  __repr__ = __str__\nraise Mute",
        "Mute",
    ),
    "deep": ("def f(): f()\nf()", "RecursionError"),
    "loop": ("import asyncio; asyncio.get_running_loop().run_forever()", "RuntimeError"),
    "no attribute": ("", "AttributeError"),
    "evil attribute": ("def __getattr__(name): raise MemoryError(name)", "MemoryError: lazy"),
    "wrong type": ("lazy = 3", "WorkflowDefinitionError"),
    "plain function": ("async def lazy(ctx): pass", "WorkflowDefinitionError"),
    "itself": ("from broken import lazy", "ImportError"),
    "bad definition": (
        f"{HEAD}@workflow\ndef lazy(ctx: Context) -> str: return ''",
        "WorkflowDefinitionError",
    ),
    "types that are not there": (
        f"{HEAD}@workflow\nasync def lazy(ctx: Context, given: 'Nowhere') -> str: return ''",
        "Nowhere",
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_whatever_an_import_does_the_others_work(
    case: str, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    source, reason = CASES[case]
    write("broken", source)
    write("fine", SOUND)
    async with Runtime("memory://", workflows=["broken:lazy", sound, "fine:lazy"]) as runtime:
        assert list(runtime.broken) == ["broken:lazy"]
        assert runtime.workflows == (("lazy", "1"), ("sound", "1"))
        assert reason in caplog.text
        assert await (await runtime.start(sound)).result(timeout=10) == "sound"
        assert await (await runtime.start("lazy")).result(timeout=10) == "lazy"
        with pytest.raises(UnknownWorkflow) as caught:
            await runtime.start("another")
        assert "'broken:lazy' could not be loaded" in "".join(caught.value.__notes__)


async def test_an_interrupt_is_no_error_of_a_module(write: Write) -> None:
    write("broken", "raise KeyboardInterrupt")
    runtime = Runtime("memory://", workflows=["broken:lazy"])
    with pytest.raises(KeyboardInterrupt):
        await runtime.open()
    assert runtime.broken == {}
    # It was not opened, and may be.
    write("broken", SOUND)
    async with runtime:
        assert runtime.workflows == (("lazy", "1"),)


async def test_one_definition_under_two_names_is_one(write: Write) -> None:
    write("fine", f"{SOUND}\nclass Space:\n    again = lazy\nother = lazy\n")
    paths = ["fine:lazy", "fine:other", "fine:Space.again", "fine:lazy"]
    async with Runtime("memory://", workflows=paths) as runtime:
        assert (runtime.broken, runtime.workflows) == ({}, (("lazy", "1"),))


async def test_two_definitions_of_one_name_are_not_mixed(write: Write) -> None:
    write("fine", SOUND)
    write(
        "second",
        f"""{HEAD}
@workflow(name="lazy", version="1")
async def first(ctx: Context) -> str:
    return "another first"

@workflow(name="lazy", version="2", previous=[first])
async def lazy(ctx: Context) -> str:
    return "second"
""",
    )
    async with Runtime("memory://", workflows=["fine:lazy", "second:lazy"]) as runtime:
        assert isinstance(runtime.broken["second:lazy"], DuplicateWorkflow)
        # Of the one that is refused nothing is served, not even what nobody else has.
        assert runtime.workflows == (("lazy", "1"),)
        assert await (await runtime.start("lazy")).result(timeout=10) == "lazy"


async def test_an_import_that_is_mended_is_taken_up_when_the_runtime_opens_again(write: Write) -> None:
    write("broken", "import no_such_module_anywhere")
    runtime = Runtime("memory://", workflows=["broken:lazy"])
    async with runtime:
        assert runtime.workflows == ()
    write("broken", SOUND)
    async with runtime:
        assert (runtime.broken, runtime.workflows) == ({}, (("lazy", "1"),))


async def test_an_import_that_takes_long_is_told(
    write: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry, "SLOW", 0.01)
    write("slow", f"import time; time.sleep(0.5)\n{SOUND}")
    async with Runtime("memory://", workflows=["slow:lazy"]) as runtime:
        assert runtime.workflows == (("lazy", "1"),)
    assert "'slow:lazy' is still being imported after 0.01 s" in caplog.text


@pytest.mark.parametrize("path", ["", "m", "m:", ":a", "m.:a", "m:a.", "m:a b", "m:a:b", "1m:a"])
def test_a_path_that_is_none_is_refused_at_once(path: str) -> None:
    with pytest.raises(WorkflowDefinitionError, match="names no workflow"):
        Runtime("memory://", workflows=[path])


async def test_modules_that_import_each_other_work(write: Write) -> None:
    write("one", f"import other\n{SOUND}")
    write(
        "other",
        f"import one\n{HEAD}\n@workflow\nasync def second(ctx: Context) -> str:\n    return one.__name__\n",
    )
    async with Runtime("memory://", workflows=["one:lazy", "other:second"]) as runtime:
        assert runtime.broken == {}
        assert await (await runtime.start("second")).result(timeout=10) == "one"
    await asyncio.sleep(0)
