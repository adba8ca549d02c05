"""Maps: each item once, in chunks that are runs of their own; what is cheap runs on every store."""

import asyncio
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel

from duramen import (
    ChildFailed,
    CodecSerializer,
    Context,
    JsonSerializer,
    MapFailed,
    MapResult,
    RunCancelled,
    RunFailed,
    Runtime,
    StepFailed,
    StepTimeout,
    register_exception,
    step,
    workflow,
)
from duramen._handlers import chunks, mapping
from duramen.errors import InvalidArgument, UnknownRun, WorkflowDefinitionError


class Parcel(BaseModel):
    number: int
    weight: float = 1.0


@dataclass
class Seen:
    """What steps note: they run in this process."""

    calls: list[int]
    in_flight: int = 0
    most: int = 0
    hold: asyncio.Event | None = None


SEEN = Seen([])


@register_exception
class TooHeavy(Exception):
    pass


@step
async def weigh(parcel: Parcel) -> float:
    SEEN.calls.append(parcel.number)
    if parcel.weight > 10:
        raise TooHeavy(parcel.weight)
    return parcel.weight + parcel.number


async def double(number: int) -> int:
    SEEN.calls.append(number)
    SEEN.in_flight += 1
    SEEN.most = max(SEEN.most, SEEN.in_flight)
    await asyncio.sleep(0)
    if SEEN.hold is not None and number >= 15:
        await SEEN.hold.wait()
    SEEN.in_flight -= 1
    return number * 2


def halve(number: int) -> float:
    return number / 2


@step(timeout=0.01)
async def hang(number: int) -> int:
    await asyncio.sleep(60)
    return number


def long_text(number: int) -> str:
    return str(number) * 400


@workflow
async def packing(ctx: Context, parcel: Parcel) -> Parcel:
    return Parcel(number=parcel.number, weight=await weigh(parcel))


@workflow
async def weighing(ctx: Context, weights: list[float]) -> list[float]:
    parcels = [Parcel(number=n, weight=weight) for n, weight in enumerate(weights)]
    return (await ctx.map(weigh, parcels)).values()


@workflow
async def tolerant(ctx: Context, weights: list[float]) -> dict[str, Any]:
    result = await ctx.map(
        weigh, [Parcel(number=n, weight=weight) for n, weight in enumerate(weights)], tolerate=0.5
    )
    with pytest.raises(MapFailed):
        result.values()
    return {
        "good": list(result.successes),
        "bad": {str(n): [type(e).__name__, type(e.__cause__).__name__] for n, e in result.failures.items()},
        "missing": list(result.missing),
    }


@workflow
async def doubling(ctx: Context, options: dict[str, Any]) -> list[int]:
    return (await ctx.map(double, range(options.pop("count")), **options)).values()


@workflow
async def enough(ctx: Context, options: dict[str, Any]) -> list[Any]:
    result = await ctx.map(double, range(options.pop("count")), **options)
    return [len(result), list(result.successes), len(result.failures), len(result.missing)]


@workflow
async def starting(ctx: Context, weights: list[float]) -> dict[str, Any]:
    parcels = [Parcel(number=n, weight=weight) for n, weight in enumerate(weights)]
    result = await ctx.map(packing, parcels, id="pack", tolerate=len(weights))
    assert all(isinstance(parcel, Parcel) for parcel in result.successes.values())
    return {
        "good": {str(n): parcel.weight for n, parcel in result.successes.items()},
        "bad": {
            str(n): [type(e).__name__, getattr(e, "run_id", ""), type(e.__cause__).__name__]
            for n, e in result.failures.items()
        },
    }


@workflow
async def slow(ctx: Context) -> list[str]:
    result = await ctx.map(hang, range(2), tolerate=2)
    return [type(failure).__name__ for failure in result.failures.values()]


@workflow
async def lengthy(ctx: Context, count: int) -> list[int]:
    return [len(text) for text in (await ctx.map(long_text, range(count))).values()]


