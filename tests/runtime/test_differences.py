"""What a stuck run says of itself, and how it is read."""

from typing import Any

import pytest

from duramen import Context, Difference, Runtime, RunView, workflow

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def work(what: str) -> str:
    return what


@workflow(name="order")
async def order(ctx: Context) -> str:
    await ctx.step("reserve", work, "reserved")
    return await ctx.wait_for_event("paid", str)


async def stuck(code: Any, url: str) -> RunView:
    async with Runtime(url, workflows=[order]) as runtime:
        await runtime.run(order, run_id="a")
    async with Runtime(url, workflows=[code]) as runtime:
        await runtime.signal("a", "paid", "cash", drive=True)
        return await runtime.get("a")


async def test_a_note_is_told_in_parts(sqlite_url: str) -> None:
    @workflow(name="order")
    async def renamed(ctx: Context) -> str:
        return await ctx.step("book, found", work, "reserved")

    view = await stuck(renamed, sqlite_url)
    assert view.status == "stuck"
    assert view.difference == Difference(
        index=1,
        expected='step_completed of "reserve"',
        found='a handler that has not asked for it; it waits for a step "book, found"',
        advice="deploy code that fits, then `retry` the run. If the code is the same, look in the handler "
        "for a loop over a set (its order differs between processes), the clock, chance or I/O",
        version="1",
    )


async def test_a_handler_that_waits_for_something_else(sqlite_url: str) -> None:
    @workflow(name="order")
    async def other(ctx: Context) -> str:
        await ctx.step("reserve", work, "reserved")
        return await ctx.wait_for_event("sent", str)

    found = (await stuck(other, sqlite_url)).difference
    assert found is not None
    assert (found.index, found.found) == (2, 'a handler that waits there for "event:sent"')
    assert found.expected == 'wait_opened of "event-1" while waiting for "event:paid"'


async def test_what_cannot_be_read_is_told(sqlite_url: str) -> None:
    @workflow(name="order")
    async def retyped(ctx: Context) -> int:
        async def count() -> int:
            return 1

        return await ctx.step("reserve", count)

    found = (await stuck(retyped, sqlite_url)).difference
    assert found is not None
    assert found.index == 1
    assert found.found.startswith("code that cannot read what is recorded")


async def test_another_reason_is_no_difference(sqlite_url: str) -> None:
    async with Runtime(sqlite_url, workflows=[order]) as runtime:
        await runtime.run(order, run_id="a")
        assert (await runtime.get("a")).difference is None
    assert Difference.of_note("3 processes in a row were lost while they drove it") is None
    assert Difference.of_note(None) is None
    unreadable = Difference.of_note(
        "journal entry 4 cannot be replayed: it has the kind 200. Nothing was lost: deploy code that reads "
        'it, then `retry` the run (run of version "7")'
    )
    assert unreadable is not None
    assert (unreadable.index, unreadable.found, unreadable.version) == (4, "it has the kind 200", "7")
