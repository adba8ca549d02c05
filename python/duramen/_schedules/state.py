"""What has become of a schedule so far, as the store keeps it."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from duramen.errors import InvalidArgument

if TYPE_CHECKING:
    from typing import Self

    from .schedule import Definition

__all__ = ["Action", "Asked", "State"]

FIRST_RETRY = 5_000
LONGEST_RETRY = 600_000
"""Milliseconds until a schedule that failed is looked at again: doubled from the first to the last."""

FIRST_LOOK = 1_000
LONGEST_LOOK = 60_000
"""The same for one that waits for the end of a run."""

LOOK_AGAIN = 300_000
"""How long one that a newer build wrote is left alone."""


@dataclass(slots=True)
class Action:
    """Something that was decided and is to be carried out; twice is as good as once."""

    kind: Literal["start", "cancel", "terminate"]
    run_id: str
    at: int = 0
    """Of a start: the fire time."""
    previous: int | None = None
    """The fire time before it that started a run."""
    start_at: int | None = None
    """Not before this instant."""
    input: bytes = b""
    message_id: str = ""
    """Of a cancellation, which is delivered once under it."""


@dataclass(slots=True)
class Asked:
    """A run that somebody asked for beside the fire times that come."""

    run_id: str
    at: int
    previous: int | None
    in_turn: bool
    """Only when no other run of the schedule is under way."""


@dataclass(slots=True)
class State:
    """See the module's head. Instants are milliseconds by the store's clock."""

    cursor: int
    """All fire times up to here have been decided about."""
    paused: bool = False
    note: str | None = None
    """Why it is paused."""
    waiting: list[int] = field(default_factory=list[int])
    """Fire times that are to be started as soon as it can be."""
    asked: list[Asked] = field(default_factory=list[Asked])
    started: list[str] = field(default_factory=list[str])
    """Runs that had not ended when it was looked at last, the newest last."""
    pending: list[Action] = field(default_factory=list[Action])
    until: int = 0
    """When others carry out what is pending."""
    previous: int | None = None
    """The last fire time that started a run, …"""
    last_run: str | None = None
    """… and that run."""
    looks: int = 0
    """How often it was looked at in vain since it waits for a run's end."""
    error: str | None = None
    failures: int = 0
    retry_at: int | None = None
    fired: int = 0
    skipped: int = 0

    def packed(self) -> bytes:
        """For the store."""
        kept = asdict(self)
        for action in kept["pending"]:
            action["input"] = base64.b64encode(action["input"]).decode()
        return json.dumps(kept, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> Self:
        """Read what `packed` gave.

        Raises:
            InvalidArgument: a newer version of Duramen wrote it, or nobody did.
        """
        try:
            kept: dict[str, Any] = json.loads(data)
            pending: list[dict[str, Any]] = kept["pending"]
            for action in pending:
                action["input"] = base64.b64decode(action["input"])
            kept["pending"] = [Action(**action) for action in pending]
            kept["asked"] = [Asked(**asked) for asked in kept["asked"]]
            return cls(**kept)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidArgument(f"its state in the store cannot be read: {error!r}") from None

    def next_at(self, definition: Definition, now: int) -> int | None:
        """When somebody has to look at it next."""
        if self.pending:
            return self.until
        if self.retry_at is not None:
            return self.retry_at
        waits = bool(self.waiting) and not self.paused
        if self.asked and not all(asked.in_turn for asked in self.asked):
            return now
        look = None
        if waits or self.asked:
            look = now if not self.looks else now + min(FIRST_LOOK << min(self.looks - 1, 20), LONGEST_LOOK)
        fire = None if self.paused else definition.after(self.cursor)
        return min((at for at in (look, fire) if at is not None), default=None)

    def failed(self, error: str, now: int) -> None:
        """Note that it could not be decided about, and when to try again."""
        self.error = error
        self.failures += 1
        self.retry_at = now + min(FIRST_RETRY << min(self.failures - 1, 20), LONGEST_RETRY)

    def mended(self) -> None:
        """Note that it could."""
        self.error, self.failures, self.retry_at = None, 0, None
