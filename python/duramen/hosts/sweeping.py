"""What every host that sweeps shares: who may ask, with which budget, and what is answered."""

from __future__ import annotations

import asyncio
import hmac
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

from duramen import DuramenError, Runtime
from duramen.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from typing_extensions import Unpack

    from duramen import SweepResult

__all__ = ["MAX_BODY", "Answer", "Budget", "SweepHost", "body_options", "summary"]

MAX_BODY: Final = 16 * 1024
"""Bytes that a request to sweep may bring."""


class Budget(TypedDict, total=False):
    """The options of `Runtime.sweep` that a host has, and that a request may make smaller."""

    limit: int
    max_recovered: int
    max_scheduled: int
    max_timers: int
    max_queued: int
    max_bytes: int
    max_duration: float
    """Seconds, as the next."""
    min_remaining: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer: a status of HTTP, and JSON."""

    status: int
    body: dict[str, Any]

    def encoded(self) -> bytes:
        """The body as bytes."""
        return json.dumps(self.body).encode()


_KINDS: Final = {
    name: float if name in {"max_duration", "min_remaining"} else int for name in Budget.__annotations__
}


class SweepHost:
    """Sweeps a runtime for whoever knows the secret.

    Args:
        runtime: one that is open is used as it is; else it is opened for each sweep and closed after it. A
            function that makes one is called once for each sweep.
        secret: what the caller has to bring as a bearer token (RFC 6750); at least 16 characters. None, with
            `public`, lets everybody in.
        public: say that everybody may ask. A sweep harms nothing and costs something.
        budget: options of `Runtime.sweep` that hold unless a request asks for less.

    Raises:
        InvalidArgument: there is no secret and `public` does not say so, or an option is unknown.
    """

    def __init__(
        self,
        runtime: Runtime | Callable[[], Runtime],
        *,
        secret: str | None = None,
        public: bool = False,
        **budget: Unpack[Budget],
    ) -> None:
        if secret is None and not public:
            raise InvalidArgument("give a secret, secret=…, or say that everybody may sweep, public=True")
        if secret is not None and public:
            raise InvalidArgument(
                "there is a secret, and public=True lets everybody in: leave one of them out"
            )
        if secret is not None and len(secret) < 16:
            raise InvalidArgument("the secret is too short: use secrets.token_urlsafe()")
        self._runtime = runtime
        self._turn = asyncio.Lock()
        self._sweeps = 0
        self._opened_here = False
        self._secret = None if secret is None else secret.encode()
        self._budget = {name: _number(name, value) for name, value in budget.items()}

    def __repr__(self) -> str:
        return f"<SweepHost, {'public' if self._secret is None else 'with a secret'}>"

    def may(self, authorization: str | None) -> bool:
        """Whether that value of the header ``Authorization`` lets its caller in, in constant time."""
        if self._secret is None:
            return True
        scheme, _, token = (authorization or "").partition(" ")
        known = hmac.compare_digest(token.strip().encode("utf-8", "surrogateescape"), self._secret)
        return known and scheme.lower() == "bearer"

    async def answer(self, authorization: str | None, asked: Mapping[str, Any]) -> Answer:
        """Answer a request: 200 with what the sweep did, 400, 401, or 503 if the store is out.

        Args:
            authorization: the value of the header, if there was one.
            asked: options of `Runtime.sweep`, from a query or a body; more than the host has is not had.
        """
        if not self.may(authorization):
            return Answer(
                401, {"error": "unauthorized", "message": "bring the secret: Authorization: Bearer …"}
            )
        try:
            options = self.options(asked)
        except InvalidArgument as error:
            return Answer(400, {"error": "bad request", "message": str(error)})
        try:
            return Answer(200, summary(await self.sweep(options)))
        except InvalidArgument as error:
            return Answer(400, {"error": "bad request", "message": str(error)})
        except DuramenError as error:
            return Answer(503, {"error": type(error).__name__, "message": str(error)})

    def options(self, asked: Mapping[str, Any]) -> dict[str, int | float]:
        """The host's budget, made smaller where that is asked for.

        Raises:
            InvalidArgument: an option is unknown or no number.
        """
        options = dict(self._budget)
        for name, value in asked.items():
            number = _number(name, value)
            # Time that has to remain is the one option of which more is less.
            smaller = max if name == "min_remaining" else min
            options[name] = smaller(options[name], number) if name in options else number
        return options

    async def sweep(self, options: Mapping[str, Any]) -> SweepResult:
        """Sweep with these options."""
        async with self._opened() as runtime:
            return await runtime.sweep(**options)

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[Runtime]:
        if not isinstance(self._runtime, Runtime):
            async with self._runtime() as runtime:
                yield runtime
            return
        # Sweeps at once share what the first of them has opened; the last one closes it.
        if not self._sweeps:
            self._turn = asyncio.Lock()
        self._sweeps += 1
        try:
            async with self._turn:
                if not self._runtime.is_open:
                    await self._runtime.open()
                    self._opened_here = True
            yield self._runtime
        finally:
            self._sweeps -= 1
            if not self._sweeps and self._opened_here:
                self._opened_here = False
                await self._runtime.close()


def summary(result: SweepResult) -> dict[str, Any]:
    """What a pass did, in numbers: no ids and no payloads leave the store by this way."""
    return {
        "recovered": len(result.recovered),
        "scheduled": len(result.scheduled),
        "timers": len(result.timers),
        "queued": len(result.queued),
        "summary": result.summary,
        "deadline_reached": result.deadline_reached,
        "remaining_may_exist": result.remaining_may_exist,
    }


def body_options(body: bytes) -> dict[str, Any] | Answer:
    """The options that a POST brings, or why it brings none."""
    if not body.strip():
        return {}
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return {str(name): value for name, value in found.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return Answer(400, {"error": "bad request", "message": "the body is no JSON object of options"})


def _number(name: str, value: Any) -> int | float:
    kind = _KINDS.get(name)
    if kind is None:
        raise InvalidArgument(f"there is no option {name!r}: use {', '.join(_KINDS)}")
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        number = -1
    if isinstance(value, bool) or not number >= 0:
        raise InvalidArgument(f"{name} is {value!r}: give a number that is not negative")
    return number
