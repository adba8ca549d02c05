"""An answer that is lost costs a round trip: the process that asked goes on with its run, and no lease has to end.

What it costs is counted, in calls of the store and in requests to a server. Nothing is waited for but the run,
and no clock is moved: a run that had to wait for a lease would be claimed at its end, which raises its epoch.
"""

from collections import Counter
from typing import Any
from urllib.parse import urlsplit

import pytest

from duramen import Context, Runtime, workflow
from duramen.errors import StoreUnavailable
from duramen.testing import open_store
from duramen.testing._wrapped_store import WrappedStore
from tests.postgres.wire import wire
from tests.regressions.support import story

pytestmark = pytest.mark.anyio

LEASE = 30
COSTS = 3
"""The most calls that a lost answer may add: the same again, and looks at how the run stands."""

SESSION = 6
"""The most requests that a new connection begins with, for each of the two that a pool of one has."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


TIMES: Counter[str] = Counter()


async def effect(name: str) -> str:
    TIMES[name] += 1
    return name


@workflow
async def shipping(ctx: Context, name: str) -> list[str]:
    return [await ctx.step(f"{name}-{n}", effect, f"{name}-{n}") for n in range(4)]


class Losing(WrappedStore):
    """Carries a call out and loses its answer, once; counts calls."""

    def __init__(self, inner: Any, method: str, nth: int) -> None:
        super().__init__(inner)
        self.lost = (method, nth)
        self.calls: Counter[str] = Counter()

    async def call(self, method: str, *args: Any) -> Any:
        self.calls[method] += 1
        answer = await super().call(method, *args)
        if (method, self.calls[method]) == self.lost:
            raise StoreUnavailable("the connection was cut")
        return answer


async def one_run(runtime: Runtime, run_id: str) -> list[str]:
    """One run from its start to its end, driven by the call that starts it; gives its story."""
    TIMES.clear()
    run = await runtime.start(shipping, run_id, run_id=run_id)
    assert run.created
    expected = [f"{run_id}-{n}" for n in range(4)]
    assert await run.result() == expected
    # It was never given up, nor taken up again: the first claim is the only one.
    view = await runtime.get(run_id)
    assert (view.status, view.epoch) == ("completed", 1)
    assert [TIMES[name] for name in expected] == [1] * 4
    return await story(runtime, run_id)


@pytest.mark.parametrize(("method", "nth"), [("create", 1), *(("commit", nth) for nth in range(1, 5))])
async def test_the_answer_of_a_store_is_lost(url: str, method: str, nth: int) -> None:
    store = Losing(open_store(url, migrate=True), method, 0)
    async with Runtime(store, workflows=[shipping], lease=LEASE, migrate=True) as runtime:
        told = await one_run(runtime, "before")
        usual = store.calls.copy()
        store.calls.clear()
        store.lost = (method, nth)
        assert await one_run(runtime, "r") == [line.replace("before", "r") for line in told]
        more = store.calls - usual
    assert store.calls[method] >= nth
    assert more["claim"] == 0, more
    assert more[method] <= 1, more
    # A process says that it lives by the clock, whatever its runs do.
    del more["heartbeat"]
    assert more.total() <= COSTS, more


async def test_a_connection_is_cut_after_the_server_has_carried_out_what_was_asked(
    postgres_server: str, postgres_url: str
) -> None:
    with wire(urlsplit(postgres_server).port or 5432) as proxy:
        parts = urlsplit(postgres_url)
        there = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
        url = f"{parts._replace(netloc=there).geturl()}&pool_size=1&notify=off"
        async with Runtime(url, workflows=[shipping], lease=LEASE) as runtime:
            await one_run(runtime, "first")  # with it goes what is asked for once
            before = proxy.requests
            told = await one_run(runtime, "before")
            usual = proxy.requests - before
            for nth in range(1, usual + 1):
                proxy.cut(nth, "after")
                before = proxy.requests
                found = await one_run(runtime, f"r{nth}")
                assert proxy.cut_happened
                assert found == [line.replace("before", f"r{nth}") for line in told]
                asked = proxy.log[before:]
                assert len(asked) <= usual + COSTS + SESSION, (usual, asked)
