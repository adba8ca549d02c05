"""Code whose types no longer fit what is recorded: the run is parked, and goes on under code that fits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import Context, Runtime, WorkflowDef, workflow

pytestmark = pytest.mark.anyio


class Receipt(BaseModel):
    number: int


async def text() -> str:
    return "seven"


async def receipt() -> Receipt:
    return Receipt(number=7)


async def one_by_one(ctx: Context, made: Callable[[], Awaitable[Any]]) -> Any:
    return await ctx.step("a", made)


async def side_by_side(ctx: Context, made: Callable[[], Awaitable[Any]]) -> Any:
    return (await asyncio.gather(ctx.step("a", made), ctx.step("b", made)))[0]


def stepping(how: Callable[..., Awaitable[Any]], made: Callable[[], Awaitable[Any]]) -> Any:
    @workflow(name="w")
    async def handler(ctx: Context) -> str:
        try:
            result = await how(ctx, made)
        except BaseException as error:  # noqa: BLE001 - it must not hear of it
            result = error
        await ctx.wait_for_event("go")
        return str(result)

    return handler


def receiving(type: Any) -> Any:  # noqa: A002
    @workflow(name="w")
    async def handler(ctx: Context) -> str:
        value = await ctx.wait_for_event("first", type)
        await ctx.wait_for_event("go")
        return str(value)

    return handler


def taking(type: Any) -> Any:  # noqa: A002
    async def handler(ctx: Context, value: Any) -> str:
        await ctx.wait_for_event("go")
        return str(value)

    handler.__annotations__["value"] = type
    return workflow(name="w")(handler)


CASES: dict[str, tuple[Any, Any, Any, str]] = {
    "a step's result": (
        stepping(one_by_one, text),
        stepping(one_by_one, receipt),
        None,
        "entry 1: expected (recorded) step_completed of 'a'",
    ),
    "results side by side": (
        stepping(side_by_side, text),
        stepping(side_by_side, receipt),
        None,
        "entry 1: expected (recorded) step_completed of 'a'",
    ),
    "an event": (
        receiving(str),
        receiving(Receipt),
        None,
        "entry 1: expected (recorded) event_received of 'event-1'",
    ),
    "the input": (taking(str), taking(Receipt), "seven", "entry 0: expected (recorded) run_created"),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_changed_type_parks_the_run(url: str, case: str) -> None:
    before, changed, given, where = CASES[case]
    first: WorkflowDef[Any, Any] = before
    async with Runtime(url, workflows=[before]) as runtime:
        if given is None:
            await runtime.enqueue(first, run_id="r")
        else:
            await runtime.enqueue(first, given, run_id="r")
        await runtime.signal("r", "first", "seven")
        await runtime.sweep()
        assert (await runtime.get("r")).status == "waiting"
    async with Runtime(url, workflows=[changed]) as runtime:
        await runtime.signal("r", "go")
        swept = await runtime.sweep()
        assert swept.summary["stuck"] == 1
        view = await runtime.get("r")
        assert view.status == "stuck"
        assert where in view.note.replace('"', "'")
        assert "found code that cannot read what is recorded" in view.note
        assert "Receipt" in view.note or "number" in view.note or "object" in view.note
    async with Runtime(url, workflows=[before]) as runtime:
        await runtime.retry("r")
        await runtime.sweep()
        # Also driven by the retry itself: the sweep may have found nothing left.
        assert await runtime.result("r", timeout=30) == "seven"
