"""What every file of the tree keeps: a length one can read, and nothing of the machine it was written on."""

import re
from pathlib import Path

from tests.architecture.tree import ROOT, files, read, under

LIMIT = 800

# Longer files, each with the reason why it is better in one piece.
LONG: dict[str, str] = {
    "python/duramen/_native.pyi": "it describes one extension module",
    "python/duramen/errors.py": "the errors are one tree, and recorded by the name of this module",
}

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


def test_links_in_the_documents_lead_somewhere() -> None:
    dead = [
        f"{path}: {target}"
        for path in files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", read(path))
        if not (ROOT / path.parent / target).exists()
    ]
    assert not dead


def test_migrations_are_shipped_in_the_package() -> None:
    # Links to the files, not to a folder: the build follows the former alone.
    shipped = Path("python/duramen/migrations")
    sources = {path.relative_to("migrations") for path in under("migrations", ".sql")}
    links = {path.relative_to(shipped) for path in under(str(shipped), ".sql")}
    assert links == sources, f"each migration needs its link: ln -s ../../../../migrations/… {shipped}/…"
    for path in links:
        assert (ROOT / shipped / path).is_symlink()
        assert read(shipped / path) == read(Path("migrations") / path)
