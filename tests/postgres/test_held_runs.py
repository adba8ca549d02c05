"""A user's own transaction that has locked a run's row and stays open: that run waits, the others do not."""

import asyncio

from duramen import Context, Runtime, workflow
from tests.postgres.schemas import connected, migrate

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
