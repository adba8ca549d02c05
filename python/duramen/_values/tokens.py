"""The text of a completion token: which wait of which run it ends, until when, and a signature.

Run and wait stand in it in plain sight; what nobody can guess is the signature, an HMAC-SHA256 whose key is
the run's seed: 128 random bits that were drawn with the run's id, stay in its row and die with it. So nothing
has to be configured, and a token of a run that was deleted is none of another run of that id. Other values
are derived from the seed too, and are shown to the handler (`uuid`, `random`): each is a part of a SHA-256
over the seed and an id, which gives the seed away to nobody, and is another function than this one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from duramen.errors import DeserializationError, InvalidToken

if TYPE_CHECKING:
    from .serializer import Serializer

__all__ = ["Answered", "Claim", "TokenType", "is_signed", "load_answer", "read_token", "write_token"]

_PREFIX = "dt1"
_DOMAIN = b"duramen completion token 1\0"
_LONGEST = 4_096


class Claim(NamedTuple):
    """What a token's text says, true or not: see `is_signed`."""

    run_id: str
    token_id: str
    expires: int | None
    """UTC milliseconds."""
    body: bytes
    signature: bytes


def write_token(seed: bytes, run_id: str, token_id: str, expires: int | None) -> str:
    """Make the text of a token, of letters, digits, ``-``, ``_`` and ``.``.

    >>> text = write_token(b"0123456789abcdef", "order:42", "token-1", None)
    >>> claim = read_token(text)
    >>> claim.run_id, claim.token_id, is_signed(b"0123456789abcdef", claim), is_signed(b"another", claim)
    ('order:42', 'token-1', True, False)
    """
    body = _text_of(json.dumps([run_id, token_id, expires], separators=(",", ":")).encode())
    return f"{_PREFIX}.{body}.{_text_of(_sign(seed, body.encode()))}"


def read_token(text: Any) -> Claim:
    """Read a token's text, without knowing whether it is genuine.

    Raises:
        InvalidToken: it is no such text. The message does not repeat it.
    """
    if not isinstance(text, str) or len(text) > _LONGEST or not text.isascii():
        raise InvalidToken
    prefix, _, rest = text.strip().partition(".")
    body, _, signature = rest.partition(".")
    if prefix != _PREFIX:
        raise InvalidToken
    try:
        run_id, token_id, expires = json.loads(_bytes_of(body))
        claim = Claim(run_id, token_id, expires, body.encode(), _bytes_of(signature))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise InvalidToken from None
    known = isinstance(run_id, str) and isinstance(token_id, str)
    if not known or not (expires is None or type(expires) is int):
        raise InvalidToken
    return claim


def is_signed(seed: bytes, claim: Claim) -> bool:
    """Whether the run of that seed made the token. It takes as long whether or not it did."""
    return hmac.compare_digest(_sign(seed, claim.body), claim.signature)


def _sign(seed: bytes, body: bytes) -> bytes:
    return hmac.digest(seed, _DOMAIN + body, hashlib.sha256)


def _text_of(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes_of(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


class TokenType:
    """What a wait for a token reads: a value of a type, or why it failed."""

    __slots__ = ("type",)

    def __init__(self, type: Any) -> None:  # noqa: A002
        self.type = type


class Answered(NamedTuple):
    """How a token was used."""

    ok: bool
    value: Any
    """The value, or why it failed."""


def load_answer(serializer: Serializer, data: bytes, kind: TokenType) -> Answered:
    """Read the message that a token was used by: a byte that says how, then the payload.

    Raises:
        DeserializationError: it is no such message, or does not fit the type.
    """
    how, payload = data[:1], data[1:]
    if how == b"+":
        return Answered(True, serializer.loads(payload, kind.type))
    if how == b"-":
        return Answered(False, serializer.loads(payload, str))
    raise DeserializationError("$", "it is no answer to a completion token")
