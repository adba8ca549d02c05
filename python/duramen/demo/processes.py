"""The processes of the demonstration: workers, the payment provider, and the person who approves.

Each is started by `conductor` as ``python -m duramen.demo ROLE FOLDER NAME`` and leaves what it has to say as
JSON in ``FOLDER/NAME.json``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from duramen import DuramenError, Runtime, RunView, SignalResult

from .counting import counting, shelf, stocktaking
from .files import payments
from .models import Order
from .warehouse import Warehouse
from .workflow import fulfillment, use_warehouse

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LEASE", "TOO_MUCH_FOR_A_STRANGER", "main", "report", "store_url"]

LEASE = 3.0
"""Seconds after which another worker takes over what a silent one held."""

CONCURRENCY = 32
"""How many runs a worker drives at a time."""

TOO_MUCH_FOR_A_STRANGER = 2000
"""The person who approves sends larger orders of unknown customers back."""

REFUSAL = "a new customer starts smaller"


def store_url(folder: Path) -> str:
    """The store of the demonstration in that folder."""
    return f"sqlite:///{(folder / 'orders.db').resolve()}"


def report(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Leave `facts` for the conductor, whole or not at all."""
    fresh = folder / f".{name}.json"
    fresh.write_text(json.dumps(facts), "utf-8")
    fresh.replace(folder / f"{name}.json")


async def work(folder: Path, name: str) -> None:
    """Drive whatever is due until SIGTERM."""
    warehouse = Warehouse(folder / "warehouse.db", name, pace=float(os.environ.get("DURAMEN_DEMO_PACE", "1")))
    use_warehouse(warehouse)
    # Printing a label blocks: with a thread for each run none has to wait for another's.
    runtime = Runtime(
        store_url(folder),
        workflows=[fulfillment, stocktaking, shelf],
        schedules=[counting],
        owner=name,
        lease=LEASE,
        max_threads=CONCURRENCY,
    )
    async with runtime:
        await runtime.work(concurrency=CONCURRENCY)
        report(folder, name, runtime.stats())
    warehouse.close()


async def send_payments(folder: Path, name: str) -> None:
    """Send the events of the second file, each at its time: a payment provider, without any workflow code."""
    tally: Counter[str] = Counter()
    begun: float | None = None
    async with Runtime(store_url(folder)) as runtime:
        for line in payments():
            event = addressed(line)
            if event is None:
                tally["unreadable"] += 1
                continue
            after = float(event.pop("after", 0))
            if after and begun is None:
                # Everything up to here was early: no worker has started yet.
                report(folder, f"{name}-early", dict(tally))
                begun = time.monotonic()
            await asyncio.sleep(max(0, after - (time.monotonic() - (begun or time.monotonic()))))
            tally[await send(runtime, event)] += 1
    report(folder, name, tally)


def addressed(line: str) -> dict[str, Any] | None:
    """The event in a line, if it says whom it is for and which one it is.

    >>> addressed('{"event_id": "e", "order_id": "o", "amount": "much"}')
    {'event_id': 'e', 'order_id': 'o', 'amount': 'much'}
    >>> addressed('{"event_id": "e", "order_') is addressed("[1]") is addressed('{"event_id": "e"}') is None
    True
    """
    try:
        found: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    event = cast("dict[str, Any]", found)
    return event if all(isinstance(event.get(key), str) for key in ("event_id", "order_id")) else None


async def send(runtime: Runtime, event: dict[str, Any]) -> str:
    """Send one event; gives what became of it."""
    order_id = event.pop("order_id")
    try:
        return await runtime.signal(order_id, "payment-received", event, signal_id=event["event_id"])
    except DuramenError:
        return "refused"


async def approve(folder: Path, name: str) -> None:
    """Decide about large orders as they come up, until the conductor says that it is over."""
    tally: Counter[str] = Counter()
    decided: set[tuple[str, str]] = set()
    async with Runtime(store_url(folder)) as runtime:
        while not (folder / "end").exists():
            waiting = await runtime.list(status="waiting", tag="large", limit=500)
            for run in waiting:
                for approval_id in run.waiting_approvals:
                    if (run.run_id, approval_id) in decided:
                        continue  # the run has not been driven since
                    decided.add((run.run_id, approval_id))
                    tally[await decide(runtime, run, approval_id)] += 1
            await asyncio.sleep(0.2)
    report(folder, name, tally)


async def decide(runtime: Runtime, run: RunView, approval_id: str) -> str:
    """Look at the order and say yes or no."""
    order = Order.model_validate((await runtime.get(run.run_id)).input)
    good = order.known_customer or order.total <= TOO_MUCH_FOR_A_STRANGER
    answer = await runtime.approve(
        run.run_id, approval_id, good, feedback=None if good else REFUSAL, by="approver"
    )
    kept = answer in {SignalResult.DELIVERED, SignalResult.BUFFERED}
    return ("approved" if good else "rejected") if kept else answer


def _end_with_the_conductor() -> None:
    """Wait for the end of standard input: whoever writes to it has gone, and nobody is to be left behind."""
    while os.read(0, 1):
        pass
    os._exit(1)


def main(arguments: list[str]) -> None:
    """Be the process that the arguments name: a role, a folder and a name."""
    role, folder, name = arguments
    threading.Thread(target=_end_with_the_conductor, daemon=True).start()
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level=logging.INFO)
    roles = {"worker": work, "payments": send_payments, "approver": approve}
    asyncio.run(roles[role](Path(folder), name))
