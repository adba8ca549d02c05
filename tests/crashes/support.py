"""What scenarios are made of: see `tests.crashes.scenarios`."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from duramen import step_context
from duramen.testing import Environment


@dataclass(frozen=True)
class Scenario:
    play: Callable[[Environment], Awaitable[Any]]
    workflows: list[Any]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *workflows: Any,
) -> Callable[[Callable[[Environment], Awaitable[Any]]], Callable[[Environment], Awaitable[Any]]]:
    def register(play: Callable[[Environment], Awaitable[Any]]) -> Callable[[Environment], Awaitable[Any]]:
        SCENARIOS[play.__name__] = Scenario(play, list(workflows))
        return play

    return register


async def work(what: str) -> str:
    return what.upper()


def work_in_a_thread(what: str) -> str:
    return what.upper()


async def key_of(_: str) -> str:
    context = step_context()
    assert context.idempotency_key is not None
    return context.idempotency_key
