"""What a step tells of its progress: recorded now and then, for its next attempt."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from .exits import Trouble, encoded, say

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from .host import RunHost

__all__ = ["Telling"]

_LEAST = 1.0
"""Seconds between two records, while the attempt is young."""

_SHARE = 16
"""Later on, this part of what it has taken so far: so the records of a step grow with the logarithm of its
time, and a crash loses no more than that part."""


class Telling:
    """The progress of one attempt, on the host's loop."""

    def __init__(self, host: RunHost, slot: int, op: str) -> None:
        self._host = host
        self._slot = slot
        self._op = op
        self._since = monotonic()
        self._told: bytes | None = None
        """What is not recorded yet."""
        self._timer: TimerHandle | None = None
        self._ended = False

    def tell(self, progress: bytes) -> None:
        """Take the newest progress: recorded at once, or when its time has come."""
        self._told = progress
        if self._timer is None and not self._ended:
            self._record()

    def end(self, failed: bool) -> None:
        """The attempt is over. What a failed one has told is recorded with its failure."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if failed and self._told is not None:
            self._write(self._told)

    def _record(self) -> None:
        told, self._timer = self._told, None
        if told is None or self._ended or self._host.closed:
            return
        if self._write(told) and self._told is told:
            self._told = None
        later = self._host.services.later
        if later is not None:
            self._timer = later(max(_LEAST, (monotonic() - self._since) / _SHARE), self._record)

    def _write(self, told: bytes) -> bool:
        host = self._host
        try:
            data = encoded(host.serializer, told)
        except (Trouble, KeyboardInterrupt) as out:
            if isinstance(out, KeyboardInterrupt):
                raise
            return False  # a codec is out: it is tried again, and costs the attempt nothing
        except BaseException as refusal:  # noqa: BLE001 - what a codec of the user's has against it
            say(host.services.log, f"a progress of step {self._op!r} cannot be recorded", refusal)
            return True
        if not host.run.step_progress(self._slot, data):
            return False
        host.services.touched(host)
        return True
