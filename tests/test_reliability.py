"""Each promise of docs/reliability.md and docs/handlers.md names the tests behind it, and they exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / "docs" / name).read_text("utf-8") for name in ("reliability.md", "handlers.md")}


def promises(page: str) -> list[str]:
    found = re.findall(r"^- (.*?)(?=^- |^#|\Z)", page, re.MULTILINE | re.DOTALL)
    return [" ".join(each.split()) for each in found]


PROMISES = [promise for page in PAGES.values() for promise in promises(page)]


@pytest.mark.parametrize("name", list(PAGES))
def test_there_are_promises(name: str) -> None:
    assert len(promises(PAGES[name])) == len(re.findall(r"^- ", PAGES[name], re.MULTILINE)) > 20


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise[:40])
def test_a_promise_has_tests_behind_it(promise: str) -> None:
    names = re.findall(r"`([^`]+)::([^`]+)`", promise)
    assert names, "no test is named"
    for path, name in names:
        text = (ROOT / path).read_text("utf-8")
        assert re.search(rf"\b(def|fn) {re.escape(name)}\(", text), f"{path} has no test {name}"
