"""Compression with Zstandard (RFC 8878): ``pip install duramen[zstd]``."""

from __future__ import annotations

import threading

import zstandard

from duramen.errors import InvalidArgument

__all__ = ["Zstd"]

_PLAIN, _PACKED = b"\x00", b"\x01"

_MOST = 1 << 30
"""No payload may come out longer than that: a few bytes can be made to claim any length."""


class Zstd:
    """A `Codec` that makes long payloads shorter; those that would not shrink stay as they are.

    Each payload has one byte more, which says which it is. Any number of threads may use it.

    Args:
        level: 1 (fast) to 22 (small).
        threshold: payloads of fewer bytes are not tried.

    Raises:
        InvalidArgument: an argument makes no sense.

    >>> from duramen import CodecSerializer, JsonSerializer
    >>> packed = CodecSerializer(JsonSerializer(), Zstd())
    >>> len(packed.dumps([0] * 10_000)) < 100
    True
    >>> packed.loads(packed.dumps([0] * 10_000)) == [0] * 10_000
    True
    """

    __slots__ = ("_level", "_of_thread", "_threshold")

    def __init__(self, level: int = 3, threshold: int = 512) -> None:
        if not 1 <= level <= zstandard.MAX_COMPRESSION_LEVEL:
            raise InvalidArgument(f"level is {level!r}: give 1 to {zstandard.MAX_COMPRESSION_LEVEL}")
        if threshold < 0:
            raise InvalidArgument(f"threshold is {threshold!r}: give a number of bytes")
        self._level = level
        self._threshold = threshold
        self._of_thread = _Tools()

    def encode(self, data: bytes) -> bytes:
        """Make a payload shorter, if it can be."""
        if len(data) >= self._threshold:
            tools = self._of_thread
            if tools.packer is None:
                tools.packer = zstandard.ZstdCompressor(level=self._level, write_content_size=True)
            packed = tools.packer.compress(data)
            if len(packed) < len(data):
                return _PACKED + packed
        return _PLAIN + data

    def decode(self, data: bytes) -> bytes:
        """Undo `encode`.

        Raises:
            ValueError: this codec did not make it.
        """
        kind, rest = data[:1], data[1:]
        if kind == _PLAIN:
            return rest
        if kind != _PACKED:
            raise ValueError("the payload was not written by this codec")
        size = zstandard.frame_content_size(rest)
        if not 0 <= size <= _MOST:
            raise ValueError(f"the payload says that it is {size} bytes long when unpacked")
        tools = self._of_thread
        if tools.unpacker is None:
            tools.unpacker = zstandard.ZstdDecompressor()
        return tools.unpacker.decompress(rest)


class _Tools(threading.local):
    """The library's objects must not be used by two threads at once, and are worth keeping."""

    packer: zstandard.ZstdCompressor | None = None
    unpacker: zstandard.ZstdDecompressor | None = None
