"""For tests of what is built on Duramen: the contract of stores, and our own stores to compare with.

Nothing here is loaded by `import duramen`.
"""

from __future__ import annotations

import sys

# So that a failed rule of the contract shows its values, in whatever project it runs.
if "pytest" in sys.modules:
    sys.modules["pytest"].register_assert_rewrite(f"{__name__}.store_contract", f"{__name__}._contract")

from ._arguments import ArgumentChanged
from ._crashes import CrashFailed, CrashReport, crash_everywhere
from ._env import Environment
from ._faults import Delay, FaultyStore, LoseAnswer, LoseRequest, Refuse, StoreCall
from ._native_store import NativeStore, open_store
from ._replay import Replayed, replay
from ._suspend import SuspendFailed, SuspendReport, suspend_matrix
from .store_contract import StoreContract

__all__ = [
    "ArgumentChanged",
    "CrashFailed",
    "CrashReport",
    "Delay",
    "Environment",
    "FaultyStore",
    "LoseAnswer",
    "LoseRequest",
    "NativeStore",
    "Refuse",
    "Replayed",
    "StoreCall",
    "StoreContract",
    "SuspendFailed",
    "SuspendReport",
    "crash_everywhere",
    "open_store",
    "replay",
    "suspend_matrix",
]
