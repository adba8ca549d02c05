"""What goes between a runtime and a process for its steps: frames of byte strings, over a socket.

Nothing is pickled: who can write to the socket can have a function called that is declared for it, no more.
"""

from __future__ import annotations

from struct import Struct

__all__ = ["BEAT", "CALL", "DONE", "EMIT", "FAILED", "HEAD", "READY", "UNFIT", "pack", "size_of", "unpack"]

CALL = b"call"
"""To the process: facts, progress, then the arguments."""

READY, DONE, FAILED, UNFIT, BEAT, EMIT = b"ready", b"done", b"failed", b"unfit", b"beat", b"emit"
"""From it: it is there; the result; what was raised; why a result is none; signs of life; live events."""

_SIZE = Struct(">Q")
HEAD = _SIZE.size
"""How many bytes say how long a frame is."""


def pack(*parts: bytes) -> bytes:
    """Make a frame.

    >>> unpack(pack(b"call", b"")[HEAD:])
    [b'call', b'']
    """
    body = b"".join(_SIZE.pack(len(part)) + part for part in parts)
    return _SIZE.pack(len(body)) + body


def size_of(head: bytes) -> int:
    """How many bytes follow a frame's head."""
    return int(_SIZE.unpack(head)[0])


def unpack(body: bytes) -> list[bytes]:
    """The parts of a frame, whose head has been read."""
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        end = at + HEAD + size_of(body[at : at + HEAD])
        parts.append(body[at + HEAD : end])
        at = end
    return parts
