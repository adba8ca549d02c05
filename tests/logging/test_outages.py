"""Trouble of the store is told when it begins and when it is over, and seldom in between."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from duramen import Runtime
from tests.logging.kit import locked, records, short
from tests.postgres.schemas import migrate
from tests.postgres.server import Server, server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(110)]

LOST, LASTS = "the store is in trouble", "the store has been in trouble for"
BACK = "the store answers again after"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def pg() -> Iterator[Server]:
    with server() as own:
        yield own


async def test_a_server_that_is_stopped_and_started_again(pg: Server) -> None:
    url = pg.new_database()
    migrate(url)
    with records() as kept:
        async with Runtime(url, workflows=[short], work=True, lease=3) as runtime:
            assert (await runtime.run(short, 1)).output == 2
            assert not kept.kept
            await asyncio.to_thread(pg.stop, "immediate")
            first = await asyncio.to_thread(kept.await_, "duramen.store", LOST)
            assert first.levelno == logging.WARNING
            assert vars(first)["duramen_error"] in first.getMessage()
            await asyncio.to_thread(kept.await_, "duramen.store", LASTS)
            await asyncio.to_thread(pg.start)
            await asyncio.to_thread(kept.await_, "duramen.store", BACK)
            assert (await runtime.run(short, 2)).output == 3
    told = [f"{record.name}: {record.getMessage()}" for record in kept.kept]
    print("\n".join(told))
    assert len(told) <= 10, told
    assert "password" not in " ".join(told).lower()


async def test_a_file_that_another_program_locks(file: Path, sqlite_url: str) -> None:
    async with Runtime(sqlite_url, workflows=[short], work=True, lease=2, busy_timeout=0.05) as runtime:
        assert (await runtime.run(short, 1)).output == 2
        with records() as kept:
            with locked(file):
                started = asyncio.ensure_future(runtime.run(short, 2))
                await asyncio.to_thread(kept.await_, "duramen.store", LOST)
            await asyncio.to_thread(kept.await_, "duramen.store", BACK)
            assert (await started).output == 3
    told = [record.getMessage() for record in kept.kept]
    assert len(told) <= 10, told


async def test_details_are_told_at_debug_and_a_change_of_the_level_is_seen(
    file: Path, sqlite_url: str
) -> None:
    async with Runtime(sqlite_url, workflows=[short], work=True, lease=2, busy_timeout=0.05) as runtime:
        with locked(file), records() as kept:
            started = asyncio.ensure_future(runtime.enqueue(short, 2))
            await asyncio.to_thread(kept.await_, "duramen.store", LOST)
            assert not kept.of("duramen.engine")
            logging.getLogger("duramen").setLevel(logging.DEBUG)
            await asyncio.to_thread(kept.await_, "duramen.engine", "trying again")
            logging.getLogger("duramen").setLevel(logging.CRITICAL)
            silent = len(kept.kept)
            await asyncio.sleep(1.5)  # time for what must not be told
            assert len(kept.kept) == silent
        await asyncio.gather(started, return_exceptions=True)
