"""Streams: items that handlers and steps write while their run goes on, and that anybody reads in order."""

from __future__ import annotations

from collections.abc import Sequence  # noqa: TC003 - the hints of TypedDicts are read at run time
from typing import Literal, TypeAlias, TypedDict

from .runs import Blocked, Rejected, Status, StreamWrite

__all__ = [
    "MOST_PRUNED",
    "STREAM_PAGE_BYTES",
    "AppendApplied",
    "AppendFenced",
    "Appended",
    "StreamAppend",
    "StreamAsk",
    "StreamItem",
    "StreamPage",
    "StreamWrite",
]

STREAM_PAGE_BYTES = 4 << 20
"""The most bytes of payloads in a page, unless its first item alone has more."""

MOST_PRUNED = 10_000
"""The most items that one write takes out of a stream: one that is to become much shorter does so write by
write."""


class StreamAppend(TypedDict):
    """What a step has written. The fence is that of a commit, without the journal's length."""

    run_id: str
    seed: Sequence[int]
    owner: str
    epoch: int
    items: Sequence[StreamWrite]
    """No more than 10,000."""


class AppendApplied(TypedDict):
    """The items are in their streams."""

    kind: Literal["applied"]


class AppendFenced(TypedDict):
    """Life, owner, epoch or status differ: another driver has the run. Nothing was written."""

    kind: Literal["fenced"]


Appended: TypeAlias = AppendApplied | AppendFenced | Blocked | Rejected
"""The answer to one append."""


class StreamAsk(TypedDict):
    """A question for items of one stream."""

    run_id: str
    stream: str
    start: int
    """The first number that is wanted."""
    limit: int
    """At least 1."""


class StreamItem(TypedDict):
    """A kept item."""

    seq: int
    """Its number in the stream, from 1."""
    writer: str
    index: int
    attempt: int
    at: int
    payload: bytes


class StreamPage(TypedDict):
    """Items in their order, and where their run stood when they were read, of one moment.

    Of a run that had ended no item is missing behind the last page.
    """

    seed: Sequence[int]
    status: Status
    items: Sequence[StreamItem]
    """No more than were asked for, and than `STREAM_PAGE_BYTES`."""
