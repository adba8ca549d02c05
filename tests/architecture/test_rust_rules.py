"""Rules of the Rust sources that no lint of the compiler states."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

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
