"""Elsewhere a process that came back after its lease marked the run failed, healthy in other hands."""

import asyncio
import os
import signal

import pytest

from duramen import Context, Runtime, workflow
from tests.regressions.support import (
    Child,
    WrappedStore,
    finish,
    note,
    notes,
    ran,
    story,
    until_true,
    wait_until,
)

pytestmark = pytest.mark.anyio


async def stop_myself(ledger: str) -> str:
    """The first process stops in here, beyond its lease, and then wants to report a failure."""
    pid = os.getpid()
    note(ledger, f"ran risky {pid}")
    if ran(ledger, "risky") == 1:
        os.kill(pid, signal.SIGSTOP)
        raise ValueError("the zombie's failure")
    return "healthy"


@workflow
async def risky(ctx: Context, ledger: str) -> str:
    return await ctx.step("risky", stop_myself, ledger)


class TellingStore(WrappedStore):
    """Notes what became of commits."""

    def __init__(self, url: str, ledger: str) -> None:
        super().__init__(url)
        self.ledger = ledger

    async def commit(self, batch: object) -> object:
        outcomes = await self.inner.commit(batch)
        for outcome in outcomes:
            note(self.ledger, f"commit {outcome['kind']} {os.getpid()}")
        return outcomes


async def drive(url: str, ledger: str) -> None:
    async with Runtime(TellingStore(url, ledger), workflows=[risky], lease=3600, migrate=True) as runtime:
        await runtime.start(risky, ledger, run_id="r")
        await asyncio.Event().wait()


async def test_the_late_failure_of_a_stopped_process_is_refused_and_the_run_stays_healthy(
    url: str, ledger: str
) -> None:
    with Child(drive, url, ledger) as zombie:
        wait_until(lambda: ran(ledger, "risky") == 1)
        async with Runtime(url, workflows=[risky]) as runtime:
            view = await finish(runtime, "r")
            assert (view.status, view.output) == ("completed", "healthy")
            before = await story(runtime, "r")
            zombie.send(signal.SIGCONT)
            fenced = f"commit fenced {zombie.process.pid}"
            wait_until(lambda: fenced in notes(ledger))
            assert (await runtime.get("r")).status == "completed"
            assert (
                await story(runtime, "r") == before == ["run_created", "step_completed risky", "run_finished"]
            )
    assert f"commit applied {zombie_pid(ledger)}" not in notes(ledger)


def zombie_pid(ledger: str) -> str:
    return next(line for line in notes(ledger) if line.startswith("ran risky")).split()[-1]


async def test_a_zombie_whose_run_is_still_driven_elsewhere_cannot_end_it(url: str, ledger: str) -> None:
    gate = asyncio.Event()

    async def held(ledger: str) -> str:
        note(ledger, "ran held other")
        await gate.wait()
        return "healthy"

    @workflow(name="risky")
    async def elsewhere(ctx: Context, ledger: str) -> str:
        return await ctx.step("risky", held, ledger)

    with Child(drive, url, ledger) as zombie:
        wait_until(lambda: ran(ledger, "risky") == 1)
        async with Runtime(url, workflows=[elsewhere]) as runtime:
            finishing = asyncio.ensure_future(finish(runtime, "r"))
            await until_true(lambda: ran(ledger, "held"))
            zombie.send(signal.SIGCONT)
            fenced = f"commit fenced {zombie.process.pid}"
            await until_true(lambda: fenced in notes(ledger))
            running = await runtime.get("r")
            assert (running.status, running.owner) == ("running", runtime.owner)
            gate.set()
            assert (await finishing).output == "healthy"


def stop_in_the_only_thread(ledger: str) -> None:
    pid = os.getpid()
    note(ledger, f"ran first {pid}")
    if ran(ledger, "first") == 1:
        os.kill(pid, signal.SIGSTOP)


def after_it(ledger: str) -> None:
    note(ledger, f"ran second {os.getpid()}")


@workflow
async def queueing(ctx: Context, ledger: str) -> None:
    await asyncio.gather(
        ctx.step("first", stop_in_the_only_thread, ledger), ctx.step("second", after_it, ledger)
    )


async def drive_with_one_thread(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[queueing], lease=1, max_threads=1) as runtime:
        await runtime.start(queueing, ledger, run_id="r")
        while not runtime.stats()["lost"]:  # noqa: ASYNC110 - it is told to nobody
            await asyncio.sleep(0.01)
        note(ledger, "lost")
        await asyncio.Event().wait()


async def test_a_step_that_waited_for_a_thread_does_not_start_after_the_lease(url: str, ledger: str) -> None:
    """Its function would run beside the one that the new owner has started meanwhile."""
    with Child(drive_with_one_thread, url, ledger) as zombie:
        wait_until(lambda: ran(ledger, "first") == 1)
        async with Runtime(url, workflows=[queueing]) as runtime:
            while (await runtime.get("r")).status != "completed":
                await runtime.sweep()
                await asyncio.sleep(0.1)
            zombie.send(signal.SIGCONT)
            await until_true(lambda: "lost" in notes(ledger))
            await asyncio.sleep(0.3)
            assert f"ran second {zombie.process.pid}" not in notes(ledger)
            assert ran(ledger, "second") == 1