@workflow
async def waiting(ctx: Context, number: int) -> str:
    try:
        return await ctx.wait_for_event("never", str)
    except asyncio.CancelledError:
        await ctx.step("clean up", double, number)
        raise


@workflow
async def waiting_for_many(ctx: Context) -> None:
    await ctx.map(waiting, range(12))


@workflow
async def mapping_twice(ctx: Context) -> list[Any]:
    nothing = await ctx.map(halve, [])
    first, second = await asyncio.gather(ctx.map(halve, range(3)), ctx.map("packing", [{"number": 1}]))
    again = [await ctx.map(packing, [Parcel(number=n)], id="again") for n in range(2)]
    return [len(nothing), first.values(), second.values()[0].weight, again[1].values()[0].number]


pytestmark = pytest.mark.anyio

ALL = [
    packing, weighing, tolerant, doubling, enough, starting, slow, lengthy, waiting, waiting_for_many,
    mapping_twice,
]  # fmt: skip


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def seen() -> Seen:
    SEEN.__init__([])
    return SEEN


def runtime(url: str, **options: Any) -> Runtime:
    return Runtime(url, workflows=ALL, **options)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - no step can tell
            await asyncio.sleep(0.01)


async def status_of(app: Runtime, run_id: str) -> str | None:
    try:
        return (await app.get(run_id)).status
    except UnknownRun:
        return None


async def test_results_are_in_the_order_of_the_items(any_url: str) -> None:
    async with runtime(any_url) as app:
        weights = await (await app.start(weighing, [1.0] * 35)).result(timeout=60)
        assert weights == [1.0 + n for n in range(35)]
        assert sorted(SEEN.calls) == list(range(35))
        twice = await (await app.start(mapping_twice, run_id="two")).result(timeout=60)
        assert twice == [0, [0.0, 0.5, 1.0], 2.0, 1]
        assert (await app.get("two/map-3/0")).status == "completed"
        assert (await app.get("two/again/0#2")).status == "completed"


async def test_failures_are_told_by_item(any_url: str) -> None:
    async with runtime(any_url) as app:
        found = await (await app.start(tolerant, [1, 11, 1, 12, 1, 1])).result(timeout=60)
        assert found == {
            "good": [0, 2, 4, 5],
            "bad": {"1": ["StepFailed", "TooHeavy"], "3": ["StepFailed", "TooHeavy"]},
            "missing": [],
        }
        assert await (await app.start(slow)).result(timeout=60) == ["StepTimeout"] * 2


async def test_the_first_failure_ends_it_unless_some_are_tolerated() -> None:
    async with runtime("memory://") as app:
        run = await app.start(weighing, [1.0] * 3 + [11.0] + [1.0] * 396, run_id="r")
        with pytest.raises(RunFailed) as failed:
            await run.result(timeout=60)
        assert failed.value.error.short_name == "MapFailed"
        assert "item 3: TooHeavy: 11.0" in failed.value.error.message
        assert failed.value.error.cause is not None
        assert len(SEEN.calls) < 400
        assert {(await app.get(each)).status for each in (await app.get("r")).children} <= {
            "completed",
            "cancelled",
        }


async def test_enough_successes_end_it() -> None:
    async with runtime("memory://") as app:
        options = {"count": 9, "min_success": 2, "concurrency": 1}
        assert await (await app.start(enough, options)).result(timeout=60) == [9, [0, 1], 0, 7]
        assert SEEN.calls == [0, 1]
        options = {"count": 400, "min_success": 60, "concurrency": 4}
        total, good, bad, missing = await (await app.start(enough, options)).result(timeout=60)
        assert (total, bad) == (400, 0)
        assert 60 <= len(good) == 400 - missing < 400


@pytest.mark.parametrize("concurrency", [1, 3, 40])
async def test_no_more_items_than_allowed_are_in_flight(concurrency: int) -> None:
    async with runtime("memory://") as app:
        options = {"count": 120, "concurrency": concurrency}
        assert await (await app.start(doubling, options)).result(timeout=60) == [2 * n for n in range(120)]
    assert 1 <= SEEN.most <= concurrency
    if concurrency == 1:
        assert SEEN.calls == list(range(120))


