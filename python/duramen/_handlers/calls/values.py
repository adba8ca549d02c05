"""Recorded values, and marks of patches."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from duramen._bridge import VALUE_NOW, VALUE_RANDOM, VALUE_UUID, Halted, InvalidIdError
from duramen._values.checks import check_id
from duramen._values.durations import from_ms
from duramen.errors import InvalidId

from .base import Calls

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["ValueCalls"]

_DEAD_VALUES = {VALUE_NOW: b"0", VALUE_UUID: b'"00000000-0000-4000-8000-000000000000"', VALUE_RANDOM: b"0"}
"""What code gets that goes on and on asking although its run is no longer driven here."""


class ValueCalls(Calls):
    """See `Context`."""

    __slots__ = ()

    def _value(self, kind: int, call: str) -> bytes:
        self._check(call)
        try:
            return self._run.value(kind)
        except Halted as error:
            self._ended(error)
            return _DEAD_VALUES[kind]

    def now(self) -> datetime:
        """The run's time (UTC), to the millisecond: recorded, so replays see the same."""
        return from_ms(int(self._value(VALUE_NOW, "ctx.now")))

    def uuid(self) -> UUID:
        """A new random UUID (version 4): recorded."""
        return UUID(self._value(VALUE_UUID, "ctx.uuid")[1:-1].decode())

    def random(self) -> float:
        """A random number from 0 up to but not including 1: recorded."""
        return float(self._value(VALUE_RANDOM, "ctx.random"))

    def patched(self, id: str) -> bool:  # noqa: A002
        """Whether this run follows code that was changed here, so that runs under way go on as they began.

        True for a run that comes to this place for the first time; that is recorded, once for each id. False
        for a run that was further when the changed code was deployed: it goes on with the branch that its
        journal knows. Each replay is told the same, and so is each further question about the same id. When
        no run without the mark is left, delete the question and the older branch.

        Args:
            id: a name of the change, unique in the workflow, up to 255 characters; it may be that of a step.

        Raises:
            InvalidId: the id cannot be used.

        Example:
            >>> import asyncio
            >>> from duramen import Context, Runtime, workflow
            >>> @workflow
            ... async def ordering(ctx: Context, order: str) -> str:
            ...     if ctx.patched("fraud-check"):
            ...         order = await ctx.step("check", "{} checked".format, order)
            ...     return await ctx.step("ship", "{}, shipped".format, order)
            >>> async def main() -> str:
            ...     async with Runtime("memory://", workflows=[ordering]) as runtime:
            ...         return await (await runtime.start(ordering, "o-1")).result()
            >>> asyncio.run(main())
            'o-1 checked, shipped'
        """
        self._check("ctx.patched")
        check_id("patch id", id)
        try:
            return self._run.patched(id)
        except Halted as error:
            self._ended(error)
            return False
        except InvalidIdError as error:
            raise InvalidId(str(error)) from None
