"""Texts of others are made harmless, ids are never broken, and lists fit a terminal."""

import io
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.live import Live
from rich.table import Table
from rich.text import Text

from duramen.cli.listing import Column, lines
from duramen.cli.output import Screen, harmless, one_line, to_json, words
from tests.cli.programs import (
    HOSTILE,
    commands_on,
    hostile_store,
    in_a_terminal,
    quickly,
    run,
    without_colours,
)

ALL = st.text(st.characters(exclude_categories=()), max_size=40)


def visible(text: str) -> bool:
    """Whether a terminal shows all of it as it stands."""
    return all(one.isprintable() or one == "\n" or unicodedata.category(one) == "Zs" for one in text)


@given(ALL)
def test_harmless_texts_are_visible(text: str) -> None:
    assert visible(harmless(text, lines=True))
    assert "\n" not in harmless(text)
    assert harmless(harmless(text)) == harmless(text)
    assert len(one_line(text)) <= 200


@given(ALL)
def test_printable_texts_stay_as_they_are(text: str) -> None:
    if text.isprintable():
        assert harmless(text) == text


@given(ALL)
def test_json_is_ascii_and_says_the_same(text: str) -> None:
    said = to_json({"text": text})
    assert said.isascii()
    assert said.isprintable()
    assert json.loads(said) == {"text": text}


@given(ALL, st.integers(10, 100))
def test_nothing_gets_past_the_console(text: str, width: int) -> None:
    """Also what nobody took care of: text given as it is."""
    out = io.StringIO()
    console = Screen(file=out, width=width, markup=False, emoji=False, highlight=False)
    table = Table("a", text)
    table.add_row(text, Text(text))
    console.print(text, Text(text, style="red"), table, words(text))
    assert visible(out.getvalue())


def test_a_picture_that_is_drawn_anew_is_no_exception() -> None:
    out = io.StringIO()
    console = Screen(file=out, width=60, force_terminal=True, color_system=None, markup=False)
    with Live(console=console, auto_refresh=False) as live:
        live.update(Text(HOSTILE), refresh=True)
    left = out.getvalue().replace("\x1b[?25l", "").replace("\x1b[?25h", "").replace("\r", "")
    left = left.replace("\x1b[2K", "").replace("\x1b[1A", "")
    assert visible(left)
    assert "\\x1b[2J" in left


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("texts")
    return folder, hostile_store(folder)


def test_a_terminal_of_80_columns_is_enough(store: tuple[Path, dict[str, str]]) -> None:
    folder, ids = store
    for command in commands_on(ids.values()):
        code, shown = in_a_terminal(folder, *command)
        text = without_colours(shown)
        assert code == 0, text
        assert visible(text), command
        assert max(map(cell_len, text.split("\n"))) <= 80, command
        if command[1] != "--all":
            named = ids.values() if command == ["runs", "list"] else command[2:]
            assert all(run_id in text for run_id in named), "an id is never broken"


def test_what_a_list_says_of_runs_that_ended_badly(store: tuple[Path, dict[str, str]]) -> None:
    folder, ids = store
    _, shown = in_a_terminal(folder, "runs", "list")
    rows = without_colours(shown).split("\n")

    def below(workflow: str) -> str:
        (at,) = [number for number, row in enumerate(rows) if row.startswith(ids[workflow])]
        return rows[at + 1]

    assert below("raises").startswith("  Wicked: a\\x1b[2Jb")
    assert below("fails").startswith("  StepFailed: step 'refuse' failed")
    assert below("cancelled").startswith("  a\\x1b[2Jb")
    assert below("drifts").startswith("  the code no longer fits the journal")
    assert len(rows) <= 1 + 2 * len(ids) + 2
    listed = {
        each["run_id"]: each for each in json.loads(run(folder, "runs", "list", "--json").stdout)["runs"]
    }
    assert listed[ids["raises"]]["why"] == f"Wicked: {HOSTILE}"
    assert listed[ids["cancelled"]]["why"] == HOSTILE
    assert listed[ids["asks"]]["why"] is None


def test_show_has_members_causes_notes_questions_and_a_reason_once(
    store: tuple[Path, dict[str, str]],
) -> None:
    folder, ids = store
    bad = harmless(HOSTILE)
    failed = run(folder, "runs", "show", ids["fails"]).stdout.decode()
    for said in (
        "from ExceptionGroup: many",
        "1 of 2: KeyError: 'first'",
        "2 of 2: Wicked: second",
        f"note {bad}",
    ):
        assert said in failed
    assert f"from ValueError: inner {bad}" in failed
    asked = run(folder, "runs", "show", ids["asks"]).stdout.decode()
    for said in (f"approval-1: Ship {bad}?", f"all of it {bad}", f"for ann, bob {bad}"):
        assert said in asked
    stuck = run(folder, "runs", "show", ids["drifts"]).stdout.decode()
    assert stuck.count("the code no longer fits") == 1
    assert len(stuck.split("\n")) < 20


def test_json_of_a_store_is_ascii(store: tuple[Path, dict[str, str]]) -> None:
    folder, ids = store
    for command in [*commands_on(ids.values()), ["runs", "watch", ids["fails"]]]:
        ran = quickly(folder, *command, "--json")
        assert ran.stdout.decode("ascii").replace("\n", "").isprintable()
    exported = run(folder, "runs", "export", ids["raises"]).stdout
    assert exported.isascii()
    assert json.loads(run(folder, "runs", "show", ids["raises"], "--json").stdout)["memo"] == {"m": HOSTILE}


def test_a_complaint_cannot_pretend_to_be_two(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("raise ImportError('x\\nduramen: all is well\\x1b[2J\\u202e')\n")
    ran = run(tmp_path, "worker", "app:runtime")
    said = ran.stderr.decode()
    assert ran.returncode == 5
    assert visible(said)
    (line,) = [line for line in said.split("\n") if line and not line.startswith("  ")]
    assert "cannot be imported" in line


ID = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=60)


@st.composite
def columns(draw: st.DrawFn) -> tuple[Column, list[Column], Column]:
    rows = draw(st.integers(1, 4))

    def cells(of: st.SearchStrategy[str]) -> list[Text]:
        return [Text(draw(of)) for _ in range(rows)]

    short = st.text("abc ", max_size=12)
    others = [
        Column(draw(short), cells(short), draw(st.booleans()), draw(st.booleans()), draw(st.booleans()))
        for _ in range(draw(st.integers(0, 4)))
    ]
    return Column("run", cells(ID)), others, Column("why", cells(st.text("xyz ", max_size=200)))


@given(columns(), st.integers(20, 200))
def test_a_list_fits_and_keeps_its_keys(made: tuple[Column, list[Column], Column], width: int) -> None:
    key, others, last = made
    shown = [line.plain for line in lines(width, key, others, last)]
    at = iter(shown)
    for cell in key.cells:
        assert any(row.startswith(cell.plain) for row in at), "each key, whole and in order"
    needed = sum(2 + column.width for column in others if column.needed)
    for row in shown:
        fits = cell_len(row) <= width
        assert fits or row in {cell.plain for cell in key.cells} or needed > width
