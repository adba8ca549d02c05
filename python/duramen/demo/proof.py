"""Compares what should be with what is.

What should be is worked out here from the lines of the input files alone, without the workflow's code. What
is comes from the two stores: the journal of every run, and the warehouse's books.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, cast

from duramen import Event, RunView

from . import files
from .counting import EVERY, SHELVES
from .processes import REFUSAL, TOO_MUCH_FOR_A_STRANGER

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from .conductor import Happened

__all__ = ["Attempt", "Claim", "Evidence", "Expected", "expect", "prove"]

STEP_ENDS = {"step_completed", "step_failed", "step_attempt_failed"}


@dataclass(frozen=True)
class Expected:
    """How one order has to end, and what has to be left of it."""

    shipped: bool
    why: str
    keys: frozenset[str]
    """The idempotency keys that take hold."""
    payment: str | None
    """Id of the one event that is consumed."""
    set_aside: frozenset[str]
    """Ids of the events that the run refuses, because they are malformed."""
    failures: int
    """Attempts that are recorded as failed."""


def expect(order: dict[str, Any], events: Iterable[dict[str, Any]], stock: dict[str, int]) -> Expected:
    """Work out from the input how an order ends: the rules of the business, told a second time.

    Args:
        order: its line of the orders' file.
        events: what the payments' file has for it, in the order of the file.
        stock: what is there at the beginning (of each thing enough for everybody, or nothing).
    """
    run_id = order["order_id"]
    failures = order["inventory_failures"]
    if any(stock[line["sku"]] == 0 for line in order["lines"]):
        # Attempts that lose the request fail before the inventory looks; the others find the shelf empty.
        lost = failures if order["inventory_loses"] == "request" else 0
        return Expected(False, "out of stock", frozenset(), None, frozenset(), lost + 1)
    well_formed = [event for event in events if _well_formed(event)]
    payment = well_formed[0] if well_formed else None
    why = _objection(order, payment)
    steps = ("reserve", "release") if why else ("reserve", "label", "mail")
    return Expected(
        shipped=not why,
        why=why,
        keys=frozenset(f"{run_id}/{step}" for step in steps),
        payment=payment["event_id"] if payment else None,
        set_aside=frozenset(event["event_id"] for event in events if not _well_formed(event)),
        failures=failures,
    )


def _well_formed(event: dict[str, Any]) -> bool:
    try:
        Decimal(event.get("amount", "missing"))
    except (InvalidOperation, TypeError, ValueError):
        return False
    return isinstance(event.get("currency"), str) and event.get("status") in {"paid", "declined"}


def _objection(order: dict[str, Any], payment: dict[str, Any] | None) -> str:
    total = sum(Decimal(line["unit_price"]) * line["quantity"] for line in order["lines"])
    if payment is None:
        return "not paid in time"
    if payment["status"] == "declined":
        return "payment declined"
    if Decimal(payment["amount"]) != total or payment["currency"] != order["currency"]:
        return "wrong amount"
    if total >= 1000 and total > TOO_MUCH_FOR_A_STRANGER and not order["known_customer"]:
        return REFUSAL
    return ""


@dataclass(frozen=True)
class Attempt:
    """A line of the warehouse's books."""

    number: int
    key: str
    owner: str
    started: float
    took_hold: bool
    ended: float | None


