"""What the calls of a runtime stand on, whatever file they are in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duramen._runtime.services import Services

__all__ = ["Calls"]


class Calls:
    """The services that calls are forwarded to."""

    def __init__(self, services: Services) -> None:
        self._services = services