async def test_items_may_be_inputs_of_a_workflow(any_url: str) -> None:
    async with runtime(any_url) as app:
        found = await (await app.start(starting, [1.0] * 11 + [12.0], run_id="r")).result(timeout=60)
        assert found["good"] == {str(n): 1.0 + n for n in range(11)}
        assert found["bad"] == {"11": ["ChildFailed", "r/pack/11", "StepFailed"]}
        view = await app.get("r/pack/11")
        assert (view.status, view.root) == ("failed", "r")
        assert (await app.get("r")).children == ("r/pack/chunk-1", "r/pack/chunk-2")
        assert "__map:starting" not in dict(app.workflows)


async def test_what_is_too_long_for_one_payload_comes_in_pieces() -> None:
    async with runtime("memory://", serializer=JsonSerializer(4000)) as app:
        assert await (await app.start(lengthy, 25)).result(timeout=60) == [400] * 10 + [800] * 15


class Reversed:
    """A serializer whose payloads are no JSON, and a codec."""

    def dumps(self, value: Any, type: Any = None) -> bytes:  # noqa: A002
        return self.encode(JsonSerializer().dumps(value, type))

    def loads(self, data: bytes, type: Any = None) -> Any:  # noqa: A002
        return JsonSerializer().loads(self.decode(data), type)

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


@pytest.mark.parametrize("serializer", [Reversed(), CodecSerializer(JsonSerializer(), Reversed())])
async def test_other_payloads_than_json_will_do(serializer: Any) -> None:
    async with runtime("memory://", serializer=serializer) as app:
        found = await (await app.start(starting, [1.0] * 11 + [12.0])).result(timeout=60)
        assert (len(found["good"]), list(found["bad"])) == (11, ["11"])
        assert await (await app.start(weighing, [1.0, 2.0])).result(timeout=60) == [1.0, 3.0]


async def test_a_result_that_is_too_long_for_a_part_fails_its_item() -> None:
    async with runtime("memory://", serializer=JsonSerializer(1500)) as app:
        with pytest.raises(RunFailed, match="limit is 500"):
            await (await app.start(lengthy, 11)).result(timeout=60)


async def test_a_run_that_is_cancelled_cancels_its_items(any_url: str) -> None:
    async with runtime(any_url) as app:
        run = await app.start(waiting_for_many, run_id="r")

        async with asyncio.timeout(20):
            while await status_of(app, "r/map-1/9") != "waiting":  # noqa: ASYNC110 - it waits in the store
                await asyncio.sleep(0.01)
        needed = {each.workflow: each for each in await app.versions()}["__map:waiting_for_many"]
        assert (sum(needed.counts.values()), needed.current, needed.registered) == (2, True, True)
        report = await app.check()
        assert (report.checked, report.fits) == (13, 13)
        await app.cancel("r", "enough")
        with pytest.raises(RunCancelled):
            await run.result(timeout=60)
        view = await app.get("r/map-1/0")
        assert (view.status, view.reason) == ("cancelled", "enough")
        assert 0 in SEEN.calls


async def test_it_goes_on_where_it_was_after_a_crash(url: str) -> None:
    SEEN.hold = asyncio.Event()
    app = await runtime(url, shutdown_timeout=0.05).open()
    await app.start(doubling, {"count": 45, "concurrency": 5}, run_id="r")
    await until(lambda: len(SEEN.calls) >= 17)
    await app.close()
    done = set(SEEN.calls)
    SEEN.__init__([])
    async with runtime(url, work=True) as app:
        assert await app.result("r", timeout=60) == [2 * n for n in range(45)]
    # What was recorded was not done again: all but what was held.
    assert {n for n in SEEN.calls if n < 15} & done == set()


async def test_thousands_of_items_take_little_of_the_journal(sqlite_url: str) -> None:
    async with runtime(sqlite_url) as app:
        run = await app.start(doubling, {"count": 5000, "concurrency": 200}, run_id="r")
        assert await run.result(timeout=300) == [2 * n for n in range(5000)]
        assert len(SEEN.calls) == 5000
        assert (await app.get("r")).journal_len == 3 * 20 + 2


