"""Standard streams that are closed, full, gone, or in ASCII: a sentence at most, and a code that means it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.programs import COMMAND, LIMIT, environment, hostile_store, run

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full is Linux's")

COMMANDS = [
    ["--help"],
    ["runs", "list"],
    ["runs", "list", "--json"],
    ["runs", "timeline", "RUN"],
    ["runs", "export", "RUN"],
    ["runs", "watch", "RUN"],
    ["versions", "--patches"],
    ["migrate", "sqlite:///app.db"],
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder with a store, and a failed run in it."""
    folder = tmp_path_factory.mktemp("streams")
    return folder, hostile_store(folder)["fails"]


def named(command: list[str], run_id: str) -> list[str]:
    return [run_id if word == "RUN" else word for word in command]


def in_shell(
    folder: Path, line: str, *arguments: str, **more: str | None
) -> subprocess.CompletedProcess[bytes]:
    """Run `line` in a shell in which "$@" is the command; its code is that of the command."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *COMMAND, *arguments],
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        check=False,
        timeout=LIMIT,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_and_a_closed_stream_are_said_in_a_sentence(
    store: tuple[Path, str], command: list[str]
) -> None:
    folder, run_id = store
    for line, reason in (
        ('"$@" >/dev/full', b"No space left on device"),
        ('"$@" >&-', b"Bad file descriptor"),
    ):
        ran = in_shell(folder, line, *named(command, run_id))
        assert (ran.returncode, ran.stderr) == (
            6,
            b"duramen: the output cannot be written: " + reason + b"\n",
        )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_reader_that_has_gone_ends_it_without_a_word(store: tuple[Path, str], command: list[str]) -> None:
    folder, run_id = store
    heard, said = os.pipe()
    os.close(heard)
    try:
        ran = run(folder, *named(command, run_id), stdout=said)
    finally:
        os.close(said)
    assert (ran.returncode, ran.stderr) == (141, b"")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    "setting",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=["PYTHONIOENCODING", "LANG", "latin-1"],
)
def test_an_output_that_has_few_characters_shows_all_the_same(
    store: tuple[Path, str], command: list[str], setting: dict[str, str]
) -> None:
    folder, run_id = store
    ran = in_shell(folder, '"$@"', *named(command, run_id), **setting)
    assert ran.stderr == b""
    assert ran.returncode == (1 if "watch" in command else 0)
    if "latin-1" not in setting.values():
        assert ran.stdout.isascii()
        assert ran.stdout


@pytest.mark.parametrize(
    "line",
    ['"$@" 2>&-', '"$@" 2>/dev/full', '"$@" <&-', '"$@" <&- 2>&-', '"$@" 2> >(exec true)'],
)
@pytest.mark.parametrize(("arguments", "code"), [(("runs", "list"), 0), (("runs", "show", "nobody"), 3)])
def test_other_streams_change_no_exit_code(
    store: tuple[Path, str], line: str, arguments: tuple[str, ...], code: int
) -> None:
    folder, _ = store
    ran = in_shell(folder, line, *arguments)
    assert (ran.returncode, bool(ran.stdout)) == (code, code == 0)


def test_without_any_stream_the_store_stays_whole(tmp_path: Path) -> None:
    # A store that got the number of a closed stream would be written into by whoever prints.
    ran = in_shell(tmp_path, '"$@" <&- >&- 2>&-', "migrate", "sqlite:///app.db")
    assert ran.returncode == 6
    assert run(tmp_path, "runs", "list", "--count").stdout == b"0\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["runs", "list"], 4),
        (["migrate", "sqlite:///app.db"], 4),
        (["worker", "shop:runtime"], 3),
        (["worker", "shop:runtime", "--processes", "2"], 3),
        (["sweep", "shop:runtime"], 3),
        (["backup", "sqlite:///app.db", "copy.db"], 4),
        (["runs", "export", "RUN", "-s", "sqlite:///STORE", "-o", "history.json"], 2),
        (["runs", "list", "--count", "-s", "sqlite:///STORE"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_folder_that_has_been_deleted(
    store: tuple[Path, str], tmp_path: Path, arguments: list[str], code: int
) -> None:
    folder, run_id = store
    gone = tmp_path / "gone"
    gone.mkdir()
    given = [word.replace("STORE", f"{folder}/app.db") for word in named(arguments, run_id)]
    ran = in_shell(gone, 'rmdir ../gone; exec "$@"', *given)
    assert b"Traceback" not in ran.stderr
    assert ran.returncode == code, ran.stderr
    assert code == 0 or b"duramen: " in ran.stderr


def test_as_a_module(store: tuple[Path, str]) -> None:
    folder, _ = store
    command = [sys.executable, "-m", "duramen"]
    shown = subprocess.run([*command, "--help"], cwd=folder, capture_output=True, check=True, timeout=LIMIT)
    assert b"Usage: duramen " in shown.stdout
    found = subprocess.run(
        [*command, "runs", "show", "nobody"], cwd=folder, capture_output=True, check=False, timeout=LIMIT,
        env=environment(),
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (3, b"")


def test_an_error_that_nobody_expected_is_a_sentence_and_shows_its_place_on_request(tmp_path: Path) -> None:
    program = "import sys; from duramen.cli.guard import guarded; sys.exit(guarded(lambda: {}['nothing']))"
    plainly, asked = (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=False, env=environment(**more)
        )
        for more in ({}, {"DURAMEN_TRACEBACK": "1"})
    )
    assert (plainly.returncode, asked.returncode) == (70, 70)
    assert plainly.stderr.startswith(b"duramen: this should not happen: KeyError: 'nothing'")
    assert plainly.stderr.count(b"\n") == 1
    assert b"Traceback" in asked.stderr


def test_ctrl_c_while_an_application_is_imported(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import signal, os\nos.kill(os.getpid(), signal.SIGINT)\n")
    ran = run(tmp_path, "worker", "app:runtime")
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, b"", b"")
