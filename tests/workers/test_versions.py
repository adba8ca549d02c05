"""A rolling deploy: workers of the old code and of the new one at one time, in processes of their own."""

from pathlib import Path

from duramen import Context, workflow
from tests.workers.conftest import Shop
from tests.workers.fleets import eventually

COMMON = """
import os
from duramen import Context, Runtime, workflow
from tests.workers.app import note

def mark(run_id: str, name: str) -> str:
    note(f"{CODE} {run_id}/{name}")
    return CODE

def make() -> Runtime:
    return Runtime(os.environ["APP_URL"], workflows=WORKFLOWS, lease=1)
"""

OLD = """
CODE = "old"

@workflow(name="order", version="1")
async def order(ctx: Context) -> list[str]:
    first = await ctx.step("first", mark, ctx.run_id, "first")
    await ctx.wait_for_event("go")
    return [first, await ctx.step("last", mark, ctx.run_id, "last")]

WORKFLOWS = [order]
"""

# The steps have other names: the code of version 2 does not fit a journal of version 1.
NEW = """
CODE = "new"

@workflow(name="order", version="2")
async def order(ctx: Context) -> list[str]:
    begin = await ctx.step("begin", mark, ctx.run_id, "begin")
    await ctx.wait_for_event("go")
    return [begin, await ctx.step("end", mark, ctx.run_id, "end")]

WORKFLOWS = [order]
"""

# The same, after version 1 was kept for the runs that have it.
LATER = """
CODE = "later"

@workflow(name="order", version="1")
async def order_v1(ctx: Context) -> list[str]:
    first = await ctx.step("first", mark, ctx.run_id, "first")
    await ctx.wait_for_event("go")
    return [first, await ctx.step("last", mark, ctx.run_id, "last")]

@workflow(name="order", version="2", previous=[order_v1])
async def order(ctx: Context) -> list[str]:
    begin = await ctx.step("begin", mark, ctx.run_id, "begin")
    await ctx.wait_for_event("go")
    return [begin, await ctx.step("end", mark, ctx.run_id, "end")]

WORKFLOWS = [order]
"""


@workflow(name="order", version="1")
async def old_order(ctx: Context) -> list[str]:
    """For those who enqueue."""
    raise NotImplementedError


@workflow(name="order", version="2")
async def new_order(ctx: Context) -> list[str]:
    """For those who enqueue."""
    raise NotImplementedError


def test_runs_go_on_with_the_code_that_they_began_with(postgres_shop: Shop, tmp_path: Path) -> None:
    shop = postgres_shop
    for name, code in {"old": OLD, "new": NEW, "later": LATER}.items():
        (tmp_path / f"app_{name}.py").write_text(COMMON + code)

    def fleet(name: str):
        return shop.fleet("--processes", "2", app=f"app_{name}:make", PYTHONPATH=str(tmp_path)).ready(2)

    old = fleet("old")
    before = shop.enqueue(old_order, 10, prefix="before")
    eventually(lambda: shop.all_are(before, "waiting"))

    # Both fleets at the same time. New runs of either version are taken by the workers that have it.
    new = fleet("new")
    during = shop.enqueue(new_order, 10, prefix="during")
    late = shop.enqueue(old_order, 10, prefix="late")
    eventually(lambda: shop.all_are([*during, *late], "waiting"))
    shop.signal([*before[:5], *during[:5], *late[:5]], "go")
    eventually(lambda: shop.all_are([*before[:5], *during[:5], *late[:5]], "completed"))

    # The last old worker is gone: the new ones leave its runs alone, whatever comes for them.
    assert old.end() == 0
    shop.signal([*before[5:], *during[5:], *late[5:]], "go")
    eventually(lambda: shop.all_are(during, "completed"))
    assert shop.all_are([*before[5:], *late[5:]], "waiting")

    # Code that kept the former version takes them to their end.
    later = fleet("later")
    eventually(lambda: shop.all_are([*before, *during, *late], "completed"))
    assert new.end() == later.end() == 0
    assert set(shop.ledger.values()) == {1}
    did = {(line.split()[0], line.rpartition("/")[2]) for line in shop.ledger}
    assert did == {
        ("old", "first"),
        ("old", "last"),
        ("new", "begin"),
        ("new", "end"),
        ("later", "last"),
    }
