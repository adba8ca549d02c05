"""What the tests of schedules share: workflows, and a store at whose schedules is looked by hand."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from duramen import Context, RunStatus, Runtime, Schedule, workflow


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@workflow
async def work(ctx: Context, day: str) -> str:
    """Lasts until it is told to end, and notes that it was cancelled."""
    try:
        await ctx.wait_for_event("end")
    except BaseException:
        await ctx.step("clean up", str)
        raise
    return day


class Book:
    """A runtime whose schedules are looked at when the test says so, with the clock that it says."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        # A schedule that was just made fires at hour 1 for the first time.
        self.start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)

    def hour(self, n: float) -> datetime:
        """Hour `n` of the test."""
        return self.start + timedelta(hours=n)

    def name(self, n: int, schedule_id: str = "s") -> str:
        """The run of the fire time at hour `n`."""
        return f"{schedule_id}:{self.hour(n):%Y-%m-%dT%H:%M:%SZ}"

    async def at(self, n: float) -> list[str]:
        """Look at the schedules at hour `n`; gives the runs that are started."""
        return [run.run_id for run in (await self.runtime.sweep(now=self.hour(n))).scheduled]

    async def status(self, n: int) -> RunStatus:
        return (await self.runtime.get(self.name(n))).status

    async def end(self, n: int) -> None:
        """Let the run of hour `n` end."""
        await self.runtime.signal(self.name(n), "end")
        await self.runtime.sweep(now=datetime.now(UTC) + timedelta(seconds=1), max_scheduled=0)
        assert await self.status(n) is RunStatus.COMPLETED

    async def runs(self) -> list[str]:
        return sorted([view.run_id for view in await self.runtime.list(limit=1000)])


@pytest.fixture
def book(any_url: str) -> Callable[..., AbstractAsyncContextManager[Book]]:
    """Opens a runtime with schedules, on each kind of store."""

    @asynccontextmanager
    async def opened(*schedules: Schedule[Any], **options: Any) -> AsyncIterator[Book]:
        async with Runtime(any_url, workflows=[work], schedules=schedules, **options) as runtime:
            yield Book(runtime)

    return opened
