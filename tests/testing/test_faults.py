"""The store that fails when it is told to, and what becomes of runs on it."""

import asyncio
from typing import Any

import pytest

from duramen import Context, step_context, workflow
from duramen.errors import InvalidArgument, StoreError, StoreFull
from duramen.testing import (
    Delay,
    Environment,
    FaultyStore,
    LoseAnswer,
    LoseRequest,
    Refuse,
    StoreCall,
    StoreContract,
    open_store,
)

STARTED: list[str] = []


async def work(what: str) -> str:
    STARTED.append(str(step_context().idempotency_key))
    return what


@workflow
async def three(ctx: Context) -> str:
    parts = [await ctx.step("a", work, "a"), await ctx.step("b", work, "b")]
    await ctx.sleep(3600)
    return "".join([*parts, await ctx.step("c", work, "c")])


@workflow
async def signalled(ctx: Context) -> str:
    return await ctx.wait_for_event("go", str)


REFUSED = Refuse(StoreFull("no room"))


def memory() -> Any:
    return open_store("memory://")


class TestWithoutAPlan(StoreContract):
    """It is a store like the one behind it."""

    durable = False

    async def open_store(self, place: Any) -> Any:
        return FaultyStore(open_store(f"memory://{place}"))


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize(
    "fault",
    [LoseRequest(), LoseAnswer(), Delay(3), Delay(100, LoseAnswer()), Delay(100)],
    ids=["request", "answer", "late", "late and lost", "later than the lease"],
)
def test_a_run_gets_to_its_end_over_a_fault_of_any_commit(fault: Any, number: int) -> None:
    STARTED.clear()
    store = FaultyStore(memory(), {("commit", number): fault})

    async def main() -> None:
        async with Environment([three], store=store) as env:
            assert await env.result(await env.runtime.start(three, run_id="r")) == "abc"

    asyncio.run(main())
    assert set(STARTED) == {"r/a", "r/b", "r/c"}
    assert store.faults == (1 if store.calls["commit"] >= number else 0)


def test_a_call_that_can_never_take_place_fails_for_its_caller() -> None:
    async def main() -> None:
        store = FaultyStore(memory(), {("create", 1): Refuse(InvalidArgument("not so"))})
        async with Environment([three], store=store) as env:
            before = env.now
            with pytest.raises(InvalidArgument, match="not so"):
                await env.runtime.start(three, run_id="r")
            assert (await env.runtime.count(), env.now) == (0, before)
            assert (await env.runtime.start(three, run_id="r")).created

    asyncio.run(main())


@pytest.mark.parametrize("fault", [Refuse(StoreFull("no room")), LoseRequest(), LoseAnswer()])
def test_a_call_that_fails_for_the_place_is_made_again_and_takes_place_once(fault: Any) -> None:
    async def main() -> None:
        store = FaultyStore(memory(), {("create", 1): fault, ("deliver", 1): fault})
        async with Environment([signalled], store=store) as env:
            run = await env.runtime.start(signalled, run_id="r")
            assert run.created
            await env.settle()
            assert await run.signal("go", "on", signal_id="s") in ("delivered", "duplicate")
            assert await env.result(run) == "on"
            assert (store.calls["create"], store.calls["deliver"], store.faults) == (2, 2, 2)
            assert await env.runtime.count() == 1

    asyncio.run(main())


def test_trouble_that_lasts_reaches_the_caller() -> None:
    async def main() -> None:
        store = FaultyStore(memory(), lambda call: REFUSED if call.method == "create" else None)
        async with Environment([three], store=store) as env:
            before = env.now
            with pytest.raises(StoreFull, match="no room"):
                await env.runtime.start(three, run_id="r")
            assert store.calls["create"] > 1
            assert (await env.runtime.count(), env.now) == (0, before)  # nobody else would move the clock
            store.plan = None
            assert (await env.runtime.start(three, run_id="r")).created

    asyncio.run(main())


def test_a_plan_may_be_a_function_and_may_change() -> None:
    async def main() -> None:
        seen: list[StoreCall] = []

        def plan(call: StoreCall) -> Any:
            seen.append(call)
            return Refuse(StoreError("not now")) if call.method == "count" else None

        store = FaultyStore(memory(), plan)
        with pytest.raises(StoreError, match="not now"):
            await store.count({})
        store.plan = None
        assert await store.count({}) == 0
        assert [(call.method, call.number, call.args) for call in seen] == [("count", 1, ({},))]
        assert (store.calls, store.faults) == ({"count": 2}, 1)
        await store.close()

    asyncio.run(main())


def test_a_delay_outside_of_an_environment_is_one_of_the_real_clock() -> None:
    async def main() -> None:
        store = FaultyStore(memory(), {("count", 1): Delay(0.05)})
        began = asyncio.get_running_loop().time()
        await store.count({})
        assert asyncio.get_running_loop().time() - began >= 0.049

    asyncio.run(main())


@pytest.mark.parametrize("key", [("comit", 1), ("commit", 0), ("call", 1)])
def test_a_plan_for_calls_that_are_never_made_is_refused(key: tuple[str, int]) -> None:
    with pytest.raises(InvalidArgument, match="name a method"):
        FaultyStore(memory(), {key: LoseAnswer()})
