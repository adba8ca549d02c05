"""Sweeps as an AWS Lambda function that EventBridge Scheduler, or a rule of EventBridge, calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .sweeping import SweepHost, summary

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Unpack

    from duramen import Runtime

    from .sweeping import Budget

__all__ = ["sweep_handler"]

_RESERVE = 2.0
"""Seconds of the function's time that are left for releasing what was not finished, and for closing."""


def sweep_handler(
    runtime: Callable[[], Runtime], **budget: Unpack[Budget]
) -> Callable[[Any, Any], dict[str, Any]]:
    """Make the function's handler. Who may call it, IAM decides; an event says nothing about the budget.

    The store is opened and closed in each call: between two of them the sandbox is frozen, with whatever
    connections and leases it had. The function's own time limit bounds the sweep.

    Args:
        runtime: a function that makes a runtime.
        budget: options of `Runtime.sweep`.

    Raises:
        InvalidArgument: an option is unknown.

    Example:
        >>> from duramen import Runtime
        >>> handler = sweep_handler(lambda: Runtime("memory://"), max_queued=100)
        >>> handler({"source": "aws.scheduler"}, None)["queued"]
        0
    """
    host = SweepHost(runtime, public=True, **budget)

    def handler(event: Any, context: Any) -> dict[str, Any]:
        del event
        options = host.options({})
        if context is not None:
            left = context.get_remaining_time_in_millis() / 1000 - _RESERVE
            options["max_duration"] = max(0.0, min(left, options.get("max_duration", left)))
        return summary(asyncio.run(host.sweep(options)))

    return handler
