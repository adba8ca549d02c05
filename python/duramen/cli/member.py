"""One worker process: drives runs and says how it goes.

Alone it is `duramen worker`. In a fleet it is started by the supervisor (`fleet`) as
``python -m duramen.cli.member SETTINGS``, with two pipes: a lifeline, which ends when the supervisor does,
and one for what it has to say, a JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from duramen import DuramenError

from .exits import Exit, code_of
from .output import complain
from .target import find_runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from duramen import Runtime

__all__ = ["COUNTS", "DRAINING", "GRACE", "REPORT", "drive", "main", "set_up_logging"]

REPORT = 5.0
"""Seconds between two reports of a worker."""

GRACE = 5.0
"""Seconds after the end of its drain time that a worker may take to close its store and end."""

DRAINING = b"d"
"""What the supervisor writes down the lifeline before it asks its workers to end."""

COUNTS = ("active", "claimed", "ended", "lost", "refused")


async def drive(
    runtime: Runtime, *, concurrency: int, drain: float, tell: Callable[[dict[str, Any]], None]
) -> None:
    """Drive runs until SIGTERM or SIGINT; `tell` is called with what happens."""
    async with runtime:
        tell({"event": "ready", "owner": runtime.owner})

        async def report() -> None:
            while True:
                await asyncio.sleep(REPORT)
                tell({"event": "counts", **_counts(runtime)})

        reports = asyncio.create_task(report())
        try:
            await runtime.work(concurrency=concurrency, drain=drain, handle_signals=True)
        finally:
            reports.cancel()
            tell({"event": "drained", **_counts(runtime)})


def _counts(runtime: Runtime) -> dict[str, int]:
    stats = runtime.stats()
    return {name: stats[name] for name in COUNTS}


def set_up_logging(*, verbose: bool) -> None:
    """Log to stderr, unless the application has set up its own: `basicConfig` does nothing then."""
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s",
        level=logging.DEBUG if verbose else logging.INFO,
    )


def main(settings: str) -> int:
    """Be a worker of a fleet; gives the exit code."""
    given: dict[str, Any] = json.loads(settings)
    lifeline, said = int(given["lifeline"]), int(given["said"])
    for end in (lifeline, said):
        os.set_inheritable(end, False)  # else processes that steps start would hold them open
    drain = float(given["drain"])
    threading.Thread(target=_watch, args=(lifeline, drain), name="duramen-lifeline", daemon=True).start()

    def tell(fact: dict[str, Any]) -> None:
        # Nobody listens: the supervisor is gone, and the lifeline says so, too.
        with suppress(OSError):
            os.write(said, json.dumps(fact).encode() + b"\n")

    try:
        set_up_logging(verbose=bool(given["verbose"]))
        runtime = find_runtime(given["target"])
        asyncio.run(drive(runtime, concurrency=int(given["concurrency"]), drain=drain, tell=tell))
    except DuramenError as error:
        complain(str(error))
        return code_of(error)
    except typer.Exit as end:
        return end.exit_code
    except Exception:  # noqa: BLE001 - shown here; the code tells the supervisor
        traceback.print_exc()
        return Exit.FAILED
    return 0


def _watch(lifeline: int, drain: float) -> None:
    """Wait in a thread for the end of the supervisor: it is noticed even if the event loop is blocked."""
    asked = False
    while heard := os.read(lifeline, 1):
        asked = heard == DRAINING
    if not asked:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(drain + GRACE)
    os._exit(1)  # it hangs; its leases end, and others take over


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
