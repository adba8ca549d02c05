"""Completion tokens from outside: whoever has the text ends the wait."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from duramen._driving.exits import text_of
from duramen._values.checks import check_id, check_text
from duramen._values.serializer import message_type
from duramen._values.tokens import is_signed, read_token
from duramen.errors import (
    DuramenError,
    InboxFull,
    InvalidToken,
    RunFinished,
    SerializationError,
    StoreError,
    TokenConflict,
    TokenExpired,
    TokenRejected,
)

from .messages import held_by_others
from .views import SignalResult

if TYPE_CHECKING:
    from duramen._bridge import Answer, Delivered, Detail
    from duramen._values.serializer import Serializer
    from duramen._values.tokens import Claim

    from .lifecycle import Lifecycle
    from .reading import Reading
    from .registry import Registry

__all__ = ["Tokens"]

_NOBODY = b"no run is there, and this takes as long"
_LONG = 1_000
"""Entries of a journal that is not replayed to find a type: the run itself looks whether a value fits."""
_TRIES = 100
"""The most answers to one token that did not fit and were set aside."""


class Tokens:
    """The calls that end a wait by its token."""

    def __init__(
        self, lifecycle: Lifecycle, registry: Registry, serializer: Serializer, reading: Reading
    ) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._serializer = serializer
        self._reading = reading

    async def complete(self, text: str, value: Any) -> SignalResult:
        """See `Runtime.complete`."""
        claim, detail = await self._genuine(text)
        known = await self._type(claim, detail)
        annotation = message_type(value) if known is None or known[0] is None else known[0]
        try:
            data = self._serializer.dumps(value, annotation)
            if known is not None:
                self._serializer.loads(data, annotation)
        except SerializationError as error:
            if known is None:
                raise
            raise TokenRejected(claim.run_id, claim.token_id, text_of(error)) from error
        return await self._answer(claim, b"+" + data)

    async def fail(self, text: str, message: str) -> SignalResult:
        """See `Runtime.fail`."""
        check_text("message", message)
        claim, _ = await self._genuine(text)
        return await self._answer(claim, b"-" + self._serializer.dumps(message, str))

    async def _genuine(self, text: str) -> tuple[Claim, Detail]:
        claim = read_token(text)
        try:
            check_id("run id", claim.run_id)
        except DuramenError:
            raise InvalidToken from None
        port = self._lifecycle.ready
        details: list[Detail | None] = await port.call(port.engine.get, [claim.run_id])
        detail = details[0]
        # Whether there is such a run at all is nobody's business who has no token of it.
        genuine = is_signed(_NOBODY if detail is None else detail.row.seed, claim)
        if detail is None or not genuine:
            raise InvalidToken
        if claim.expires is not None and claim.expires <= port.engine.now():
            raise TokenExpired
        return claim, detail

    async def _type(self, claim: Claim, detail: Detail) -> tuple[Any] | None:
        """The type of the value, if the workflow's code is here and fits."""
        row = detail.row
        is_long = row.journal_len - row.journal_start > _LONG
        if is_long or self._registry.get(row.workflow, row.version) is None:
            return None
        try:
            return await self._reading.token_type(claim.run_id, claim.token_id)
        except StoreError:
            raise
        except DuramenError:
            return None  # the run will tell whoever looks at it

    async def _answer(self, claim: Claim, payload: bytes) -> SignalResult:
        """The first answer that fits counts. One that was set aside makes room for another."""
        run_id, token_id = claim.run_id, claim.token_id
        mark = hashlib.sha256(payload).hexdigest()[:32]
        for number in range(1, _TRIES + 1):
            name = f"__token:{token_id}"
            message_id = name if number == 1 else f"{name}#{number}"
            result, first = await self._deliver((run_id, message_id, "event", name, payload, mark))
            if result is not SignalResult.DUPLICATE:
                return result
            refused = await self._refusal(run_id, message_id)
            if refused is None:
                if first != mark:
                    raise TokenConflict(run_id, token_id)
                return result
            if first == mark:
                raise TokenRejected(run_id, token_id, refused)
        raise TokenRejected(run_id, token_id, f"{_TRIES} answers before it did not fit")

    async def _deliver(
        self, message: tuple[str, str, str, str, bytes, str | None]
    ) -> tuple[SignalResult, str | None]:
        port = self._lifecycle.ready
        answers: list[Delivered] = await port.call(port.engine.deliver, [message])
        result, run_id = SignalResult(answers[0].result), message[0]
        if result is SignalResult.NOT_FOUND:
            raise InvalidToken
        if result is SignalResult.FINISHED:
            raise RunFinished(run_id, what="nothing waits for the completion token any more")
        if result is SignalResult.FULL:
            raise InboxFull(run_id)
        if result is SignalResult.BLOCKED:
            raise held_by_others(run_id)
        return result, answers[0].fingerprint

    async def _refusal(self, run_id: str, message_id: str) -> str | None:
        """Why a message was set aside, if it was."""
        port = self._lifecycle.ready
        answer: Answer = await port.call(port.engine.receipt, run_id, message_id)
        return answer.why or "it did not fit" if answer.how == "refused" else None
