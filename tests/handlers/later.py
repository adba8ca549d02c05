"""Handlers whose annotations are strings, in a module of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duramen import Context


async def doubled(ctx: Context, n: Number) -> Number:
    return Number(2 * n)


async def double(n: Number) -> Number:
    return Number(2 * n)


Number = int
