"""What earlier versions wrote replays under this one, with the code that wrote it."""

import copy
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from duramen._runtime.history import EntryKind
from duramen.errors import ReplayDiverged
from duramen.testing import replay
from tests.histories.case import CASES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
for module in sorted((HERE / "code").glob("*.py")):
    importlib.import_module(f"tests.histories.code.{module.stem}")

NAMES = sorted(path.stem for path in HERE.glob("*.json"))
UNFINISHED = ("queued", "running", "waiting", "paused", "stuck", "terminated")

# Kinds of entries that the format has and no code writes yet.
NOT_WRITTEN: set[str] = set()


def load(name: str) -> dict[str, Any]:
    return json.loads((HERE / f"{name}.json").read_text())


def test_every_history_has_its_code_and_every_code_its_history() -> None:
    assert sorted(CASES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_history_replays(name: str) -> None:
    case = CASES[name]
    history = load(name)
    done = replay(case.workflow, HERE / f"{name}.json", serializer=case.serializer, others=case.others)
    status = history["run"]["status"]
    assert done.kind == ("unfinished" if status in UNFINISHED else status)
    assert done.run_id == name
    assert done.entries == len(history["journal"]) - (status == "terminated")


@pytest.mark.parametrize("name", NAMES)
def test_every_beginning_of_a_frozen_history_replays(name: str) -> None:
    """A crash may have ended the journal anywhere."""
    case = CASES[name]
    history = load(name)
    for length in range(1, len(history["journal"])):
        beginning = {**history, "journal": history["journal"][:length]}
        options = {"serializer": case.serializer, "others": case.others}
        done = replay(case.workflow, beginning, **options, compare_output=False)
        cut = beginning["journal"][-1]["kind"]
        # The handler may end by itself where its last answer stands before the end of the journal.
        assert done.entries == length - (cut == "run_terminated")


@pytest.mark.parametrize("name", NAMES)
def test_frozen_histories_name_no_folder_of_the_machine_that_made_them(name: str) -> None:
    text = (HERE / f"{name}.json").read_text()
    assert not re.search(r'File \\*"/', text)


def written_kinds() -> set[str]:
    """The kinds that the core gives entries which it writes."""
    core = (ROOT / "crates/duramen-core/src").rglob("*.rs")
    engine = (ROOT / "crates/duramen-engine/src").rglob("*.rs")
    bridge = (ROOT / "crates/duramen-python/src").rglob("*.rs")
    found: set[str] = set()
    for path in [*core, *engine, *bridge]:
        code = path.read_text().split("#[cfg(test)]\nmod tests")[0]
        found.update(re.findall(r"Entry::new\(\s*Kind::(\w+)", code))
    return {re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower() for kind in found}


def test_the_kinds_of_histories_are_those_of_the_journal() -> None:
    source = (ROOT / "crates/duramen-core/src/journal.rs").read_text()
    names = re.findall(r'Self::\w+ => "(\w+)"', source)
    assert list(get_args(EntryKind)) == names


def test_every_kind_that_is_written_stands_in_a_frozen_history() -> None:
    frozen = {entry["kind"] for name in NAMES for entry in load(name)["journal"]}
    assert set(get_args(EntryKind)) - frozen == NOT_WRITTEN
    # Whoever begins to write one of these freezes a history of it, and takes it off the list.
    assert not written_kinds() & NOT_WRITTEN
    # The search above finds what it looks for.
    assert {"step_completed", "run_reopened", "run_terminated"} <= written_kinds()


def test_frozen_histories_are_made_again_only_on_purpose() -> None:
    before = {name: (HERE / f"{name}.json").read_bytes() for name in NAMES}
    ran = subprocess.run(
        [sys.executable, str(HERE / "make.py")], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert {name: (HERE / f"{name}.json").read_bytes() for name in NAMES} == before


def test_a_history_whose_code_has_changed_is_found(subtests: pytest.Subtests) -> None:
    changed = importlib.import_module("tests.histories.changed")
    for name, workflow, index, text in changed.CHANGES:
        with subtests.test(name=name, text=text):
            with pytest.raises(ReplayDiverged) as caught:
                replay(workflow, copy.deepcopy(load(name)))
            assert caught.value.index == index
            assert text in str(caught.value)
            assert caught.value.run_id == name
    assert len(changed.CHANGES) >= 10
