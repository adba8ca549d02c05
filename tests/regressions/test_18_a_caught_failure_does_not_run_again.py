"""Elsewhere a failed step whose error was caught ran again on each replay."""

import asyncio

import pytest

from duramen import Context, Retry, Runtime, StepFailed, workflow
from tests.regressions.support import finish, note, notes, ran, story, sweep_there, wait_until

pytestmark = pytest.mark.anyio


async def fail(ledger: str, what: str) -> str:
    note(ledger, f"ran {what} now")
    raise ValueError(what)


async def succeed(ledger: str, what: str) -> str:
    note(ledger, f"ran {what} now")
    return what


@workflow
async def coping(ctx: Context, ledger: str) -> list[str]:
    found: list[str] = []
    try:
        await ctx.step("card", fail, ledger, "card")
    except StepFailed as error:
        found.append(error.error.message)
        found.append(await ctx.step("invoice", succeed, ledger, "invoice"))
    found += [
        str(result.error.message) if isinstance(result, StepFailed) else str(result)
        for result in await asyncio.gather(
            ctx.step("a", fail, ledger, "a"), ctx.step("b", succeed, ledger, "b"), return_exceptions=True
        )
    ]
    try:
        await ctx.step("thrice", fail, ledger, "thrice", retry=Retry(attempts=3, base=0, jitter=False))
    except StepFailed as error:
        found.append(f"{error.attempts} attempts")
    for n in range(3):
        await ctx.wait_for_event(f"go{n}")
    return found


async def test_a_failure_that_the_handler_caught_is_recorded_once_and_never_tried_again(
    url: str, ledger: str
) -> None:
    async with Runtime(url, workflows=[coping]) as runtime:
        await runtime.enqueue(coping, ledger, run_id="r")
        await runtime.sweep()
    for n in range(2):
        async with Runtime(url, workflows=[coping], warm=0) as runtime:
            await runtime.signal("r", f"go{n}")
            await runtime.sweep()
            assert (await runtime.get("r")).waiting_events == (f"go{n + 1}",)
    with sweep_there(url, coping, ledger) as child:
        wait_until(lambda: notes(ledger)[-1].startswith("swept"))
        child.kill()
    async with Runtime(url, workflows=[coping]) as runtime:
        await runtime.signal("r", "go2")
        view = await finish(runtime, "r")
        assert view.output == ["card", "invoice", "a", "b", "3 attempts"]
        told = await story(runtime, "r")
        assert told.count("step_failed card") == 1
        assert told.count("step_attempt_failed thrice") == 2
    assert {what: ran(ledger, what) for what in ("card", "invoice", "a", "b", "thrice")} == {
        "card": 1, "invoice": 1, "a": 1, "b": 1, "thrice": 3,
    }  # fmt: skip
