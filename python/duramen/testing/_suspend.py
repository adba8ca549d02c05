"""The suspend matrix: however a run is kept, dropped and fed, it takes the same course."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ._env import Environment
from ._surroundings import Driving

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ._crashes import NewStore, Scenario

__all__ = ["SuspendFailed", "SuspendReport", "suspend_matrix"]

_WAYS: tuple[Driving, ...] = get_args(Driving)


class SuspendFailed(AssertionError):
    """A scenario took another course when its runs were kept, dropped or fed in another way."""

    def __init__(self, driving: str, difference: str) -> None:
        super().__init__(f"driven {driving}: {difference}")
        self.driving = driving
        self.difference = difference


@dataclass(frozen=True, slots=True)
class SuspendReport:
    """What `suspend_matrix` saw, each time."""

    outcome: Any
    """What the scenario returned."""
    journals: dict[str, list[tuple[str, str]]]
    """The journal of each run: kinds and operation ids."""
    tenures: dict[str, int]
    """How often a run was taken up, by the way it was driven: once more for each time it was dropped."""


async def suspend_matrix(
    scenario: Scenario,
    workflows: Iterable[Any],
    *,
    seed: int = 0,
    new_store: NewStore | None = None,
    **options: Any,
) -> SuspendReport:
    """Play a scenario with its runs kept warm, dropped at every await, and fed one outcome at a time.

    The outcome and the journals must be the same to the byte, times included.

    Args:
        scenario: as for `crash_everywhere`.
        workflows: as for `Environment`.
        seed: as for `Environment`.
        new_store: as for `crash_everywhere`.
        options: other options of `Environment`, but for `driving`.

    Raises:
        SuspendFailed: something differs.

    >>> import asyncio
    >>> from duramen import Context, workflow
    >>> async def double(number: int) -> int:
    ...     return number * 2
    >>> @workflow
    ... async def sums(ctx: Context) -> int:
    ...     first = await ctx.step("one", double, 1)
    ...     second = await ctx.step("two", double, first)
    ...     await ctx.sleep(3600)
    ...     return second + sum(await asyncio.gather(ctx.step("a", double, 2), ctx.step("b", double, 3)))
    >>> async def scenario(env):
    ...     return await env.result(await env.runtime.start(sums, run_id="sums"))
    >>> report = asyncio.run(suspend_matrix(scenario, [sums]))
    >>> report.outcome, report.tenures["evicting"] > report.tenures["warm"]
    (14, True)
    """
    workflows = tuple(workflows)
    first: tuple[Any, dict[str, list[Any]]] | None = None
    tenures: dict[str, int] = {}
    for driving in _WAYS:
        store = None if new_store is None else new_store()
        env = Environment(workflows, store=store, seed=seed, driving=driving, **options)
        env.surroundings.holds = False  # or a run that waits for less than a second would never be dropped
        env.steps.ordered = True  # or steps in threads would make journals of their own
        try:
            async with env:
                outcome = await scenario(env)
                await env.settle()
                journals = await env.journals()
                tenures[driving] = env.runtime.stats()["claimed"]
        except Exception as error:
            if first is None:
                raise
            raise SuspendFailed(driving, f"{type(error).__name__}: {error}") from error
        if first is None:
            first = (outcome, journals)
            continue
        if outcome != first[0]:
            raise SuspendFailed(driving, f"the outcome is {outcome!r}, kept warm {first[0]!r}")
        for run_id in sorted(first[1].keys() | journals.keys()):
            _compare(driving, run_id, first[1].get(run_id, []), journals.get(run_id, []))
    assert first is not None  # noqa: S101 - there is at least one way
    told = {run_id: [(entry[0], entry[1]) for entry in journal] for run_id, journal in first[1].items()}
    return SuspendReport(first[0], told, tenures)


def _compare(driving: str, run_id: str, expected: list[Any], found: list[Any]) -> None:
    for index in range(max(len(expected), len(found))):
        was = expected[index] if index < len(expected) else "nothing more"
        now = found[index] if index < len(found) else "nothing more"
        if was != now:
            raise SuspendFailed(
                driving, f"entry {index} of the journal of run {run_id!r} is {now}, kept warm {was}"
            )
