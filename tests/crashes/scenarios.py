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
from duramen.errors import ChildFailed, RunCancelled, RunFailed, StepFailed, UpdateFailed, UpdateRejected
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


@workflow(retry=Retry(attempts=3, base=1))
async def telling(ctx: Context) -> list[int]:
    """A step that begins where an attempt before it has told that it is, in whichever process that was."""

    async def count() -> list[int]:
        here = step_context()
        begun = here.progress or 0
        assert begun <= 2 * here.attempt, "of an attempt that has not been"
        assert begun >= 2 * (here.attempt - 1), "what a failed attempt has told is recorded with its failure"
        for n in range(begun + 1, 2 * here.attempt + 1):
            here.heartbeat(n)
            await asyncio.sleep(0)
        if here.attempt < 3:
            raise ConnectionError("not yet")
        return [here.attempt, here.progress]

    return await ctx.step("count", count)


@scenario(telling)
async def progress(env: Environment) -> Any:
    return await env.result(await env.runtime.start(telling, run_id="r"))


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


# -- updates and tokens --------------------------------------------------------------------------------------


@workflow
async def ledger(ctx: Context) -> list[int]:
    booked: list[int] = []

    async def book(amount: int) -> int:
        await ctx.step(f"book {amount}", work, str(amount))
        await ctx.sleep(60)
        booked.append(int(await ctx.step(f"check {amount}", work_in_a_thread, str(amount))))
        return amount * 10

    def note(amount: int) -> int:
        if amount > 100:
            raise LookupError("too much")
        booked.append(amount)
        return len(booked)

    def positive(amount: int) -> None:
        if amount <= 0:
            raise ValueError("not positive")

    ctx.on_update("book", book, validate=positive)
    ctx.on_update("note", note)
    await ctx.wait_for_event("close")
    return booked


@scenario(ledger)
async def updates(env: Environment) -> Any:
    run = await env.runtime.start(ledger, run_id="r")
    answers: list[Any] = [await env.update(run, "note", 1, update_id="a")]
    answers.append(await env.update(run, "book", 2, update_id="b"))
    for name, payload in (("book", -1), ("note", 1000)):
        try:
            await env.update(run, name, payload, update_id=f"c{payload}")
        except (UpdateRejected, UpdateFailed) as error:
            answers.append(type(error).__name__)
    await env.runtime.signal("r", "close", signal_id="close")
    return [*answers, await env.result(run)]


@scenario(ledger)
async def updates_at_once(env: Environment) -> Any:
    run = await env.runtime.start(ledger, run_id="r")
    async with asyncio.TaskGroup() as group:
        sent = [
            group.create_task(env.runtime.update("r", "book", amount, update_id=f"u{amount}"))
            for amount in (1, 2, 3)
        ]
        await env.advance(hours=1)
    found = [task.result() for task in sent]
    await env.runtime.signal("r", "close", signal_id="close")
    return found, sorted(await env.result(run))


TEXTS: dict[str, str] = {}


async def give_away(run_id: str, text: str) -> None:
    TEXTS[run_id] = text


@workflow
async def asks(ctx: Context) -> list[Any]:
    kept, lost = ctx.token(int, timeout=86_400), ctx.token(int, id="lost", timeout=60)
    await ctx.step("give away", give_away, ctx.run_id, kept.text)
    try:
        await lost.result()
    except TimeoutError:
        return [await kept.result(), await ctx.step("end", work, "end")]
    return []


@scenario(asks)
async def tokens(env: Environment) -> Any:
    run = await env.runtime.start(asks, run_id="r")
    await env.advance(hours=1)
    if not (await env.runtime.get("r")).finished:
        await env.runtime.complete(TEXTS["r"], 7)
    return await env.result(run)


# -- pauses, polls, undos ------------------------------------------------------------------------------------


@workflow
async def held(ctx: Context) -> list[str]:
    first = await ctx.step("first", work, "first")
    told = await ctx.wait_for_event("go", str)
    await ctx.sleep(60)
    return [first, told, await ctx.step("last", work, "last")]


@scenario(held)
async def paused_and_resumed(env: Environment) -> Any:
    run = await env.runtime.start(held, run_id="r")
    await env.settle()
    if not (await env.runtime.get("r")).finished:
        await env.runtime.pause("r", "for a while")
        await env.runtime.signal("r", "go", "there", signal_id="1")
        await env.advance(hours=1)
        await env.runtime.resume("r")
    return await env.result(run)


@workflow
async def exhausted(ctx: Context) -> list[str]:
    def broken() -> str:
        raise ValueError("no such account")

    both = asyncio.gather(
        ctx.step("charge", broken, retry=Retry(attempts=2, base=60), on_exhausted="pause"),
        ctx.step("beside", work, "beside"),
    )
    return [*await both, await ctx.step("last", work, "last")]


@scenario(exhausted)
async def skipped_step(env: Environment) -> Any:
    run = await env.runtime.start(exhausted, run_id="r")
    await env.advance(hours=1)
    if (await env.runtime.get("r")).status == "paused":
        await env.runtime.skip("r", "paid by hand")
    return await env.result(run)


ready: list[bool] = []


@workflow
async def looking(ctx: Context) -> list[Any]:
    async def look() -> bool:
        return bool(ready)

    found = await ctx.poll("ready", look, every=60, backoff=2, cap=600)
    try:
        await ctx.poll("never", asyncio.sleep, 0, every=60, timeout=150)
    except TimeoutError:
        return [found, await ctx.step("last", work, "last")]
    raise AssertionError


@scenario(looking)
async def polls(env: Environment) -> Any:
    if not await env.runtime.count():
        ready.clear()
    run = await env.runtime.start(looking, run_id="r")
    await env.advance(minutes=10)
    ready.append(True)
    return await env.result(run)


@workflow
async def saga(ctx: Context) -> None:
    for name in ("hotel", "flight"):
        ctx.compensate(name, work, f"cancel {name}")
        await ctx.step(name, work, name)
    await ctx.wait_for_event("go")
    raise ValueError("sold out")


@scenario(saga)
async def undone_after_failure(env: Environment) -> Any:
    run = await env.runtime.start(saga, run_id="r")
    await env.runtime.signal("r", "go", signal_id="1")
    try:
        return await env.result(run)
    except RunFailed as error:
        return str(error), [event.op for event in await env.runtime.timeline("r")]


@scenario(saga)
async def undone_after_cancellation(env: Environment) -> Any:
    run = await env.runtime.start(saga, run_id="r")
    await env.advance(hours=1)
    if not (await env.runtime.get("r")).finished:
        await env.runtime.cancel("r", "enough")
    try:
        return await env.result(run)
    except RunCancelled:
        return [event.op for event in await env.runtime.timeline("r") if event.kind == "step_completed"]


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
