"""Which Python module may import which, read from the sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architecture.tree import read, under

MODULES = under("python/duramen", ".py")
BRIDGE = "duramen._bridge"
EXTENSION = "duramen._native"

# The rooms of the package, from the innermost on: at run time each may import those before it. (What stands
# under TYPE_CHECKING names a type of a later room; it creates no order of loading.)
ROOMS = (
    "duramen.errors",
    "duramen._logging",
    "duramen._bridge",
    "duramen._values",
    "duramen._loop",
    "duramen._stores",
    "duramen._handlers",
    "duramen._schedules",
    "duramen.sqlite",
    "duramen._driving",
    "duramen._runtime",
    "duramen.runtime",
)

# The outermost layer: nothing that `import duramen` loads may depend on it.
OUTER = (
    "duramen.__main__",
    "duramen.cli",
    "duramen.codecs",
    "duramen.demo",
    "duramen.hosts",
    "duramen.integrations",
    "duramen.testing",
)
# Of these, the ones that are written as a user could write them: with public names only.
PUBLIC_ONLY = ("duramen.cli", "duramen.codecs", "duramen.hosts", "duramen.integrations")


def module_name(path: Path) -> str:
    parts = path.relative_to("python").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def within(name: str, packages: tuple[str, ...]) -> str | None:
    """The one of `packages` that `name` is or belongs to."""
    return next((package for package in packages if name == package or name.startswith(f"{package}.")), None)


def nodes(tree: ast.AST, *, at_run_time: bool) -> Iterator[ast.AST]:
    """`tree` and all below it; without what is only for type checkers if `at_run_time`."""
    yield tree
    for node in ast.iter_child_nodes(tree):
        if not (at_run_time and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield from nodes(node, at_run_time=at_run_time)


def imported(path: Path, *, at_run_time: bool = False) -> Iterator[str]:
    """Everything `path` imports, anywhere in it, as full names: the modules and what is taken from them."""
    package = path.parent.relative_to("python").parts
    for node in nodes(ast.parse(read(path), str(path)), at_run_time=at_run_time):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else ()
                origin = ".".join([*base, *([module] if module else [])])
                yield origin
                yield from (f"{origin}.{alias.name}" for alias in names)
            case ast.Call(func=ast.Name(id="import_module") | ast.Attribute(attr="import_module")):
                yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant))
            case _:
                pass


def test_there_is_something_to_check() -> None:
    assert module_name(Path("python/duramen/__init__.py")) == "duramen"
    assert "duramen" in map(module_name, MODULES)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_only_the_bridge_imports_the_extension(path: Path) -> None:
    if module_name(path) != BRIDGE:
        assert not [name for name in imported(path) if within(name, (EXTENSION,))]


@pytest.mark.parametrize(
    "path", [path for path in MODULES if not within(module_name(path), OUTER)], ids=module_name
)
def test_core_imports_nothing_of_the_outer_layer(path: Path) -> None:
    assert not [name for name in imported(path) if within(name, OUTER)]


@pytest.mark.parametrize(
    "path", [path for path in MODULES if within(module_name(path), PUBLIC_ONLY)], ids=module_name
)
def test_outer_layer_uses_public_names(path: Path) -> None:
    own = within(module_name(path), PUBLIC_ONLY)
    assert own is not None
    private = [
        name
        for name in imported(path)
        if within(name, ("duramen",))
        and not within(name, (own,))
        and any(part.startswith("_") and not part.endswith("__") for part in name.split("."))
    ]
    assert not private


@pytest.mark.parametrize(
    "path", [path for path in MODULES if within(module_name(path), ROOMS)], ids=module_name
)
def test_rooms_import_earlier_rooms_only(path: Path) -> None:
    own = within(module_name(path), ROOMS)
    assert own is not None
    later = ROOMS[ROOMS.index(own) + 1 :]
    assert not [name for name in imported(path, at_run_time=True) if within(name, later)]


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in MODULES
        if within(module_name(path), ROOMS)
        and module_name(path) not in {"duramen._logging", "duramen._runtime.logs"}
    ],
    ids=module_name,
)
def test_loggers_are_those_that_never_raise(path: Path) -> None:
    """What an application's logging raises must not reach what drives runs."""
    assert not [name for name in imported(path) if name == "logging.getLogger"]
    calls = [node for node in ast.walk(ast.parse(read(path))) if isinstance(node, ast.Attribute)]
    assert not [node.lineno for node in calls if node.attr == "getLogger"]


def test_every_module_has_a_room() -> None:
    known = (*ROOMS, *OUTER, "duramen.store", "duramen.migrations")
    assert [name for path in MODULES if not within(name := module_name(path), known)] == ["duramen"]
