"""`ctx.transaction`: what a function does to the user's data and what is recorded of it are one."""

import asyncio
from inspect import isawaitable

import pytest

from duramen import Context, Fatal, Retry, RunFailed, Runtime, StepFailed, StepTimeout, step_context, workflow
from tests.transactions.kits import Gate, Kit

pytestmark = pytest.mark.anyio

AGAIN = Retry(attempts=3, base=0.01, cap=0.02)


async def kinds(runtime: Runtime, run_id: str) -> list[str]:
    return [f"{entry.kind} {entry.op}".strip() for entry in await runtime.timeline(run_id)]


async def test_data_and_result_are_there_together(kit: Kit) -> None:
    @workflow
    async def pay(ctx: Context, word: str) -> str:
        return await ctx.transaction("write", kit.write(), word)

    async with kit.runtime(pay) as runtime:
        run = await runtime.start(pay, "one")
        assert await run.result(timeout=10) == "ONE"
        assert kit.words() == ["one"]
        assert await kinds(runtime, run.run_id) == ["run_created", "step_completed write", "run_finished"]


async def test_a_replay_gives_the_recorded_result_and_runs_nothing(kit: Kit) -> None:
    calls: list[int] = []

    @workflow
    async def pay(ctx: Context, word: str) -> list[str]:
        first = await ctx.transaction("write", kit.write(lambda: calls.append(1)), word)
        return [first, await ctx.wait_for_event("go", str)]

    async with kit.runtime(pay, warm=0) as runtime:
        run = await runtime.run(pay, "one", run_id="r")
        assert run.kind == "paused"
        await runtime.signal("r", "go", "on", drive=True)
        assert await runtime.result("r", 10) == ["ONE", "on"]
    assert (kit.words(), len(calls)) == (["one"], 1)


async def test_a_failed_attempt_is_rolled_back_recorded_and_tried_again(kit: Kit) -> None:
    attempts: list[tuple[int, str]] = []

    def fail_twice() -> None:
        context = step_context()
        attempts.append((context.attempt, context.idempotency_key))
        if context.attempt < 3:
            raise ValueError("not yet")

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        return await ctx.transaction("write", kit.write(fail_twice), word, retry=AGAIN)

    async with kit.runtime(pay) as runtime:
        run = await runtime.start(pay, "one", run_id="r")
        assert await run.result(timeout=10) == "ONE"
        failed = [entry for entry in await kinds(runtime, "r") if "attempt" in entry]
    assert failed == ["step_attempt_failed write"] * 2
    assert attempts == [(1, "r/write"), (2, "r/write"), (3, "r/write")]
    assert kit.words() == ["one"]


async def test_a_failure_for_good_reaches_the_handler_and_leaves_no_data(kit: Kit) -> None:
    def fail() -> None:
        raise Fatal("never")

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        try:
            return await ctx.transaction("write", kit.write(fail), word, retry=AGAIN)
        except StepFailed as error:
            return f"{error.error.short_name}: {error.error.message}"

    async with kit.runtime(pay) as runtime:
        assert await (await runtime.start(pay, "one", run_id="r")).result(timeout=10) == "Fatal: never"
        assert await kinds(runtime, "r") == ["run_created", "step_failed write", "run_finished"]
    assert kit.words() == []


async def test_a_result_that_cannot_be_recorded_fails_at_once_and_leaves_no_data(kit: Kit) -> None:
    calls: list[int] = []
    write = kit.write(lambda: calls.append(1))

    @workflow
    async def pay(ctx: Context, word: str) -> None:
        if kit.is_async:

            async def bad(connection: object, word: str) -> object:
                await write(connection, word)
                return object()

            await ctx.transaction("write", bad, word, retry=AGAIN)
        else:

            def bad_too(connection: object, word: str) -> object:
                write(connection, word)
                return object()

            await ctx.transaction("write", bad_too, word, retry=AGAIN)

    async with kit.runtime(pay) as runtime:
        with pytest.raises(RunFailed, match="SerializationError"):
            await (await runtime.start(pay, "one")).result(timeout=10)
    assert (kit.words(), len(calls)) == ([], 1)


