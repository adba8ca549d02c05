"""What the workflows of outcome hooks are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from duramen.errors import RecordedError

__all__ = ["Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, or that it is stuck: what the workflows that outcome hooks name are given."""

    run_id: str
    workflow: str
    version: str
    status: Literal["completed", "failed", "stuck"]
    output: Any = None
    """What it returned, as plain JSON."""
    error: RecordedError | None = None
    """Why it failed. Why it is stuck, `Runtime.get` says: ``note``."""
