"""What a frozen history is made of: a workflow, and how its run is played."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from duramen import Runtime, Serializer, WorkflowDef

__all__ = ["CASES", "Case", "case", "play_to_the_end", "until"]

Play = Callable[[Runtime, str], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    name: str
    workflow: WorkflowDef[Any, Any]
    play: Play
    serializer: Serializer | None = None
    others: tuple[WorkflowDef[Any, Any], ...] = ()
    """Workflows of which it starts runs."""


CASES: dict[str, Case] = {}


def case(
    workflow: WorkflowDef[Any, Any],
    *others: WorkflowDef[Any, Any],
    serializer: Serializer | None = None,
    name: str | None = None,
) -> Callable[[Play], Play]:
    """Declare the history that a way of playing makes; its file has the function's name."""

    def declare(play: Play) -> Play:
        key = name or play.__name__
        assert key not in CASES
        CASES[key] = Case(key, workflow, play, serializer, others)
        return play

    return declare


def play_to_the_end(workflow: WorkflowDef[Any, Any], value: Any = None, **options: Any) -> None:
    """Declare the history of a run that nobody interferes with, under the workflow's name."""

    async def play(runtime: Runtime, run_id: str) -> None:
        handle = await runtime.start(workflow, value, run_id=run_id)
        try:
            await handle.result(timeout=20)
        except Exception as error:  # noqa: BLE001 - how it ends is recorded
            print(f"{workflow.name}: {error}")

    case(workflow, name=workflow.name, **options)(play)


async def until(runtime: Runtime, run_id: str, **facts: Any) -> None:
    """Wait until the run's view shows these facts."""
    for _ in range(2000):
        view = await runtime.get(run_id)
        if all(getattr(view, name) == value for name, value in facts.items()):
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{run_id} never shows {facts}: {view}")