async def test_a_timeout_rolls_back_and_is_an_attempt(kit: Kit) -> None:
    gate = Gate()

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        try:
            await ctx.transaction("slow", kit.write(gate=gate), word, timeout=0.2)
        except StepTimeout as error:
            return str(error.error.message)
        return "in time"

    async with kit.runtime(pay) as runtime:
        # A thread cannot be stopped. Its transaction comes to nothing when it goes on.
        asyncio.get_running_loop().call_later(0.5, gate.opened.set)
        run = await runtime.start(pay, "one")
        assert "longer than its timeout of 0.2 s" in await run.result(timeout=10)
        gate.opened.set()
        async with kit.transaction() as connection:
            value = kit.insert(connection, "later")
            if isawaitable(value):
                await value
    assert kit.words() == ["later"]


async def test_two_transactions_at_once_and_steps_beside_them(kit: Kit) -> None:
    async def plain(number: int) -> int:
        await asyncio.sleep(0.001 * number)
        return number

    @workflow
    async def pay(ctx: Context, _: None) -> list[str]:
        done = await asyncio.gather(
            *(ctx.transaction(f"t{n}", kit.write(), f"w{n}") for n in range(4)),
            *(ctx.step(f"s{n}", plain, n) for n in range(8)),
        )
        now = ctx.now()
        return [*map(str, done), str(now < ctx.now() or now)[:4]]

    async with kit.runtime(pay, warm=0) as runtime:
        run = await runtime.start(pay, None, run_id="r")
        result = await run.result(timeout=20)
        assert result[:4] == ["W0", "W1", "W2", "W3"]
        assert result[4:12] == [str(n) for n in range(8)]
        history = await runtime.export("r")
    assert sorted(kit.words()) == ["w0", "w1", "w2", "w3"]
    from duramen.testing import replay

    assert replay(pay, history).output == result


async def test_a_transaction_after_lazy_steps_takes_them_along(kit: Kit) -> None:
    async def cheap() -> int:
        return 1

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        await ctx.step("lazy", cheap, checkpoint="lazy")
        return await ctx.transaction("write", kit.write(), f"{word}{ctx.random() < 2}")

    async with kit.runtime(pay) as runtime:
        await (await runtime.start(pay, "one", run_id="r")).result(timeout=10)
        assert await kinds(runtime, "r") == [
            "run_created",
            "step_completed lazy",
            "value_recorded random-1",
            "step_completed write",
            "run_finished",
        ]


async def test_a_zombie_is_refused_and_its_data_rolled_back(kit: Kit) -> None:
    """The run is taken over while the function runs: what the former owner wrote must not stay."""
    calls: list[int] = []
    gate = Gate()

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        if not gate.opened.is_set():
            await ctx.step("arm", arm, checkpoint="lazy")
        return await ctx.transaction("write", kit.write(lambda: calls.append(1), gate), word)

    async def arm() -> None:
        kit.arm()

    async with kit.runtime(pay) as runtime:
        await runtime.start(pay, "one", run_id="r")
        await kit.steal(gate, "r")
        # The thief's lease is over at once, so this runtime has the run again.
        assert await runtime.result("r", 20) == "ONE"
        assert (await runtime.get("r")).status == "completed"
    assert len(calls) == 2
    assert kit.words() == ["one"]


async def test_a_handler_that_gives_up_waiting_leaves_no_data(kit: Kit) -> None:
    gate = Gate()

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        try:
            async with asyncio.timeout(0.1):
                await ctx.transaction("slow", kit.write(gate=gate), word)
        except TimeoutError:
            gate.opened.set()
            return await ctx.transaction("quick", kit.write(), "quick")
        return "in time"

    async with kit.runtime(pay) as runtime:
        assert await (await runtime.start(pay, "one")).result(timeout=10) == "QUICK"
    assert kit.words() == ["quick"]


async def test_a_runtime_that_closes_rolls_back_what_has_not_ended(kit: Kit) -> None:
    gate = Gate()

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        return await ctx.transaction("write", kit.write(gate=gate), word)

    async with kit.runtime(pay, lease=1, shutdown_timeout=0.1) as runtime:
        await runtime.start(pay, "one", run_id="r")
        await gate.wait()
    gate.opened.set()  # a thread goes on by itself: its transaction must come to nothing
    async with kit.runtime(pay) as runtime:
        while (await runtime.get("r")).status != "completed":
            await asyncio.sleep(0.05)
            await runtime.sweep()
        assert await runtime.result("r") == "ONE"
    assert kit.words() == ["one"]
