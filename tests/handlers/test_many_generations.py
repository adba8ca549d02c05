"""Ten thousand generations of one run: what it leaves in the store is that of one."""

import asyncio
import sqlite3
from typing import Any

import pytest

from duramen import Context, Runtime, workflow
from tests.postgres.schemas import connected

pytestmark = pytest.mark.anyio

GENERATIONS = {"sqlite": 10_000, "postgresql": 2_000}
"""By the scheme of the URL; on a server each takes ten times as long."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def work(number: int) -> int:
    return number


@workflow
async def polling(ctx: Context, left: int) -> int:
    await ctx.step("look", work, left)
    if left:
        ctx.continue_as_new(left - 1)
    return left


def measured(url: str) -> dict[str, int]:
    """How many rows each table has, and how large it is when what is dead has been cleared away."""
    sizes: dict[str, int] = {}
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as file:
            for (table,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
                (sizes[table],) = file.execute(f"SELECT count(*) FROM {table}").fetchone()
            (sizes["pages"],) = file.execute("PRAGMA page_count").fetchone()
        return sizes
    with connected(url, autocommit=True) as connection:
        for table in ("runs", "journal", "inbox", "outgoing", "run_data"):
            found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # pyright: ignore[reportArgumentType]
            assert found is not None
            sizes[table] = found[0]
    return sizes


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_thousand_generations_are_no_larger_than_one(url: str) -> None:
    # What it leaves is the question here, not what a power cut does.
    options: Any = {"synchronous": "normal"} if url.startswith("sqlite") else {}
    if not options:
        url += "&options=-c%20synchronous_commit%3Doff"
    last = GENERATIONS[url.partition(":")[0]]
    async with Runtime(url, workflows=[polling], **options) as runtime:
        run = await runtime.start(polling, last, run_id="r")
        while (await run.get()).generation < 50:  # noqa: ASYNC110 - it is another's journal that grows
            await asyncio.sleep(0.01)
        early = measured(url)
        assert await run.result() == 0
        view = await run.get()
        assert (view.generation, view.journal_len - view.journal_start) == (last, 3)
        late = measured(url)
    assert (late["runs"], late["journal"], late["inbox"]) == (1, 3, 0)
    assert late.get("pages", 0) <= early.get("pages", 0) + 2