def test_what_cannot_be_found_or_used_is_refused() -> None:
    errors: list[str] = []
    anonymous: Callable[[int], int] = lambda number: number  # noqa: E731

    async def local(number: int) -> int:
        return number

    @workflow
    async def refused(ctx: Context) -> None:
        wrong: list[tuple[Any, Any, dict[str, Any]]] = [
            (local, [1], {}), (anonymous, [1], {}), (functools.partial(double, 1), [1], {}),
            (functools.partial(halve), [1], {}), (pow, [1], {}), (waiting_for_many, [1], {}),
        ]  # fmt: skip
        for fn, items, options in wrong:
            try:
                await ctx.map(fn, items, **options)
            except WorkflowDefinitionError as error:
                errors.append(str(error))
        limits: list[Any] = [{"concurrency": 0}, {"tolerate": 1.5}, {"tolerate": -1}, {"min_success": 3}]
        for options in limits:
            try:
                await ctx.map(double, [1, 2], **options)
            except InvalidArgument as error:
                errors.append(str(error))

    async def main() -> None:
        async with Runtime("memory://", workflows=[refused, waiting_for_many]) as app:
            await (await app.start(refused)).result(timeout=20)

    asyncio.run(main())
    assert len(errors) == 10, errors


def test_reserved_names_are_refused() -> None:
    @workflow(name="__map:other")
    async def other(ctx: Context) -> None: ...

    with pytest.raises(WorkflowDefinitionError, match="reserved"):
        Runtime("memory://", workflows=[other])


def test_a_result_says_what_is_missing() -> None:
    result = MapResult(3, {0: "a"}, {})
    assert (len(result), result.missing) == (3, (1, 2))
    with pytest.raises(MapFailed, match="the map: 1 of 3 items succeeded, 2 have no outcome"):
        result.values()
    assert issubclass(StepTimeout, StepFailed)
    assert not issubclass(MapFailed, ChildFailed)


async def test_chunks_go_to_those_who_serve_the_workflow_that_maps(url: str) -> None:
    """A worker with other code would not find the function."""

    @workflow
    async def stranger(ctx: Context) -> None: ...

    async with (
        Runtime(url, workflows=[stranger], work=True),
        runtime(url) as client,
        runtime(url, work=True),
    ):
        run = await client.enqueue(starting, [1.0] * 11 + [12.0], run_id="r")
        assert len((await run.result(timeout=60))["good"]) == 11
        assert await client.count(root="r") == 2 + 12
        assert [each.workflow for each in await client.list(parent="r")] == ["__map:starting"] * 2


async def test_a_chunk_that_does_not_find_its_function_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @workflow
    async def halving(ctx: Context) -> list[float]:
        result = await ctx.map(halve, range(2))
        return result.values()

    def found(*_: str) -> Any:
        return halve

    monkeypatch.setattr(mapping, "locate", found)
    async with Runtime("memory://", workflows=[halving]) as app:

        def gone(*_: str) -> Any:
            raise AttributeError("halve")

        monkeypatch.setattr(chunks, "locate", gone)
        run = await app.start(halving, run_id="r")

        async with asyncio.timeout(20):
            while await status_of(app, "r/map-1/chunk-1") != "stuck":  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        assert "halve, which cannot be found" in str((await app.get("r/map-1/chunk-1")).note)
        monkeypatch.setattr(chunks, "locate", found)
        await app.retry("r/map-1/chunk-1")
        assert await run.result(timeout=60) == [0.0, 0.5]


async def test_a_map_that_has_failed_stays_so(any_url: str) -> None:
    async with runtime(any_url) as app:
        run = await app.start(weighing, [11.0, 1.0], run_id="r")
        with pytest.raises(RunFailed):
            await run.result(timeout=60)
        before = list(SEEN.calls)
        await app.retry("r")
        with pytest.raises(RunFailed, match="item 0: TooHeavy"):
            await run.result(timeout=60)
        assert SEEN.calls == before
