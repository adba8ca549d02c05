"""What goes through the demonstration: orders, payments, receipts and outcomes."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, Field

__all__ = ["LARGE", "Line", "Order", "Outcome", "Payment", "Receipt"]

LARGE = Decimal(1000)
"""From this total on somebody has to approve an order."""


class Line(BaseModel):
    """So many of one thing."""

    sku: str
    quantity: int = Field(gt=0)
    unit_price: Decimal


class Order(BaseModel):
    """A line of ``orders.jsonl``."""

    order_id: str
    customer: str
    country: str
    currency: str
    known_customer: bool
    lines: list[Line]
    packing: float
    """Seconds."""
    pay_within: float
    """Seconds."""
    note: str
    inventory_failures: int
    """How many attempts to reserve fail before one succeeds."""
    inventory_loses: Literal["request", "answer"]
    """Whether such an attempt fails before its work or after it, so that nobody learns that it took hold."""

    @property
    def total(self) -> Decimal:
        """What the customer has to pay."""
        return sum((line.unit_price * line.quantity for line in self.lines), Decimal())


class Payment(BaseModel):
    """What the payment provider says about an order."""

    event_id: str
    amount: Decimal
    currency: str
    status: Literal["paid", "declined"]


class Receipt(BaseModel):
    """The warehouse's answer, with its attempt: so the journal says whose result it recorded."""

    number: str
    attempt: int


class Outcome(BaseModel):
    """How an order ended."""

    shipped: bool
    why: str = ""
    """Why not, if it was refused."""
    label: str = ""
    mail: str = ""
