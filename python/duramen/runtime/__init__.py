"""`Runtime`: one store, the workflows this process knows, and everything one can do with their runs."""

from __future__ import annotations

from duramen._runtime.sync import SyncRun

from ._face import Runtime
from ._sync import SyncRuntime

__all__ = ["Runtime", "SyncRun", "SyncRuntime"]
