"""What operations and events may be called, and that no two kinds of operation share an id in silence."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from duramen import Context, Runtime, step_context, workflow
from duramen.errors import InvalidArgument, InvalidId

pytestmark = pytest.mark.anyio

Body = Callable[[Context], Awaitable[Any]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def what_it_raises(body: Body) -> BaseException:
    caught: list[BaseException] = []

    async def handler(ctx: Context) -> None:
        try:
            await body(ctx)
        except Exception as error:  # noqa: BLE001 - it is what the test is about
            caught.append(error)

    async with Runtime("memory://", workflows=[workflow(name="w")(handler)]) as runtime:
        result = await runtime.run("w")
    assert caught, result
    return caught[-1]


async def key() -> str:
    return step_context().idempotency_key


async def in_transaction(connection: Any) -> int:
    return 1


CALLS: dict[str, Callable[[Context, Any], Awaitable[Any]]] = {
    "step": lambda ctx, given: ctx.step(given, key),
    "transaction": lambda ctx, given: ctx.transaction(given, in_transaction),
    "event": lambda ctx, given: ctx.wait_for_event("paid", id=given),
    "approval": lambda ctx, given: ctx.approve("?", id=given),
    "event's name": lambda ctx, given: ctx.wait_for_event(given),
}

BAD_IDS: dict[str, tuple[Any, str]] = {
    "empty": ("", "at least one character"),
    "NUL": ("a\0b", "control character"),
    "line feed": ("a\n", "control character"),
    "C1": ("a\x9b", "control character"),
    "surrogate": ("a\ud800", "half a character"),
    "long": ("x" * 256, "(at most|use) 2"),
    "number": (3, "give a string"),
    "bytes": (b"a", "give a string"),
    "list": (["a"], "give a string"),
}


@pytest.mark.parametrize("call", list(CALLS))
@pytest.mark.parametrize("name", list(BAD_IDS))
async def test_an_id_that_no_store_can_keep_is_refused_at_the_call(name: str, call: str) -> None:
    value, text = BAD_IDS[name]
    error = await what_it_raises(lambda ctx: CALLS[call](ctx, value))
    assert isinstance(error, InvalidId)
    with pytest.raises(InvalidId, match=text):
        raise error


@pytest.mark.parametrize("call", ["step", "transaction", "event", "approval"])
async def test_what_marks_repeats_is_no_part_of_an_id(call: str) -> None:
    error = await what_it_raises(lambda ctx: CALLS[call](ctx, "a#2"))
    assert isinstance(error, InvalidId)
    assert "choose another name" in str(error)


async def test_names_of_ours_are_nobodys_events() -> None:
    error = await what_it_raises(lambda ctx: ctx.wait_for_event("__x"))
    assert isinstance(error, InvalidId)
    assert "choose another name" in str(error)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (lambda ctx: ctx.approve("?", assignees="ann"), r"assignees=\['ann'\]"),
        (lambda ctx: ctx.approve(3), "give a string"),
        (lambda ctx: ctx.approve("?", timeout=-1), "must not be negative"),
        (lambda ctx: ctx.approve("?", timeout=True), "timedelta, or seconds"),
        (lambda ctx: ctx.approve("?", meta=3), "give a dict"),
        (lambda ctx: ctx.approve("?", assignees=3), r"give a list"),
        (lambda ctx: ctx.approve("?", description=3), "give a string"),
        (lambda ctx: ctx.wait_for_event("paid", timeout=float("nan")), "finite"),
        (lambda ctx: ctx.wait_for_event("paid", timeout=1e12), "numbers are seconds"),
        (lambda ctx: ctx.sleep(True), "timedelta, or seconds"),
        (lambda ctx: ctx.sleep("1"), "timedelta, or seconds"),
        (lambda ctx: ctx.sleep(-1), "must not be negative"),
        (lambda ctx: ctx.sleep_until(3), "datetime with a time zone"),
    ],
    ids=range(13),
)
async def test_arguments_that_cannot_be_meant_are_refused(body: Body, text: str) -> None:
    error = await what_it_raises(body)
    assert isinstance(error, InvalidArgument), repr(error)
    with pytest.raises(InvalidArgument, match=text):
        raise error


# -- one id, one kind of operation ---------------------------------------------------------------------------


async def _decided(ctx: Context) -> None:
    try:
        await ctx.approve("?", id="ship", timeout=0)
    except TimeoutError:
        pass


WAYS: dict[str, tuple[str, Callable[[Context], Awaitable[Any]]]] = {
    "step": ("a step", lambda ctx: ctx.step("ship", key)),
    "event": ("a wait for an event", lambda ctx: ctx.wait_for_event("e", id="ship", timeout=0, default=None)),
    "approval": ("an approval", _decided),
}


@pytest.mark.parametrize("second", list(WAYS))
@pytest.mark.parametrize("first", list(WAYS))
async def test_an_id_belongs_to_one_kind_of_operation(first: str, second: str, file: Path) -> None:
    seen: list[str] = []

    @workflow
    async def handler(ctx: Context) -> str:
        await WAYS[first][1](ctx)
        try:
            await WAYS[second][1](ctx)
            seen.append("went")
        except InvalidId as error:
            seen.append(str(error))
        await WAYS[first][1](ctx)
        await ctx.wait_for_event("go")
        return await ctx.step("last", key)

    async with Runtime(f"sqlite:///{file}", workflows=[handler]) as runtime:
        assert (await runtime.run(handler, run_id="r")).kind == "paused"
    async with Runtime(f"sqlite:///{file}", workflows=[handler]) as runtime:
        run = await runtime.start(handler, run_id="r")
        await runtime.signal("r", "go")
        assert await run.result(timeout=30) == "r/last"
        ops = [each.op for each in (await runtime.timeline("r"))]
    assert len(seen) == 2
    assert seen[0] == seen[1]
    if first == second:
        assert seen[0] == "went"
        assert "ship#3" in ops
    else:
        assert "give one of them another id" in seen[0]
        assert WAYS[first][0] in seen[0]
        assert WAYS[second][0] in seen[0]
        assert "ship#3" not in ops


async def test_the_key_of_a_step_does_not_depend_on_what_an_approval_is_called() -> None:
    keys: list[str] = []

    @workflow
    async def handler(ctx: Context) -> list[str]:
        await ctx.sleep(0)
        keys.append(await ctx.step("ship", key))
        with pytest.raises(InvalidId, match="give one of them another id"):
            await ctx.approve("?", id="ship")
        keys.append(await ctx.step("ship", key))
        return keys

    async with Runtime("memory://", workflows=[handler]) as runtime:
        result = await runtime.run(handler, run_id="r")
    assert result.output == ["r/ship", "r/ship#2"], result


@pytest.mark.parametrize("taken", ["sleep-1", "now-1", "event-1"])
async def test_what_we_name_ourselves_gives_way_and_is_not_given_away(taken: str) -> None:
    async def ours(ctx: Context) -> None:
        await ctx.sleep(0)
        ctx.now()
        await ctx.wait_for_event("e", timeout=0, default=None)

    @workflow
    async def users_first(ctx: Context) -> str:
        found = await ctx.step(taken, key)
        await ours(ctx)
        return found

    @workflow
    async def ours_first(ctx: Context) -> str:
        await ours(ctx)
        with pytest.raises(InvalidId, match="give one of them another id"):
            await ctx.step(taken, key)
        return "refused"

    async with Runtime("memory://", workflows=[users_first, ours_first]) as runtime:
        assert (await runtime.run(users_first, run_id="r")).output == f"r/{taken}"
        assert (await runtime.run(ours_first)).output == "refused"
