"""Journals that a newer build wrote: passed over or left alone by this one, and never parked."""

import asyncio
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from duramen import Runtime
from duramen._runtime.history import EntryKind, load_payload
from duramen.errors import InvalidHistory
from duramen.store import Entry, NewRun
from duramen.testing import open_store, replay
from tests.histories.case import CASES

ROOT = Path(__file__).parents[2]
NEWER = ROOT / "tests/histories/newer"
for module in sorted((ROOT / "tests/histories/code").glob("*.py")):
    importlib.import_module(f"tests.histories.code.{module.stem}")

# The code of each, and the encoding that it needs.
HISTORIES = {
    "recorded_values": (CASES["values"].workflow, 2),
    "meta_field": (CASES["event_awaited"].workflow, 1),
    "kind": (CASES["event_awaited"].workflow, 2),
}
NEED_A_NEWER_BUILD = [name for name, (_, encoding) in HISTORIES.items() if encoding > 1]


def load(name: str) -> dict[str, Any]:
    return json.loads((NEWER / f"{name}.json").read_text())


def stored(entry: dict[str, Any]) -> Entry:
    kind = entry["kind"] if entry["kind"] in get_args(EntryKind) else {"unknown": 200}
    return {**entry, "kind": kind, "payload": load_payload(entry["payload"])}  # pyright: ignore[reportReturnType]


def brought(name: str) -> NewRun:
    """A run that begins with the journal of a history, without its end."""
    history = load(name)
    run, (created, *entries) = history["run"], history["journal"]
    if entries[-1]["kind"] == "run_finished":
        entries.pop()
    return {
        "run_id": name,
        "workflow": run["workflow"],
        "version": run["version"],
        "queue": "default",
        "priority": 5,
        "input": load_payload(created["payload"]),
        "entries": [stored(entry) for entry in entries],
        "started_at": run["started_at"],
        "start": {"kind": "queued", "at": None},
        "tags": [],
        "memo": None,
        "timeout": None,
        "seed": list(bytes.fromhex(run["seed"])),
        "parent": None,
        "root": None,
        "origin": "import",
        "now": None,
    }


async def bring(url: str, *names: str) -> None:
    async with Runtime(url) as runtime:
        await runtime.migrate()
    store = open_store(url)
    try:
        for created in await store.create([brought(name) for name in names]):
            assert created["kind"] == "created"
    finally:
        await store.close()


def test_there_are_histories_of_each_sort() -> None:
    assert sorted(path.stem for path in NEWER.glob("*.json")) == sorted(HISTORIES)
    for name, (workflow, encoding) in HISTORIES.items():
        history = load(name)
        assert history["run"]["workflow"] == workflow.name
        assert max(entry["encoding"] for entry in history["journal"]) == encoding
    values = [entry for entry in load("recorded_values")["journal"] if entry["kind"] == "value_recorded"]
    assert {entry["encoding"] for entry in values} == {2}
    assert any("place" in (entry["meta"] or "") for entry in load("meta_field")["journal"])
    kinds = {entry["kind"] for entry in load("kind")["journal"]}
    assert kinds - set(get_args(EntryKind)) == {"answer_streamed"}


def test_they_are_made_again_only_on_purpose() -> None:
    before = {path.name: path.read_bytes() for path in NEWER.iterdir()}
    make = ROOT / "tests/histories/make_newer.py"
    ran = subprocess.run([sys.executable, str(make)], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert {path.name: path.read_bytes() for path in NEWER.iterdir()} == before


@pytest.mark.parametrize("name", NEED_A_NEWER_BUILD)
def test_what_only_a_newer_build_reads_is_left_alone_and_can_be_looked_at(name: str, url: str) -> None:
    workflow, _ = HISTORIES[name]

    async def main() -> None:
        await bring(url, name)
        async with Runtime(url, workflows=[workflow]) as runtime:
            swept = await runtime.sweep()
            assert (swept.summary, swept.remaining_may_exist) == (
                {"event_count": 0, "returned_event_count": 0},
                False,
            )
            view = await runtime.get(name)
            assert (view.status, view.started_at is not None) == ("queued", True)
            assert [run.run_id for run in await runtime.list()] == [name]
            told = await runtime.timeline(name)
            kinds = [entry["kind"] for entry in load(name)["journal"] if entry["kind"] != "run_finished"]
            assert [event.kind for event in told] == [
                kind if kind in get_args(EntryKind) else "kind 200" for kind in kinds
            ]
            exported = await runtime.export(name)
            assert len(exported["journal"]) == len(told)
            await runtime.signal(name, "paid", 1)
            assert (await runtime.sweep()).summary == swept.summary
            assert (await runtime.get(name)).status == "queued"

    asyncio.run(main())


def test_a_meta_field_that_may_be_passed_over_is_passed_over(url: str) -> None:
    workflow, _ = HISTORIES["meta_field"]

    async def main() -> None:
        await bring(url, "meta_field")
        async with Runtime(url, workflows=[workflow]) as runtime:
            await runtime.sweep()
            view = await runtime.get("meta_field")
            assert (view.status, view.waits) == ("waiting", ("event:paid",))
            await runtime.signal("meta_field", "paid", {"payment_id": "p1", "cents": 5})
            await runtime.sweep()
            await runtime.result("meta_field", timeout=20)
            kept = await runtime.export("meta_field")
            # It stands where it stood.
            assert kept["journal"][1]["meta"] == load("meta_field")["journal"][1]["meta"]

    asyncio.run(main())
    assert replay(workflow, load("meta_field")).kind == "unfinished"


@pytest.mark.parametrize("name", NEED_A_NEWER_BUILD)
def test_a_replay_says_which_encoding_is_needed(name: str) -> None:
    workflow, encoding = HISTORIES[name]
    place = next(at for at, entry in enumerate(load(name)["journal"]) if entry["encoding"] == encoding)
    for source in (load(name), NEWER / f"{name}.json", (NEWER / f"{name}.json").read_text()):
        with pytest.raises(InvalidHistory) as caught:
            replay(workflow, source)
        assert caught.value.path == f"$.journal[{place}].encoding"
        assert "reads encoding 2, and this one reads up to 1" in str(caught.value)


def test_a_kind_that_an_older_build_exported_by_its_number_is_known_by_it_later() -> None:
    history = load("meta_field")
    history["journal"][1]["kind"] = "kind 4"
    assert replay(HISTORIES["meta_field"][0], history).kind == "unfinished"
    for kind in ("kind 99", "kind 200", "kind", "kind -1", "kind 04x"):
        history["journal"][1]["kind"] = kind
        with pytest.raises(InvalidHistory) as caught:
            replay(HISTORIES["meta_field"][0], history)
        assert caught.value.path == "$.journal[1].kind"
