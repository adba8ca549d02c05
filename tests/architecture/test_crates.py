"""The crate graph: which crate may see which, and what may not be reached from where."""

import json
import subprocess
from functools import cache
from typing import Any

import pytest

from tests.architecture.tree import ROOT

CORE = "duramen-core"
ENGINE = "duramen-engine"
PYTHON = "duramen-python"
SIM = "duramen-sim"
STORE_SQL = "duramen-store-sql"
STORE_TESTING = "duramen-store-testing"
STORES = {"duramen-store-memory", "duramen-store-postgres", "duramen-store-sqlite"}

# What each crate of the workspace may name in [dependencies]. A new crate gets its line here.
ALLOWED: dict[str, set[str]] = {
    CORE: set(),
    ENGINE: {CORE},
    PYTHON: {CORE, ENGINE, *STORES},
    **{store: {CORE, STORE_SQL} for store in STORES},
    "duramen-store-memory": {CORE},
    STORE_SQL: {CORE},
    STORE_TESTING: {CORE},
    # Nothing is built from it: it drives the others as they are.
    SIM: {CORE, ENGINE, "duramen-store-memory", "duramen-store-sqlite"},
}

# The core does no I/O and reads no clock; what does may not even come in through something else.
OUTSIDE_CORE = {
    "async-std",
    "chrono",
    "getrandom",
    "libsqlite3-sys",
    "mio",
    "postgres",
    "pyo3",
    "rand",
    "rusqlite",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tokio-postgres",
}

# An expression of these is fine for a wheel that is Apache-2.0 itself.
LICENSES = {
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


@cache
def metadata() -> dict[str, Any]:
    ran = subprocess.run(
        ["cargo", "metadata", "--format-version", "1"], cwd=ROOT, capture_output=True, check=False, text=True
    )
    assert ran.returncode == 0, ran.stderr
    answer: dict[str, Any] = json.loads(ran.stdout)
    return answer


def names() -> dict[str, str]:
    return {package["id"]: package["name"] for package in metadata()["packages"]}


def members() -> list[str]:
    return sorted(names()[member] for member in metadata()["workspace_members"])


def graph() -> dict[str, set[str]]:
    """The packages each one is built from, by name; what only its tests use is left out."""
    edges: dict[str, set[str]] = {}
    for node in metadata()["resolve"]["nodes"]:
        edges.setdefault(names()[node["id"]], set()).update(
            names()[dependency["pkg"]]
            for dependency in node["deps"]
            if any(kind["kind"] != "dev" for kind in dependency["dep_kinds"])
        )
    return edges


def reached_from(crate: str) -> set[str]:
    edges, seen, todo = graph(), set[str](), [crate]
    while todo:
        for dependency in edges[todo.pop()] - seen:
            seen.add(dependency)
            todo.append(dependency)
    return seen


def test_every_crate_has_a_place_in_the_layers() -> None:
    assert members() == sorted(ALLOWED)


@pytest.mark.parametrize("crate", sorted(ALLOWED))
def test_crate_sees_only_the_layers_below(crate: str) -> None:
    assert graph()[crate] & set(members()) <= ALLOWED[crate]


def test_core_reaches_no_io_clock_or_python() -> None:
    assert not reached_from(CORE) & OUTSIDE_CORE


def test_engine_reaches_no_database_and_no_python() -> None:
    assert not reached_from(ENGINE) & {
        "rusqlite",
        "libsqlite3-sys",
        "tokio-postgres",
        "postgres",
        "pyo3",
        *STORES,
    }


def test_what_sql_stores_share_is_built_from_the_core_alone() -> None:
    assert graph()[STORE_SQL] == {CORE}


@pytest.mark.parametrize("store", sorted(STORES))
def test_store_reaches_no_engine_and_no_python(store: str) -> None:
    assert not reached_from(store) & {ENGINE, PYTHON, "pyo3"}


def test_only_the_bridge_and_the_simulator_name_stores() -> None:
    assert {crate for crate in members() if graph()[crate] & STORES} <= {PYTHON, SIM}


def test_nothing_is_built_from_what_is_for_tests() -> None:
    assert not {crate for crate in members() if graph()[crate] & {SIM, STORE_TESTING}}


def test_bridge_opens_no_database_itself() -> None:
    assert not graph()[PYTHON] & {"rusqlite", "libsqlite3-sys", "tokio-postgres", "postgres", "sqlx"}


def test_dependencies_come_from_the_registry_under_known_licenses() -> None:
    ours = set(members())
    for package in metadata()["packages"]:
        if package["name"] in ours:
            assert package["license"] == "Apache-2.0", package["name"]
            continue
        assert package["source"].startswith("registry+"), f"{package['name']} comes from {package['source']}"
        expression = (package["license"] or "").replace("/", " OR ")
        choices = [[part.strip(" ()") for part in choice.split(" AND ")] for choice in _choices(expression)]
        assert any(set(parts) <= LICENSES for parts in choices), f"{package['name']}: {package['license']}"


def _choices(expression: str) -> list[str]:
    """The alternatives of an SPDX expression; `(A OR B) AND C` gives `A AND C` and `B AND C`."""
    if " AND " in expression and "(" in expression:
        head, _, tail = expression.partition(" AND ")
        return [
            f"{one} AND {other}"
            for one in _choices(head.strip("() "))
            for other in _choices(tail.strip("() "))
        ]
    return expression.split(" OR ")
