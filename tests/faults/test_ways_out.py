"""Every way out of user code ends the run, parks it with its reason, or gives it back; and harms no other."""

import argparse
import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from duramen import CodecSerializer, Context, JsonSerializer, Retry, Runtime, StepFailed, workflow
from tests.regressions.support import finish, ran, story, until, until_status, until_true, work_on

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "duramen")


# -- the state


@dataclass
class State:
    x: Any = 0
    seen: list[int] = field(default_factory=list[int])


STATES: dict[str, Callable[[], Any]] = {
    "no JSON": object,
    "over the limit": lambda: "x" * (3 << 20),
    "half a character": lambda: "\ud800",
    "a lock": threading.Lock,
    "not a number": lambda: float("nan"),
}


@workflow(state=State)
async def spoiling(ctx: Context[State], given: tuple[str, str]) -> str:
    ledger, what = given
    await ctx.step("before", work_on, ledger, "before")
    ctx.state.x = STATES[what]()
    await ctx.step("after", work_on, ledger, "after")
    return "done"


@workflow(state=State)
async def spoiling_at_the_end(ctx: Context[State], given: tuple[str, str]) -> str:
    ledger, what = given
    await ctx.step("before", work_on, ledger, "before")
    ctx.state.x = STATES[what]()
    return "done"


@pytest.mark.parametrize("definition", [spoiling, spoiling_at_the_end], ids=lambda each: each.name)
@pytest.mark.parametrize("what", list(STATES))
async def test_a_state_that_cannot_be_recorded_fails_the_run_with_the_reason(
    url: str, ledger: str, what: str, definition: Any
) -> None:
    async with Runtime(url, workflows=[definition]) as runtime:
        run = await runtime.start(definition, (ledger, what), run_id="r")
        await until_status(runtime, "r", "failed")
        view = await run.get()
        assert view.error is not None
        assert view.error.short_name in {"SerializationError", "PayloadTooLarge"}
        assert any("the state of run 'r' cannot be recorded" in note for note in view.error.notes)
        assert await story(runtime, "r") == ["run_created", "step_completed before", "run_failed"]
    assert (ran(ledger, "before"), ran(ledger, "after")) == (1, 0)


# -- exceptions and rules that misbehave


class Odd(Exception):
    """Its own methods raise what they like."""

    def __init__(self, raises: type[BaseException]) -> None:
        self.raises = raises

    def __str__(self) -> str:
        raise self.raises("from __str__")

    __repr__ = __str__

    def add_note(self, note: str) -> None:
        raise self.raises("from add_note")

    def __eq__(self, other: object) -> bool:
        raise self.raises("from __eq__")

    __hash__ = Exception.__hash__


def no_dict() -> Exception:
    error = Exception("x")
    error.args = (object(), {1: {2: object()}})
    error.__notes__ = ["a", object()]
    return error


