"""What a runtime does with completion tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._calls import Calls

if TYPE_CHECKING:
    from duramen._runtime.views import SignalResult

__all__ = ["TokenCalls"]


class TokenCalls(Calls):
    """See `Runtime`."""

    async def complete(self, token: str, value: Any = None) -> SignalResult:
        """End the wait that a completion token stands for, with a value. It is durable when this returns.

        Args:
            token: the text that the handler's ``ctx.token(…)`` made.
            value: what ``token.result()`` gives; anything that the serializer takes. It is checked against
                the token's type if the workflow is registered here, and by the run in any case.

        Returns:
            ``delivered``, ``buffered``, or ``duplicate`` if the same value was given before.

        Raises:
            InvalidToken: the text is no token of a run in this store.
            TokenExpired: its time is over.
            TokenConflict: it was used already, with another answer.
            TokenRejected: the value does not fit; the run goes on waiting.
            RunFinished: the run has ended.
            InboxFull, StoreLocked, SerializationError: as in `signal`.
        """
        return await self._services.here(self._services.tokens.complete, token, value)

    async def fail(self, token: str, message: str) -> SignalResult:
        """End the wait that a completion token stands for, with a failure: the handler gets `TokenFailed`.

        Args:
            token: as in `complete`.
            message: why, for the handler and for people.

        Raises:
            InvalidToken, TokenExpired, TokenConflict, RunFinished, InboxFull, StoreLocked: as in `complete`.
        """
        return await self._services.here(self._services.tokens.fail, token, message)
