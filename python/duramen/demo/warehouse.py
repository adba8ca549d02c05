"""The outside world of the demonstration: a SQLite file of its own, where effects take hold.

It does what any service does that honours idempotency keys: an effect is applied once for each key, however
often it is asked for. And it keeps books, from which `proof` reads afterwards what really happened: every
attempt with its owner and its times (`attempts`), every key with the attempt that took hold (`effects`), and
every movement of goods (`ledger`, where nothing would keep a key from appearing twice if the rule above were
broken).
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from duramen import step_context

from .models import Order, Receipt

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["InventoryBusy", "OutOfStock", "Warehouse", "build"]

SCHEMA = """
CREATE TABLE stock (sku TEXT PRIMARY KEY, quantity INTEGER NOT NULL);
CREATE TABLE attempts (
    attempt INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    number INTEGER NOT NULL,   -- as the engine counts: an attempt that was not recorded is not counted
    owner TEXT NOT NULL,
    started REAL NOT NULL,     -- seconds since the epoch, as all times here
    took_hold INTEGER NOT NULL DEFAULT 0,
    ended REAL                 -- NULL: in flight, or the worker died in the midst of it
);
CREATE INDEX attempts_key ON attempts (key);
CREATE INDEX attempts_open ON attempts (owner) WHERE ended IS NULL;
CREATE TABLE effects (key TEXT PRIMARY KEY, attempt INTEGER NOT NULL, number TEXT NOT NULL);
CREATE TABLE ledger (key TEXT NOT NULL, sku TEXT NOT NULL, change INTEGER NOT NULL);
"""


class InventoryBusy(Exception):
    """The inventory did not answer; nobody knows what it did."""

    def __init__(self, attempt: int, lost: str) -> None:
        super().__init__(attempt, lost)
        self.attempt = attempt
        self.lost = lost

    def __str__(self) -> str:
        return f"the inventory lost the {self.lost} (attempt {self.attempt})"


class OutOfStock(Exception):
    """There is not enough of it, and there never will be."""

    def __init__(self, attempt: int, sku: str) -> None:
        super().__init__(attempt, sku)
        self.attempt = attempt
        self.sku = sku

    def __str__(self) -> str:
        return f"there is no {self.sku} left"


def build(path: Path, stock: dict[str, int]) -> None:
    """Make the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA)
        connection.executemany("INSERT INTO stock VALUES (?, ?)", stock.items())
    finally:
        connection.close()


class Warehouse:
    """One worker's way to the warehouse."""

    def __init__(self, path: Path, owner: str, *, pace: float = 1.0) -> None:
        self.owner = owner
        self._pace = pace
        # Effects survive the death of a worker; a power cut is not what this file has to stand.
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
        self._connection.execute("PRAGMA synchronous = NORMAL")
        # The steps of a worker share the connection, some of them from threads.
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    async def reserve(self, order: Order) -> Receipt:
        """Take the goods from the shelf, or fail as often as the order says."""
        attempt, pause = self._begin()
        failing = step_context().attempt <= order.inventory_failures
        await asyncio.sleep(pause)
        if failing and order.inventory_loses == "request":
            self._end(attempt)
            raise InventoryBusy(attempt, "request")
        try:
            receipt = self._apply(attempt, _movements(order, -1))
        except OutOfStock:
            self._end(attempt)
            raise
        await asyncio.sleep(pause)
        if failing:
            self._end(attempt)
            raise InventoryBusy(attempt, "answer")
        self._end(attempt)
        return receipt

    async def release(self, order: Order) -> Receipt:
        """Put them back."""
        attempt, pause = self._begin()
        await asyncio.sleep(pause)
        receipt = self._apply(attempt, _movements(order, +1))
        await asyncio.sleep(pause)
        self._end(attempt)
        return receipt

    async def mail(self, order: Order) -> Receipt:
        """Write to the customer."""
        attempt, pause = self._begin()
        await asyncio.sleep(pause)
        receipt = self._apply(attempt, {f"mail to {order.customer}": 0})
        await asyncio.sleep(pause)
        self._end(attempt)
        return receipt

    def label(self, order: Order) -> Receipt:
        """Print a label; blocking, for steps that run in a thread."""
        attempt, pause = self._begin()
        time.sleep(pause)
        receipt = self._apply(attempt, {f"label for {order.country}": 0})
        time.sleep(pause)
        self._end(attempt)
        return receipt

    @contextmanager
    def _transaction(self) -> Generator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def _begin(self) -> tuple[int, float]:
        """Enter an attempt in the books; gives its number, and how long half of the work takes (seconds)."""
        started = time.time()
        context = step_context()
        with self._transaction() as connection:
            entered = connection.execute(
                "INSERT INTO attempts (key, number, owner, started) VALUES (?, ?, ?, ?)",
                (context.idempotency_key, context.attempt, self.owner, started),
            )
        digest = hashlib.sha256(context.idempotency_key.encode()).digest()
        return entered.lastrowid or 0, self._pace * (0.02 + 0.08 * digest[0] / 255)

    def _apply(self, attempt: int, changes: dict[str, int]) -> Receipt:
        """Let the effect take hold, unless it has: then give the receipt of the first time."""
        key = step_context().idempotency_key
        with self._transaction() as books:
            known = books.execute("SELECT number FROM effects WHERE key = ?", (key,)).fetchone()
            number = str(known[0]) if known else hashlib.sha256(key.encode()).hexdigest()[:10].upper()
            if not known:
                books.execute("INSERT INTO effects VALUES (?, ?, ?)", (key, attempt, number))
                for sku, change in changes.items():
                    moved = books.execute(
                        "UPDATE stock SET quantity = quantity + ?1 WHERE sku = ?2 AND quantity + ?1 >= 0",
                        (change, sku),
                    )
                    if moved.rowcount == 0 and change:
                        raise OutOfStock(attempt, sku)  # undoes this transaction
                    books.execute("INSERT INTO ledger VALUES (?, ?, ?)", (key, sku, change))
            books.execute("UPDATE attempts SET took_hold = ? WHERE attempt = ?", (0 if known else 1, attempt))
        return Receipt(number=number, attempt=attempt)

    def _end(self, attempt: int) -> None:
        """The answer is on its way; that the worker has recorded it, this does not say."""
        with self._transaction() as books:
            books.execute("UPDATE attempts SET ended = ? WHERE attempt = ?", (time.time(), attempt))


def _movements(order: Order, sign: int) -> dict[str, int]:
    moved: dict[str, int] = {}
    for line in order.lines:
        moved[line.sku] = moved.get(line.sku, 0) + sign * line.quantity
    return moved
