"""What a runtime tells those who change code: who needs which version, and whether what is here fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._calls import Calls

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from duramen._handlers.workflow import WorkflowDef
    from duramen._runtime.deploys import CheckReport, PatchReport, VersionView

__all__ = ["VersionCalls"]


class VersionCalls(Calls):
    """See `Runtime`."""

    async def versions(self) -> list[VersionView]:
        """Say which versions the runs need that have not ended, who serves them, and which nobody needs.

        By workflow and version; those registered here are among them whether or not a run needs them. It
        costs what the open runs cost, however many have ended.
        """
        return await self._services.here(self._services.versions.versions)

    async def check(
        self,
        workflow: WorkflowDef[Any, Any] | str | None = None,
        *,
        version: str | None = None,
        sample: int | None = None,
        parallel: int = 4,
        patience: timedelta | float = 30.0,
        progress: Callable[[int, int], object] | None = None,
    ) -> CheckReport:
        """Replay the runs that have not ended under the code that is here, and say which would not go on.

        Nothing is claimed, written or executed, and other processes may drive the runs meanwhile. A run is
        compared as far as its journal goes. It takes about a millisecond of processor time for each run, and
        more for long journals.

        Args:
            workflow: only runs of this one.
            version: only of this version.
            sample: only so many runs (more if there are more versions and statuses): of each of these as many
                as its share, from the oldest to the newest.
            parallel: how many journals are in memory at a time.
            patience: how long the replay of one run may take.
            progress: is called with the number of runs looked at, and of all.

        Raises:
            InvalidArgument: an argument makes no sense.
        """
        return await self._services.here(
            self._services.checking.check,
            workflow,
            version=version,
            sample=sample,
            parallel=parallel,
            patience=patience,
            progress=progress,
        )

    async def patches(
        self,
        workflow: WorkflowDef[Any, Any] | str | None = None,
        *,
        limit: int | None = None,
        parallel: int = 4,
        patience: timedelta | float = 30.0,
        progress: Callable[[int, int], object] | None = None,
    ) -> PatchReport:
        """Say of each patch (`Context.patched`) which runs that have not ended follow which branch.

        The journals of all of them are read, and replayed under the code that is registered here: only that
        tells a run that went by without the patch from one that has not come to it. Of runs whose code is not
        here no more is known than whether they have the mark.

        Args:
            workflow: only runs of this one.
            limit: only the newest so many.
            parallel: how many journals are in memory at a time.
            patience: how long the replay of one run may take.
            progress: is called with the number of runs looked at, and of all.

        Raises:
            InvalidArgument: an argument makes no sense.
        """
        return await self._services.here(
            self._services.checking.patches,
            workflow,
            limit=limit,
            parallel=parallel,
            patience=patience,
            progress=progress,
        )
