"""What a handler may do, and that replay repeats it: on both stores, kept warm and dropped at once."""

# Handlers catch errors as handlers do.
# ruff: noqa: PT017

import asyncio
import functools
import threading
import time
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from duramen._handlers.context import Approval, Context
from duramen._handlers.step_context import step_context
from duramen._handlers.workflow import Retry, step, workflow
from duramen.errors import Fatal, NotADurableContext, StepFailed, StepTimeout
from tests.driving.harness import Harness


def finish(harness: Harness, definition: Any, value: Any = None) -> Any:
    return asyncio.run(_finish(harness, definition, value))[0]


@step
async def double(x: int) -> int:
    return 2 * x


@step
def treble(x: int) -> int:
    return 3 * x


async def _finish(harness: Harness, definition: Any, value: Any) -> Any:
    async with harness as h:
        h.work()
        await h.start(definition, value)
        return await h.end(), await h.story()


def test_steps_one_after_the_other(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context, n: int) -> list[int]:
        found: list[int] = []
        for _ in range(3):
            found.append(await double(n))  # noqa: PERF401
        found.append(await ctx.step("sync", treble, n))
        found.append(await ctx.step("partial", functools.partial(max, key=lambda x: -x), 4, 7))
        return found

    ending, story = asyncio.run(_finish(harness, handler, 21))
    assert (ending.status, ending.output) == ("completed", [42, 42, 42, 63, 4])
    assert story == [
        "run_created", "step_completed double", "step_completed double#2", "step_completed double#3",
        "step_completed sync", "step_completed partial", "run_finished",
    ]  # fmt: skip


def test_gather_task_group_and_wait_for(harness: Harness) -> None:
    async def slow(x: int) -> int:
        await asyncio.sleep(0.03 - x / 100)
        return x

    @workflow
    async def handler(ctx: Context) -> dict[str, Any]:
        gathered = await asyncio.gather(*(ctx.step(f"s{n}", slow, n) for n in range(3)))
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(double(n)) for n in range(3)]
        try:
            await asyncio.wait_for(ctx.wait_for_event("never"), 0.02)
            late = False
        except TimeoutError:
            late = True
        async with asyncio.timeout(5):
            inside = await double(5)
        done, pending = await asyncio.wait(
            [asyncio.create_task(ctx.sleep(60), name="long"), asyncio.create_task(double(1), name="short")],
            return_when=asyncio.FIRST_COMPLETED,
        )
        for task in pending:
            task.cancel()
        await asyncio.sleep(0.01)
        return {
            "gathered": gathered,
            "grouped": [task.result() for task in tasks],
            "late": late,
            "inside": inside,
            "first": [task.get_name() for task in done],
        }

    ending = finish(harness, handler)
    assert ending.status == "completed", ending
    assert ending.output == {
        "gathered": [0, 1, 2],
        "grouped": [0, 2, 4],
        "late": True,
        "inside": 10,
        "first": ["short"],
    }


def test_anyio(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> list[Any]:
        seen: list[Any] = []

        async def one(n: int) -> None:
            seen.append(await ctx.step(f"d{n}", double, n))

        async with anyio.create_task_group() as group:
            for n in range(3):
                group.start_soon(one, n)
        with anyio.move_on_after(0.02) as scope:
            await ctx.wait_for_event("never")
        seen.append(scope.cancelled_caught)
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.02):
                await anyio.sleep(60)
        await anyio.sleep(0.01)
        return [*sorted(seen, key=str)]

    ending = finish(harness, handler)
    assert ending.output == [0, 2, 4, True], ending


def test_events_typed_early_bad_and_late(harness: Harness) -> None:
    @dataclass
    class Payment:
        amount: int

    @workflow(events={"declared": Payment})
    async def handler(ctx: Context) -> list[Any]:
        first = await ctx.wait_for_event("paid", Payment)
        second = await ctx.wait_for_event("paid", Payment, id="second")
        third = await ctx.wait_for_event("declared")
        none = await ctx.wait_for_event("never", timeout=0.01, default=None)
        with pytest.raises(TimeoutError, match="no event 'never'"):
            await ctx.wait_for_event("never", timeout=0.01)
        return [first.amount, second.amount, type(third).__name__, none]

    async def main() -> Any:
        async with harness as h:
            await h.start(handler)
            h.work()
            await h.until("waiting")
            for payload in ({"amount": 1}, "bad", {"amount": "x"}, {"amount": 2}):
                await h.event("paid", payload)
            await h.event("declared", {"amount": 3})
            ending = await h.end()
            return ending, await h.detail()

    ending, detail = asyncio.run(main())
    assert ending.output == [1, 2, "Payment", None], ending
    assert len(detail.refused) == 2


