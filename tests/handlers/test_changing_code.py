"""`ctx.patched` and docs/changing-code.md: runs that are under way while their code changes."""

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, Runtime, WorkflowDef, workflow
from duramen.errors import InvalidId, RunFailed
from duramen.testing import Environment, replay
from tests.postgres.schemas import migrate
from tests.regressions.support import until_status

PAGE = (Path(__file__).parents[2] / "docs" / "changing-code.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
ORIGINAL, PATCHED, PATCHED_TWICE, RETIRED, VERSIONS, BEFORE = BLOCKS

Order = WorkflowDef[None, list[str]]


def deployed(block: str) -> Order:
    """The workflow of an example."""

    async def work(text: str) -> str:
        return text

    names: dict[str, Any] = {"workflow": workflow, "Context": Context, "work": work}
    exec(compile(block, "docs/changing-code.md", "exec"), names)
    return names["order"]


class Deploys:
    """One store, and runtimes with one code after the other over it."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def start(self, code: Order, run_id: str) -> None:
        """Until it waits for its payment; nothing is kept in memory for the next code."""
        async with Runtime(self.url, workflows=[code], warm=0, lease=2) as runtime:
            await runtime.start(code, run_id=run_id)
            await until_status(runtime, run_id, "waiting")

    async def paid(self, code: Order, run_id: str) -> list[str]:
        async with Runtime(self.url, workflows=[code], warm=0, lease=2, work=True) as runtime:
            await runtime.signal(run_id, "paid")
            output = await runtime.result(run_id, timeout=20)
            # A finished run replays with the code that it ended with.
            assert replay(code, await runtime.export(run_id)).kind == "completed"
            return output

    async def kinds(self, run_id: str) -> list[str]:
        async with Runtime(self.url) as runtime:
            return [f"{entry.kind} {entry.op}" async for entry in runtime.events(run_id, follow=False)]


@pytest.fixture
def deploys(url: str) -> Deploys:
    if url.startswith("postgresql"):
        migrate(url)
    return Deploys(url)


OLD = ["reserved", "shipped"]
NEW = ["reserved", "checked", "shipped"]
WHOLE = ["reserved", "checked", "cleared", "shipped"]


def test_runs_go_on_as_they_began_and_new_ones_follow_the_patch(deploys: Deploys) -> None:
    async def main() -> None:
        await deploys.start(deployed(ORIGINAL), "old")
        await deploys.start(deployed(PATCHED), "new")
        assert await deploys.paid(deployed(PATCHED), "old") == OLD
        assert await deploys.paid(deployed(PATCHED), "new") == NEW
        assert "patch_marked fraud-check" in await deploys.kinds("new")
        assert "patch_marked fraud-check" not in await deploys.kinds("old")

    asyncio.run(main())


def test_a_later_place_of_the_same_patch_gets_the_same_answer(deploys: Deploys) -> None:
    async def main() -> None:
        await deploys.start(deployed(ORIGINAL), "old")
        await deploys.start(deployed(PATCHED), "new")
        assert await deploys.paid(deployed(PATCHED_TWICE), "old") == OLD
        assert await deploys.paid(deployed(PATCHED_TWICE), "new") == WHOLE

    asyncio.run(main())


def test_a_retired_patch_takes_on_all_but_the_runs_of_the_old_branch(deploys: Deploys) -> None:
    async def main() -> None:
        await deploys.start(deployed(ORIGINAL), "old")
        await deploys.start(deployed(PATCHED_TWICE), "new")
        assert await deploys.paid(deployed(RETIRED), "new") == WHOLE
        async with Runtime(deploys.url, workflows=[deployed(RETIRED)], warm=0, work=True) as runtime:
            await runtime.signal("old", "paid")
            parked = await until_status(runtime, "old", "stuck")
            assert "check" in (parked.note or "")
        async with Runtime(deploys.url, workflows=[deployed(PATCHED)], warm=0, work=True) as runtime:
            await runtime.retry("old")
            assert await runtime.result("old", timeout=20) == OLD

    asyncio.run(main())


def test_a_new_version_leaves_runs_of_the_former_to_its_code(deploys: Deploys) -> None:
    async def main() -> None:
        versions = deployed(VERSIONS)
        await deploys.start(versions.previous[0], "old")
        await deploys.start(versions, "new")
        assert await deploys.paid(versions, "new") == ["delivered"]
        async with Runtime(deploys.url, workflows=[versions], warm=0, work=True) as runtime:
            await runtime.signal("old", "paid")
            assert await runtime.result("old", timeout=20) == OLD

    asyncio.run(main())


@pytest.mark.parametrize("bad", ["", "a\0b", "x" * 256, 7, None, "\ud800"])
def test_an_id_that_cannot_be_one_is_refused(bad: Any) -> None:
    @workflow
    async def asking(ctx: Context) -> str:
        try:
            ctx.patched(bad)
        except InvalidId as error:
            return str(error)
        return "accepted"

    async def main() -> None:
        async with Environment([asking]) as env:
            assert "patch id" in await env.result(await env.runtime.start(asking))

    asyncio.run(main())


def within_a_step(ctx: Context) -> Callable[[], bool]:
    return lambda: ctx.patched("p")


def test_a_step_cannot_ask() -> None:
    @workflow
    async def asking(ctx: Context) -> None:
        await ctx.step("ask", within_a_step(ctx))

    async def main() -> None:
        async with Environment([asking]) as env:
            run = await env.runtime.start(asking)
            with pytest.raises(RunFailed, match=r"ctx\.patched was called outside of its handler"):
                await env.result(run)

    asyncio.run(main())


def test_a_step_may_have_the_name_of_a_patch() -> None:
    @workflow
    async def namesakes(ctx: Context) -> list[bool]:
        found = [ctx.patched("check")]
        await ctx.step("check", print, "step")
        return [*found, ctx.patched("check"), ctx.patched("step")]

    async def main() -> None:
        async with Environment([namesakes]) as env:
            assert await env.result(await env.runtime.start(namesakes)) == [True, True, True]

    asyncio.run(main())


def test_the_script_before_a_deploy(deploys: Deploys, capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        names: dict[str, Any] = {}
        exec(compile(BEFORE, "docs/changing-code.md", "exec"), names)
        fits: Callable[[Runtime], Coroutine[Any, Any, bool]] = names["fits"]
        await deploys.start(deployed(ORIGINAL), "a")
        assert await fits(Runtime(deploys.url, workflows=[deployed(PATCHED)]))
        assert capsys.readouterr().out == ""
        assert not await fits(Runtime(deploys.url, workflows=[deployed(RETIRED)]))
        assert capsys.readouterr().out.startswith(
            "a (1): stuck: the code no longer fits the journal at entry 2"
        )
        assert await fits(Runtime(deploys.url, workflows=[deployed(VERSIONS)]))
        await deploys.paid(deployed(ORIGINAL), "a")
        assert await fits(Runtime(deploys.url, workflows=[deployed(VERSIONS)]))
        assert capsys.readouterr().out == "no open run needs order 1 any more\n"

    asyncio.run(main())


def test_old_code_that_meets_a_mark_is_told_as_the_page_says(deploys: Deploys) -> None:
    async def main() -> None:
        await deploys.start(deployed(PATCHED), "a")
        async with Runtime(deploys.url, workflows=[deployed(ORIGINAL)], warm=0) as runtime:
            await runtime.signal("a", "paid", drive=True)
            assert (await runtime.get("a")).status == "stuck"
        # With the code that made the mark it goes on, and so it does under a version of its own.
        async with Runtime(deploys.url, workflows=[deployed(PATCHED)], work=True) as runtime:
            await runtime.retry("a")
            assert await runtime.result("a", timeout=20) == ["reserved", "checked", "shipped"]

    asyncio.run(main())
