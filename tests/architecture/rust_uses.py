"""Which file of a crate imports which, read from the sources.

What is imported through a module that only passes it on counts as an import of the file that has it. Code
that is there for tests only is left out. Names are resolved as far as paths tell: a method is not followed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.architecture.tree import rust_code

Module: TypeAlias = tuple[str, ...]

_ATTRIBUTES = r"(?:#\[[^\]]*\]\s*)*"
_VISIBLE = r"(?:pub(?:\([^)]*\))?\s+)?"
_TEST = re.compile(r"#\[cfg\(test\)\]\s*" + _ATTRIBUTES)
_TEST_FILE = re.compile(_TEST.pattern + _VISIBLE + r"mod\s+(\w+)\s*;")
_USE = re.compile(rf"(?<![\w:])({_VISIBLE})use\s+([^;]+);")
_PATH = re.compile(r"(?<![\w:.])\w+(?:\s*::\s*\w+)+")
_ITEM = re.compile(r"\bpub(?:\([^)]*\))?\s+(?:\w+\s+)*?(?:fn|struct|enum|trait|type|const|static)\s+(\w+)")


@dataclass
class Bound:
    """A name that a `use` brings into a module."""

    path: Module
    passed_on: bool


@dataclass
class Source:
    file: str
    body: str = ""
    names: dict[str, Bound] = field(default_factory=dict[str, Bound])
    globs: list[Bound] = field(default_factory=list[Bound])
    items: frozenset[str] = frozenset()


def without_tests(code: str) -> str:
    """Without the items, fields and modules behind `#[cfg(test)]`."""
    kept, begin = "", 0
    while match := _TEST.search(code, begin):
        kept += code[begin : match.start()]
        begin = _end_of_item(code, match.end())
    return kept + code[begin:]


def _end_of_item(code: str, at: int) -> int:
    depth = 0
    for index in range(at, len(code)):
        match code[index]:
            case "(" | "[" | "{":
                depth += 1
            case ")" | "]" | "}":
                depth -= 1
                if depth < 0:
                    return index
                if depth == 0 and code[index] == "}":
                    return index + 1
            case ";" | "," if depth == 0:
                return index + 1
            case _:
                pass
    return len(code)


def _leaves(tree: str, base: Module = ()) -> Iterator[tuple[Module, str]]:
    """The paths of a `use` with the names that they bind; `*` for a glob."""
    tree = tree.strip()
    if "{" in tree:
        head, _, rest = tree.partition("{")
        base += tuple(part for part in re.split(r"\s*::\s*", head.strip()) if part)
        for part in _parts(rest[: rest.rindex("}")]):
            yield from _leaves(part, base)
        return
    path, _, alias = (part.strip() for part in tree.partition(" as "))
    full = [*base, *re.split(r"\s*::\s*", path)]
    if len(full) > 1 and full[-1] == "self":
        full.pop()
    yield tuple(full), alias or full[-1]


def _parts(inner: str) -> Iterator[str]:
    depth, begin = 0, 0
    for index, char in enumerate(f"{inner},"):
        depth += (char == "{") - (char == "}")
        if char == "," and depth == 0:
            if part := inner[begin:index].strip():
                yield part
            begin = index + 1


class Crate:
    """The modules of a crate, from its files by their paths below `src`."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.sources: dict[Module, Source] = {}
        code = {_module(file): (file, rust_code(text)) for file, text in files.items()}
        tests = [(*module, name) for module, (_, text) in code.items() for name in _TEST_FILE.findall(text)]
        for module, (file, text) in code.items():
            if not any(module[: len(test)] == test for test in tests):
                self.sources[module] = _source(file, without_tests(text))

    def imports(self) -> dict[str, dict[str, set[str]]]:
        """Each file with the files that it imports, and the names that it takes from them."""
        found: dict[str, dict[str, set[str]]] = {source.file: {} for source in self.sources.values()}
        for module, source in self.sources.items():
            for path in self._paths(module, source):
                place = self._find(module, path)
                if place is not None and place[0] != module:
                    names = found[source.file].setdefault(self.sources[place[0]].file, set())
                    names.add(place[1] or path[-1])
        return found

    def _paths(self, module: Module, source: Source) -> Iterator[Module]:
        for name, bound in source.names.items():
            place = self._find(module, bound.path)
            below = place is not None and place[0][: len(module)] == module
            # A module that passes on what is below it does not use it by that.
            if not (bound.passed_on and below) or re.search(rf"\b{name}\b", source.body):
                yield bound.path
        for glob in source.globs:
            yield glob.path
        for match in _PATH.finditer(source.body):
            yield tuple(re.split(r"\s*::\s*", match[0]))

    def _find(self, module: Module, path: Module) -> tuple[Module, str] | None:
        """The module that a path of `module` leads to and what is taken from it, if it is of this crate."""
        match path[0]:
            case "crate":
                return self._walk((), path[1:])
            case "self":
                return self._walk(module, path[1:])
            case "super":
                while path and path[0] == "super":
                    module, path = module[:-1], path[1:]
                return self._walk(module, path)
            case head if (*module, head) in self.sources or head in self.sources[module].names:
                return self._walk(module, path)
            case _:
                return None

    def _walk(self, module: Module, path: Module) -> tuple[Module, str] | None:
        while path:
            head, path = path[0], path[1:]
            if (*module, head) in self.sources:
                module = (*module, head)
                continue
            source = self.sources[module]
            bound = source.names.get(head)
            if bound is not None and bound.path != (head,):
                place = self._find(module, bound.path)
            else:
                globs = (self._find(module, glob.path) for glob in source.globs)
                place = next((at for at in globs if at and head in self.sources[at[0]].items), None)
                place = place and (place[0], head)
                if bound is None and place is None:
                    return module, head
            if place is None or place[1]:
                return place
            module = place[0]
        return module, ""


def _module(file: str) -> Module:
    parts = file.removesuffix(".rs").split("/")
    return tuple(parts[:-1] if parts[-1] in {"mod", "lib", "main"} else parts)


def _source(file: str, code: str) -> Source:
    source = Source(file, _USE.sub(" ", code), items=frozenset(_ITEM.findall(code)))
    for visible, tree in _USE.findall(code):
        for path, name in _leaves(tree):
            if name == "*":
                source.globs.append(Bound(path[:-1], bool(visible)))
            else:
                source.names[name] = Bound(path, bool(visible))
    return source


def circles(files: Mapping[str, str]) -> list[dict[str, dict[str, set[str]]]]:
    """The circles among the files: each file of one with those that it imports of the same circle."""
    imports = Crate(files).imports()
    reach = {file: _reachable(imports, file) for file in imports}
    found: list[dict[str, dict[str, set[str]]]] = []
    for file in sorted(imports):
        if file in reach[file] and not any(file in circle for circle in found):
            members = {other for other in reach[file] if file in reach[other]}
            found.append(
                {
                    member: {other: names for other, names in imports[member].items() if other in members}
                    for member in sorted(members)
                }
            )
    return found


def _reachable(imports: Mapping[str, Mapping[str, object]], file: str) -> set[str]:
    seen: set[str] = set()
    todo = [file]
    while todo:
        for other in imports[todo.pop()]:
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen
