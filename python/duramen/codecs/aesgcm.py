"""Encryption with AES-GCM (NIST SP 800-38D): ``pip install duramen[encryption]``."""

from __future__ import annotations

import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from duramen.errors import InvalidArgument

__all__ = ["AesGcm", "UnknownKey"]

_VERSION = b"\x01"
_NONCE = 12
"""Bytes; drawn anew for each payload. With random ones a key is good for 2**32 payloads (SP 800-38D, 8.3)."""


class UnknownKey(OSError):
    """A payload was encrypted with a key that is not among those that are known here.

    An `OSError`, because it is no fault of the payload: the run waits for a while, and others may have it.

    Attributes:
        key_id: the key's id.
    """

    def __init__(self, key_id: str) -> None:
        super().__init__(key_id)
        self.key_id = key_id

    def __str__(self) -> str:
        return f"there is no key {self.key_id!r} here: add it to keys={{…}} of AesGcm"


class AesGcm:
    """A `Codec` that encrypts payloads, so that whoever reads the store learns their length and no more.

    A payload carries the id of its key. To rotate: add the new key everywhere, then make it `current`
    everywhere, and keep the old one for as long as runs have payloads of it. A payload whose key is missing
    here parks no run at once: it is tried again for a while, as with any codec that is out.

    What is not encrypted: ids, names, tags, times, sizes.

    Args:
        keys: 16, 24 or 32 bytes by the key's id; an id has 1 to 255 bytes.
        current: the id of the key that new payloads get. It may be left out if there is one key.

    Raises:
        InvalidArgument: there is no such key, or one cannot be used.

    >>> from duramen import CodecSerializer, JsonSerializer
    >>> sealed = CodecSerializer(JsonSerializer(), AesGcm({"2026": bytes(32)}))
    >>> b"secret" in sealed.dumps("secret")
    False
    >>> sealed.loads(sealed.dumps("secret"))
    'secret'
    """

    __slots__ = ("_ciphers", "_current", "_head")

    def __init__(self, keys: Mapping[str, bytes], current: str | None = None) -> None:
        if not isinstance(keys, Mapping) or not keys:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidArgument('give the keys by their ids: AesGcm({"2026": key})')
        if current is None:
            if len(keys) > 1:
                raise InvalidArgument("there are several keys: say which one new payloads get, current=…")
            current = next(iter(keys))
        if current not in keys:
            raise InvalidArgument(f"current is {current!r}, which is none of the keys {sorted(keys)}")
        self._ciphers = {_id_bytes(key_id): _cipher(key_id, key) for key_id, key in keys.items()}
        self._current = _id_bytes(current)
        self._head = _VERSION + bytes([len(self._current)]) + self._current

    def __repr__(self) -> str:
        return f"<AesGcm with {len(self._ciphers)} keys, current {self._current.decode()!r}>"

    def encode(self, data: bytes) -> bytes:
        """Encrypt a payload with the current key."""
        nonce = os.urandom(_NONCE)
        return self._head + nonce + self._ciphers[self._current].encrypt(nonce, data, self._head)

    def decode(self, data: bytes) -> bytes:
        """Undo `encode`.

        Raises:
            UnknownKey: its key is not known here.
            ValueError: it was changed since, or this codec did not make it.
        """
        if data[:1] != _VERSION or len(data) < 2:
            raise ValueError("the payload was not written by this codec")
        end = 2 + data[1]
        head, key_id, nonce = data[:end], data[2:end], data[end : end + _NONCE]
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnknownKey(key_id.decode("utf-8", "replace"))
        try:
            return cipher.decrypt(nonce, data[end + _NONCE :], head)
        except (InvalidTag, ValueError):
            raise ValueError(
                "the payload was changed since it was encrypted, or its key is another"
            ) from None


def _id_bytes(key_id: str) -> bytes:
    encoded = key_id.encode() if isinstance(key_id, str) else b""  # pyright: ignore[reportUnnecessaryIsInstance]
    if not 1 <= len(encoded) <= 255:
        raise InvalidArgument(f"the key id {key_id!r} cannot be used: give a text of 1 to 255 bytes")
    return encoded


def _cipher(key_id: str, key: bytes) -> AESGCM:
    # The key itself stands in no message.
    if not isinstance(key, bytes | bytearray) or len(key) not in {16, 24, 32}:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidArgument(f"the key {key_id!r} cannot be used: give 16, 24 or 32 bytes")
    return AESGCM(bytes(key))
