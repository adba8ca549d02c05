"""An answer that is lost costs a round trip: the process that asked goes on, and no lease has to end.

What it costs is counted, in calls of the store and in requests to a server. No clock is moved, and nothing is
waited for but the run: one that had to wait for a lease would be claimed at its end, which raises its epoch.
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
    # The same again, and a look at how the run stands. Leases and messages are asked for by the clock.
    assert more["claim"] == 0, more
    assert more[method] <= 1, more
    assert more["standing"] <= 1, more


async def test_a_connection_is_cut_after_the_server_has_carried_out_what_was_asked(
    postgres_server: str, postgres_url: str
) -> None:
    with wire(urlsplit(postgres_server).port or 5432) as proxy:
        parts = urlsplit(postgres_url)
        there = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
        url = f"{parts._replace(netloc=there).geturl()}&pool_size=1&notify=off"
        async with Runtime(url, workflows=[shipping], lease=LEASE) as runtime:
            proxy.log.clear()
            told = await one_run(runtime, "before")
            usual = Counter(what(text) for text in proxy.log)
            nth = 0
            while True:
                nth += 1
                proxy.cut(nth, "after")
                proxy.log.clear()
                found = await one_run(runtime, f"r{nth}")
                if not proxy.cut_happened:
                    break
                assert found == [line.replace("before", f"r{nth}") for line in told]
                more = Counter(what(text) for text in proxy.log) - usual
                assert more["writes"] <= 1, proxy.log
                assert more["looks"] <= 1, proxy.log
            assert nth > usual["writes"]


def what(statement: str) -> str:
    """What a request is for, as far as it is counted: the rest asks for messages, and is by the clock."""
    if "INSERT INTO" in statement:
        return "writes"
    return "looks" if statement.startswith("SELECT w.n, r.status, r.seed") else "rest"
