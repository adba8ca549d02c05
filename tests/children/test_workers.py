"""Parents and children on workers that do not know each other's workflows."""

import asyncio

import pytest

from duramen import Context, RunCancelled, Runtime, workflow

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@workflow
async def leaf(ctx: Context, number: int) -> int:
    return await ctx.step("double", double, number)


async def double(number: int) -> int:
    return 2 * number


@workflow
async def waiter(ctx: Context) -> str:
    try:
        return await ctx.wait_for_event("never", str)
    except asyncio.CancelledError:
        await ctx.step("clean up", double, 1)
        raise


@workflow
async def tree(ctx: Context, depth: int) -> int:
    if depth == 0:
        return await ctx.child(leaf, 1)
    return sum(await asyncio.gather(*(ctx.child("tree", depth - 1) for _ in range(3))))


@workflow
async def wide(ctx: Context, count: int) -> int:
    handles = [await ctx.start_child(leaf, n) for n in range(count)]
    return sum([await handle.result() for handle in handles])


@workflow
async def holding(ctx: Context) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.child(waiter, id="slow"))
        group.create_task(ctx.step("slow step", asyncio.sleep, 60))


async def test_parents_and_children_on_different_workers(url: str) -> None:
    async with (
        Runtime(url, workflows=[tree, wide, leaf]) as client,
        Runtime(url, workflows=[tree, wide], work=True),
        Runtime(url, workflows=[leaf], work=True),
    ):
        run = await client.enqueue(tree, 2, run_id="t")
        assert await run.result(timeout=60) == 18
        grandchild = await client.get("t/child-1/child-2")
        assert (grandchild.parent, grandchild.root) == ("t/child-1", "t")
        assert grandchild.children == ("t/child-1/child-2/child-1",)
        children = await client.list(parent="t")
        assert [child.run_id for child in children] == ["t/child-3", "t/child-2", "t/child-1"]
        assert await client.count(parent="nobody") == 0
        assert await client.count(root="t") == 3 + 9 + 9


async def test_a_thousand_children_at_once(url: str) -> None:
    async with (
        Runtime(url, workflows=[wide, leaf]) as client,
        Runtime(url, workflows=[wide], work=True),
        Runtime(url, workflows=[leaf], work=True),
    ):
        run = await client.enqueue(wide, 1_000, run_id="w")
        assert await run.result(timeout=120) == 999_000
        assert await client.count(parent="w", status="completed") == 1_000
        assert len((await client.get("w")).children) == 100


async def test_a_cancel_with_a_step_and_a_child_in_flight(url: str) -> None:
    async with (
        Runtime(url, workflows=[holding, waiter]) as client,
        Runtime(url, workflows=[holding], work=True),
        Runtime(url, workflows=[waiter], work=True),
    ):
        run = await client.enqueue(holding, run_id="h")
        async with asyncio.timeout(30):
            while not await client.count(parent="h", status="waiting"):  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.02)
        await client.cancel("h", "enough")
        await client.cancel("h", "really")
        with pytest.raises(RunCancelled, match=r"enough|really"):
            await run.result(timeout=30)
        assert (await client.get("h/slow")).status == "cancelled"


async def test_a_cancel_that_races_the_end_of_a_child_has_one_of_two_outcomes(url: str) -> None:
    async with Runtime(url, workflows=[wide, leaf], work=True) as runtime:
        for n in range(8):
            run = await runtime.start(wide, 3, run_id=f"r{n}")
            await asyncio.sleep(0.01 * n)
            await runtime.cancel(run.run_id)
            try:
                assert await run.result(timeout=30) == 6
            except RunCancelled:
                pass
            for child in await runtime.list(parent=run.run_id):
                assert child.status in {"completed", "cancelled"}
