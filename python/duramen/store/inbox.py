"""Messages to runs."""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

from .runs import UnknownKind

__all__ = [
    "INBOX_PAGE",
    "INBOX_PAGE_BYTES",
    "MAX_UNREAD",
    "MAX_UNREAD_BYTES",
    "Consumed",
    "Delivered",
    "Delivery",
    "InboxPage",
    "Message",
    "MessageKind",
    "NewMessage",
    "Receipt",
    "SetAside",
    "Unread",
]

MAX_UNREAD = 10_000
"""The most unread messages of one run. A further one is ``full``, unless it is a cancellation, a pause, its
end or the end of a child."""

MAX_UNREAD_BYTES = 64 << 20
"""The most payload bytes of these: a message that would bring more is ``full`` too."""

INBOX_PAGE = 1_000
"""The most messages of a page."""

INBOX_PAGE_BYTES = 8 << 20
"""The most payload bytes of a page; its first message comes whatever its size."""

MessageKind: TypeAlias = (
    Literal["event", "approval", "cancel", "child", "update", "pause", "resume"] | UnknownKind
)
"""The wait key is ``event:NAME``, ``approval:NAME``, ``child:RUN`` or ``update:NAME``; the others reach a
run whatever it waits for, an unknown kind ends no wait.

A ``cancel`` makes a queued or waiting run due; a ``resume`` a waiting one. A ``pause`` makes a queued or
waiting run ``paused``, with its `name` as the run's note (``buffered``: the run is not due); of one that is
paused already it is a ``duplicate``, and nothing is kept. A ``cancel`` or ``resume`` to a paused run makes
it ``waiting`` (``queued``, if it has no `started_at`), without a note, and due now; but a ``resume`` leaves
the `ready_at` of a run without `started_at` as it is. Both changes set `updated_at`."""

Delivery: TypeAlias = Literal[
    "delivered", "buffered", "duplicate", "not_found", "finished", "full", "blocked"
]
"""``delivered``: kept, and the run was waiting for it and is due now (or it is one that reaches a run
whatever it does, and the run is driven or due for it);
``buffered``: kept; ``duplicate``: the run has a message with that id, and nothing changed; ``full``: the run
has as many unread messages as it may have, and nothing was kept; ``blocked``: others hold the run for longer
than neighbours should wait, nothing was kept, and it is sent again."""


class NewMessage(TypedDict):
    """A message to put into a run's inbox."""

    run_id: str
    message_id: str
    """The dedupe key within the run, for ever."""
    kind: MessageKind
    name: str
    payload: bytes
    fingerprint: str | None
    """Kept with the message, and given back to the sender of a duplicate."""
    encoding: int
    """The least encoding that can read it: a message that is kept raises the run's `format` to it."""
    now: int | None


class Message(TypedDict):
    """A message in an inbox."""

    run_id: str
    seq: int
    """1 for the run's first message, then 2, 3 and so on."""
    message_id: str
    kind: MessageKind
    name: str
    payload: bytes
    encoding: int
    at: int


class InboxPage(TypedDict):
    """Unread messages of one run in order of arrival.

    As many as a page has: no more than `INBOX_PAGE`, and no more than `INBOX_PAGE_BYTES` unless it is one
    alone.
    """

    messages: list[Message]
    more: bool
    """Whether there are more behind them."""


class Delivered(TypedDict):
    """What became of a message that was sent."""

    result: Delivery
    fingerprint: str | None
    """Of the first message with that id, for duplicates."""
    owner: str | None
    """Who drives the run, if anybody does."""


class Unread(TypedDict):
    """The message is neither consumed nor set aside yet."""

    kind: Literal["unread"]


class Consumed(TypedDict):
    """The run has taken the message."""

    kind: Literal["consumed"]
    reply: bytes | None
    """What the commit that consumed it answered."""


class SetAside(TypedDict):
    """The run could not use the message."""

    kind: Literal["set_aside"]
    reason: str


Receipt: TypeAlias = Unread | Consumed | SetAside
"""What became of a message in its inbox."""