@dataclass
class Evidence:
    """What the two stores say."""

    runs: dict[str, RunView]
    """The orders."""
    journals: dict[str, list[Event]]
    attempts: list[Attempt]
    effects: set[str]
    ledger: Counter[str]
    """How often each key stands in the ledger with one and the same thing, at most."""
    stock: dict[str, int]
    stocktakings: list[RunView]
    shelves: list[RunView]
    """The children of these."""

    @classmethod
    def read(
        cls,
        books: Path,
        runs: dict[str, RunView],
        journals: dict[str, list[Event]],
        stocktakings: list[RunView],
        shelves: list[RunView],
    ) -> Evidence:
        """Read the books and put them beside what the runtime said."""
        connection = sqlite3.connect(books)
        try:
            attempts = [
                Attempt(number, key, owner, started, bool(took_hold), ended)
                for number, key, owner, started, took_hold, ended in connection.execute(
                    "SELECT attempt, key, owner, started, took_hold, ended FROM attempts ORDER BY attempt"
                )
            ]
            effects = {str(key) for (key,) in connection.execute("SELECT key FROM effects")}
            ledger: Counter[str] = Counter()
            for key, count in connection.execute("SELECT key, count(*) FROM ledger GROUP BY key, sku"):
                ledger[key] = max(ledger[key], count)
            stock = dict(connection.execute("SELECT sku, quantity FROM stock"))
        finally:
            connection.close()
        return cls(runs, journals, attempts, effects, ledger, stock, stocktakings, shelves)

    def recorded(self) -> dict[int, Event]:
        """The attempts whose outcome stands in a journal, by their number in the warehouse."""
        return {
            number: entry
            for journal in self.journals.values()
            for entry in journal
            if entry.kind in STEP_ENDS and (number := attempt_of(entry)) is not None
        }


def attempt_of(entry: Event) -> int | None:
    """The warehouse's number of the attempt that an entry records: in the receipt, or in the error."""
    if entry.error is not None:
        arguments = entry.error.args or ()
        return arguments[0] if arguments and isinstance(arguments[0], int) else None
    if isinstance(data := cast("object", entry.data), dict):
        return cast("dict[str, Any]", data).get("attempt")
    return None


@dataclass(frozen=True)
class Claim:
    """One line of the proof."""

    text: str
    expected: str
    found: str
    holds: bool
    details: list[str] = field(default_factory=list[str])
    """What contradicts it, or what it consists of."""


def prove(happened: Happened, evidence: Evidence) -> list[Claim]:
    """Every claim of the demonstration, each with what was expected and what was found."""
    chosen = {order.order_id for order in happened.orders}
    events: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in files.payments():
        event = _addressed(line)
        if event is None or event["order_id"] not in chosen:
            continue
        if event["event_id"] not in {known["event_id"] for known in events[event["order_id"]]}:
            events[event["order_id"]].append(event)
    stock = files.stock()
    lines = [line for line in files.raw_orders() if line["order_id"] in chosen]
    expected = {line["order_id"]: expect(line, events[line["order_id"]], stock) for line in lines}
    return [
        _ended_right(expected, evidence),
        _took_hold_once(expected, evidence),
        _shelves(lines, expected, evidence, stock),
        _payments_consumed(expected, evidence),
        _set_aside(expected, evidence),
        _failures_recorded(expected, evidence),
        _nothing_after_its_result(evidence),
        _repeated(happened, evidence),
        _taken_over(happened),
        *_refused(happened, evidence),
        _fired(evidence),
        _children(evidence),
        _heard(happened, evidence),
    ]


def _addressed(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict):
        return None
    known = cast("dict[str, Any]", event)
    return known if isinstance(known.get("order_id"), str) and known.get("event_id") else None


def _ended_right(expected: dict[str, Expected], evidence: Evidence) -> Claim:
    wrong: list[str] = []
    kinds: Counter[str] = Counter()
    for run_id, wanted in expected.items():
        run = evidence.runs.get(run_id)
        output = cast("dict[str, Any]", run.output or {}) if run else {}
        found = (output.get("shipped"), output.get("why"))
        if run is None or run.status != "completed" or found != (wanted.shipped, wanted.why):
            wrong.append(f"{run_id}: expected {wanted.why or 'shipped'}, found {run and run.status} {found}")
        kinds["shipped" if wanted.shipped else wanted.why] += 1
    right = len(expected) - len(wrong)
    return Claim(
        "orders ended as the input demands",
        f"{len(expected)}",
        f"{right}",
        not wrong and len(evidence.runs) == len(expected),
        wrong or [f"{count} {kind}" for kind, count in kinds.most_common()],
    )


