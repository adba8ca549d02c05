"""Elsewhere recovery was tied to an executor's id: runs of a dead host waited for that host."""

from datetime import timedelta

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import finish, hang, in_future, ran, start_there, wait_until

pytestmark = pytest.mark.anyio


@workflow
async def hanging(ctx: Context, ledger: str) -> str:
    return await ctx.step("hang", hang, ledger, "hang")


async def test_the_run_of_a_host_that_is_gone_for_good_is_recovered_by_any_other_owner(
    url: str, ledger: str
) -> None:
    with start_there(url, hanging, ledger, "r") as host:
        wait_until(lambda: ran(ledger, "hang"))
        host.kill()
    async with Runtime(url, workflows=[hanging], owner="another-host-altogether") as runtime:
        dead = await runtime.get("r")
        assert dead.status == "running"
        assert (await runtime.sweep()).driven == ()  # not before its lease has ended
        swept = await runtime.sweep(now=in_future(timedelta(minutes=1)))
        assert [(run.run_id, run.kind) for run in swept.recovered] == [("r", "completed")]
        view = await runtime.get("r")
        assert (view.output, view.epoch) == ("hang", dead.epoch + 1)


async def test_recoveries_come_before_everything_else_in_a_sweep(url: str, ledger: str) -> None:
    with start_there(url, hanging, ledger, "r") as host:
        wait_until(lambda: ran(ledger, "hang"))
        host.kill()
    async with Runtime(url, workflows=[hanging]) as runtime:
        for n in range(5):
            await runtime.enqueue(hanging, ledger, run_id=f"queued{n}")
        swept = await runtime.sweep(limit=1, now=in_future())
        assert [run.run_id for run in swept.driven] == ["r"]
        assert swept.remaining_may_exist
        assert (await finish(runtime, "queued4")).output == "hang"
