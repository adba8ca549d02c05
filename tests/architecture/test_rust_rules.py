"""Rules of the Rust sources that no lint of the compiler states."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.rust_uses import Crate, circles
from tests.architecture.tree import read, rust_code, rust_strings, under

MANIFESTS = [path for path in under("crates", ".toml") if path.name == "Cargo.toml"]
BRIDGE = Path("crates/duramen-python")
SIM = Path("crates/duramen-sim")

# Files outside the bridge that may contain `unsafe`, each with its reason.
UNSAFE_ELSEWHERE: dict[str, str] = {
    "crates/duramen-sim/src/disk.rs": "a disk that fails is a SQLite VFS, a table of C functions",
}

# User payloads are opaque bytes in every layer. Files of the layers that carry them may still use JSON for
# Duramen's own facts; each says here for which.
JSON_OF_OUR_OWN: dict[str, str] = {
    "crates/duramen-store-postgres/src/plans.rs": "a test that reads the server's plans",
    "crates/duramen-store-postgres/src/plans/routed.rs": "the same over tables in parts",
}

# Files that may import each other in a circle, with the reason.
CIRCLES: dict[str, dict[frozenset[str], str]] = {
    "duramen-core": {},
    "duramen-engine": {},
}

# Which files of the core may not import which, by the beginnings of their paths.
CORE_BELOW: dict[str, tuple[str, ...]] = {
    "primitives/": ("machine/", "progress/state.rs"),  # a primitive gets a desk
    "progress/": ("machine/", "primitives/"),
    "store/": ("machine/", "primitives/", "progress/"),
}

SQL = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s+\w+\s+SET|DELETE\s+FROM|(CREATE|ALTER|DROP)\s+(TABLE|INDEX|VIEW)"
    r"|BEGIN\s+IMMEDIATE|PRAGMA\s+\w+)\b",
    re.IGNORECASE | re.DOTALL,
)


def manifest(path: Path | str) -> dict[str, Any]:
    return tomllib.loads(read(path))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.parent.name)
def test_crate_inherits_the_workspace_lints(path: Path) -> None:
    lints = manifest(path)["lints"]
    if path.parent not in {BRIDGE, SIM}:
        assert lints == {"workspace": True}
        return
    expected = manifest("Cargo.toml")["workspace"]["lints"]
    expected["rust"]["unsafe_code"] = "deny"
    assert lints == expected, "these lints are the workspace's but for unsafe_code; copy them again"


def test_workspace_forbids_unsafe_code() -> None:
    assert manifest("Cargo.toml")["workspace"]["lints"]["rust"]["unsafe_code"] == "forbid"


def test_unsafe_stands_in_one_file_of_the_bridge() -> None:
    found = [
        path for path in under("crates", ".rs") if re.search(r"\bunsafe(_code)?\b", rust_code(read(path)))
    ]
    ours = [path for path in found if path.is_relative_to(BRIDGE / "src")]
    others = {path.as_posix() for path in found} - {path.as_posix() for path in ours}
    assert len(ours) <= 1, f"bring the unsafe code of the bridge together in one file: {[*map(str, ours)]}"
    assert others == set(UNSAFE_ELSEWHERE)


def test_bridge_holds_no_sql() -> None:
    found = {
        f"{path}: {text}"
        for path in under(str(BRIDGE), ".rs", ".sql")
        for text in ([read(path)] if path.suffix == ".sql" else rust_strings(read(path)))
        if SQL.search(text)
    }
    assert not found


def test_engine_and_stores_parse_no_json() -> None:
    layers = [path for path in under("crates", ".rs") if re.match(r"duramen-(engine|store-)", path.parts[1])]
    product = [path for path in layers if path.parts[2] == "src"]
    found = {path.as_posix() for path in product if re.search(r"\bserde_json\b", rust_code(read(path)))}
    assert found == set(JSON_OF_OUR_OWN), (
        "payloads are opaque; JSON of Duramen's own facts needs its line here"
    )


def sources(crate: str) -> dict[str, str]:
    root = Path("crates", crate, "src")
    return {path.relative_to(root).as_posix(): read(path) for path in under(str(root), ".rs")}


@pytest.mark.parametrize("crate", CIRCLES)
def test_files_import_each_other_in_no_circle(crate: str) -> None:
    found = circles(sources(crate))
    new = [circle for circle in found if not any(known >= circle.keys() for known in CIRCLES[crate])]
    assert not new, "move what the lower file takes from the upper one into a file of its own below both"
    gone = [known for known in CIRCLES[crate] if not any(known >= circle.keys() for circle in found)]
    assert not gone, "these are in no circle any more: take them out of CIRCLES"


def test_parts_of_the_core_know_nothing_of_what_stands_above_them() -> None:
    imports = Crate(sources("duramen-core")).imports()
    assert any(file.startswith("primitives/") for file in imports["machine/mod.rs"])
    found = {
        f"{file} imports {other}"
        for below, above in CORE_BELOW.items()
        for file in imports
        if file.startswith(below)
        for other in imports[file]
        if other.startswith(above)
    }
    assert not found


@pytest.mark.parametrize(
    ("file", "code", "other"),
    [
        ("ids.rs", "use crate::machine::Machine;", "machine/mod.rs"),
        ("ids.rs", "use crate::{machine as m, run::{self, RunRow}};", "machine/mod.rs"),
        ("run.rs", "fn lane(row: &RunRow) -> crate::lanes::Lane<'_> { row.lane() }", "lanes.rs"),
        ("journal.rs", "use crate::machine::ledger;", "progress/ledger.rs"),
        ("progress/desk.rs", "pub use crate::primitives::step::ended;", "primitives/step.rs"),
        ("store/runs.rs", "use super::Hint;", "store/mod.rs"),
        ("store/runs.rs", "#[cfg(test)] use a::{b, c}; type Back = super::Wake;", "store/mod.rs"),
        ("ids.rs", "#[cfg(not(test))] use crate::run::Status;", "run.rs"),
    ],
)
def test_a_planted_circle_is_found(file: str, code: str, other: str) -> None:
    planted = sources("duramen-core")
    planted[file] += code
    assert any({file, other} <= circle.keys() for circle in circles(planted))


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("ids.rs", "#[cfg(test)] mod planted { use crate::machine::Machine; fn f() { if true { g(); } } }"),
        ("ids.rs", "#[cfg(test)] pub(crate) fn planted(a: u8, b: crate::machine::Machine) -> Status {}"),
        ("ids.rs", '// use crate::machine::Machine;\nconst PLANTED: &str = "crate::machine::Machine";'),
        ("ids.rs", "use std::collections::machine; use machine::Machine;"),
        ("machine/cost.rs", "use crate::machine::Machine;"),
        # What is passed on counts as what it is, and whoever only passes it on does not use it.
        ("primitives/step.rs", "use crate::machine::ledger::Weight as Planted;"),
        ("store/runs.rs", "use super::DueAsk;"),
        ("progress/turn.rs", "use super::naming::Naming;"),
    ],
)
def test_what_is_no_circle_is_not_taken_for_one(file: str, code: str) -> None:
    planted = sources("duramen-core")
    planted[file] += code
    assert circles(planted) == []
