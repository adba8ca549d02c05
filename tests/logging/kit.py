"""What the tests of the log share: workflows that fail, and a look at records."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from duramen import Context, Retry, step, workflow

CALLS: dict[str, int] = {}
"""How often a step began, by run id."""


class Records(logging.Handler):
    """Keeps what is logged, and tells when something came."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[logging.LogRecord] = []
        self._came = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._came:
            self.kept.append(record)
            self._came.notify_all()

    def of(self, logger: str, text: str = "") -> list[logging.LogRecord]:
        """The records of a logger with a text in their message."""
        with self._came:
            return [one for one in self.kept if one.name == logger and text in one.getMessage()]

    def await_(self, logger: str, text: str, limit: float = 20) -> logging.LogRecord:
        """Wait for a record of a logger with a text in its message."""
        with self._came:
            came = self._came.wait_for(lambda: self.of(logger, text), limit)
            assert came, f"no {text!r} in {[one.getMessage() for one in self.kept]}"
            return self.of(logger, text)[0]


@contextmanager
def records(level: int = logging.WARNING, name: str = "duramen") -> Iterator[Records]:
    """Everything that the product logs from a level on."""
    logger = logging.getLogger(name)
    before, kept = logger.level, Records()
    logger.addHandler(kept)
    logger.setLevel(level)
    try:
        yield kept
    finally:
        logger.removeHandler(kept)
        logger.setLevel(before)


_LOCKS = """
import sqlite3, sys
other = sqlite3.connect(sys.argv[1], isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(file: Path | str) -> Iterator[None]:
    """A SQLite file that another process has locked for writers. (Within a process locks do not count.)"""
    with subprocess.Popen(
        [sys.executable, "-c", _LOCKS, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        try:
            yield
        finally:
            other.kill()


@step(retry=Retry(attempts=3, base=0.02, jitter=False))
async def flaky(run_id: str, failures: int) -> int:
    """Fail so many times."""
    CALLS[run_id] = CALLS.get(run_id, 0) + 1
    if CALLS[run_id] <= failures:
        raise ValueError("no\nanswer")
    return CALLS[run_id]


@workflow
async def trying(ctx: Context[None], failures: int) -> int:
    """Try a step until it succeeds, then wait for an event."""
    told = await ctx.step("flaky", flaky, ctx.run_id, failures)
    await ctx.wait_for_event("go", type=int, timeout=timedelta(hours=1))
    return told


@workflow
async def failing(ctx: Context[None], text: str) -> None:
    """Fail by itself."""
    raise LookupError(text)


@workflow(name="changing")
async def changing(ctx: Context[None]) -> None:
    """Record a step and wait."""
    await ctx.step("old", lambda: "x")
    await ctx.wait_for_event("go", type=int)


@workflow(name="changing")
async def changed(ctx: Context[None]) -> None:
    """The same workflow after a change that does not fit its journals."""
    await ctx.step("new", lambda: "x")
    await ctx.wait_for_event("go", type=int)


@workflow
async def short(ctx: Context[None], number: int) -> int:
    """One step."""
    return await ctx.step("add", lambda: number + 1)
