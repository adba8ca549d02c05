"""Options that the calls which create runs have in common, written down once for all their overloads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

__all__ = ["RunOptions", "StartOptions"]


class RunOptions(TypedDict, total=False):
    """Those of `Runtime.run`; `Runtime.start` says what they mean."""

    run_id: str | None
    tags: Iterable[str]
    memo: Any


class StartOptions(RunOptions, total=False):
    """Those of `Runtime.start` and `Runtime.enqueue`."""

    start_at: datetime | None
