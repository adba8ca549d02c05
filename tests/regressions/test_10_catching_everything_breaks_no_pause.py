"""Elsewhere a pause was an exception in the handler: code that caught it ended or corrupted the run."""

import asyncio
from datetime import timedelta

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import finish, story, work_on

pytestmark = pytest.mark.anyio


@workflow
async def catching(ctx: Context, ledger: str) -> list[str]:
    caught: list[str] = []
    try:
        await ctx.sleep(timedelta(minutes=5))
    except BaseException as error:  # noqa: BLE001
        caught.append(repr(error))
    for name in ("a", "b"):
        try:
            await ctx.wait_for_event(name)
        except:  # noqa: E722
            caught.append(name)
        finally:
            await ctx.step(f"after-{name}", work_on, ledger, f"after-{name}")
    try:
        await asyncio.gather(ctx.sleep(600), ctx.approve("Go on?"), return_exceptions=True)
    except BaseException as error:  # noqa: BLE001
        caught.append(repr(error))
    return caught


@pytest.mark.parametrize("warm", [0, 100])
async def test_a_handler_that_catches_everything_at_every_wait_pauses_and_ends_as_if_it_did_not(
    url: str, ledger: str, warm: int, recwarn: pytest.WarningsRecorder
) -> None:
    async with Runtime(url, workflows=[catching], warm=warm) as runtime:
        await runtime.enqueue(catching, ledger, run_id="r")
        await runtime.sweep()
        for wait in ("timer", "event:a", "event:b"):
            view = await runtime.get("r")
            assert view.waits == (wait,)
            if wait != "timer":
                await runtime.signal("r", wait.removeprefix("event:"))
            await runtime.sweep(now=view.ready_at)
        (approval_id,) = (await runtime.get("r")).waiting_approvals
        await runtime.approve("r", approval_id)
        view = await finish(runtime, "r")
        assert (view.status, view.output) == ("completed", [])
        told = await story(runtime, "r")
        assert len(told) == len(set(told))  # each thing happened once
    assert recwarn.list == []
