"""Elsewhere one run that could not be driven took the rest of its batch with it."""

import asyncio
import logging
import sys
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import Context, Runtime, workflow
from tests.regressions.support import in_future

pytestmark = pytest.mark.anyio


class Bomb(BaseModel):
    kind: str

    def model_post_init(self, context: Any) -> None:
        if self.kind == "explodes when read":
            raise RuntimeError("boom")


@workflow(name="poison")
async def storing(ctx: Context, value: Any) -> None:
    await ctx.wait_for_event("go")


async def nothing() -> None:
    return None


def too_deep(n: int) -> int:
    return too_deep(n + 1)


@workflow(name="poison")
async def poison(ctx: Context, value: Bomb) -> object:
    match value.kind:
        case "other code":
            await ctx.step("new", nothing)
        case "exits":
            sys.exit(3)
        case "recurses":
            too_deep(0)
        case "base exception":
            raise BaseExceptionGroup("odd", [GeneratorExit()])
        case "out of memory":
            raise MemoryError
        case "cancels itself":
            raise asyncio.CancelledError
        case "stops iteration":
            raise StopAsyncIteration
        case "cannot be stored":
            return object()
        case "bad state":
            ctx.emit("x", object())
        case _:
            pass
    await ctx.wait_for_event("go")
    return value.kind


FAILS = [
    "explodes when read", "exits", "recurses", "base exception", "out of memory", "cancels itself",
    "stops iteration", "cannot be stored",
]  # fmt: skip
KINDS = ["fine 1", "other code", *FAILS[:4], "fine 2", *FAILS[4:], "bad state", "fine 3"]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


async def test_one_sweep_drives_all_new_runs_whatever_some_of_them_do(url: str) -> None:
    async with Runtime(url, workflows=[storing]) as runtime:
        for kind in KINDS:
            await runtime.enqueue(storing, {"kind": kind}, run_id=kind)
            await runtime.signal(kind, "go")
    async with Runtime(url, workflows=[poison]) as runtime:
        swept = await runtime.sweep(max_queued=100)
        found = {run.run_id: run.kind for run in swept.queued}
        assert found == {kind: "failed" if kind in FAILS else "completed" for kind in KINDS}
        for kind in KINDS:
            view = await runtime.get(kind)
            assert view.owner is None
            assert (view.error is None) == (kind not in FAILS)
        # And it is over: nobody comes back to it.
        assert (await runtime.sweep(now=in_future(timedelta(days=9)))).driven == ()


async def test_one_sweep_wakes_all_runs_whose_code_has_changed_into_something_that_breaks(url: str) -> None:
    async with Runtime(url, workflows=[storing]) as runtime:
        for kind in KINDS:
            await runtime.enqueue(storing, {"kind": kind}, run_id=kind)
        await runtime.sweep(max_queued=100)
        for kind in KINDS:
            await runtime.signal(kind, "go")
    async with Runtime(url, workflows=[poison]) as runtime:
        swept = await runtime.sweep(max_timers=100)
        found = {run.run_id: run.kind for run in swept.timers}
        # The journal says that it waited, the code ends before: nothing is decided, a person looks at it.
        assert found == {kind: "completed" if kind.startswith(("fine", "bad")) else "stuck" for kind in KINDS}
        for kind in KINDS:
            view = await runtime.get(kind)
            assert view.owner is None
            assert (view.note is None) == (found[kind] == "completed")
        assert (await runtime.sweep(now=in_future(timedelta(days=9)))).driven == ()
    async with Runtime(url, workflows=[storing]) as runtime:  # the old code again
        stuck = [kind for kind, status in found.items() if status == "stuck"]
        for kind in stuck:
            await runtime.retry(kind)
        for kind in stuck:
            assert await runtime.result(kind, timeout=10) is None


async def test_a_run_whose_input_cannot_be_read_by_its_type_can_still_be_looked_at(url: str) -> None:
    async with Runtime(url, workflows=[storing]) as runtime:
        await runtime.enqueue(storing, {"kind": "explodes when read"}, run_id="r")
    async with Runtime(url, workflows=[poison]) as runtime:
        assert (await runtime.get("r")).input == {"kind": "explodes when read"}
