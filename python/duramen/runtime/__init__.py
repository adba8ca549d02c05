"""`Runtime`: one store, the workflows this process knows, and everything one can do with their runs."""

from __future__ import annotations

from duramen._runtime.sync import SyncRun

from ._face import Runtime
from ._schedules import ScheduleCalls
from ._sync import SyncRuntime, SyncSchedules

__all__ = ["Runtime", "ScheduleCalls", "SyncRun", "SyncRuntime", "SyncSchedules"]
