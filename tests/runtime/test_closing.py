"""Closing a runtime leaves nothing behind that others have to wait for."""

import pytest

from duramen import Context, Runtime, workflow

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@workflow
async def wait(ctx: Context) -> str:
    return await ctx.wait_for_event("word", str)


async def test_a_message_sent_right_before_the_end_leaves_no_lease(url: str) -> None:
    """The message makes the run due, so it is claimed while the runtime closes; it used to stay leased."""
    ids = [f"run:{number}" for number in range(8)]
    for run_id in ids:
        async with Runtime(url, workflows=[wait]) as runtime:
            await runtime.run(wait, run_id=run_id)
            await runtime.signal(run_id, "word", "hello")
    async with Runtime(url, workflows=[wait]) as runtime:
        assert [run.run_id for run in await runtime.list(status="running")] == []
        await runtime.sweep()
        assert {await runtime.result(run_id, timeout=5) for run_id in ids} == {"hello"}
