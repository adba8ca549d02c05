"""The testing kit keeps the types of workflows, and takes any store."""

from typing import TYPE_CHECKING, assert_type

from duramen import Context, workflow
from duramen.testing import (
    CrashReport,
    Delay,
    Environment,
    FaultyStore,
    LoseAnswer,
    Refuse,
    StoreCall,
    crash_everywhere,
    open_store,
    suspend_matrix,
)

if TYPE_CHECKING:
    from duramen.store import Store


@workflow
async def greet(ctx: Context, name: str) -> str:
    return f"hello {name}"


def refuse_all(call: StoreCall) -> Refuse | None:
    return Refuse(OSError(call.method)) if call.number > 1 else None


async def scenario(env: Environment) -> str:
    run = await env.runtime.start(greet, "you", run_id="r")
    await env.advance(days=3)
    return assert_type(await env.result(run), str)


async def accepted() -> None:
    store: Store = FaultyStore(open_store("memory://"), {("commit", 1): LoseAnswer(), ("claim", 2): Delay(5)})
    async with Environment([greet], store=FaultyStore(store, refuse_all), driving="evicting") as env:
        await scenario(env)
    assert_type(await crash_everywhere(scenario, [greet], workers=("same",)), CrashReport)
    await suspend_matrix(scenario, [greet])


async def rejected() -> None:
    Environment([greet], driving="cold")  # pyright: ignore[reportArgumentType]
    FaultyStore(open_store("memory://"), {"commit": LoseAnswer()})  # pyright: ignore[reportArgumentType]
    await crash_everywhere(scenario, [greet], workers=("other",))  # pyright: ignore[reportArgumentType]
    async with Environment([greet]) as env:
        await env.advance(3)  # pyright: ignore[reportArgumentType]
        await env.runtime.start(greet, 5)  # pyright: ignore[reportCallIssue, reportArgumentType]
