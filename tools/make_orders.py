"""Writes the demo's input: examples/fulfillment/{orders,payments}.jsonl and stock.json.

    make_orders.py [--check]

The same files every time: the seed is fixed. `--check` compares them with what is there and changes nothing.
"""

import json
import random
import sys
from decimal import Decimal
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "examples/fulfillment"
ORDERS = 500

GOODS = {
    "oak-desk": "389.00",
    "walnut-shelf": "149.50",
    "beech-chair": "94.90",
    "ash-stool": "49.00",
    "elm-bench": "219.00",
    "cork-board": "18.75",
    "pine-crate": "12.40",
    "cedar-box": "27.30",
    "maple-tray": "33.00",
    "birch-lamp": "76.20",
    "larch-ladder": "128.00",
    "teak-oil": "9.95",
}
DISCONTINUED = {"ebony-clock": "640.00", "yew-bow": "310.00"}
PEOPLE = (
    "Ada Obi", "Björn Åkesson", "Chloé Dubois", "Dvořák Jiří", "Elif Yılmaz", "Fatima Zahra",
    "Giulia D'Amico", "Hồ Thị Lan", "Ines Müller", "Jun 田中", 'Kofi "K" Mensah', "Łukasz Żak",
    "María José", "Nikos Παπάς", "Olena Шевченко", "Priya नायर",
)  # fmt: skip
NOTES = (
    "",
    "",
    "",
    "Ring twice.",
    "Happy birthday! 🎂",
    'Leave it at "the red door", please\\thanks',
    "Zeile eins\nZeile zwei",
    "עם שרוך כחול",
    "A long note, to see that length does no harm. " * 12,
)
COUNTRIES = {"CH": "CHF", "DE": "EUR", "FR": "EUR", "JP": "JPY", "SE": "SEK", "US": "USD", "GH": "GHS"}

# One fate for each order, so that every path is taken many times; the rest are plain paid orders.
FATES = {
    "out of stock": 25,
    "never paid": 15,
    "declined": 20,
    "underpaid": 12,
    "large": 60,
    "malformed first": 30,
}


WRECKS = (
    '{"event_id": "evt-9001", "order_id": "ord-00',
    "",
    "null",
    "[1, 2, 3]",
    "payment received, thank you",
    '{"event_id": "evt-9002", "amount": "12.00"}',
    '{"event_id": "", "order_id": "ord-0001", "amount": "12.00"}',
    '{"event_id": "evt-9003", "order_id": 17, "amount": "12.00"}',
)


def make_order(rng: random.Random, number: int, fate: str) -> dict[str, object]:
    country = rng.choice(list(COUNTRIES))
    count = rng.choice((1, 1, 1, 2, 2, 3, 5))
    lines = [
        {"sku": sku, "quantity": rng.choice((1, 1, 1, 2, 3)), "unit_price": GOODS[sku]}
        for sku in rng.sample([name for name in GOODS if name != "oak-desk"], count)
    ]
    if fate == "large":
        lines.append({"sku": "oak-desk", "quantity": rng.randint(3, 9), "unit_price": GOODS["oak-desk"]})
    elif fate == "out of stock":
        sku = rng.choice(list(DISCONTINUED))
        lines.insert(rng.randint(0, len(lines)), {"sku": sku, "quantity": 1, "unit_price": DISCONTINUED[sku]})
    return {
        "order_id": f"ord-{number:04}",
        "customer": rng.choice(PEOPLE),
        "country": country,
        "currency": COUNTRIES[country],
        "known_customer": rng.random() < 0.6,
        "lines": lines,
        "packing": round(rng.choice((0, 0.05, 0.2, 0.5, 1.0, 1.5)) + rng.random() / 10, 3),
        "pay_within": 3 if fate == "never paid" else 3600,
        "note": rng.choice(NOTES),
        # How often the inventory fails before it answers, and whether it fails before or after its work.
        "inventory_failures": rng.choice((0, 0, 0, 0, 1, 1, 2)),
        "inventory_loses": rng.choice(("request", "answer")),
    }


def total(order: dict[str, object]) -> Decimal:
    return sum((Decimal(line["unit_price"]) * line["quantity"] for line in order["lines"]), Decimal())


def spoil(rng: random.Random, event: dict[str, object]) -> dict[str, object]:
    match rng.randrange(5):
        case 0:
            del event["amount"]
        case 1:
            event["amount"] = "a lot"
        case 2:
            event["status"] = "perhaps"
        case 3:
            event["currency"] = None
        case _:
            event["amount"] = {"value": 12}
    return event


def make_payments(rng: random.Random, orders: list[tuple[dict[str, object], str]]) -> list[object]:
    """The events, each with the second after the start at which it is sent; 0 is before any worker runs."""
    timed: list[tuple[float, object]] = []
    for order, fate in orders:
        number = str(order["order_id"]).removeprefix("ord-")
        after = 0.0 if rng.random() < 0.25 else round(rng.uniform(0.5, 7), 2)
        event = {
            "event_id": f"evt-{number}",
            "order_id": order["order_id"],
            "amount": str(total(order)),
            "currency": order["currency"],
            "status": "paid",
            "after": after,
        }
        if fate in {"never paid", "out of stock"}:
            continue
        if fate == "declined":
            event["status"] = "declined"
        elif fate == "underpaid":
            event["amount"] = str((total(order) / 2).quantize(Decimal("0.01")))
        elif fate == "malformed first":
            bad = spoil(rng, dict(event, event_id=f"evt-{number}-bad"))
            timed.append((after, bad))
            event["after"] = after = round(after + rng.uniform(0, 1), 2)
        timed.append((after, event))
        if rng.random() < 0.2:  # delivered twice, as webhooks are
            again = round(after + rng.choice((0, 0, 0.3, 2)), 2)
            timed.append((again, dict(event, after=again)))
    timed += [(round(rng.uniform(0, 7), 2), wreck) for wreck in WRECKS]
    for number in range(6):
        after = round(rng.uniform(0, 7), 2)
        stray = {
            "event_id": f"evt-stray-{number}",
            "order_id": f"ord-9{number:03}",
            "amount": "12.00",
            "currency": "EUR",
            "status": "paid",
            "after": after,
        }
        timed.append((after, stray))
    return [line for _, line in sorted(timed, key=lambda pair: pair[0])]


def make() -> dict[str, str]:
    rng = random.Random(20240229)
    fates = [fate for fate, count in FATES.items() for _ in range(count)]
    fates += ["plain"] * (ORDERS - len(fates))
    rng.shuffle(fates)
    orders = [(make_order(rng, number, fate), fate) for number, fate in enumerate(fates, 1)]
    payments = make_payments(rng, orders)
    stock = {**dict.fromkeys(GOODS, 100_000), **dict.fromkeys(DISCONTINUED, 0)}

    def line(value: object) -> str:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return {
        "orders.jsonl": "".join(line(order) + "\n" for order, _ in orders),
        "payments.jsonl": "".join(line(payment) + "\n" for payment in payments),
        "stock.json": json.dumps(stock, indent=2) + "\n",
    }


def main() -> None:
    made = make()
    if "--check" in sys.argv[1:]:
        differ = [name for name, text in made.items() if (FOLDER / name).read_text("utf-8") != text]
        sys.exit(f"not what tools/make_orders.py writes: {', '.join(differ)}" if differ else 0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
