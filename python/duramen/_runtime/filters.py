"""Which runs a list is about: one type for every call that takes such filters, checked in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from duramen._values.checks import check_choice, check_id, check_text, check_wait_key
from duramen._values.durations import instant_ms
from duramen.errors import InvalidArgument

from .views import RunStatus

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from duramen._handlers.workflow import WorkflowDef

__all__ = ["RunFilters", "engine_filter"]

_STATUSES = tuple(status.value for status in RunStatus)


class RunFilters(TypedDict, total=False):
    """Keyword arguments that choose runs; a run has to pass all that are given and are not None.

    >>> import asyncio
    >>> from duramen import RunFilters, Runtime
    >>> async def main() -> None:
    ...     late: RunFilters = {"status": ["failed", "stuck"], "tag": "nightly"}
    ...     async with Runtime("memory://") as runtime:
    ...         print(await runtime.count(**late), len(await runtime.list(**late, limit=10)))
    >>> asyncio.run(main())
    0 0
    """

    workflow: WorkflowDef[Any, Any] | str | None
    """A workflow or its name."""
    version: str | None
    """Of the workflow."""
    status: str | Iterable[str] | None
    """One status, or several of which any will do."""
    tag: str | None
    """A tag the run has."""
    waiting_for: str | None
    """An event's name, ``timer``, ``approval:ID``, ``child:RUN`` or ``retry:STEP``."""
    created_after: datetime | None
    """Instant, aware; exclusive."""
    created_before: datetime | None
    """Instant, aware; exclusive."""
    parent: str | None
    """Run id of the one that started it."""
    root: str | None
    """Run id of the first of its family; that one itself does not count."""
    id_prefix: str | None
    """How the run id begins."""


def engine_filter(call: str, filters: RunFilters) -> dict[str, Any]:
    """The same as the engine takes it; `call` is the name of who was given it.

    Raises:
        InvalidArgument: a filter makes no sense.
        TypeError: there is no filter of that name.
    """
    for name in filters:
        if name not in RunFilters.__annotations__:
            raise TypeError(f"{call}() got an unexpected keyword argument {name!r}")
    wanted: dict[str, Any] = {}
    workflow: Any = filters.get("workflow")
    if workflow is not None:
        wanted["workflow"] = check_id("workflow", workflow if isinstance(workflow, str) else workflow.name)
    for name in ("version", "tag", "parent", "root"):
        if (given := filters.get(name)) is not None:
            wanted[name] = check_id(name, given)
    if (status := filters.get("status")) is not None:
        wanted["status"] = _statuses(status)
    if (waiting_for := filters.get("waiting_for")) is not None:
        wanted["waiting_for"] = check_wait_key(waiting_for)
    if (created_after := filters.get("created_after")) is not None:
        wanted["created_after"] = instant_ms(created_after, "created_after")
    if (created_before := filters.get("created_before")) is not None:
        wanted["created_before"] = instant_ms(created_before, "created_before")
    if id_prefix := filters.get("id_prefix"):
        wanted["id_prefix"] = check_text("id_prefix", id_prefix)
    return wanted


def _statuses(status: str | Iterable[str]) -> list[str]:
    statuses = [status] if isinstance(status, str) else list(status)
    if not statuses:
        raise InvalidArgument("status is empty: name at least one, or leave it out for all")
    return [check_choice("status", str(each), _STATUSES) for each in statuses]
