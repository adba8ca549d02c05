"""Runs that end the process that drives them, driven by process after process until they are parked."""

import asyncio
import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from duramen import Runtime
from duramen.errors import RunStuck
from tests.workers.app import poison

processes = multiprocessing.get_context("spawn")
MOST = 8
LEASE = timedelta(seconds=30)


async def _sweep(url: str, now: datetime) -> None:
    async with Runtime(url, workflows=[poison], lease=LEASE) as runtime:
        await runtime.sweep(now=now)


def sweep(url: str, now: datetime) -> None:
    """One pass, in a process that may not live to its end."""
    asyncio.run(_sweep(url, now))


def test_a_run_that_kills_every_process_is_parked_with_the_reason_and_can_be_retried(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, ledger = postgres_url, tmp_path / "ledger"
    monkeypatch.setenv("APP_LEDGER", str(ledger))

    async def prepare() -> None:
        await Runtime(url).migrate()
        async with Runtime(url, workflows=[poison]) as runtime:
            await runtime.enqueue(poison, run_id="killer")

    async def status() -> str:
        async with Runtime(url) as runtime:
            return str((await runtime.get("killer")).status)

    asyncio.run(prepare())
    now, codes = datetime.now(UTC) + timedelta(hours=1), list[int | None]()
    while asyncio.run(status()) != "stuck":
        child = processes.Process(target=sweep, args=(url, now))
        child.start()
        child.join(60)
        codes.append(child.exitcode)
        assert len(codes) < 3 * MOST
        now += 8 * LEASE  # later than any lease, and than any time it was set back for
    kills = [code for code in codes if code != 0]
    assert len(kills) == MOST
    assert ledger.read_text("utf-8").count("kills killer") == MOST
    # Each but the first two was preceded by a pass that set it back; the last parked it.
    assert codes.count(0) == MOST - 2 + 1

    async def retried() -> None:
        async with Runtime(url) as runtime:
            with pytest.raises(RunStuck, match="8 drivers in a row were lost over this run"):
                await runtime.result("killer", timeout=5)
            await runtime.retry("killer")
        assert await status() == "queued"

    asyncio.run(retried())
    child = processes.Process(target=sweep, args=(url, now))
    child.start()
    child.join(60)
    assert child.exitcode != 0, "it is driven again, and not parked at once"
