"""The same crashes with real processes, which end in the middle, on a real store."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from duramen.testing import Environment, open_store
from duramen.testing._crash_store import CrashingStore
from tests.crashes.scenarios import SCENARIOS
from tests.regressions.support import DIED, note, processes, run_child

# Children are forked from a process that has these loaded: they begin within milliseconds.
processes.set_forkserver_preload(
    ["duramen", "duramen.testing", "tests.regressions.support", "tests.crashes.scenarios"]
)

START = datetime(2030, 1, 1, tzinfo=UTC)


async def _play(name: str, url: str, ledger: str, at: int, side: Any, life: int) -> None:
    """What a process does: play a scenario, up to the change at which it dies.

    Each life begins a day after the last, which is later than any lease.
    """
    scenario = SCENARIOS[name]
    inner = open_store(url, migrate=True)
    inner.in_thread = False
    store = CrashingStore(
        inner,
        at=at,
        side=side,
        on_recorded=lambda run_id, op, _: note(ledger, f"recorded {run_id}/{op}"),
    )
    store.on_crash = lambda: os._exit(DIED)
    async with Environment(scenario.workflows, store=store, now=START + timedelta(days=life), seed=0) as env:
        env.steps.on_start = lambda run_id, op, attempt: note(ledger, f"ran {attempt} {run_id}/{op}")
        outcome = await scenario.play(env)
        await env.settle()
        runs = sorted(f"{view.run_id} {view.status}" for view in await env.runtime.list())
        note(ledger, f"outcome {outcome!r} {runs}")


def play(name: str, url: str, ledger: Path, at: int, side: str, life: int) -> bool:
    """Play a scenario in a process of its own. True if that process died."""
    died = run_child(_play, name, url, str(ledger), at, side, life)
    assert died in {0, DIED}, f"the process ended with {died}"
    return bool(died)


def expected(name: str, url: str, ledger: Path) -> None:
    """Play a scenario here, without a crash."""
    asyncio.run(_play(name, url, str(ledger), 0, "before", 0))