def test_approval(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> list[Any]:
        decision = await ctx.approve("Ship?", description="42", assignees=["ann"], meta={"n": 1})
        assert isinstance(decision, Approval)
        with pytest.raises(TimeoutError, match="approval-2"):
            await ctx.approve("Really?", timeout=0.01)
        return [decision.approved, decision.approval_id, decision.feedback, decision.by, decision.at.year]

    async def main() -> Any:
        async with harness as h:
            await h.start(handler)
            h.work()
            await h.until("waiting")
            await h.decide(
                "approval-1", {"approved": True, "feedback": "ok", "by": "ann", "at": 1767225600000}
            )
            return await h.end()

    assert asyncio.run(main()).output == [True, "approval-1", "ok", "ann", 2026]


def test_recorded_values_and_facts(harness: Harness) -> None:
    seen: list[Any] = []

    @workflow(version="7", tags=["a", "b"], timeout=60)
    async def handler(ctx: Context, n: int) -> list[Any]:
        values = [ctx.now().isoformat(), str(ctx.uuid()), ctx.random()]
        seen.append(values)
        await ctx.sleep(0.01)
        await ctx.sleep_until(ctx.now())
        assert ctx.deadline is not None
        assert ctx.time_remaining() is None
        assert not ctx.should_yield()
        await ctx.yield_()
        return [ctx.run_id, ctx.input, ctx.version, list(ctx.tags), *values]

    ending = finish(harness, handler, 5)
    assert ending.output == ["r", 5, "7", ["a", "b"], *seen[0]], ending
    assert all(values == seen[0] for values in seen)
    # A handler is kept in memory where that is possible in time, and begins anew with a claim only.
    assert len(seen) <= ending.detail.row.epoch


def test_retries_fatal_and_rules(harness: Harness) -> None:
    calls: dict[str, list[int]] = {}

    async def flaky(kind: str, good_at: int) -> int:
        context = step_context()
        calls.setdefault(kind, []).append(context.attempt)
        assert context.idempotency_key == f"r/{kind}"
        if context.attempt < good_at:
            raise {"fatal": Fatal, "value": ValueError}.get(kind, KeyError)(f"attempt {context.attempt}")
        return context.attempt

    thrice = Retry(attempts=3, base=0.005, jitter=False, non_retryable=(ValueError,))

    @workflow(retry=Retry(attempts=2, base=0.001))
    async def handler(ctx: Context) -> list[Any]:
        found: list[Any] = [await ctx.step("ok", flaky, "ok", 3, retry=thrice)]
        for kind in ("fatal", "value", "key", "default"):
            try:
                await ctx.step(kind, flaky, kind, 99, retry=None if kind == "default" else thrice)
            except StepFailed as error:
                found.append([kind, error.attempts, error.error.short_name, repr(error.__cause__)])
                assert error.operation_id == kind
                assert "in flaky" in error.error.traceback
        return found

    ending = finish(harness, handler)
    assert ending.output == [
        3,
        ["fatal", 1, "Fatal", "Fatal('attempt 1')"],
        ["value", 1, "ValueError", "ValueError('attempt 1')"],
        ["key", 3, "KeyError", "KeyError('attempt 3')"],
        ["default", 2, "KeyError", "KeyError('attempt 2')"],
    ]
    assert calls == {"ok": [1, 2, 3], "fatal": [1], "value": [1], "key": [1, 2, 3], "default": [1, 2]}


def test_step_timeouts(harness: Harness) -> None:
    ran: list[str] = []

    @step(timeout=0.03, retry=Retry(attempts=2, base=0.001))
    async def stalls() -> None:
        ran.append("async")
        assert step_context().deadline is not None
        await asyncio.sleep(60)

    def stalls_in_a_thread() -> None:
        ran.append("thread")
        time.sleep(0.1)

    async def raises_one_itself() -> None:
        raise TimeoutError

    @workflow
    async def handler(ctx: Context) -> list[str]:
        found: list[str] = []
        for name, call in (
            ("a", functools.partial(stalls)),
            ("b", functools.partial(ctx.step, "b", stalls_in_a_thread, timeout=0.03)),
            ("c", functools.partial(ctx.step, "c", raises_one_itself, timeout=30)),
        ):
            try:
                await call()
            except StepTimeout as error:
                assert isinstance(error, TimeoutError)
                found.append(f"{name} {error.attempts} late")
            except StepFailed as error:
                found.append(f"{name} {error.attempts} failed {error.error.short_name}")
        return found

    ending = finish(harness, handler)
    assert ending.output == ["a 2 late", "b 1 late", "c 1 failed TimeoutError"], ending
    assert ran == ["async", "async", "thread"]


def test_sync_steps_run_in_threads_side_by_side(harness: Harness) -> None:
    barrier = threading.Barrier(3, timeout=5)

    def meet(n: int) -> int:
        barrier.wait()
        assert step_context().step_id == f"m{n}"
        return n

    @workflow
    async def handler(ctx: Context) -> list[int]:
        return list(await asyncio.gather(*(ctx.step(f"m{n}", meet, n) for n in range(3))))

    assert finish(harness, handler).output == [0, 1, 2]


def test_results_take_the_round_trip(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> list[str]:
        async def pair() -> tuple[int, str]:
            return (1, "x")

        async def bare():
            return [1, {"a": 2}]

        async def nan() -> float:
            return float("nan")

        async def wrong() -> int:
            return "text"

        found = [repr(await ctx.step("pair", pair)), repr(await ctx.step("bare", bare))]
        for name, fn in (("nan", nan), ("wrong", wrong)):
            try:
                await ctx.step(name, fn, retry=Retry(attempts=5))
            except StepFailed as error:
                found.append(f"{error.attempts} {error.error.type_name} {error.error.message[:4]}")
        return found

    assert finish(harness, handler).output == [
        "(1, 'x')",
        "[1, {'a': 2}]",
        "1 duramen.errors.SerializationError $: n",
        "1 duramen.errors.SerializationError $: t",
    ]


def test_lazy_steps_and_meta(harness: Harness) -> None:
    async def meta() -> Any:
        return step_context().meta

    @workflow
    async def handler(ctx: Context) -> list[Any]:
        return [
            await ctx.step("a", meta, checkpoint="lazy", meta={"k": 1}),
            await ctx.step("b", meta),
        ]

    assert finish(harness, handler).output == [{"k": 1}, None]


def test_state(harness: Harness) -> None:
    @dataclass
    class Progress:
        done: int = 0

    @workflow(state=Progress)
    async def handler(ctx: Context[Progress]) -> int:
        for _ in range(3):
            await double(1)
            ctx.state.done += 1
        await ctx.wait_for_event("go")
        ctx.state.done += 10
        return ctx.state.done

    async def main() -> Any:
        async with harness as h:
            await h.start(handler)
            h.work()
            await h.until("waiting")
            before = (await h.detail()).state
            await h.event("go", None)
            ending = await h.end()
            return before, ending.output, (await h.detail()).state

    assert asyncio.run(main()) == (b'{"done":3}', 13, b'{"done":13}')


def test_emit_and_log_are_silent_on_replay(harness: Harness, caplog: Any) -> None:
    caplog.set_level("INFO", "duramen.run")

    @workflow
    async def handler(ctx: Context) -> None:
        ctx.emit("begin", 1)
        ctx.log.info("begun")
        await double(1)
        await ctx.wait_for_event("go")
        ctx.emit("went", 2)

    async def main() -> Any:
        async with harness as h:
            await h.start(handler)
            h.work()
            await h.until("waiting")
            await h.event("go", None)
            await h.end()
            return h.emitted

    emitted = asyncio.run(main())
    assert emitted[-1] == ("r", "went", 2)
    assert [name for _, name, _ in emitted].count("begin") == 1
    records = [record for record in caplog.records if record.name == "duramen.run"]
    assert [record.message for record in records] == ["begun"]
    assert records[0].run_id == "r"


def test_async_generators_are_closed_while_durable_calls_still_work(harness: Harness) -> None:
    closed: list[int] = []

    @workflow
    async def handler(ctx: Context) -> int:
        async def numbers() -> Any:
            try:
                yield 1
                yield 2
            finally:
                closed.append(await ctx.step("close", double, 1))

        async for number in numbers():
            return number
        return 0

    ending = finish(harness, handler)
    assert ending.output == 1
    assert closed[-1:] == [2]


def test_durable_calls_from_a_step_are_refused(harness: Harness) -> None:
    @workflow
    async def handler(ctx: Context) -> list[str]:
        async def inner() -> int:
            # A direct call of a step inside of a step is a plain call.
            return await double(4)

        async def wrong() -> None:
            await ctx.sleep(1)

        def wrong_in_a_thread() -> None:
            ctx.now()

        found = [str(await ctx.step("inner", inner))]
        for name, fn in (("wrong", wrong), ("thread", wrong_in_a_thread)):
            try:
                await ctx.step(name, fn)
            except StepFailed as error:
                found.append(error.error.short_name)
        return found

    ending = finish(harness, handler)
    assert ending.output == ["8", NotADurableContext.__name__, NotADurableContext.__name__]
