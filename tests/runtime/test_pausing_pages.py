"""What docs/pausing.md and docs/sagas.md show is run."""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, Retry, Runtime, step, workflow
from duramen.errors import RunCancelled, RunFailed
from duramen.testing import Environment
from tests.runtime.support import status_is

DOCS = Path(__file__).parents[2] / "docs"
GIVEN = {"workflow": workflow, "step": step, "Context": Context, "Retry": Retry}


def blocks(page: str) -> list[str]:
    text = (DOCS / page).read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


async def execute(block: str, names: dict[str, Any]) -> dict[str, Any]:
    code = compile(block, "docs", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    found = eval(code, names)
    if inspect.isawaitable(found):
        await found
    return names


def test_pausing(any_url: str) -> None:
    one, many, definitions, shown, ways = blocks("pausing.md")
    down = [True]

    async def bank(order: str) -> str:
        if down[0]:
            raise LookupError("the bank is down")
        return "paid"

    @workflow(name="order")
    async def waiting(ctx: Context) -> None:
        await ctx.wait_for_event("paid")

    async def pause() -> None:
        async with Runtime(any_url, workflows=[waiting]) as runtime:
            await runtime.start(waiting, run_id="order:1")
            await status_is(runtime, "order:1", "waiting")
            await execute(one, {"runtime": runtime})
            for n in range(2):
                await runtime.enqueue(waiting, run_id=f"spring:{n}", tags=["spring"])
            await execute(many, {"runtime": runtime})

    async def exhaust(names: dict[str, Any]) -> None:
        order = names["order"]
        async with Runtime("memory://", workflows=[order]) as runtime:
            for n in (2, 3, 4):
                await runtime.start(order, "x", run_id=f"order:{n}")
                await status_is(runtime, f"order:{n}", "paused")
            await execute(shown, {"runtime": runtime})
            down[0] = False
            await execute(ways, {"runtime": runtime})
            assert await runtime.result("order:2", timeout=10) == "x: paid"
            assert await runtime.result("order:3", timeout=10) == "x: paid by hand"
            await runtime.sweep()
            with pytest.raises(RunCancelled):
                await runtime.result("order:4", timeout=10)

    asyncio.run(pause())
    names = asyncio.run(execute(definitions, {**GIVEN, "bank": bank}))
    asyncio.run(exhaust(names))


def test_sagas() -> None:
    saga, poll = blocks("sagas.md")
    done = list[str]()

    def doing(name: str) -> Any:
        def do(trip: str) -> str:
            done.append(name)
            if name == "book_car":
                raise LookupError("sold out")
            return trip

        return do

    names = ["book_hotel", "book_flight", "book_car", "cancel_hotel", "cancel_flight"]

    async def undo() -> None:
        trip = (await execute(saga, {**GIVEN, **{name: doing(name) for name in names}}))["trip"]
        async with Runtime("memory://", workflows=[trip]) as runtime:
            with pytest.raises(RunFailed, match="sold out"):
                await (await runtime.start(trip, "t")).result(timeout=10)
        assert done == ["book_hotel", "book_flight", "book_car", "cancel_flight", "cancel_hotel"]

    async def look() -> None:
        states = iter([{}, {}, {"url": "here"}])
        given = {
            "start_export": lambda: 7,
            "look_at": lambda job: next(states),
            "is_done": lambda state: "url" in state,
        }
        export = (await execute(poll, {**GIVEN, **given}))["export"]
        async with Environment([export]) as env:
            run = await env.runtime.start(export)
            assert await env.result(run) == "here"

    asyncio.run(undo())
    asyncio.run(look())
