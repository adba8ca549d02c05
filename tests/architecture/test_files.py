"""What every file of the tree keeps: a length one can read, and nothing of the machine it was written on."""

import re

from tests.architecture.tree import files, read

LIMIT = 800

# Longer files, each with the reason why it is better in one piece.
LONG: dict[str, str] = {}

# Folders of somebody's machine, and package indexes: a build takes both from its own surroundings.
MACHINE = re.compile(
    r"(?<![\w.~<>-])/(?:root|home|Users|work|opt|mnt)/[\w.]"
    r"|\b[A-Z]:\\\\?Users\b"
    r"|--(?:extra-)?index-url|\bPIP_(?:EXTRA_)?INDEX_URL"
    r"|\b(?:files\.pythonhosted|pypi|registry\.npmjs|index\.crates|static\.crates|proxy\.golang)\.(?:org|io)\b"
)

BINARY = {".gif", ".ico", ".jpg", ".png", ".db"}


def test_files_are_short_enough_to_read() -> None:
    lengths = {
        path.as_posix(): read(path).count("\n")
        for path in files()
        if path.suffix in {".py", ".pyi", ".rs", ".sql"}
    }
    too_long = {name for name, length in lengths.items() if length > LIMIT}
    assert too_long == set(LONG), f"over {LIMIT} lines, or listed in LONG without need"


def test_nothing_names_a_machine_or_a_package_index() -> None:
    found = [
        f"{path}:{number}: {match[0]}"
        for path in files()
        if path.suffix not in BINARY
        for number, line in enumerate(read(path).splitlines(), 1)
        if (match := MACHINE.search(line))
    ]
    assert not found
