"""Each promise of docs/reliability.md names the tests behind it, and they exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text("utf-8")
PROMISES = [
    " ".join(found.split()) for found in re.findall(r"^- (.*?)(?=^- |^#|\Z)", PAGE, re.MULTILINE | re.DOTALL)
]


def test_there_are_promises() -> None:
    assert len(PROMISES) == len(re.findall(r"^- ", PAGE, re.MULTILINE)) > 20


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise[:40])
def test_a_promise_has_tests_behind_it(promise: str) -> None:
    names = re.findall(r"`([^`]+)::([^`]+)`", promise)
    assert names, "no test is named"
    for path, name in names:
        text = (ROOT / path).read_text("utf-8")
        assert re.search(rf"\b(def|fn) {re.escape(name)}\(", text), f"{path} has no test {name}"