def _took_hold_once(expected: dict[str, Expected], evidence: Evidence) -> Claim:
    wanted = {key for order in expected.values() for key in order.keys}
    times: Counter[str] = Counter(attempt.key for attempt in evidence.attempts if attempt.took_hold)
    wrong = [f"{key}: missing" for key in sorted(wanted - evidence.effects)]
    wrong += [f"{key}: not expected" for key in sorted(evidence.effects - wanted)]
    wrong += [
        f"{key}: took hold {times[key]} times, {evidence.ledger[key]} entries in the ledger"
        for key in sorted(evidence.effects)
        if (times[key], evidence.ledger[key]) != (1, 1)
    ]
    once = sum(1 for key in wanted if (times[key], evidence.ledger[key]) == (1, 1))
    return Claim("idempotency keys took hold, each once", f"{len(wanted)}", f"{once}", not wrong, wrong)


def _shelves(
    lines: list[dict[str, Any]], expected: dict[str, Expected], evidence: Evidence, stock: dict[str, int]
) -> Claim:
    left = Counter(stock)
    for order in lines:
        if expected[order["order_id"]].shipped:
            for line in order["lines"]:
                left[line["sku"]] -= line["quantity"]
    wrong = [
        f"{sku}: {evidence.stock[sku]} left, not {left[sku]}"
        for sku in stock
        if evidence.stock[sku] != left[sku]
    ]
    gone = sum(stock.values()) - sum(left.values())
    found = sum(stock.values()) - sum(evidence.stock.values())
    return Claim("pieces have left the shelves", f"{gone}", f"{found}", not wrong, wrong)


def _payments_consumed(expected: dict[str, Expected], evidence: Evidence) -> Claim:
    wrong: list[str] = []
    count = 0
    for run_id, wanted in expected.items():
        journal = evidence.journals.get(run_id, [])
        found = [entry.message_id for entry in journal if entry.kind == "event_received"]
        if found != ([wanted.payment] if wanted.payment else []):
            wrong.append(f"{run_id}: expected {wanted.payment}, found {found}")
        count += len(found)
    paid = sum(1 for order in expected.values() if order.payment)
    return Claim("payments consumed, early and doubled ones once", f"{paid}", f"{count}", not wrong, wrong)


def _set_aside(expected: dict[str, Expected], evidence: Evidence) -> Claim:
    wrong: list[str] = []
    count = 0
    for run_id, wanted in expected.items():
        run = evidence.runs.get(run_id)
        found = sorted(refused.signal_id for refused in run.refused) if run else []
        if found != sorted(wanted.set_aside):
            wrong.append(f"{run_id}: expected {sorted(wanted.set_aside)}, found {found}")
        count += len(found)
    demanded = sum(len(order.set_aside) for order in expected.values())
    return Claim("malformed payments set aside", f"{demanded}", f"{count}", not wrong, wrong)


def _failures_recorded(expected: dict[str, Expected], evidence: Evidence) -> Claim:
    wrong: list[str] = []
    count = 0
    for run_id, wanted in expected.items():
        journal = evidence.journals.get(run_id, [])
        found = sum(1 for entry in journal if entry.kind in {"step_attempt_failed", "step_failed"})
        if found != wanted.failures:
            wrong.append(f"{run_id}: expected {wanted.failures} failures, found {found}")
        count += found
    demanded = sum(order.failures for order in expected.values())
    return Claim("failed attempts of the flaky inventory", f"{demanded}", f"{count}", not wrong, wrong)


def _nothing_after_its_result(evidence: Evidence) -> Claim:
    results: dict[str, float] = {}
    for run_id, journal in evidence.journals.items():
        for entry in journal:
            if entry.kind in {"step_completed", "step_failed"}:
                results[f"{run_id}/{entry.op}"] = entry.at.timestamp()
    # The journal keeps whole milliseconds.
    late = [
        f"attempt {attempt.number} of {attempt.key} by {attempt.owner} started "
        f"{attempt.started - results[attempt.key]:.3f} s after the result was recorded"
        for attempt in evidence.attempts
        if attempt.key in results and attempt.started > results[attempt.key] + 0.001
    ]
    return Claim("steps that ran again after their result", "0", f"{len(late)}", not late, late)


