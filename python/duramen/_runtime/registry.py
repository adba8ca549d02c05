"""Which workflows a runtime knows: definitions, and names of definitions that are imported when it opens."""

from __future__ import annotations

import importlib
import threading
from typing import TYPE_CHECKING, Any

from duramen._driving.records import line_of
from duramen._handlers.chunks import chunk_workflow
from duramen._handlers.workflow import WorkflowDef
from duramen._logging import logger
from duramen.errors import DuplicateWorkflow, InvalidArgument, UnknownWorkflow, WorkflowDefinitionError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

__all__ = ["Registry"]

AnyWorkflow = WorkflowDef[Any, Any]

_log = logger("duramen")

SLOW = 10.0
"""Seconds after which it is said that an import has not come back."""


class Registry:
    """The workflows of one runtime, by name and version.

    Args:
        workflows: definitions, and texts ``"package.module:attribute"`` for definitions that `load` imports.

    Raises:
        DuplicateWorkflow: two definitions have one name and version.
        WorkflowDefinitionError: something else than a definition or such a text.
    """

    def __init__(self, workflows: Iterable[Any]) -> None:
        self._by_key: dict[tuple[str, str], AnyWorkflow] = {}
        self._current: dict[str, AnyWorkflow] = {}
        self._inner: dict[tuple[str, str], AnyWorkflow] = {}
        """Workflows of which only runs of those above start runs; nobody sees them listed."""
        self._lazy: list[str] = []
        self.broken: dict[str, BaseException] = {}
        """What could not be imported, and why."""
        if isinstance(workflows, str | WorkflowDef) or not hasattr(workflows, "__iter__"):
            raise WorkflowDefinitionError(f"workflows is {workflows!r}: give a list of workflows")
        for item in workflows:
            if isinstance(item, str):
                _check_path(item)
                if item not in self._lazy:
                    self._lazy.append(item)
            else:
                self.add(item)

    def add(self, definition: Any) -> None:
        """Register a definition and its previous versions; the same one again is no change."""
        if not isinstance(definition, WorkflowDef):
            raise WorkflowDefinitionError(
                f"{definition!r} is no workflow: decorate the function with @workflow, or give "
                "'package.module:attribute'"
            )
        found: AnyWorkflow = definition  # pyright: ignore[reportUnknownVariableType]
        if found.name.startswith("__"):
            raise WorkflowDefinitionError(
                f"workflow names beginning with '__' are reserved: give {found.name!r} another name"
            )
        current = self._current.get(found.name)
        if current is not None and current is not found and found not in current.previous:
            if current.version == found.version:
                raise DuplicateWorkflow(found.name, found.version, current.location)
            if current not in found.previous:
                raise DuplicateWorkflow(
                    found.name,
                    "",
                    f"{current.location} as version {current.version!r}: "
                    "name one of the two in `previous` of the other",
                )
        # All or nothing: of one that is refused no part is served.
        every = {(each.name, each.version): each for each in (found, *found.previous)}
        for key, each in every.items():
            each.resolve()
            known = self._by_key.get(key, each)
            if known is not each:
                raise DuplicateWorkflow(each.name, each.version, known.location)
        for each in every.values():
            self._keep(each)
        if current is None or current in found.previous:
            self._current[found.name] = found

    def _keep(self, definition: AnyWorkflow) -> None:
        inner = chunk_workflow(definition)
        self._by_key[definition.name, definition.version] = definition
        self._inner[inner.name, inner.version] = inner

    def load(self) -> None:
        """Import what was registered by path. What fails is logged and kept in `broken`; the rest works."""
        for path in self._lazy:
            late = threading.Timer(SLOW, _tell_late, [path])
            late.daemon = True
            late.start()
            try:
                self.add(_imported(path))
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: BLE001 - a user's module may raise anything
                if path not in self.broken:
                    _log.error(
                        "workflow %r cannot be loaded, so its runs wait until it can: %s",
                        path,
                        line_of(error),
                        exc_info=error,
                    )
                self.broken[path] = error
            else:
                self.broken.pop(path, None)
            finally:
                late.cancel()

    def keys(self) -> list[tuple[str, str]]:
        """Names and versions of all of them."""
        return list(self._by_key)

    def served(self) -> list[tuple[str, str]]:
        """Those, and names and versions of what they bring with them: whose runs are driven here."""
        return [*self._by_key, *self._inner]

    def newest(self) -> list[AnyWorkflow]:
        """The newest definition of each name."""
        return list(self._current.values())

    def names(self) -> list[str]:
        """Their names, each once."""
        return sorted({name for name, _ in self._by_key})

    def __len__(self) -> int:
        return len(self._by_key)

    def get(self, name: str, version: str) -> AnyWorkflow | None:
        """The definition of exactly that version, if it is here."""
        return self._by_key.get((name, version)) or self._inner.get((name, version))

    def of_version(self, name: str, version: str | None) -> AnyWorkflow | None:
        """The definition of that version, or the newest one, if it is here."""
        return self._current.get(name) if version is None else self.get(name, version)

    def check_version(self, name: str, version: str) -> None:
        """Refuse a version that a workflow does not have here. Of those that are not here nothing is known.

        Raises:
            UnknownWorkflow: there are other versions of it, and not that one.
        """
        if name in self._current and (name, version) not in self._by_key:
            raise self._unknown(name, version)

    def is_current(self, name: str, version: str) -> bool:
        """Whether new runs of that workflow get that version."""
        current = self._current.get(name)
        return current is not None and current.version == version

    def resolve(self, workflow: Any) -> AnyWorkflow:
        """Find what a caller means: a definition that is registered here, or the name of one.

        One that was made anew where a registered one was made (a cell that was run again, a module that was
        reloaded) takes its place. Runs in memory go on with the code that they began with.

        Raises:
            UnknownWorkflow: it is not registered here; notes say what could not be imported.
        """
        if isinstance(workflow, WorkflowDef):
            definition: AnyWorkflow = workflow  # pyright: ignore[reportUnknownVariableType]
            known = self._by_key.get((definition.name, definition.version))
            if known is definition:
                return definition
            if known is not None and _origin(known) == _origin(definition) is not None:
                self._replace(known, definition)
                return definition
            error = self._unknown(definition.name, definition.version)
            if known is not None:
                error.add_note(
                    f"another definition of that name and version is registered, made at {known.location}: "
                    "give that one, or the name"
                )
            raise error
        if not isinstance(workflow, str):
            raise InvalidArgument(f"{workflow!r} is no workflow: give a function with @workflow, or its name")
        found = self._current.get(workflow)
        if found is None:
            raise self._unknown(workflow, None)
        return found

    def find(self, workflow: Any) -> AnyWorkflow | None:
        """What `resolve` gives; None in place of `UnknownWorkflow`, for a definition that itself."""
        try:
            return self.resolve(workflow)
        except UnknownWorkflow:
            return workflow if isinstance(workflow, WorkflowDef) else None  # pyright: ignore[reportUnknownVariableType]

    def named(self, workflow: Any) -> AnyWorkflow:
        """What a caller names: a definition, registered or not, or the name of one that is.

        Raises:
            UnknownWorkflow: a name that is not registered here.
        """
        if not isinstance(workflow, WorkflowDef):
            return self.resolve(workflow)
        definition: AnyWorkflow = workflow  # pyright: ignore[reportUnknownVariableType]
        return definition

    def _replace(self, known: AnyWorkflow, definition: AnyWorkflow) -> None:
        definition.resolve()
        self._keep(definition)
        if self._current.get(definition.name) is known:
            self._current[definition.name] = definition
        _log.info("workflow %r is now the one of %s", definition.name, definition.location)

    def _unknown(self, name: str, version: str | None) -> UnknownWorkflow:
        error = UnknownWorkflow(name, version)
        for path, reason in self.broken.items():
            error.add_note(f"{path!r} could not be loaded: {line_of(reason)}")
        return error

    def types(self, name: str, version: str) -> tuple[Any, Any, Any]:
        """Types of input, output and state, each None if it is unknown here."""
        found = self.get(name, version)
        if found is None:
            return None, None, None
        state = found.state_type
        return found.input_type, found.output_type, state if isinstance(state, type) else None

    def declares_event(self, name: str) -> bool:
        """Whether any workflow here says what payload that event has."""
        return any(name in each.events for each in self._by_key.values())


def _origin(definition: AnyWorkflow) -> tuple[str, str] | None:
    """Under which name its handler stands in which module; None if it is one of many made by a function."""
    name: str | None = getattr(definition.handler, "__qualname__", None)
    return None if name is None or "<" in name else (definition.module, name)


def _check_path(path: str) -> None:
    module, separator, attribute = path.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    if not separator or not all(part.isidentifier() for part in parts):
        raise WorkflowDefinitionError(f"{path!r} names no workflow: write 'package.module:attribute'")


def _tell_late(path: str) -> None:
    # Nobody can end it: an import belongs to the thread that began it.
    _log.warning(
        "workflow %r is still being imported after %g s; the runtime opens when it has been: look what its "
        "module does when it is imported",
        path,
        SLOW,
    )


def _imported(path: str) -> Any:
    module, _, attribute = path.partition(":")
    found: ModuleType | Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found
