"""`duramen schedules …`: schedules of a store, without any code of the application."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from duramen import Context, Runtime, Schedule, cron, every, workflow


@workflow
async def tidy(ctx: Context, what: str) -> str:
    return what


@pytest.fixture
def scheduled(folder: Path, shop_url: str) -> str:
    """The store, with two schedules in it."""
    url = f"sqlite:///{folder}/app.db" if shop_url.startswith("sqlite") else shop_url

    async def main() -> None:
        async with Runtime(url, workflows=[tidy]) as runtime:
            nightly = Schedule("nightly", tidy, cron("0 2 * * *", tz="Europe/Zurich"), input="all", jitter=60)
            await runtime.schedules.upsert(nightly)
            await runtime.schedules.upsert(Schedule("hourly", tidy, every.hours(1), input="\x1b[31m"))

    asyncio.run(main())
    return url


def test_they_are_listed_and_shown(duramen, scheduled: str) -> None:
    listed = duramen("schedules", "list")
    assert listed.code == 0
    for word in ("nightly", "hourly", "tidy", "Europe/Zurich"):
        assert word in listed.out
    page = duramen("schedules", "list", "--limit", "1", "--json").json
    assert [one["id"] for one in page["schedules"]] == ["hourly"]
    page = duramen("schedules", "list", "--cursor", page["cursor"], "--json").json
    assert [one["id"] for one in page["schedules"]] == ["nightly"]
    card = duramen("schedules", "show", "nightly").out
    for word in ("cron('0 2 * * *', tz='Europe/Zurich')", "skip", "latest", "60 s", "store alone"):
        assert word in card
    assert duramen("schedules", "show", "nightly", "--json").json["workflow"] == "tidy"
    missing = duramen("schedules", "show", "yearly")
    assert (missing.code, "no schedule 'yearly'" in missing.err) == (3, True)


def test_one_is_paused_and_goes_on(duramen, scheduled: str) -> None:
    assert duramen("schedules", "pause", "nightly", "--note", "holidays", "--json").json["note"] == "holidays"
    assert "holidays" in duramen("schedules", "show", "nightly").out
    assert "paused" in duramen("schedules", "list").out
    assert not duramen("schedules", "resume", "nightly", "--catch-up", "2", "--json").json["paused"]
    wrong = duramen("schedules", "resume", "nightly", "--catch-up", "everything")
    assert (wrong.code, "a number of hours" in wrong.err) == (2, True)


def test_what_is_asked_for_is_started_by_those_who_work(duramen, scheduled: str) -> None:
    ran = duramen("schedules", "trigger", "nightly", "--id", "7")
    assert ran.out == "nightly:manual:7\n"
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    begin = end - timedelta(hours=2)
    ids = duramen(
        "schedules", "backfill", "hourly", begin.isoformat(), end.isoformat(), "--at-once", "--json"
    ).json
    assert len(ids["run_ids"]) == 3

    async def main() -> list[str]:
        async with Runtime(scheduled, workflows=[tidy]) as runtime:
            await runtime.sweep()
            return [view.run_id for view in await runtime.list(workflow="tidy", status="completed")]

    assert sorted(asyncio.run(main())) == sorted(["nightly:manual:7", *ids["run_ids"]])
    wrong = duramen("schedules", "backfill", "hourly", "yesterday", "today")
    assert (wrong.code, "is no instant" in wrong.err) == (2, True)


def test_its_fire_times_can_be_seen_before_and_it_can_be_removed(duramen, scheduled: str) -> None:
    shown = duramen("schedules", "preview", "nightly", "-n", "2", "--after", "2026-03-28T00:00")
    assert shown.out == "2026-03-28T01:00:00+00:00\n2026-03-29T01:00:00+00:00\n"
    assert len(duramen("schedules", "preview", "hourly", "--json").json) == 10
    for name in ("nightly", "hourly"):
        assert duramen("schedules", "delete", name).code == 0
    assert duramen("schedules", "list").out == "there are no schedules here\n"
    assert duramen("schedules", "delete", "nightly").code == 3
