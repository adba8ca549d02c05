"""A store that fails when it is told to: calls are refused, lost on their way there or back, or late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from typing_extensions import override

from duramen.errors import InvalidArgument, StoreUnavailable

from ._wrapped_store import METHODS, WrappedStore

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from duramen.store import Store

__all__ = ["Delay", "Fault", "FaultPlan", "FaultyStore", "LoseAnswer", "LoseRequest", "Refuse", "StoreCall"]


@dataclass(frozen=True, slots=True)
class StoreCall:
    """A call of a store that is about to be made."""

    method: str
    """A name of `duramen.store.Store`, such as ``commit``."""
    number: int
    """Which call of that method it is: 1 for the first."""
    args: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """The store says no: the call does not take place, and raises `error`."""

    error: Exception


@dataclass(frozen=True, slots=True)
class LoseRequest:
    """The connection breaks before the call reaches the store: it does not take place.

    The caller gets a `duramen.errors.StoreUnavailable`, as after `LoseAnswer`, and cannot tell which it was.
    """


@dataclass(frozen=True, slots=True)
class LoseAnswer:
    """The call takes place, but the connection breaks before its answer is back."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The call is made `seconds` later; inside an `Environment` these are seconds of its clock.

    Args:
        seconds: how much later.
        then: another fault, for the late call.
    """

    seconds: float
    then: Refuse | LoseRequest | LoseAnswer | None = None


Fault: TypeAlias = Refuse | LoseRequest | LoseAnswer | Delay
"""What happens to a call."""

FaultPlan: TypeAlias = Mapping[tuple[str, int], Fault | None] | Callable[[StoreCall], Fault | None]
"""Faults by method and number of the call, or a function that gives each call's fault, or None."""


class FaultyStore(WrappedStore):
    """A `duramen.store.Store` that passes calls on to another one, except where its plan says otherwise.

    Args:
        inner: a store, such as `open_store` gives.
        plan: what happens to which call. It may be replaced at any time through the attribute `plan`.

    Raises:
        InvalidArgument: the plan names a method that stores do not have.

    A run goes on when the answer to one of its commits is lost, and no step runs twice:

    >>> from datetime import timedelta
    >>> from duramen import Context, workflow
    >>> from duramen.testing import Environment, open_store
    >>> charged = []
    >>> async def charge() -> str:
    ...     charged.append(1)
    ...     return "paid"
    >>> @workflow
    ... async def order(ctx: Context) -> str:
    ...     await ctx.sleep(timedelta(days=1))
    ...     return await ctx.step("charge", charge)
    >>> async def main():
    ...     store = FaultyStore(open_store("memory://"), {("commit", 2): LoseAnswer()})
    ...     async with Environment([order], store=store) as env:
    ...         run = await env.runtime.start(order)
    ...         print(await env.result(run), len(charged), store.faults)
    >>> asyncio.run(main())
    paid 1 1
    """

    def __init__(self, inner: Store, plan: FaultPlan | None = None) -> None:
        if plan is not None and not callable(plan):
            for method, number in plan:
                if method not in METHODS or number < 1:
                    raise InvalidArgument(
                        f"the plan has a fault for {method!r}, call {number}: name a method of "
                        "duramen.store.Store and a number from 1"
                    )
        super().__init__(inner)
        self.plan = plan
        self.calls: dict[str, int] = {}
        """How often each method was called."""
        self.faults = 0
        """How many calls met with a fault."""
        self.sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
        """How delays pass; an `Environment` puts its own clock here."""

    @override
    async def call(self, method: str, *args: Any) -> Any:
        """Let a call meet with its fault, or pass it on."""
        number = self.calls[method] = self.calls.get(method, 0) + 1
        plan = self.plan
        if plan is None:
            fault = None
        elif callable(plan):
            fault = plan(StoreCall(method, number, args))
        else:
            fault = plan.get((method, number))
        if fault is not None:
            self.faults += 1
        if isinstance(fault, Delay):
            await self.sleep(fault.seconds)
            fault = fault.then
        if isinstance(fault, Refuse):
            raise fault.error
        if isinstance(fault, LoseRequest):
            raise StoreUnavailable(f"the connection broke before {method}() took place (an injected fault)")
        answer = await super().call(method, *args)
        if isinstance(fault, LoseAnswer):
            raise StoreUnavailable(f"the connection broke after {method}() took place (an injected fault)")
        return answer
