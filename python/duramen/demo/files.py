"""The demonstration's input: shipped in the package, and what its lines say."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

from .models import Order

__all__ = ["orders", "payments", "raw_orders", "stock"]


def _text(name: str) -> str:
    return (resources.files(__package__ or "duramen.demo") / "data" / name).read_text("utf-8")


def orders() -> list[Order]:
    """The orders, in the order of the file."""
    return [Order.model_validate(order) for order in raw_orders()]


def raw_orders() -> list[dict[str, Any]]:
    """The same as they stand in the file."""
    return [json.loads(line) for line in _text("orders.jsonl").split("\n")[:-1]]


def payments() -> list[str]:
    """The lines of the payment provider, as they came: not all of them are JSON."""
    return _text("payments.jsonl").split("\n")[:-1]


def stock() -> dict[str, int]:
    """How many of each thing there are at the beginning."""
    found: dict[str, Any] = json.loads(_text("stock.json"))
    return {str(sku): int(quantity) for sku, quantity in found.items()}
