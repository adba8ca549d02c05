"""Elsewhere all processes were named "worker", so each took the others' leases for its own."""

import asyncio

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import Child, hang, note, notes, ran, until, wait_until, work_on

pytestmark = pytest.mark.anyio


@workflow
async def hanging(ctx: Context, ledger: str) -> str:
    return await ctx.step("hang", hang, ledger, "hang")


@workflow
async def quick(ctx: Context, ledger: str) -> str:
    return await ctx.step("quick", work_on, ledger, "quick")


async def drive(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[hanging, quick], owner="worker") as runtime:
        note(ledger, f"owner {runtime.owner}")
        await runtime.start(hanging, ledger, run_id="r")
        await asyncio.Event().wait()


async def test_runtimes_with_the_same_label_have_names_of_their_own(url: str, ledger: str) -> None:
    with Child(drive, url, ledger) as one:
        wait_until(lambda: ran(ledger, "hang"))
        async with Runtime(url, workflows=[hanging], owner="worker") as runtime:
            (theirs,) = [line.removeprefix("owner ") for line in notes(ledger) if line.startswith("owner")]
            assert theirs.startswith("worker:")
            assert runtime.owner.startswith("worker:")
            assert runtime.owner != theirs
            assert (await runtime.sweep()).driven == ()
            assert (await runtime.run(hanging, ledger, run_id="r")).kind == "running"
            view = await runtime.get("r")
            assert (view.status, view.owner, view.epoch) == ("running", theirs, 1)
            assert ran(ledger, "hang") == 1
        one.kill()


async def test_of_many_workers_with_one_label_exactly_one_drives_each_run(url: str, ledger: str) -> None:
    runtimes = [Runtime(url, workflows=[quick], owner="worker") for _ in range(4)]
    for runtime in runtimes:
        await runtime.open()
    try:
        assert len({runtime.owner for runtime in runtimes}) == 4
        await runtimes[0].enqueue_many([(quick, ledger) for _ in range(100)])
        workers = [
            asyncio.ensure_future(runtime.work(handle_signals=False, poll_min=0.001, poll_max=0.01))
            for runtime in runtimes
        ]

        async def done() -> bool:
            return await runtimes[0].count(status="completed") == 100

        await until(done)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    finally:
        for runtime in runtimes:
            await runtime.close()
    assert ran(ledger, "quick") == 100
