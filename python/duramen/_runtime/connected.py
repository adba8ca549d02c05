"""Changes that become part of a transaction of the user's, on the user's own connection."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from duramen._bridge import Change
from duramen._driving.transactions import Transactions

__all__ = ["Planned"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Planned(Generic[T]):
    """A change that has been checked: what is left to do is done where the connection belongs to."""

    change: Change
    transactions: Transactions
    identity: str | None
    """The text that tells the store's database from others."""
    answered: Callable[[tuple[Any, ...]], T]
    """Makes of the store's answer that of the call."""

    async def carry_out(self, connection: Any) -> T:
        """Do it on a connection of an async driver."""
        return self.answered(await self.transactions.carry_out(connection, self.change))

    def carry_out_sync(
        self,
        connection: Any,
        on_loop: Callable[[Callable[[], Coroutine[Any, Any, str | None]]], str | None],
    ) -> T:
        """Do it on a connection of a blocking driver, in the thread that it belongs to."""
        return self.answered(
            self.transactions.carry_out_sync(connection, self.change, self.identity, on_loop)
        )
