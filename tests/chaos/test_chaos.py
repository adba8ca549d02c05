"""A small time of chaos; `make chaos` plays a long one."""

import pytest

from tests.chaos.play import Plan, play


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nothing_is_lost_stuck_or_done_twice() -> None:
    # Long steps: whatever happens finds many of them in flight.
    plan = Plan(
        runs=300, seconds=12, settle=90, workers=4, concurrency=25, step=0.4, pause=0.5, crash_every=6
    )
    verdict = play(plan)
    print(verdict)
    assert verdict.holds, f"\n{verdict}"
    for fault in ("workers killed", "workers stopped for longer than a lease", "crashes of the server"):
        assert verdict.facts[fault] > 0
