"""Completion tokens: texts by which others end a wait of the handler, without knowing its run."""

from __future__ import annotations

from asyncio import shield
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from duramen._bridge import Halted, InvalidIdError, invalid_id
from duramen._handlers.signatures import check_stored
from duramen._values.checks import check_id
from duramen._values.durations import duration_ms
from duramen._values.tokens import TokenType, write_token
from duramen.errors import InvalidId, RunEvicted, TokenFailed

from .base import Calls

if TYPE_CHECKING:
    from asyncio import Future
    from datetime import timedelta

__all__ = ["Token", "TokenCalls"]

R = TypeVar("R")

_MAX_TOKEN_ID = 200
"""Leaves room for what is put around it in the id of the message that answers."""


class Token(Generic[R]):
    """A wait that whoever has its text can end: see `Context.token`."""

    __slots__ = ("_calls", "_future", "_text", "_timeout", "id")

    def __init__(self, calls: TokenCalls, id: str, text: str, future: Future[Any], timeout: Any) -> None:  # noqa: A002
        self.id = id
        """Its id in the run: that of the operation."""
        self._text = text
        self._calls = calls
        self._future = future
        self._timeout = timeout

    @property
    def text(self) -> str:
        """What to give away: a secret for `Runtime.complete` and `Runtime.fail`. It is safe in URLs."""
        return self._text

    def __repr__(self) -> str:
        return f"<Token {self.id!r}>"  # without its text

    async def result(self) -> R:
        """Wait until somebody completes it, and give the value. It may be called again.

        Raises:
            TokenFailed: somebody let it fail.
            TimeoutError: nobody did either in time.
        """
        arrived, answer = await self._calls.wait_for_token(self._future)
        if not arrived:
            raise TimeoutError(f"token {self.id!r} was not completed within {self._timeout}")
        if not answer.ok:
            raise TokenFailed(self.id, answer.value)
        return answer.value


class TokenCalls(Calls):
    """See `Context`."""

    __slots__ = ()

    @overload
    def token(
        self, type: type[R], *, id: str | None = None, timeout: timedelta | float | None = None
    ) -> Token[R]: ...
    @overload
    def token(
        self, type: Any = ..., *, id: str | None = None, timeout: timedelta | float | None = None
    ) -> Token[Any]: ...
    def token(
        self,
        type: Any = None,  # noqa: A002
        *,
        id: str | None = None,  # noqa: A002
        timeout: timedelta | float | None = None,
    ) -> Token[Any]:
        """Make a text by which somebody who does not know this run completes a wait of it, or lets it fail.

        Give ``token.text`` away in a step (in a link, as the reference of a job at another service), then
        ``await token.result()``. `Runtime.complete` and `Runtime.fail` take the text, in any process. It is
        signed, cannot be guessed, and is of no use when its time is over or the run has ended.

        Args:
            type: what the value is read as.
            id: the token's id in the run, up to 200 characters. Default: ``token-1``, ``token-2`` … in order.
            timeout: seconds or `timedelta`, from now on. Default: for as long as the run lives.

        Raises:
            InvalidId: the id cannot be used, or is that of a step, say, in this run.
            WorkflowDefinitionError: the type cannot be stored.
            NotADurableContext: called outside of the handler.
        """
        self._check("ctx.token")
        if id is not None and len(check_id("operation id", id)) > _MAX_TOKEN_ID:
            raise InvalidId(f"the token's id has {len(id)} characters: use {_MAX_TOKEN_ID} at the most")
        check_stored(type, "type of a token")
        run, host = self._run, self._host
        deadline = None if timeout is None else run.now() + duration_ms(timeout, "timeout")
        try:
            slot, token_id = run.token(id, deadline)
        except InvalidIdError as error:
            raise invalid_id(error) from None
        except Halted as error:
            self._ended(error)
            raise RunEvicted(str(error)) from None
        host.tokens[token_id] = (type,)
        wait = host.open_message(slot, TokenType(type))
        text = write_token(run.seed, run.run_id, token_id, deadline)
        return Token(self, token_id, text, wait.future, timeout)

    async def wait_for_token(self, future: Future[Any]) -> tuple[bool, Any]:
        """Wait for what a token brings. That one who waits is cancelled does not end it."""
        self._check("token.result")
        return cast("tuple[bool, Any]", await shield(future))
