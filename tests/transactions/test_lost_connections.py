"""The user's connection is cut at each request of a transaction, the COMMIT among them."""

import asyncio
import itertools
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from duramen import Context, Retry, RunFailed, workflow
from duramen._driving import transactions
from tests.postgres.wire import Side, Wire, wire
from tests.transactions.kits import DRIVERS, Kit, Postgres, SqlAlchemy

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[driver for driver in DRIVERS if not driver.startswith("sqlite")])
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def proxy(postgres_server: str) -> Iterator[Wire]:
    with wire(urlsplit(postgres_server).port or 5432) as proxy:
        yield proxy


@pytest.fixture
def kit(made_kit: Kit, proxy: Wire) -> Kit:
    """Its connections go through the wire; the store's do not."""
    assert isinstance(made_kit, Postgres)
    parts = urlsplit(made_kit.dsn)
    made_kit.dsn = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}").geturl()
    return made_kit


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_cut_connection_neither_loses_nor_repeats_the_effect(
    kit: Kit, proxy: Wire, side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    cut_at = 0

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        def cut() -> None:
            calls.append(word)
            if calls.count(word) == 1:
                proxy.cut(cut_at, side)

        return await ctx.transaction("write", kit.write(cut), word, retry=Retry(attempts=2, base=0.01))

    caplog.set_level(logging.WARNING, "duramen")
    cuts = 0
    async with kit.runtime(pay) as runtime:
        for cut_at in itertools.count(1):
            proxy.cut_happened = False
            word = f"cut at {cut_at}"
            assert await (await runtime.start(pay, word, run_id=word)).result(timeout=10) == word.upper()
            if not proxy.cut_happened:
                break
            cuts += 1
    assert cuts >= 3  # the fence, the journal, COMMIT
    words = [f"cut at {n}" for n in range(1, cuts + 2)]
    assert sorted(kit.words()) == sorted(words)
    # After its COMMIT has reached the server a function is not called again; nor without a cut.
    again = {word for word in words if calls.count(word) == 2}
    assert calls.count(words[-1]) == 1
    doubts = [record.args[1] for record in caplog.records if "is not known" in record.msg]
    assert len(doubts) == 1
    assert again == set(words[:-1]) - (set(doubts) if side == "after" else set())


@pytest.mark.parametrize("wrong", ["password", "database"])
async def test_a_server_that_refuses_costs_no_attempt_but_not_for_long(
    kit: Kit, wrong: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password may be about to be changed; one that stays wrong is told soon, and logged once."""
    assert isinstance(kit, Postgres)
    right = kit.dsn
    parts = urlsplit(right)
    if wrong == "password":
        refused = right.replace(f":{parts.password}@", ":no-such-password@")
    else:
        refused = parts._replace(path="/no_such_database").geturl()
    connected: list[str] = []
    refusals = 3

    def connect() -> Any:
        kit.dsn = refused if len(connected) < refusals else right
        connected.append(kit.dsn)
        return kit.engine.connect() if isinstance(kit, SqlAlchemy) else kit.options["database"]()

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        return await ctx.transaction("write", kit.write(), word, retry=Retry(attempts=1), database=connect)

    caplog.set_level(logging.WARNING, "duramen")
    async with kit.runtime(pay) as runtime:
        assert await (await runtime.start(pay, "one")).result(timeout=20) == "ONE"
        assert len(connected) == refusals + 1
        monkeypatch.setattr(transactions, "_PATIENCE_REFUSED", 0.2)
        connected.clear()
        refusals = 1_000
        with pytest.raises(RunFailed, match=f"{wrong}"):
            await (await runtime.start(pay, "two")).result(timeout=20)
    assert kit.words() == ["one"]
    begun_anew = [record for record in caplog.records if "begins anew" in record.msg]
    assert len(begun_anew) == 2
    assert all(wrong in record.getMessage() for record in begun_anew)
    assert "no-such-password" not in caplog.text


async def test_a_silent_connection_is_given_up_and_what_it_does_later_is_fenced(
    kit: Kit, proxy: Wire
) -> None:
    """The function has returned and nothing more is heard of the database, for longer than a lease."""
    calls: list[int] = []
    resumed: list[bool] = []

    def stall() -> None:
        calls.append(1)
        if len(calls) == 1:
            proxy.stall()
            loop.call_soon_threadsafe(loop.call_later, 1.8, resume)

    def resume() -> None:
        resumed.append(True)
        proxy.resume()

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        return await ctx.transaction("write", kit.write(stall), word)

    loop = asyncio.get_running_loop()
    async with kit.runtime(pay, lease=1) as runtime:
        run = await runtime.start(pay, "one")
        assert await run.result(timeout=20) == "ONE"
        epoch = (await runtime._services.queries.detail(run.run_id)).row.epoch
    assert resumed
    assert epoch > 1  # it was let go of, and taken again
    assert kit.words() == ["one"]
