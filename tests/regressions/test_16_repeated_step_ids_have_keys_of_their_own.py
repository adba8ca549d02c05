"""Elsewhere two steps of one id shared an idempotency key, so the second one's effect was dropped."""

import asyncio

import pytest

from duramen import Context, Retry, Runtime, step_context, workflow
from tests.regressions.support import finish, note, notes

pytestmark = pytest.mark.anyio


async def mail(ledger: str, to: str) -> str:
    context = step_context()
    note(ledger, f"{to} {context.idempotency_key} {context.attempt}")
    if to == "b" and context.attempt == 1:
        raise ConnectionError("try again")
    return context.idempotency_key


@workflow(retry=Retry(attempts=2, base=0, jitter=False))
async def mailing(ctx: Context, ledger: str) -> list[str]:
    one = [await ctx.step("mail", mail, ledger, to) for to in "ab"]
    two = await asyncio.gather(*(ctx.step("mail", mail, ledger, to) for to in "cd"))
    await ctx.wait_for_event("go")
    return [*one, *two, await ctx.step("mail", mail, ledger, "e")]


async def test_each_use_of_a_step_id_has_its_own_key_the_same_over_attempts_and_replays(
    url: str, ledger: str
) -> None:
    keys = ["r/mail", "r/mail#2", "r/mail#3", "r/mail#4", "r/mail#5"]
    async with Runtime(url, workflows=[mailing]) as runtime:
        await runtime.enqueue(mailing, ledger, run_id="r")
        await runtime.sweep()
    async with Runtime(url, workflows=[mailing]) as runtime:
        await runtime.signal("r", "go")
        assert (await finish(runtime, "r")).output == keys
    assert notes(ledger) == [
        "a r/mail 1", "b r/mail#2 1", "b r/mail#2 2", "c r/mail#3 1", "d r/mail#4 1", "e r/mail#5 1",
    ]  # fmt: skip


async def test_the_same_step_of_two_runs_has_two_keys(ledger: str) -> None:
    async with Runtime("memory://", workflows=[mailing]) as runtime:
        for run_id in ("one", "two"):
            await runtime.enqueue(mailing, ledger, run_id=run_id)
            await runtime.signal(run_id, "go")
            await finish(runtime, run_id)
    keys = {line.split()[1] for line in notes(ledger)}
    assert len(keys) == 10
