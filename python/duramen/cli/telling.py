"""What a fleet or a worker says while it runs: as sentences in the log, or as JSON on stdout."""

from __future__ import annotations

import errno
import logging
import os
import queue
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .output import harmless, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SUMMARY", "FactLog", "HarmlessFormatter", "JsonLines", "Teller", "log_event"]

_log = logging.getLogger("duramen.worker")

SUMMARY = 60.0
"""Seconds between two summaries."""

_SENTENCES = {
    "started": "worker {worker} (pid {pid}) starts",
    "ready": "worker {worker} (pid {pid}) is ready: {owner}; {knows}",
    "slow_start": "worker {worker} (pid {pid}) has not become ready for {seconds} s: it {doing}",
    "died": "worker {worker} (pid {pid}) died after {lived} s: {how}; it is replaced in {restart_in} s",
    "not_started": "worker {worker} cannot be started: {reason}; it is tried again in {restart_in} s",
    "gave_up": "worker {worker} (pid {pid}) could not start: {how}; giving up",
    "silent": "worker {worker} (pid {pid}) has said nothing for {seconds} s: it is stopped, or its event "
    "loop is blocked; others take over its runs when their leases have ended",
    "heard_again": "worker {worker} (pid {pid}) is heard of again",
    "draining": "{signal}: no new runs are taken; waiting for steps in flight",
    "hurrying": "{signal}: steps in flight are not waited for",
    "killed": "worker {worker} (pid {pid}) did not end in time and is killed; its leases will end",
    "counts": "{workers} workers: {active} runs active, {claimed} claimed, {ends}, {lost} lost, "
    "{restarts} restarts",
    "ended": "all workers have ended: {claimed} runs claimed, {ends}, {lost} lost, {killed} killed",
    "refused": "{reason}",
}

_WARNINGS = frozenset(
    {"slow_start", "died", "not_started", "gave_up", "silent", "killed", "refused", "hurrying"}
)


def log_event(event: dict[str, Any]) -> None:
    """Log an event of the fleet as a sentence."""
    level = logging.WARNING if event["event"] in _WARNINGS else logging.INFO
    facts = {**event, "ends": _ends(event), "knows": _knows(event)}
    _log.log(level, "%s", _SENTENCES[event["event"]].format_map(facts))


def _ends(facts: dict[str, Any]) -> str:
    """How the runs ended that have.

    >>> _ends({"ended": 3, "completed": 1, "failed": 2, "stuck": 0, "cancelled": 0})
    '1 completed, 2 failed'
    """
    told = [f"{facts.get('completed', 0)} completed"]
    told += [f"{facts[kind]} {kind}" for kind in ("failed", "stuck", "cancelled") if facts.get(kind)]
    return ", ".join(told)


def _knows(facts: dict[str, Any]) -> str:
    """Which workflows a worker serves, and which it cannot.

    >>> _knows({"serves": ["order 1", "order 2"], "broken": {"shop:refund": "ImportError: no"}})
    'serves order 1, order 2; cannot load shop:refund (ImportError: no)'
    """
    serves: list[str] = facts.get("serves", [])
    broken: dict[str, str] = facts.get("broken", {})
    failed = [f"; cannot load {path} ({reason})" for path, reason in broken.items()]
    return f"serves {', '.join(serves)}" + "".join(failed)


class FactLog:
    """Logs what a worker says that is alone: its counts when they have changed, once a minute at most."""

    def __init__(self) -> None:
        self._told = -SUMMARY
        self._before: dict[str, Any] = {}

    def __call__(self, fact: dict[str, Any]) -> None:
        """Log a fact."""
        kind = fact.pop("event")
        if kind == "ready":
            _log.info("ready: %s; %s", fact["owner"], _knows(fact))
        if kind not in {"counts", "drained"}:
            return
        now = time.monotonic()
        if kind == "drained" or (now - self._told >= SUMMARY and fact != self._before):
            self._told, self._before = now, fact
            counts = "{active} runs active, {claimed} claimed, {ends}, {lost} lost"
            _log.info("%s: %s", kind, counts.format_map({**fact, "ends": _ends(fact)}))


class HarmlessFormatter(logging.Formatter):
    """Lines of the log with everything visible that a terminal would obey."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return harmless(super().format(record), lines=True)


class JsonLines:
    """Writes each event as a line of JSON with the time to a descriptor, past all buffers."""

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._closed = False
        self._torn = False
        """A line was cut short: what comes next begins on its own."""

    def __call__(self, event: dict[str, Any]) -> None:
        """Write an event.

        Raises:
            OSError: it cannot be written, maybe because the disk is full; the next one may.
        """
        if self._closed:
            return
        line = ("\n" if self._torn else "") + to_json({"at": round(time.time(), 3), **event}) + "\n"
        left = memoryview(line.encode("ascii"))
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
                self._torn = bool(left)
        except OSError as error:
            if error.errno in {errno.EPIPE, errno.EBADF}:
                self._closed = True
                _log.warning("nobody reads the events any more (%s): the work goes on", error.strerror)
            raise


class Teller:
    """Tells events in a thread of its own: whoever reads them slowly, or not at all, holds up nobody else.

    Args:
        tell: says one event; may block, may raise OSError.
        most: so many events wait to be told; those that come on top are dropped.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], None], most: int = 1000) -> None:
        self._tell = tell
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue(most)
        self._thread = threading.Thread(target=self._run, name="duramen-teller", daemon=True)
        self._thread.start()

    def __call__(self, event: dict[str, Any]) -> None:
        """Have an event told, if there is room. Returns at once, and never fails."""
        with suppress(queue.Full):
            self._events.put_nowait({**event})

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            with suppress(Exception):  # also what a filter of the application's raises: the next one is told
                self._tell(event)

    def close(self, patience: float) -> bool:
        """Wait until all is told, for so many seconds; gives whether it was.

        If not, a thread hangs in a write, maybe with the lock of a stream: the interpreter's own end would
        wait for that, so the process has to end without it.
        """
        until = time.monotonic() + patience
        with suppress(queue.Full):
            self._events.put(None, timeout=patience)
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()
