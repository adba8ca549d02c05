"""The input that nobody gave."""

from __future__ import annotations

from typing import Any, Final, final

__all__ = ["NO_INPUT", "NoInput"]


@final
class NoInput:
    """The type of `NO_INPUT`."""

    def __repr__(self) -> str:
        return "<no input>"


NO_INPUT: Final[Any] = NoInput()
"""Stands for the handler's default, else None. (None itself may be an input.)"""
