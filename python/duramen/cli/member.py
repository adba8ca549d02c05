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
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import typer

from .exits import Exit
from .guard import guarded
from .output import complain, one_line, reason
from .target import find_runtime
from .telling import HarmlessFormatter

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

MOST = 20_000
"""Bytes of a list in what a worker says: a line has to fit into the pipe to its supervisor as a whole."""

COUNTS = ("active", "claimed", "ended", "completed", "failed", "cancelled", "stuck", "lost", "refused")


async def drive(
    runtime: Runtime,
    *,
    concurrency: int,
    drain: float,
    tell: Callable[[dict[str, Any]], None],
    alone: bool = False,
) -> None:
    """Drive runs until SIGTERM, SIGINT or SIGHUP.

    Args:
        runtime: is opened and closed here.
        concurrency: how many runs at a time.
        drain: seconds that steps in flight have at the end.
        tell: is called with what happens.
        alone: no supervisor kills this process if it hangs: it ends itself.

    Raises:
        typer.Exit: the runtime has no workflow that could be driven.
    """
    tell({"event": "doing", "what": "opens its store"})
    async with runtime:
        serves = check_workflows(runtime)
        broken = {path: one_line(reason(error)) for path, error in runtime.broken.items()}
        _heed_hangup()
        work = asyncio.create_task(runtime.work(concurrency=concurrency, drain=drain, handle_signals=True))
        # When it is ready a signal ends it in order: the work has begun, and listens to them.
        await asyncio.sleep(0)
        if alone:
            _end_in_time(drain)
        tell({"event": "ready", "owner": runtime.owner, "serves": _some(serves), "broken": _some(broken)})

        async def report() -> None:
            while True:
                await asyncio.sleep(REPORT)
                tell({"event": "counts", **_counts(runtime)})

        reports = asyncio.create_task(report())
        try:
            await work
        finally:
            reports.cancel()
            tell({"event": "drained", **_counts(runtime)})


def _some(texts: list[str] | dict[str, str]) -> Any:
    """As many of them as find room in a line, and how many there are more.

    >>> _some(["a 1", "b 2"]), _some([*"xyz", "long" * MOST, "last"])
    (['a 1', 'b 2'], ['x', 'y', 'z', '2 more'])
    """
    room = MOST
    for shown, text in enumerate(texts):
        room -= len(json.dumps([text, texts[text] if isinstance(texts, dict) else ""]))
        if room < 0:
            more = f"{len(texts) - shown} more"
            if isinstance(texts, dict):
                return {**dict(list(texts.items())[:shown]), more: "there was no room to name them"}
            return [*texts[:shown], more]
    return texts


def check_workflows(runtime: Runtime) -> list[str]:
    """What an open runtime serves: names with versions.

    Raises:
        typer.Exit: nothing; it was said why.
    """
    serves = [f"{name} {version}" for name, version in runtime.workflows]
    if not serves:
        reasons = [f"{path} cannot be loaded: {reason(error)}" for path, error in runtime.broken.items()]
        complain(
            "\n".join(
                [
                    "the runtime has no workflow that could be driven",
                    *(reasons or ["give it some: Runtime(url, workflows=[…])"]),
                ]
            )
        )
        raise typer.Exit(Exit.APPLICATION)
    return serves


def _heed_hangup() -> None:
    """End in order when the terminal is closed, unless whoever started this wants it to go on (nohup)."""
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda _number, _frame: os.kill(os.getpid(), signal.SIGTERM))


def _end_in_time(drain: float) -> None:
    """Have this process ended if it hangs after a signal, as a supervisor does with its workers.

    A step that ignores its cancellation, or a thread, would keep it for ever. The handlers are called beside
    those of the loop, as a rule also while that is blocked.
    """
    # The thread is there beforehand, and the queue's `put` may be called in the midst of anything.
    told: SimpleQueue[None] = SimpleQueue()
    threading.Thread(target=_end, args=(told, drain), name="duramen-end", daemon=True).start()

    def heed(before: Any, number: int, frame: Any) -> None:
        told.put(None)
        if callable(before):
            before(number, frame)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, partial(heed, signal.getsignal(number)))


def _end(told: SimpleQueue[None], drain: float) -> None:
    told.get()
    with suppress(Empty):
        told.get(timeout=drain)  # a second signal waits for no step
    time.sleep(GRACE)
    sentence = (
        "the worker has not ended in time, because a step or a thread hangs: it is ended now; its runs go on "
        "elsewhere when their leases have ended"
    )
    saying = threading.Thread(target=complain, args=(sentence,), daemon=True)
    saying.start()
    saying.join(1)  # nobody may read it
    os._exit(Exit.FAILED)


def _counts(runtime: Runtime) -> dict[str, int]:
    stats = runtime.stats()
    return {name: stats[name] for name in COUNTS}


def set_up_logging(level: int = logging.INFO) -> None:
    """Log to stderr, unless the application has set up its own: `basicConfig` does nothing then."""
    handler = logging.StreamHandler()
    handler.setFormatter(HarmlessFormatter("%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=level)


def main(settings: str) -> int:
    """Be a worker of a fleet; gives the exit code."""
    given: dict[str, Any] = json.loads(settings)
    lifeline, said = int(given["lifeline"]), int(given["said"])
    for end in (lifeline, said):
        os.set_inheritable(end, False)  # else processes that steps start would hold them open
    # A supervisor that is stopped must not stop its workers.
    os.set_blocking(said, False)
    drain = float(given["drain"])
    threading.Thread(target=_watch, args=(lifeline, drain), name="duramen-lifeline", daemon=True).start()

    def tell(fact: dict[str, Any]) -> None:
        # Nobody listens: the supervisor is gone, and the lifeline says so, too.
        with suppress(OSError):
            os.write(said, json.dumps(fact).encode() + b"\n")

    def work() -> None:
        set_up_logging(int(given["level"]))
        target = str(given["target"])
        tell({"event": "doing", "what": f"imports {target.partition(':')[0]}"})
        runtime = find_runtime(target)
        asyncio.run(drive(runtime, concurrency=int(given["concurrency"]), drain=drain, tell=tell))

    return guarded(work)


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
