"""Which open runs still need which version of which workflow, and who serves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from duramen._bridge import ENCODING
from duramen._handlers.mapping import CHUNKS
from duramen._values.durations import from_ms

from .deploys import OldestRun, VersionView
from .views import RunStatus

if TYPE_CHECKING:
    from duramen._bridge import OpenRuns, OwnerRow

    from .lifecycle import Lifecycle
    from .registry import Registry

__all__ = ["Versions"]


class Versions:
    """The report of a drain."""

    def __init__(self, lifecycle: Lifecycle, registry: Registry) -> None:
        self._lifecycle = lifecycle
        self._registry = registry

    async def versions(self) -> list[VersionView]:
        """See `Runtime.versions`."""
        port = self._lifecycle.ready
        found: list[OpenRuns] = await port.call(port.engine.census)
        owners: list[OwnerRow] = await port.call(port.engine.owners)
        now = port.engine.now()
        alive = [owner for owner in owners if owner.ended_at is None and owner.lease_until > now]
        known = self._registry.keys()
        counted: dict[tuple[str, str], list[OpenRuns]] = {key: [] for key in known}
        for runs in found:
            counted.setdefault((runs.workflow, runs.version), []).append(runs)
        return [self._view(*key, counted[key], alive) for key in sorted(counted)]

    def _view(self, workflow: str, version: str, found: list[OpenRuns], alive: list[OwnerRow]) -> VersionView:
        registry = self._registry
        counts: dict[str, int] = {}
        oldest: dict[str, OldestRun] = {}
        # The statuses come in order; queues and formats of one are put together.
        for runs in sorted(found, key=lambda runs: list(RunStatus).index(RunStatus(runs.status))):
            counts[runs.status] = counts.get(runs.status, 0) + runs.count
            created_at, run_id = runs.oldest
            first = OldestRun(run_id, RunStatus(runs.status), from_ms(created_at))
            known = oldest.setdefault(runs.status, first)
            if (first.created_at, run_id) < (known.created_at, known.run_id):
                oldest[runs.status] = first
        whose = workflow.removeprefix(CHUNKS)  # whoever serves that one serves the chunks of its maps
        return VersionView(
            workflow=workflow,
            version=version,
            counts=counts,
            oldest=oldest,
            queues=tuple(sorted({runs.queue for runs in found})),
            newer=sum(runs.count for runs in found if runs.format > ENCODING),
            registered=registry.get(workflow, version) is not None,
            current=registry.is_current(whose, version),
            workers=tuple(sorted(each.owner for each in alive if f"{whose} {version}" in each.serves)),
        )
