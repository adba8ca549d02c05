"""A connection may break at any request, before the server saw it or after it answered; or fall silent."""

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from duramen import Context, Runtime, step_context, workflow
from duramen.errors import StoreUnavailable
from tests.postgres.load import insist
from tests.postgres.schemas import connected, empty
from tests.postgres.wire import Side, Wire, wire
from tests.regressions.support import story

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def proxy(postgres_server: str) -> Iterator[Wire]:
    with wire(urlsplit(postgres_server).port or 5432) as proxy:
        yield proxy


def through(proxy: Wire, url: str, **options: object) -> str:
    parts = urlsplit(url)
    there = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
    more = "".join(f"&{name}={value}" for name, value in options.items())
    return parts._replace(netloc=there).geturl() + more


async def counted(direct: str, what: str) -> str:
    """A step that looks, past the wire and past the store, whether its result is there already."""
    context = step_context()
    run_id, _, op = context.idempotency_key.partition("/")
    with connected(direct) as connection:
        found = connection.execute(
            "SELECT count(*) FROM journal WHERE run_id = %s AND op = %s AND kind IN (1, 2)", (run_id, op)
        ).fetchone()
    assert found == (0,), f"{context.idempotency_key} begins again although its outcome is recorded"
    return what


@workflow
async def shipping(ctx: Context, direct: str) -> list[Any]:
    first = await ctx.step("first", counted, direct, "1")
    token = str(ctx.uuid())
    both = await asyncio.gather(
        ctx.step("left", counted, direct, token), ctx.step("right", counted, direct, "r")
    )
    await ctx.sleep(timedelta(minutes=10))
    paid = await ctx.wait_for_event("paid", int)
    decision = await ctx.approve("Ship it?", id="ship")
    return [first, both[0] == token, both[1], paid, decision.approved]


async def play(url: str, direct: str) -> tuple[list[Any], list[str]]:
    """Everything that callers and workers do, each insisting as long as the store cannot be reached."""
    runtime = Runtime(url, workflows=[shipping])
    await insist(runtime.open)
    try:
        await insist(lambda: runtime.enqueue(shipping, direct, run_id="r"))
        await insist(lambda: runtime.signal("r", "paid", 7, signal_id="payment"))
        instant = datetime.now(UTC)
        for _ in range(40):
            view = await insist(lambda: runtime.get("r"))
            if view.finished:
                assert (view.status, view.unread) == ("completed", 0), view
                return view.output, await insist(lambda: story(runtime, "r"))
            if view.waiting_approvals:
                await insist(lambda: runtime.approve("r", "ship"))
            instant += timedelta(hours=1)
            await insist(lambda: runtime.sweep(now=instant))  # noqa: B023 - called at once
        raise AssertionError(f"the run makes no progress: {view}")
    finally:
        with contextlib.suppress(StoreUnavailable):
            await runtime.close()


@pytest.mark.timeout(110)
@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_connection_may_break_at_any_request(proxy: Wire, postgres_url: str, side: Side) -> None:
    url = through(proxy, postgres_url, pool_size=1, notify="off")
    expected = await play(url, postgres_url)
    cuts = 0
    for nth in itertools.count(1):
        empty(postgres_url)
        proxy.cut(nth, side)
        found = await play(url, postgres_url)
        if not proxy.cut_happened:
            break
        cuts += 1
        assert found == expected, f"cut {side} request {nth}: {proxy.log[-1]}"
    assert cuts > 12
    print(f"{cuts} connections cut {side} a request")


GATES: dict[str, asyncio.Event] = {}


async def gated(name: str) -> str:
    if name in GATES:
        await GATES[name].wait()
    return name


@workflow
async def held(ctx: Context, name: str) -> list[str]:
    return [await ctx.step("gated", gated, name), await ctx.step("after", gated, "after")]


async def whole(direct: str, run_id: str) -> tuple[Any, ...]:
    """A run's row and journal as they stand in the tables."""
    with connected(direct) as connection:
        row = connection.execute("SELECT * FROM runs WHERE run_id = %s", (run_id,)).fetchall()
        return row, connection.execute("SELECT * FROM journal WHERE run_id = %s", (run_id,)).fetchall()


@pytest.mark.timeout(60)
async def test_what_a_stalled_driver_sent_arrives_too_late(proxy: Wire, postgres_url: str) -> None:
    GATES["held"] = asyncio.Event()
    options = {"store_timeout": 1, "notify": "off"}
    slow = Runtime(through(proxy, postgres_url, **options), workflows=[held], lease=1, shutdown_timeout=1)
    async with slow, Runtime(postgres_url, workflows=[held]) as healthy:
        await slow.start(held, "held", run_id="r")
        async with asyncio.timeout(10):
            while (await healthy.get("r")).status != "running":  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.01)
        sent = len(proxy.log)
        proxy.stall()
        GATES.pop("held").set()
        async with asyncio.timeout(10):
            # The step's outcome is on the wire, and stays there.
            while len(proxy.log) == sent:  # noqa: ASYNC110 - the proxy tells nobody
                await asyncio.sleep(0.01)
        async with asyncio.timeout(20):
            while not (await healthy.sweep()).recovered:  # noqa: ASYNC110 - the lease has to end
                await asyncio.sleep(0.05)
        assert await healthy.result("r", timeout=10) == ["held", "after"]
        before = await whole(postgres_url, "r")
        proxy.resume()
        # The one that was slow works again, and what it held of that run has changed nothing.
        run = await insist(lambda: slow.start(held, "other", run_id="other"))
        assert await run.result(timeout=20) == ["other", "after"]
        assert await whole(postgres_url, "r") == before
        assert (await healthy.get("r")).epoch == 2


@pytest.mark.timeout(60)
async def test_a_server_that_falls_silent_is_given_up(proxy: Wire, postgres_url: str) -> None:
    url = through(proxy, postgres_url, store_timeout=1, notify="off")
    async with Runtime(url, workflows=[held], shutdown_timeout=1) as runtime:
        run = await runtime.start(held, "a")
        assert await run.result(timeout=10) == ["a", "after"]
        proxy.vanish()
        # No answer and no end: the time limit is all that a client has. A read is made again by itself.
        async with asyncio.timeout(10):
            assert await runtime.count() == 1
        proxy.vanish()
        run = await insist(lambda: runtime.start(held, "b", run_id="b"))
        assert await run.result(timeout=20) == ["b", "after"]


async def test_a_server_that_never_answers_is_an_error_in_time(proxy: Wire, postgres_url: str) -> None:
    proxy.stall()
    runtime = Runtime(through(proxy, postgres_url, store_timeout=1, notify="off"))
    async with asyncio.timeout(20):
        with pytest.raises(StoreUnavailable) as caught:
            await runtime.open()
    proxy.resume()
    assert urlsplit(postgres_url).password not in str(caught.value)