class Text(str):
    """A text that raises."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        raise SystemExit("from encode")

    __len__ = __iter__ = __format__ = encode


class TellingText(Exception):
    def __str__(self) -> str:
        return Text("a text")


class Lying(Exception):
    @property
    def __class__(self) -> Any:
        raise RuntimeError("no class")

    @property
    def __dict__(self) -> Any:
        raise RuntimeError("no dict")

    @property
    def __cause__(self) -> Any:
        raise RuntimeError("no cause")


class Unfriendly(type(Exception)):
    @property
    def __name__(cls) -> str:
        raise RuntimeError("no name")

    @property
    def __module__(cls) -> str:
        raise RuntimeError("no module")


class Nameless(Exception, metaclass=Unfriendly):
    pass


ERRORS: dict[str, Callable[[], BaseException]] = {
    "odd": lambda: Odd(ValueError),
    "odd, exits": lambda: Odd(SystemExit),
    "odd, cancelled": lambda: Odd(asyncio.CancelledError),
    "odd arguments": no_dict,
    "lying": Lying,
    "a text that raises": TellingText,
    "nameless": Nameless,
    "exit": lambda: SystemExit(0),
    "exit with an object": lambda: SystemExit(object()),
    "cancelled": asyncio.CancelledError,
    "generator exit": GeneratorExit,
    "group": lambda: ExceptionGroup("many", [Odd(ValueError), Lying()]),
    "group of exits": lambda: BaseExceptionGroup("many", [SystemExit(1), GeneratorExit()]),
    "stop": lambda: StopIteration(1),
    "stop async": StopAsyncIteration,
    "base": lambda: BaseException("base"),
}


def error_of(what: str) -> BaseException:
    return ERRORS[what]()


async def raising(what: str) -> None:
    raise error_of(what)


async def raising_later(what: str) -> None:
    await asyncio.sleep(0)
    raise error_of(what)


def raising_in_a_thread(what: str) -> None:
    raise error_of(what)


FUNCTIONS = {"at once": raising, "later": raising_later, "in a thread": raising_in_a_thread}


@workflow
async def catching(ctx: Context, given: tuple[str, str]) -> str:
    how, what = given
    try:
        await ctx.step("raises", FUNCTIONS[how], what)
    except StepFailed:
        return "caught"
    return "?"


@workflow
async def raising_itself(ctx: Context, what: str) -> None:
    await ctx.step("fine", asyncio.sleep, 0)
    raise error_of(what)


@workflow
async def neighbour(ctx: Context, ledger: str) -> str:
    await ctx.step("one", work_on, ledger, "one")
    await ctx.sleep(0.01)
    return await ctx.step("two", work_on, ledger, "two")


async def test_whatever_a_step_raises_reaches_its_handler_as_a_failure(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[catching, neighbour]) as runtime:
        other = await runtime.start(neighbour, ledger)
        runs = {
            (how, what): await runtime.start(catching, (how, what)) for how in FUNCTIONS for what in ERRORS
        }
        found = {key: await run.result(timeout=30) for key, run in runs.items()}
        assert found == dict.fromkeys(runs, "caught")
        assert await other.result(timeout=30) == "two"


async def test_whatever_a_handler_raises_is_the_failure_of_its_run(url: str, ledger: str) -> None:
    async with Runtime(url, workflows=[raising_itself, neighbour]) as runtime:
        other = await runtime.start(neighbour, ledger)
        for what in ERRORS:
            await runtime.start(raising_itself, what, run_id=what)
        for what in ERRORS:
            view = await until_status(runtime, what, "failed")
            assert view.error is not None
        assert await other.result(timeout=30) == "two"


class Rules:
    def raises(self, error: Exception) -> bool:
        raise ValueError(error)

    def exits(self, error: Exception) -> bool:
        sys.exit("enough")

    def odd(self, error: Exception) -> Any:
        class NoBool:
            def __bool__(self) -> bool:
                raise GeneratorExit

        return NoBool()


def broken_rule(name: str) -> Retry:
    if name == "a list":
        retry = Retry(attempts=3, base=0)
        object.__setattr__(retry, "non_retryable", [ValueError])
        return retry
    return Retry(attempts=3, base=0, retry_if=getattr(Rules(), name))


@workflow
async def ruled(ctx: Context, given: tuple[str, str]) -> str:
    ledger, name = given

    async def fails() -> None:
        await work_on(ledger, "fails")
        raise ValueError("fails")

    try:
        await ctx.step("fails", fails, retry=broken_rule(name))
    except StepFailed as error:
        return str(error.attempts)
    return "?"


@pytest.mark.parametrize("name", ["a list", "raises", "exits", "odd"])
async def test_a_rule_of_retries_that_raises_fails_its_step(url: str, ledger: str, name: str) -> None:
    async with Runtime(url, workflows=[ruled]) as runtime:
        run = await runtime.start(ruled, (ledger, name))
        assert await run.result(timeout=20) == "1"
    assert ran(ledger, "fails") == 1


# -- exits


def parse(arguments: list[str]) -> Any:
    return argparse.ArgumentParser().parse_args(arguments)


@workflow
async def parsing(ctx: Context) -> str:
    try:
        await ctx.step("parse", parse, ["--no-such-option"])
    except StepFailed as error:
        return error.error.short_name
    return "?"


@workflow
async def waiting(ctx: Context, ledger: str) -> str:
    async def wait() -> str:
        while not ran(ledger, "go"):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return "went"

    return await ctx.step("wait", wait)


async def test_a_step_that_exits_has_failed_and_its_neighbours_go_on(
    url: str, ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Runtime(url, workflows=[parsing, waiting]) as runtime:
        others = [await runtime.start(waiting, ledger) for _ in range(20)]
        bad = await runtime.start(parsing)
        assert await bad.result(timeout=20) == "SystemExit"
        assert "no-such-option" in capsys.readouterr().err
        with open(ledger, "a") as file:  # noqa: ASYNC230, PTH123
            file.write("ran go x\n")
        assert [await run.result(timeout=20) for run in others] == ["went"] * 20


@workflow
async def hanging(ctx: Context, ledger: str) -> str:
    async def hang() -> None:
        await work_on(ledger, "hang")
        if ran(ledger, "hang") == 1:
            await asyncio.Event().wait()

    await ctx.step("hang", hang)
    return "done"


async def test_a_run_whose_step_the_program_cancelled_is_given_back_and_goes_on(
    url: str, ledger: str
) -> None:
    async with Runtime(url, workflows=[hanging], lease=1) as runtime:
        run = await runtime.start(hanging, ledger, run_id="r")
        await until_true(lambda: ran(ledger, "hang"))
        for task in asyncio.all_tasks():
            if task.get_name() == "duramen-step-runner":
                task.cancel()
        await until_true(lambda: not runtime._services.lifecycle.driver.drives("r"))  # pyright: ignore[reportPrivateUsage]
        # Nobody drives it here, so its lease is not renewed for long, though its process lives.
        await until_status(runtime, "r", "waiting")
        assert (await finish(runtime, "r")).output == "done"
        assert (await run.get()).error is None
    assert ran(ledger, "hang") == 2


# -- threads


@workflow
async def threading_on(ctx: Context, count: int) -> int:
    def work(n: int) -> int:
        return n

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ctx.step(f"s{n}", work, n)) for n in range(count)]
    return sum(task.result() for task in tasks)


async def test_a_thread_that_cannot_be_started_loses_no_result(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "duramen")
    async with Runtime(url, workflows=[threading_on], watchdog=0) as runtime:
        before = threading.stack_size(1 << 46)  # more than there is: no thread can be started
        try:
            run = await runtime.start(threading_on, 10)
            await until_true(lambda: "no thread can be started" in caplog.text)
        finally:
            threading.stack_size(before)
        assert await run.result(timeout=20) == 45


# -- codecs


class Keys:
    """A codec whose service is out at times."""

    def __init__(self) -> None:
        self.out: BaseException | None = None
        self.refused = 0

    def _ask(self, data: bytes) -> bytes:
        if self.out is not None:
            self.refused += 1
            raise self.out
        return data[::-1]

    encode = decode = _ask


class ServiceError(Exception):
    """As a vendor's library has them: nobody's subclass."""


@pytest.fixture(params=[ConnectionError("refused"), ServiceError("503"), TimeoutError()], ids=repr)
def outage(request: pytest.FixtureRequest) -> BaseException:
    return request.param


@workflow(state=State)
async def coded(ctx: Context[State], ledger: str) -> str:
    await ctx.step("one", work_on, ledger, "one")
    ctx.state.seen.append(1)

    async def fails() -> None:
        await work_on(ledger, "two")
        raise ValueError("two")

    try:
        await ctx.step("two", fails)
    except StepFailed:
        ctx.state.seen.append(2)
    return await ctx.step("three", work_on, ledger, "three")


STEPS = ("one", "two", "three")


@pytest.mark.parametrize("at", [*STEPS, "the end"])
async def test_an_outcome_outlives_an_outage_of_a_codec(
    url: str, ledger: str, at: str, outage: BaseException
) -> None:
    keys = Keys()

    @workflow(name="w", state=State)
    async def going(ctx: Context[State], where: str) -> str:
        async def step(name: str) -> str:
            await work_on(where, name)
            if at == name:
                keys.out = outage
            if name == "two":
                raise ValueError(name)
            return name

        await ctx.step("one", step, "one")
        ctx.state.seen.append(1)
        with pytest.raises(StepFailed):
            await ctx.step("two", step, "two")
        ctx.state.seen.append(2)
        await ctx.step("three", step, "three")
        if at == "the end":
            keys.out = outage
        return "done"

    serializer = CodecSerializer(JsonSerializer(), keys)
    async with Runtime(url, workflows=[going], serializer=serializer) as runtime:
        run = await runtime.start(going, ledger, run_id="r")
        await until_true(lambda: keys.refused > 2)
        keys.out = None
        assert await run.result(timeout=20) == "done"
        assert (await run.get()).state == State(seen=[1, 2])
    assert [ran(ledger, name) for name in STEPS] == [1, 1, 1]


async def test_a_replay_waits_for_a_codec_and_parks_nothing(
    url: str, ledger: str, outage: BaseException
) -> None:
    keys = Keys()

    @workflow(name="w")
    async def going(ctx: Context, where: str) -> str:
        await ctx.step("one", work_on, where, "one")
        with pytest.raises(StepFailed):
            await ctx.step("two", raising, "base")
        said = await ctx.wait_for_event("go", str)
        return await ctx.step("three", work_on, where, said)

    serializer = CodecSerializer(JsonSerializer(), keys)
    async with Runtime(url, workflows=[going], serializer=serializer, warm=0) as runtime:
        await runtime.start(going, ledger, run_id="r")
        await until_status(runtime, "r", "waiting")
        await runtime.signal("r", "go", "three")
        keys.out = outage
        await until_true(lambda: keys.refused > 5)
        keys.out = None
        assert (await until_status(runtime, "r", "completed")).output == "three"
    assert [ran(ledger, name) for name in ("one", "three")] == [1, 1]


async def test_a_run_that_waits_for_a_codec_is_given_back_when_its_runtime_closes(
    url: str, ledger: str
) -> None:
    keys = Keys()

    @workflow(name="w")
    async def going(ctx: Context, where: str) -> str:
        async def step() -> str:
            await work_on(where, "one")
            keys.out = ConnectionError("refused") if ran(where, "one") == 1 else None
            return "done"

        return await ctx.step("one", step)

    serializer = CodecSerializer(JsonSerializer(), keys)
    async with Runtime(url, workflows=[going], serializer=serializer, shutdown_timeout=0.1) as runtime:
        await runtime.start(going, ledger, run_id="r")
        await until_true(lambda: keys.refused > 1)
    keys.out = None
    async with Runtime(url, workflows=[going], serializer=serializer) as runtime:
        assert (await finish(runtime, "r")).output == "done"
    assert ran(ledger, "one") == 2


async def test_a_codec_that_refuses_a_value_fails_the_step_at_once(url: str, ledger: str) -> None:
    class Small:
        def encode(self, data: bytes) -> bytes:
            if data == b'"large"':
                raise ValueError("too long for this key")
            return data

        def decode(self, data: bytes) -> bytes:
            return data

    @workflow(name="w")
    async def going(ctx: Context, where: str) -> str:
        try:
            await ctx.step("one", work_on, where, "large")
        except StepFailed as error:
            return error.error.short_name
        return "?"

    async with Runtime(url, workflows=[going], serializer=CodecSerializer(JsonSerializer(), Small())) as it:
        assert await (await it.start(going, ledger)).result(timeout=20) == "SerializationError"
    assert ran(ledger, "large") == 1


async def test_an_outcome_that_no_codec_takes_parks_the_run_with_the_reason(url: str, ledger: str) -> None:
    class Broken:
        broken = False

        def encode(self, data: bytes) -> bytes:
            if self.broken:
                raise TypeError("broken")
            return data

        def decode(self, data: bytes) -> bytes:
            return data

    codec = Broken()

    @workflow(name="w")
    async def going(ctx: Context, where: str) -> str:
        async def step() -> None:
            await work_on(where, "one")
            codec.broken = True

        await ctx.step("one", step)
        return "?"

    async with Runtime(url, workflows=[going], serializer=CodecSerializer(JsonSerializer(), codec)) as it:
        await it.start(going, ledger, run_id="r")
        view = await until_status(it, "r", "stuck")
        assert view.note is not None
        assert "the outcome of step 'one' cannot be recorded" in view.note
        assert "broken" in view.note
    assert ran(ledger, "one") == 1


async def test_a_sweep_whose_time_is_over_waits_for_no_codec(url: str, ledger: str) -> None:
    keys = Keys()

    @workflow(name="w")
    async def going(ctx: Context, where: str) -> str:
        async def step() -> str:
            await work_on(where, "one")
            keys.out = ConnectionError("refused") if ran(where, "one") == 1 else None
            return "done"

        return await ctx.step("one", step)

    serializer = CodecSerializer(JsonSerializer(), keys)
    async with Runtime(url, workflows=[going], serializer=serializer, lease=1) as runtime:
        await runtime.enqueue(going, ledger, run_id="r")
        async with asyncio.timeout(30):
            await runtime.sweep(max_duration=0.5, min_remaining=0)
        assert keys.refused
        await until_true(lambda: not runtime._services.lifecycle.driver.drives("r"))  # pyright: ignore[reportPrivateUsage]
        keys.out = None
        await until_status(runtime, "r", "waiting")  # its lease is not renewed for long
        assert (await finish(runtime, "r")).output == "done"
    assert ran(ledger, "one") == 2


async def test_a_payload_that_stays_unreadable_parks_the_run(url: str, ledger: str) -> None:
    keys = Keys()

    @workflow(name="w")
    async def going(ctx: Context, where: str) -> str:
        await ctx.step("one", work_on, where, "one")
        return await ctx.wait_for_event("go", str)

    serializer = CodecSerializer(JsonSerializer(), keys)
    async with Runtime(url, workflows=[going], serializer=serializer, warm=0) as runtime:
        driver: Any = runtime._services.lifecycle.driver  # pyright: ignore[reportPrivateUsage]
        driver._services.patience = 0.2
        await runtime.start(going, ledger, run_id="r")
        await until_status(runtime, "r", "waiting")
        await runtime.signal("r", "go", "x")
        keys.out = ServiceError("the key is gone")

        async def parked() -> bool:
            return (await runtime.list(id_prefix="r")).items[0].status == "stuck"

        await until(parked)
        assert keys.refused > 1
        keys.out = None
        assert "the key is gone" in str((await runtime.get("r")).note)
        await runtime.retry("r")
        assert (await until_status(runtime, "r", "completed")).output == "x"
    assert ran(ledger, "one") == 1


async def test_a_transaction_whose_result_meets_an_outage_is_rolled_back_and_done_again(
    sqlite_url: str, ledger: str, outage: BaseException
) -> None:
    keys = Keys()

    def function(connection: Any) -> int:
        connection.execute("CREATE TABLE IF NOT EXISTS effects (n INTEGER)")
        connection.execute("INSERT INTO effects VALUES (1)")
        with open(ledger, "a") as file:  # noqa: PTH123
            file.write("ran function x\n")
        keys.out = outage if ran(ledger, "function") == 1 else None
        return 1

    def count(connection: Any) -> int:
        return connection.execute("SELECT count(*) FROM effects").fetchall()[0][0]

    @workflow(name="w")
    async def going(ctx: Context) -> int:
        await ctx.transaction("one", function)
        return await ctx.transaction("count", count)

    serializer = CodecSerializer(JsonSerializer(), keys)
    async with Runtime(sqlite_url, workflows=[going], serializer=serializer) as runtime:
        run = await runtime.start(going, run_id="r")
        await until_true(lambda: keys.refused)
        keys.out = None
        assert await run.result(timeout=20) == 1
    assert ran(ledger, "function") == 2


# -- arguments


async def test_what_a_step_changes_in_its_arguments_is_not_there_on_a_replay(url: str, ledger: str) -> None:
    @workflow(name="w")
    async def going(ctx: Context, where: str) -> list[int]:
        given: list[int] = []

        async def change() -> None:
            given.append(1)

        await ctx.step("change", change)
        seen = len(given)
        await work_on_outside(where, f"saw {seen}")
        await ctx.wait_for_event("go")
        return given

    async def work_on_outside(where: str, what: str) -> None:
        with open(where, "a") as file:  # noqa: ASYNC230, PTH123
            file.write(f"{what}\n")

    async with Runtime(url, workflows=[going], warm=0) as runtime:
        await runtime.start(going, ledger, run_id="r")
        await until_status(runtime, "r", "waiting")
        await runtime.signal("r", "go")
        assert (await until_status(runtime, "r", "completed")).output == []
    with open(ledger) as file:  # noqa: ASYNC230, PTH123
        assert file.read().split("\n")[:2] == ["saw 1", "saw 0"]
