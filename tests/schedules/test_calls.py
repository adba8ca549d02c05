"""What people do with schedules: they make, look at, pause, trigger, repeat and remove them."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from duramen import Context, JsonSerializer, Runtime, Schedule, cron, every, workflow
from duramen.errors import (
    InvalidArgument,
    InvalidId,
    SerializationError,
    UnknownSchedule,
    UnknownWorkflow,
)
from duramen.testing import Environment
from tests.schedules.conftest import Book, work

pytestmark = pytest.mark.anyio

START = datetime(2030, 1, 1, tzinfo=UTC)


@workflow
async def brief(ctx: Context, day: str) -> str:
    tick = ctx.schedule
    assert tick is not None
    return f"{tick.fire_time:%H:%M} after {tick.previous and f'{tick.previous:%H:%M}'}"


@workflow
async def plain(ctx: Context) -> str:
    return "plain"


def hourly(schedule_id: str = "s", **options: Any) -> Schedule[Any]:
    options = {"input": "x", "overlap": "allow"} | options
    return Schedule(schedule_id, "brief", every.hours(1), **options)


# -- definitions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"id": ""}, InvalidId, "empty"),
        ({"id": "a\nb"}, InvalidId, "control character"),
        ({"id": "x" * 201}, InvalidArgument, "201 characters"),
        ({"workflow": 3}, InvalidArgument, "no workflow"),
        ({"when": "0 9 * * *"}, InvalidArgument, "give cron"),
        ({"overlap": "queue"}, InvalidArgument, "choose one of skip"),
        ({"catch_up": "all"}, InvalidArgument, "choose one of none"),
        ({"catch_up": timedelta()}, InvalidArgument, "say 'none'"),
        ({"jitter": -1}, InvalidArgument, "jitter"),
        ({"start": datetime(2030, 1, 1)}, InvalidArgument, "time zone"),  # noqa: DTZ001
        ({"start": START, "end": START - timedelta(1)}, InvalidArgument, "before it starts"),
        ({"tags": "x"}, InvalidArgument, "list of strings"),
    ],
)
async def test_what_makes_no_sense_is_refused_when_it_is_defined(
    options: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Schedule(**({"id": "s", "workflow": "w", "when": every.hours(1)} | options))


async def test_two_of_one_id_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="two schedules"):
        Runtime("memory://", workflows=[brief], schedules=[hourly(), hourly()])
    with pytest.raises(InvalidArgument, match=r"give Schedule\(…\)"):
        Runtime("memory://", schedules=["s"])  # type: ignore[list-item]
    with pytest.raises(InvalidArgument, match="stale_schedules"):
        Runtime("memory://", stale_schedules="forget")  # type: ignore[arg-type]


async def test_an_input_that_does_not_fit_is_refused_when_the_runtime_opens() -> None:
    for schedule, error in (
        (Schedule("s", "brief", every.hours(1), input=3), SerializationError),
        (Schedule("s", "plain", every.hours(1), input=3), InvalidArgument),
        (Schedule("s", work, every.hours(1), input="x"), UnknownWorkflow),
    ):
        with pytest.raises(error):
            await Runtime("memory://", workflows=[brief, plain], schedules=[schedule]).open()


async def test_a_function_lives_in_a_declaration_only() -> None:
    async with Runtime("memory://", workflows=[brief]) as runtime:
        with pytest.raises(InvalidArgument, match="declare it"):
            await runtime.schedules.upsert(hourly(input=lambda at: "x"))


async def test_declarations_that_are_gone_are_kept_or_removed_as_asked(url: str) -> None:
    async def ids(**options: Any) -> list[str]:
        async with Runtime(url, workflows=[brief], **options) as runtime:
            return [view.id for view in await runtime.schedules.list()]

    both = [hourly("a"), hourly("b")]
    async with Runtime(url, workflows=[brief], schedules=both) as runtime:
        await runtime.schedules.upsert(hourly("own"))
    assert await ids() == ["a", "b", "own"]
    assert await ids(schedules=[hourly("b")]) == ["a", "b", "own"]
    assert await ids(schedules=[hourly("b")], stale_schedules="remove") == ["b", "own"]


async def test_what_is_declared_as_it_was_is_not_written_again(url: str) -> None:
    async with Runtime(url, workflows=[brief], schedules=[hourly(catch_up="latest")]) as runtime:
        b = Book(runtime)
        assert await b.at(1) == [b.name(1)]
        await runtime.schedules.pause("s", note="later")
    async with Runtime(url, workflows=[brief], schedules=[hourly()]) as runtime:
        view = await runtime.schedules.get("s")
        assert (view.paused, view.note, view.fired) == (True, "later", 1)
    async with Runtime(url, workflows=[brief], schedules=[hourly(enabled=False)]) as runtime:
        assert (await runtime.schedules.get("s")).paused
    async with Runtime(url, workflows=[brief], schedules=[hourly()]) as runtime:
        assert not (await runtime.schedules.get("s")).paused, "its declaration has said so"


# -- calls ---------------------------------------------------------------------------------------------------


async def test_one_that_is_made_while_everything_runs_fires(book) -> None:
    async with book() as b:
        view = await b.runtime.schedules.upsert(Schedule("s", "work", every.hours(1), input="x", tags=["t"]))
        assert (view.when, view.declared, view.next_fire) == ("every.seconds(3600)", False, b.hour(1))
        assert await b.at(1) == [b.name(1)]
        assert [run.run_id for run in await b.runtime.list(tag="t")] == [b.name(1)]
        await b.runtime.schedules.delete("s")
        assert await b.at(2) == []
        for call in ("get", "pause", "resume", "trigger", "delete", "preview"):
            with pytest.raises(UnknownSchedule, match="no schedule 's'"):
                await getattr(b.runtime.schedules, call)("s")


async def test_a_trigger_starts_one_run_whatever_else_is_running(book) -> None:
    async with book(Schedule("s", work, every.hours(1), input="x")) as b:
        assert await b.at(1) == [b.name(1)]
        await b.runtime.schedules.pause("s")
        for _ in range(3):
            run = await b.runtime.schedules.trigger("s", trigger_id="mine")
            assert run.run_id == "s:manual:mine"
            await b.runtime.sweep()
        other = await b.runtime.schedules.trigger("s")
        await b.runtime.sweep()
        assert await b.runs() == sorted([b.name(1), "s:manual:mine", other.run_id])


async def test_a_triggered_run_counts_as_one_that_is_under_way(book) -> None:
    async with book(Schedule("s", work, every.hours(1), input="x", overlap="skip")) as b:
        await b.runtime.schedules.trigger("s", trigger_id="1")
        await b.runtime.sweep()
        assert (await b.runtime.schedules.get("s")).running == ("s:manual:1",)
        assert await b.at(1) == []


async def test_a_backfill_starts_what_has_not_been_started(book) -> None:
    async with Environment([brief], schedules=[Schedule("s", brief, every.hours(1), input="x")]) as env:
        await env.advance(hours=1)
        await env.runtime.schedules.pause("s")
        await env.advance(hours=4)
        ids = await env.runtime.schedules.backfill(
            "s", START + timedelta(hours=1), START + timedelta(hours=3), overlap="allow"
        )
        assert ids == [f"s:2030-01-01T0{n}:00:00Z" for n in (1, 2, 3)]
        await env.settle()
        runs = {view.run_id: await env.runtime.result(view.run_id) for view in await env.runtime.list()}
        assert runs == {
            ids[0]: "01:00 after None",
            ids[1]: "02:00 after 01:00",
            ids[2]: "03:00 after 02:00",
        }
        with pytest.raises(InvalidArgument, match="still to come"):
            await env.runtime.schedules.backfill("s", START, START + timedelta(days=9))
        with pytest.raises(InvalidArgument, match="more than 1000"):
            await env.runtime.schedules.backfill("s", START - timedelta(days=99), START)


async def test_a_backfill_in_turn_lets_no_two_runs_overlap() -> None:
    schedule = Schedule("s", work, every.hours(1), input="x", enabled=False)
    async with Environment([work], schedules=[schedule]) as env:
        await env.advance(hours=3)
        ids = await env.runtime.schedules.backfill(
            "s", START + timedelta(hours=1), START + timedelta(hours=3)
        )
        for run_id in ids:
            await env.advance(minutes=2)
            (live,) = await env.runtime.list(status="waiting")
            assert live.run_id == run_id
            await env.runtime.signal(run_id, "end")
        await env.advance(minutes=2)
        assert await env.runtime.count(status="completed") == 3


async def test_they_are_listed_a_page_at_a_time(any_url: str) -> None:
    async with Runtime(any_url, workflows=[brief], schedules=[hourly(f"s{n}") for n in range(5)]) as runtime:
        page = await runtime.schedules.list(limit=2)
        assert [view.id for view in page] == ["s0", "s1"]
        page = await runtime.schedules.list(limit=2, cursor=page.cursor)
        page = await runtime.schedules.list(limit=2, cursor=page.cursor)
        assert ([view.id for view in page], page.cursor) == (["s4"], None)


async def test_the_next_fire_times_can_be_seen_before() -> None:
    when = cron("30 1 * * *", tz="Europe/Lisbon")
    async with Runtime("memory://", workflows=[brief]) as runtime:
        await runtime.schedules.upsert(Schedule("s", "brief", when, input="x"))
        after = datetime(2026, 3, 28, tzinfo=UTC)
        times = await runtime.schedules.preview("s", 3, after=after)
        assert [f"{at:%d %H:%M}" for at in times] == ["28 01:30", "29 01:00", "30 00:30"]
        assert times == Schedule("x", "brief", when).preview(3, after=after)
        assert len(await runtime.schedules.preview("s")) == 10


def test_the_blocking_calls_do_the_same(sqlite_url: str) -> None:
    with Runtime(sqlite_url, workflows=[plain], work=True).sync as runtime:
        runtime.schedules.upsert(Schedule("s", plain, every.days(1)))
        assert runtime.schedules.trigger("s").result(timeout=10) == "plain"
        assert [view.id for view in runtime.schedules.list()] == ["s"]
        assert runtime.schedules.pause("s").paused
        assert not runtime.schedules.resume("s").paused
        assert len(runtime.schedules.preview("s", 3)) == 3
        assert runtime.schedules.backfill("s", START - timedelta(3650), START - timedelta(3650)) == [
            "s:2020-01-04T00:00:00Z"
        ]
        runtime.schedules.delete("s")
        with pytest.raises(UnknownSchedule):
            runtime.schedules.get("s")


# -- what is broken ------------------------------------------------------------------------------------------


async def test_one_that_is_broken_hurts_itself_alone_and_fires_when_it_is_mended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = True

    def make(at: datetime) -> str:
        if broken:
            raise ValueError("no data yet")
        return f"{at:%H}"

    schedules = [
        Schedule("broken", brief, every.hours(1), input=make),
        Schedule("wrong", brief, every.hours(1), input=lambda at: 3),  # type: ignore[arg-type, return-value]
        Schedule("well", brief, every.hours(1), input="x"),
    ]
    caplog.set_level(logging.ERROR, "duramen.schedules")
    async with Environment([brief], schedules=schedules) as env:
        await env.advance(minutes=90)
        assert [view.run_id for view in await env.runtime.list()] == ["well:2030-01-01T01:00:00Z"]
        view = await env.runtime.schedules.get("broken")
        assert view.error == "ValueError: no data yet"
        assert 3 < view.failures < 12
        assert view.waiting == (START + timedelta(hours=1),)
        assert "SerializationError" in str((await env.runtime.schedules.get("wrong")).error)
        told = [record for record in caplog.records if "no data yet" in record.getMessage()]
        assert len(told) == 1
        broken = False
        await env.advance(minutes=11)
        view = await env.runtime.schedules.get("broken")
        assert (view.error, view.failures, view.last_run) == (None, 0, "broken:2030-01-01T01:00:00Z")


async def test_one_whose_workflow_is_not_here_is_left_to_those_who_know_it(any_url: str) -> None:
    if any_url == "memory://":
        any_url = "memory://left-to-others"
    async with (
        Runtime(any_url, workflows=[plain]) as stranger,
        Runtime(any_url, workflows=[brief]) as friend,
    ):
        await stranger.schedules.upsert(hourly())
        b = Book(stranger)
        assert await b.at(1) == []
        assert (await stranger.schedules.get("s")).error is None
        b.runtime = friend
        assert await b.at(1) == [b.name(1)]


async def test_one_whose_function_is_not_here_is_left_to_those_who_declare_it(url: str) -> None:
    async with (
        Runtime(url, workflows=[work], schedules=[Schedule("s", work, every.hours(1), input=str)]) as one,
        Runtime(url, workflows=[work], schedules=[Schedule("t", work, every.hours(1), input="x")]) as other,
    ):
        b = Book(other)
        assert await b.at(1) == [b.name(1, "t")]
        b.runtime = one
        assert await b.at(1) == [b.name(1)]


async def test_one_of_a_newer_build_is_left_alone(any_url: str) -> None:
    async with Runtime(any_url, workflows=[brief], schedules=[hourly("new"), hourly("s")]) as runtime:
        port = runtime._services.lifecycle.ready  # type: ignore[attr-defined]  # pyright: ignore[reportPrivateUsage]
        (row,) = await port.call(port.engine.get_schedules, ["new"])
        newer = row.definition.replace(b'"every"', b'"solstice"')
        changed = (row.id, row.version, (5, row.workflow, row.next_at, newer, row.state))
        assert await port.call(port.engine.change_schedules, [changed]) == [True]
        b = Book(runtime)
        assert await b.at(1) == [b.name(1)]
        listed = {view.id: view.error for view in await runtime.schedules.list()}
        assert "does not know when" in str(listed["new"])
        with pytest.raises(InvalidArgument, match="use a newer one"):
            await runtime.schedules.pause("new")


async def test_an_input_may_be_made_by_a_function_that_waits_or_blocks(any_url: str) -> None:
    async def waits(at: datetime) -> str:
        await asyncio.sleep(0)
        return f"{at:%M}"

    schedules = [
        Schedule("a", brief, every.hours(1), input=waits),
        Schedule("b", brief, every.hours(1), input=lambda at: f"{at:%M}"),
    ]
    serializer = JsonSerializer()
    async with Runtime(any_url, workflows=[brief], schedules=schedules, serializer=serializer) as runtime:
        b = Book(runtime)
        assert await b.at(1) == [b.name(1, "a"), b.name(1, "b")]
        assert [(await runtime.get(b.name(1, name))).input for name in ("a", "b")] == ["00", "00"]
