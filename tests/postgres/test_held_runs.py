"""A user's own transaction that has locked a run's row and stays open: that run waits, the others do not."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from duramen import Context, Runtime, workflow
from duramen.errors import StoreLocked
from tests.postgres.schemas import connected, migrate
from tests.regressions.support import until_status

STEPS = 4


async def moment() -> None:
    await asyncio.sleep(0.05)


@workflow
async def stepping(ctx: Context) -> int:
    for _ in range(STEPS):
        await ctx.step("s", moment)
    return STEPS


def test_a_run_that_a_users_transaction_holds_stops_no_other(postgres_url: str) -> None:
    migrate(postgres_url)

    async def main() -> None:
        async with Runtime(postgres_url, workflows=[stepping]) as runtime:
            held = await runtime.start(stepping, run_id="held")
            with connected(postgres_url, autocommit=False) as user:
                assert user.execute("SELECT FROM runs WHERE run_id = 'held' FOR UPDATE").rowcount == 1
                for _ in range(3):
                    others = [await runtime.start(stepping) for _ in range(20)]
                    assert await asyncio.gather(*[run.result(5) for run in others]) == [STEPS] * 20
                assert (await held.get()).status == "running"
                user.rollback()
            assert await held.result(10) == STEPS

    asyncio.run(main())


FIFTY = 50
HELD = 25
"""The place of the locked run among them."""


@workflow
async def answering(ctx: Context) -> str:
    return await ctx.wait_for_event("word", str)


@workflow
async def busy(ctx: Context) -> None:
    """Something to hold a lease for, until the runtime is closed."""
    await ctx.step("for-ever", asyncio.sleep, 3600)


async def create(runtime: Runtime, run_id: str) -> None:
    await runtime.enqueue(answering, run_id=run_id)


async def deliver(runtime: Runtime, run_id: str) -> None:
    await runtime.signal(run_id, "word", "yes")


async def cancel(runtime: Runtime, run_id: str) -> None:
    await runtime.cancel(run_id)


async def terminate(runtime: Runtime, run_id: str) -> None:
    await runtime.terminate(run_id)


async def delete(runtime: Runtime, run_id: str) -> None:
    await runtime.delete(run_id, force=True)


Call = Callable[[Runtime, str], Awaitable[None]]


@pytest.mark.parametrize("call", [create, deliver, cancel, terminate, delete])
def test_one_locked_run_among_fifty_holds_up_no_call_about_the_others(postgres_url: str, call: Call) -> None:
    """The one that is locked is not answered, all others are, and the lease is renewed meanwhile."""
    migrate(postgres_url)
    names = [f"r{n:02}" for n in range(FIFTY)]
    held = names[HELD]

    async def main() -> None:
        async with Runtime(
            postgres_url, workflows=[answering, busy], lease=3, shutdown_timeout=0.1
        ) as runtime:
            await runtime.start(busy, run_id="busy")
            await until_status(runtime, "busy", "running")
            if call is not create:
                for name in names:
                    await runtime.enqueue(answering, run_id=name)
            with connected(postgres_url, autocommit=False) as user:
                if call is create:
                    # The id that a user's transaction is about to create; nobody sees it yet.
                    await asyncio.to_thread(
                        lambda: runtime.sync.enqueue(answering, run_id=held, connection=user)
                    )
                else:
                    user.execute("SELECT FROM runs WHERE run_id = %s FOR UPDATE", (held,))
                calls = {name: asyncio.ensure_future(call(runtime, name)) for name in names}
                async with asyncio.timeout(20):
                    await asyncio.gather(*[task for name, task in calls.items() if name != held])
                    first = await renewed(postgres_url)
                    while await renewed(postgres_url) == first:  # noqa: ASYNC110 - the store is asked
                        await asyncio.sleep(0.02)
                late = calls[held]
                assert not late.done() or isinstance(late.exception(), StoreLocked), "it was not held"
                user.rollback()
            try:
                await asyncio.wait_for(late, 20)
            except StoreLocked:
                await call(runtime, held)

    asyncio.run(main())


async def renewed(url: str) -> Any:
    """Until when the leases are."""
    with connected(url) as connection:
        return connection.execute("SELECT max(lease_until) FROM owners").fetchone()
