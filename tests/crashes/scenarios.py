"""The scenarios of the crash and suspend tests, in one place: a workflow each, and who calls it from outside.

A scenario can be repeated from its beginning, for that is what a caller does that heard nothing: ids are
given, and what it returns does not depend on how long a recovery took.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from duramen import Context, Retry, step_context, workflow
from duramen.errors import RunFailed, StepFailed
from duramen.testing import Environment


@dataclass(frozen=True)
class Scenario:
    play: Callable[[Environment], Awaitable[Any]]
    workflows: list[Any]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *workflows: Any,
) -> Callable[[Callable[[Environment], Awaitable[Any]]], Callable[[Environment], Awaitable[Any]]]:
    def register(play: Callable[[Environment], Awaitable[Any]]) -> Callable[[Environment], Awaitable[Any]]:
        SCENARIOS[play.__name__] = Scenario(play, list(workflows))
        return play

    return register


async def work(what: str) -> str:
    return what.upper()


def work_in_a_thread(what: str) -> str:
    return what.upper()


async def key_of(_: str) -> str:
    context = step_context()
    assert context.idempotency_key is not None
    return context.idempotency_key


# -- steps ---------------------------------------------------------------------------------------------------


@workflow
async def steps(ctx: Context) -> list[str]:
    return [
        await ctx.step("a", work, "a"),
        await ctx.step("b", work_in_a_thread, "b"),
        await ctx.step("key", key_of, ""),
        await ctx.step("key", key_of, ""),
    ]


@scenario(steps)
async def sequence(env: Environment) -> Any:
    return await env.result(await env.runtime.start(steps, run_id="r"))


@workflow
async def fan_out(ctx: Context) -> list[str]:
    parts = await asyncio.gather(*(ctx.step(f"part-{n}", work, f"p{n}") for n in range(4)))
    return [*parts, await ctx.step("join", work, "".join(parts))]


@scenario(fan_out)
async def gather(env: Environment) -> Any:
    return await env.result(await env.runtime.start(fan_out, run_id="r"))


@workflow
async def mixed(ctx: Context) -> list[Any]:
    shielded = asyncio.ensure_future(ctx.step("shielded", work_in_a_thread, "s"))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(ctx.wait_for_event("never")), 60)
    parts = [work, work_in_a_thread]
    calls = [ctx.step(f"part-{n}", parts[n % 2], str(n)) for n in range(6)]
    found = [await each for each in asyncio.as_completed(calls)]
    return [await shielded, *found]


@scenario(mixed)
async def threads_and_shield(env: Environment) -> Any:
    return await env.result(await env.runtime.start(mixed, run_id="r"))


@workflow
async def nested(ctx: Context) -> list[str]:
    done: list[str] = []

    async def branch(name: str, seconds: float) -> None:
        await ctx.sleep(seconds)
        done.append(await ctx.step(name, work, name))
        await ctx.sleep(seconds)
        done.append(await ctx.step(f"{name}-again", work, f"{name}2"))

    async with asyncio.TaskGroup() as group:
        group.create_task(branch("slow", 600))
        group.create_task(branch("quick", 60))
    return done


@scenario(nested)
async def task_group(env: Environment) -> Any:
    return sorted(await env.result(await env.runtime.start(nested, run_id="r")))


@workflow(retry=Retry(attempts=4, base=10, backoff="exponential", jitter=True))
async def stubborn(ctx: Context) -> str:
    async def flaky() -> str:
        if step_context().attempt < 4:
            raise ConnectionError("not yet")
        return f"attempt {step_context().attempt}"

    return await ctx.step("flaky", flaky)


@scenario(stubborn)
async def retries(env: Environment) -> Any:
    return await env.result(await env.runtime.start(stubborn, run_id="r"))


@workflow
async def careful(ctx: Context) -> str:
    async def refused() -> None:
        raise ValueError("no such account")

    try:
        await ctx.step("charge", refused)
    except StepFailed as error:
        return await ctx.step("tell", work, f"sorry: {error.__cause__}")
    raise AssertionError("it did not fail")


@scenario(careful)
async def caught_failure(env: Environment) -> Any:
    return await env.result(await env.runtime.start(careful, run_id="r"))


@workflow
async def doomed(ctx: Context) -> None:
    async def refused() -> None:
        raise ValueError("no such account")

    await ctx.step("first", work, "first")
    await ctx.step("charge", refused)


@scenario(doomed)
async def failed_run(env: Environment) -> Any:
    run = await env.runtime.start(doomed, run_id="r")
    try:
        return await env.result(run)
    except RunFailed as error:
        return f"{type(error).__name__} of {type(error.__cause__).__name__}"


@workflow
async def lazily(ctx: Context) -> list[str]:
    return [
        await ctx.step("a", work, "a", checkpoint="lazy"),
        await ctx.step("b", work, "b", checkpoint="lazy"),
        await ctx.step("c", work, "c"),
        await ctx.step("d", work, "d", checkpoint="lazy"),
    ]


@scenario(lazily)
async def lazy_steps(env: Environment) -> Any:
    return await env.result(await env.runtime.start(lazily, run_id="r"))


# -- waits ---------------------------------------------------------------------------------------------------


@workflow
async def sleeper(ctx: Context) -> str:
    await ctx.sleep(0.5)
    await ctx.sleep(timedelta(days=30))
    await asyncio.sleep(3600)
    return await ctx.step("woken", work, "woken")


@scenario(sleeper)
async def sleep(env: Environment) -> Any:
    run = await env.runtime.start(sleeper, run_id="r")
    await env.advance(days=40)
    return await env.result(run)


@workflow
async def listener(ctx: Context) -> list[Any]:
    heard: list[Any] = [await ctx.step("open", work, "open")]
    heard += [await ctx.wait_for_event("paid", int) for _ in range(2)]
    await ctx.sleep(3600)
    heard.append(await ctx.wait_for_event("never", timeout=60, default="nobody"))
    return heard


@scenario(listener)
async def event_early(env: Environment) -> Any:
    run = await env.runtime.enqueue(listener, run_id="r", start_at=env.now + timedelta(hours=1))
    await env.runtime.signal("r", "paid", 1, signal_id="p1")
    await env.runtime.signal("r", "paid", 2, signal_id="p2")
    await env.runtime.signal("r", "paid", 2, signal_id="p2")
    return await env.result(run)


@scenario(listener)
async def event_late(env: Environment) -> Any:
    run = await env.runtime.start(listener, run_id="r")
    await env.advance(days=1)
    await env.runtime.signal("r", "paid", 1, signal_id="p1")
    await env.advance(days=1)
    await env.runtime.signal("r", "paid", 2, signal_id="p2")
    return await env.result(run)


@workflow
async def strict(ctx: Context) -> list[int]:
    return [await ctx.wait_for_event("number", int) for _ in range(2)]


@scenario(strict)
async def refused_events(env: Environment) -> Any:
    run = await env.runtime.start(strict, run_id="r")
    for n, payload in enumerate(["one", 1, [], 2]):
        # The workflow declares no types of events, so it is the run that refuses them, not the sender's call.
        await env.runtime.signal("r", "number", payload, signal_id=f"n{n}")
        await env.advance(minutes=10)
    output = await env.result(run)
    return output, len((await env.runtime.get("r")).refused)


@workflow
async def shipping(ctx: Context) -> list[Any]:
    first = await ctx.approve("Ship it?")
    try:
        second = await ctx.approve("Gift wrap?", timeout=timedelta(days=2))
    except TimeoutError:
        return [first.approved, first.feedback, "nobody said"]
    return [first.approved, first.feedback, second.approved]


@scenario(shipping)
async def approval(env: Environment) -> Any:
    run = await env.runtime.start(shipping, run_id="r")
    await env.advance(hours=1)
    await env.runtime.approve("r", "approval-1", feedback="with care")
    return await env.result(run)


@workflow
async def racing(ctx: Context) -> list[str]:
    told: list[str] = []
    for n in range(2):
        try:
            async with asyncio.timeout(3600):
                told.append(await ctx.wait_for_event("go", str))
        except TimeoutError:
            told.append(f"timeout {n}")
    tasks = [asyncio.ensure_future(ctx.wait_for_event("stop", str)), asyncio.ensure_future(ctx.sleep(3600))]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    told.append("slept" if tasks[1] in done else "stopped")
    return told


@scenario(racing)
async def race_with_timeout(env: Environment) -> Any:
    run = await env.runtime.start(racing, run_id="r")
    await env.advance(minutes=10)
    await env.runtime.signal("r", "go", "went", signal_id="go")
    return await env.result(run)


# -- ends ----------------------------------------------------------------------------------------------------


@workflow
async def tidy(ctx: Context) -> None:
    await ctx.step("begin", work, "begin")
    try:
        await ctx.sleep(timedelta(days=365))
    finally:
        await ctx.step("clean-up", work, "clean")
        await ctx.sleep(60)
        await ctx.step("clean-up", work, "clean")


@scenario(tidy)
async def cancel_with_clean_up(env: Environment) -> Any:
    run = await env.runtime.start(tidy, run_id="r")
    await env.advance(days=1)
    # Without an id of its own: sent again by a caller that heard nothing, it changes nothing more.
    if not (await env.runtime.get("r")).finished:
        await env.runtime.cancel("r", "not needed")
    with contextlib.suppress(Exception):
        await env.result(run)
    return (await env.runtime.get("r")).status


@workflow(timeout=timedelta(days=2))
async def overdue(ctx: Context) -> str:
    try:
        return await ctx.wait_for_event("never", str)
    finally:
        await ctx.step("clean-up", work, "clean")


@scenario(overdue)
async def deadline_of_the_run(env: Environment) -> Any:
    run = await env.runtime.start(overdue, run_id="r")
    with contextlib.suppress(Exception):
        await env.result(run)
    view = await env.runtime.get("r")
    return (view.status, type(view.error).__name__)


@workflow
async def hesitant(ctx: Context) -> str:
    try:
        await asyncio.gather(ctx.step("a", work, "a"), ctx.sleep(10**6), ctx.wait_for_event("never"))
    except asyncio.CancelledError:
        await asyncio.gather(ctx.step("undo-1", work, "1"), ctx.step("undo-2", work_in_a_thread, "2"))
        await ctx.wait_for_event("really", timeout=60, default=None)
    return await ctx.step("end", work, "it went on")


@scenario(hesitant)
async def swallowed_cancellation(env: Environment) -> Any:
    run = await env.runtime.start(hesitant, run_id="r")
    await env.advance(hours=1)
    if not (await env.runtime.get("r")).finished:
        await env.runtime.cancel("r")
    return await env.result(run)


@scenario(tidy)
async def terminated(env: Environment) -> Any:
    await env.runtime.start(tidy, run_id="r")
    await env.advance(hours=1)
    await env.runtime.terminate("r", "at once")
    return (await env.runtime.get("r")).status


repaired: set[int] = set()


@workflow
async def fixable(ctx: Context) -> list[str]:
    async def broken() -> str:
        if not repaired:
            raise ValueError("broken")
        return "b"

    first = await ctx.step("a", work, "a")
    await ctx.sleep(60)
    return [first, await ctx.step("b", broken), await ctx.step("c", work, "c")]


@scenario(fixable)
async def retried_after_failure(env: Environment) -> Any:
    if not await env.runtime.count():
        repaired.clear()
    run = await env.runtime.start(fixable, run_id="r")
    with contextlib.suppress(RunFailed):
        await env.result(run)
    repaired.add(1)
    if (await env.runtime.get("r")).status == "failed":
        await env.runtime.retry("r")
    return await env.result(run)


@workflow
async def changed(ctx: Context) -> list[str]:
    told = []
    if ctx.patched("check"):
        told.append(await ctx.step("check", work, "checked"))
    await ctx.sleep(60)
    branches = ["new" if ctx.patched(name) else "old" for name in ("check", "insure")]
    return [*told, *branches, await ctx.step("end", work, "end")]


@scenario(changed)
async def patches(env: Environment) -> Any:
    return await env.result(await env.runtime.start(changed, run_id="r"))


# -- recorded values and state -------------------------------------------------------------------------------


class Progress(BaseModel):
    done: list[str] = []


@workflow(state=Progress)
async def stateful(ctx: Context[Progress]) -> int:
    for n in range(3):
        ctx.state.done.append(await ctx.step(f"s{n}", work, f"s{n}"))
        await ctx.sleep(60)
    return len(ctx.state.done)


@scenario(stateful)
async def state(env: Environment) -> Any:
    output = await env.result(await env.runtime.start(stateful, run_id="r"))
    return output, (await env.runtime.get("r")).state


@workflow
async def lottery(ctx: Context) -> list[Any]:
    begun = ctx.now()
    ticket, number = str(ctx.uuid()), ctx.random()
    # An effect that depends on them: they are durable before it begins.
    told = await ctx.step("tell", work, f"{ticket} {number}")
    await ctx.sleep(3600)
    waited = (ctx.now() - begun).total_seconds()
    return [ticket, number, told, str(ctx.uuid()), ctx.random(), waited >= 3600]


@scenario(lottery)
async def recorded_values(env: Environment) -> Any:
    return await env.result(await env.runtime.start(lottery, run_id="r"))


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


# -- many runs -----------------------------------------------------------------------------------------------


@scenario(steps, listener, sleeper)
async def several_runs(env: Environment) -> Any:
    runs = [
        await env.runtime.start(steps, run_id="a"),
        await env.runtime.enqueue(listener, run_id="b"),
        await env.runtime.start(sleeper, run_id="c"),
    ]
    await env.advance(hours=2)
    for n in (1, 2):
        await env.runtime.signal("b", "paid", n, signal_id=f"p{n}")
    return [await env.result(run) for run in runs]
