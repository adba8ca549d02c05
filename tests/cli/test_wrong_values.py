"""Values that cannot be used, and some that only look so: a sentence and a code for each."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.programs import hostile_store, quickly, run

DEEP = "[" * 900 + "]" * 900
LONG = "x" * 5000


def cursor(place: list[Any]) -> str:
    """As a page gives it, with whatever in it."""
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


WRONG: list[tuple[list[Any], int]] = [
    (["signal", "nobody", "word", "[" * 100_000], 2),
    (["signal", "nobody", "word", DEEP], 2),
    (["signal", "nobody", "word", "{'a': 1}"], 2),
    (["signal", "nobody", "word", LONG], 2),
    (["signal", "nobody", "word", "NaN"], 2),
    (["signal", "nobody", "word", '"\\ud800"'], 2),
    (["signal", b"\xff", "word"], 2),
    (["signal", "nobody", b"\xff"], 2),
    (["runs", "list", "--cursor", "é"], 2),
    (["runs", "list", "--cursor", ""], 2),
    (["runs", "list", "--cursor", "e30"], 2),
    (["runs", "list", "--cursor", "W10"], 2),
    (["runs", "list", "--cursor", "WzEsIDJd"], 2),
    (["runs", "list", "--cursor", "W1tbW1s"], 2),
    (["runs", "list", "--cursor", LONG], 2),
    (["runs", "list", "--cursor", b"\xff\xfe"], 2),
    (["runs", "list", "--cursor", "W" * 100_000], 2),
    (["runs", "list", "--cursor", cursor([2**64, "x"])], 2),
    (["runs", "list", "--cursor", cursor([-(2**63) - 1, "x"])], 2),
    (["runs", "list", "--cursor", cursor([1, "\ud800"])], 2),
    (["runs", "list", "--cursor", cursor([1, "\0"])], 2),
    (["runs", "list", "--cursor", cursor([1, LONG])], 2),
    (["runs", "list", "--cursor", cursor([True, "x"])], 2),
    (["runs", "list", "--tag", "a\x1b[2J"], 2),
    (["runs", "list", "--workflow", LONG], 2),
    (["runs", "list", "--since", "nan"], 2),
    (["runs", "list", "--since", "1e400"], 2),
    (["runs", "list", "--since", "soon"], 2),
    (["runs", "list", "--limit", "0"], 2),
    (["runs", "list", "--limit", "9" * 5000], 2),
    (["runs", "show", LONG], 2),
    (["runs", "show", ""], 2),
    (["runs", "show", "\x1b]52;c;QUJD\x07"], 2),
    (["runs", "show", b"\xff"], 2),
    (["runs", "show", "nobody"], 3),
    (["runs", "timeline", "\u202e"], 3),
    (["runs", "export", "nobody"], 3),
    (["runs", "list", "-s", f"sqlite:///{LONG}.db"], 4),
    (["runs", "list", "-s", "sqlite:///" + "d/" * 3000 + "app.db"], 4),
    (["runs", "list", "-s", b"sqlite:///\xff.db"], 2),
    (["runs", "list", "-s", "sqlite:///\x1b[2J.db"], 4),
    (["runs", "list", "-s", "sqlite:///a%00b"], 2),
    (["runs", "list", "-s", "sqlite:///"], 2),
    (["runs", "list", "-s", "sqlite://app.db"], 2),
    (["runs", "list", "-s", "sqlite:///app.db?mode=ro"], 2),
    (["runs", "list", "-s", "nonsense"], 2),
    (["migrate", f"sqlite:///{LONG}.db"], 4),
    (["migrate", "sqlite:////proc/nowhere/app.db"], 4),
    (["demo", "--folder", "app.db"], 2),
    (["demo", "--folder", "app.db/new"], 2),
    (["demo", "--folder", "."], 2),
    (["demo", "--limit", "inf"], 2),
    (["worker", "app:make", "--drain-timeout", "inf"], 2),
    (["worker", "app:make", "--drain-timeout", "1e300"], 2),
    (["worker", "app:make", "--concurrency", "9" * 20], 2),
    (["worker", "..:x"], 2),
    (["worker", ".app:x"], 2),
    (["worker", ":"], 2),
    (["worker", "app:"], 2),
    (["worker", "app:a b"], 2),
    (["worker", b"\xff:x"], 2),
    (["worker", "app:runtime"], 2),
    (["worker", "app:later"], 2),
    (["worker", "app:runtime", "-q", "-v"], 2),
    (["worker", f"{LONG}:x"], 3),
    (["worker", "app:no.such.name"], 3),
    (["worker", "exits:runtime"], 5),
    (["worker", "app:make"], 5),
    (["sweep", "app:make"], 5),
    (["approve", "nobody"], 3),
    (["approve", LONG], 2),
    (["backup", "postgresql://u:secret@h/d", "copy.db"], 2),
    (["backup", "memory://", "copy.db"], 2),
    (["backup", "sqlite:///nothing.db", "copy.db"], 4),
    (["backup", "sqlite:///app.db", f"{LONG}.db"], 2),
    (["backup", "sqlite:///app.db", "nowhere/copy.db"], 2),
    (["backup", "sqlite:///app.db", "."], 2),
    (["backup", "sqlite:///app.db", "app.db", "--force"], 2),
    (["backup", b"sqlite:///\xff", "copy.db"], 4),
]


def name(number: int, arguments: list[Any]) -> str:
    return f"{number} {arguments}"[:50].encode("unicode_escape").decode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("values")
    hostile_store(made)
    (made / "app.py").write_text("runtime = 1\ndef make(): raise SystemExit(3)\nasync def later(): pass\n")
    (made / "exits.py").write_text("import sys\nsys.exit('no configuration')\n")
    return made


@pytest.mark.parametrize(
    ("arguments", "code"), WRONG, ids=[name(number, each) for number, (each, _) in enumerate(WRONG)]
)
def test_what_cannot_be_used(folder: Path, arguments: list[Any], code: int) -> None:
    ran = quickly(folder, *arguments)
    said = ran.stderr.decode("utf-8")
    assert ran.returncode == code, said
    assert ran.stdout == b""
    if code != 5:  # there the traceback is that of the application
        assert "Traceback" not in said
    assert re.search(r"^(duramen: |Usage: )", said, re.MULTILINE)
    assert not re.search(r"[^\n -~\u00a1-\uffff]", said)
    if code not in {2, 5}:  # (usage is shown with its own lines)
        assert said.count("\n") == 1
    assert "secret" not in said
    if said.startswith("duramen: "):
        assert len(said) < 3000, "what was given does not bury what is said about it"


@pytest.mark.parametrize(
    ("file", "code"), [("/dev/full", 6), (".", 2), ("nowhere/run.json", 2), (f"{LONG}", 2)]
)
def test_an_export_that_cannot_be_written(folder: Path, file: str, code: int) -> None:
    run_id = json.loads(quickly(folder, "runs", "list", "--limit", "1", "--json").stdout)["runs"][0]["run_id"]
    ran = quickly(folder, "runs", "export", run_id, "--output", file)
    assert (ran.returncode, ran.stdout, ran.stderr.count(b"\n")) == (code, b"", 1)


@pytest.mark.parametrize("url", ["sqlite:///a%20%25%3Fb.db", "sqlite:///{folder}/a%20%25%3Fb.db"])
def test_a_file_with_an_odd_name(tmp_path: Path, url: str) -> None:
    url = url.format(folder=f"/{tmp_path}".replace("//", "/"))
    assert run(tmp_path, "migrate", url).returncode == 0
    assert (tmp_path / "a %?b.db").exists()
    assert run(tmp_path, "runs", "list", "--count", "-s", url).stdout == b"0\n"
    copied = run(tmp_path, "backup", url, "copy.db", "--json")
    assert json.loads(copied.stdout)["runs"] == 0


def test_looking_makes_no_file_and_no_schema(tmp_path: Path) -> None:
    for name in ("missing.db", "empty.db"):
        if name == "empty.db":
            (tmp_path / name).touch()
        ran = run(tmp_path, "runs", "list", "-s", f"sqlite:///{name}")
        assert ran.returncode == 4
        assert b"duramen migrate" in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty.db"]
