"""The examples of docs/values.md."""

import doctest
from pathlib import Path

import pytest

from duramen._values import exceptions


def test_the_examples_say_what_they_print(monkeypatch: pytest.MonkeyPatch) -> None:
    # What other examples have registered under the same names stays with them.
    monkeypatch.setattr(exceptions, "_registry", {})
    monkeypatch.setattr(exceptions, "_names", {})
    page = Path(__file__).parents[2] / "docs" / "values.md"
    found = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert found.failed == 0
    assert found.attempted > 10
