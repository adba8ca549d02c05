"""Scenarios in which runs start, continue, copy and tell each other: see `tests.crashes.scenarios`."""

import asyncio
from typing import Any

from duramen import Context, step_context, workflow
from duramen.errors import ChildFailed, RunCancelled
from duramen.testing import Environment
from tests.crashes.single import listener, steps
from tests.crashes.support import key_of, scenario, work

# -- children ------------------------------------------------------------------------------------------------


@workflow
async def child_of_two(ctx: Context, what: str) -> str:
    await ctx.sleep(60)
    if what == "bad":
        raise ValueError(what)
    return await ctx.step("work", work, what)


@workflow
async def parent_of_two(ctx: Context) -> list[str]:
    first = await ctx.start_child(child_of_two, "a")
    try:
        await ctx.child(child_of_two, "bad", id="bad")
    except ChildFailed as failure:
        return [await first.result(), type(failure.__cause__).__name__, await ctx.step("end", work, "end")]
    return []


@scenario(parent_of_two, child_of_two)
async def children(env: Environment) -> Any:
    run = await env.runtime.start(parent_of_two, run_id="r")
    await env.advance(hours=2)
    return await env.result(run)


@workflow
async def child_that_cleans_up(ctx: Context) -> str:
    try:
        return await ctx.wait_for_event("never", str)
    except asyncio.CancelledError:
        await ctx.step("clean up", work, "clean")
        raise


@workflow
async def cancelled_parent(ctx: Context) -> list[str]:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.child(child_that_cleans_up, id="slow"))
            group.create_task(ctx.step("beside", work, "beside"))
    except asyncio.CancelledError:
        await ctx.step("after", work, "after")
        raise
    return []


@scenario(cancelled_parent, child_that_cleans_up)
async def cancel_with_a_child(env: Environment) -> Any:
    run = await env.runtime.start(cancelled_parent, run_id="r")
    await env.advance(hours=1)
    await env.runtime.cancel("r", "enough")
    try:
        await env.result(run)
    except RunCancelled as cancelled:
        return cancelled.reason, (await env.runtime.get("r/slow")).reason
    return None


@workflow
async def child_of_many(ctx: Context, number: int) -> str:
    await ctx.sleep(60)
    if number == 1:
        raise ValueError(number)
    return await ctx.step("work", work, f"w{number}")


@workflow
async def mapping(ctx: Context) -> list[Any]:
    words = await ctx.map(work, [f"w{n}" for n in range(11)], concurrency=2)
    runs = await ctx.map(child_of_many, range(2), id="runs", tolerate=1)
    failures = [[n, str(failure.error)] for n, failure in runs.failures.items()]
    return [words.values(), list(runs.successes.values()), failures]


@scenario(mapping, child_of_many)
async def many_items(env: Environment) -> Any:
    run = await env.runtime.start(mapping, run_id="r")
    await env.advance(hours=2)
    return await env.result(run)


@workflow
async def teller(ctx: Context) -> None:
    for n in range(2):
        await ctx.signal("b", "paid", n)
        await ctx.step(f"s{n}", work, str(n))


@scenario(teller, listener)
async def messages_between_runs(env: Environment) -> Any:
    heard = await env.runtime.start(listener, run_id="b")
    await env.result(await env.runtime.start(teller, run_id="r"))
    return await env.result(heard)


# -- generations ---------------------------------------------------------------------------------------------


@workflow(state=dict)
async def collector(ctx: Context[dict[str, int]], found: list[Any]) -> list[Any]:
    ctx.state["generation"] = ctx.generation
    found.append(await ctx.step("key", key_of, ""))
    # One that came while the former generation ended is there as well.
    found.append(await ctx.wait_for_event("item"))
    await ctx.sleep(60)
    if ctx.generation < 2:
        try:
            ctx.continue_as_new(found)
        finally:
            await ctx.step("tidy", work, "up")
    approval = await ctx.approve("Enough?", id="enough")
    return [*found, str(ctx.uuid()), approval.approval_id, ctx.state]


@scenario(collector)
async def generations(env: Environment) -> Any:
    run = await env.runtime.start(collector, [], run_id="r")
    for n in range(3):
        await env.runtime.signal("r", "item", n, signal_id=f"i{n}")
        await env.advance(seconds=40)
    await env.advance(minutes=10)
    await env.runtime.approve("r", "enough@2", True)
    return [*await env.result(run), (await run.get()).generation]


# -- forks ---------------------------------------------------------------------------------------------------


@scenario(steps)
async def forks(env: Environment) -> Any:
    run = await env.runtime.start(steps, run_id="r")
    first = await env.result(run)
    again = await env.runtime.fork("r", from_operation="b", new_run_id="again")
    what_if = await env.runtime.fork("r", overrides={"a": "x"}, new_run_id="what-if")
    return [first, await env.result(again), await env.result(what_if)]


# -- streams -------------------------------------------------------------------------------------------------


async def speak(words: list[str]) -> str:
    stream = step_context().stream("answer", str)
    for word in words:
        await stream.write(word)
    return " ".join(words)


@workflow
async def talkative(ctx: Context) -> str:
    log = ctx.stream("log", str)
    await log.write("asked")
    await log.write("asked again")
    answer = await ctx.step("speak", speak, ["a", "b"])
    await log.write("answered")
    await ctx.sleep(60)
    await log.write("done")
    return answer


@scenario(talkative)
async def streams(env: Environment) -> Any:
    output = await env.result(await env.runtime.start(talkative, run_id="r"))
    log = [item async for item in env.runtime.stream("r", "log", follow=False)]
    assert [item.seq for item in log] == [item.index + 1 for item in log]
    parts: list[str] = []
    async for item in env.runtime.stream("r", "answer", follow=False, type=str):
        assert item.index <= len(parts)
        parts[item.index :] = [item.value]
    return output, [item.value for item in log], parts