def _repeated(happened: Happened, evidence: Evidence) -> Claim:
    recorded = evidence.recorded()
    lost = [attempt for attempt in evidence.attempts if attempt.number not in recorded]
    at_kill = [attempt for attempt in lost if attempt.owner == happened.killed]
    at_stop = [
        attempt
        for attempt in lost
        if attempt.owner == happened.stopped and attempt.started <= happened.stopped_at
    ]
    other = [attempt for attempt in lost if attempt not in at_kill and attempt not in at_stop]
    return Claim(
        "attempts repeated: in flight at the kill or the stop",
        f"{len(lost)}",
        f"{len(at_kill)} + {len(at_stop)}",
        not other,
        [
            f"attempt {attempt.number} of {attempt.key} by {attempt.owner} was not recorded, at "
            f"{attempt.started - happened.started:.3f} s"
            for attempt in other
        ],
    )


def _taken_over(happened: Happened) -> Claim:
    held = happened.stopped_runs
    taken = [run_id for run_id, epoch in held.items() if happened.taken_runs.get(run_id, 0) > epoch]
    return Claim(
        "runs of the stopped worker that others took over",
        f"{len(held)}",
        f"{len(taken)}",
        0 < len(held) == len(taken),
        [f"{run_id}: nobody took it" for run_id in held if run_id not in taken],
    )


def _refused(happened: Happened, evidence: Evidence) -> list[Claim]:
    recorded = evidence.recorded()
    late = [
        attempt
        for attempt in evidence.attempts
        if attempt.owner == happened.stopped
        and attempt.started <= happened.stopped_at
        and (attempt.ended is None or attempt.ended >= happened.stopped_at)
        and attempt.key.rpartition("/")[0] in happened.stopped_runs
    ]
    reached = [attempt for attempt in late if attempt.number in recorded]
    # Another may be its own by the store alone: the answer to the claim had not reached it by then.
    driven = {attempt.key.rpartition("/")[0] for attempt in late}
    stats = happened.reports.get(happened.stopped, {})
    lost, refused = stats.get("lost", 0), stats.get("refused", 0)
    return [
        Claim(
            "late results of the stopped worker in the journals",
            "0",
            f"{len(reached)} of {len(late)}",
            bool(late) and not reached,
            [f"attempt {attempt.number} of {attempt.key} was recorded" for attempt in reached]
            or ["it had nothing in flight"],
        ),
        Claim(
            "its late writes: refused by the store + given up",
            f">= {len(driven)}",
            f"{refused} + {max(0, lost - refused)}",
            # Of few none may be refused: a heartbeat told the worker first, and it tried to write nothing.
            lost >= len(driven),
            ["the worker does not know what it has lost"],
        ),
    ]


def _fired(evidence: Evidence) -> Claim:
    """Between the first and the last fire time that started a run there is one each two seconds."""
    fired = sorted(_fire_time(run) for run in evidence.stocktakings)
    expected = 1 + round((fired[-1] - fired[0]).total_seconds() / EVERY) if fired else 1
    wrong = [run.run_id for run in evidence.stocktakings if run.status != "completed"]
    right = len(set(fired)) - len(wrong)
    return Claim(
        "fire times of the schedule, each with one run",
        f"{expected}",
        f"{right}",
        right == expected == len(fired),
        [f"{run_id} has not completed" for run_id in wrong] or ["a fire time has no run, or two"],
    )


def _fire_time(run: RunView) -> datetime:
    return datetime.fromisoformat(run.run_id.partition(":")[2])


def _children(evidence: Evidence) -> Claim:
    wanted = {run.run_id for run in evidence.stocktakings}
    ended = [each for each in evidence.shelves if each.status == "completed" and each.parent in wanted]
    expected = len(SHELVES) * len(wanted)
    return Claim(
        "children of these runs, each shelf once",
        f"{expected}",
        f"{len(ended)}",
        len(ended) == len(evidence.shelves) == expected,
        [each.run_id for each in evidence.shelves if each not in ended],
    )


def _heard(happened: Happened, evidence: Evidence) -> Claim:
    expected = {
        (run.run_id, place, name) for run in evidence.stocktakings for place, name in enumerate(SHELVES, 1)
    }
    heard = [(run_id, seq, item.shelf) for run_id, seq, item in happened.live]
    return Claim(
        "items of their streams, read live, in order",
        f"{len(expected)}",
        f"{len(heard)}",
        set(heard) == expected and len(heard) == len(expected),
        [str(item) for item in expected.symmetric_difference(heard)],
    )
