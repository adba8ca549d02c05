"""Outcome hooks: runs of other workflows that leave a run with its end, or when it is parked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from duramen._handlers.outcome import Outcome
from duramen._values.payloads import load_recorded

from .exits import Trouble, encoded, plain_payload, say

if TYPE_CHECKING:
    from .host import RunHost

__all__ = ["prepare"]

_NUMBERS = {"completed": 0, "failed": 1, "stuck": 2}


def prepare(host: RunHost, status: str, *, value: Any = None, failure: bytes = b"") -> None:
    """Say what is started if the run comes to that next, if its workflow says so.

    A hook that cannot be started is logged, and no reason not to end.

    Raises:
        Trouble: a codec is out.
    """
    hook = host.definition.hooks.get(status)
    if hook is None:
        return
    run = host.run
    try:
        target = host.services.find(hook)
        if target is None:
            host.services.log.error(
                "run %r: no workflow %r is registered here, so on_%s starts nothing", run.run_id, hook, status
            )
            return
        error = load_recorded(host.serializer, failure) if failure else None
        facts: Any = (run.run_id, run.workflow, run.version, status)
        data = _payload(host, Outcome(*facts, output=value, error=error), target.input_type)
        tags = list(target.tags)
        row = (None, target.name, target.version, data, tags, None, target.timeout_ms)
        run.set_hook(_NUMBERS[status], row)
    except (Trouble, KeyboardInterrupt):
        raise
    except BaseException as wrong:  # noqa: BLE001 - its types and the serializer are the user's
        say(host.services.log, f"on_{status} of run {run.run_id!r} starts nothing", wrong)


def _payload(host: RunHost, outcome: Outcome, annotation: Any) -> bytes:
    return encoded(host.serializer, plain_payload(host.serializer, outcome, annotation))
