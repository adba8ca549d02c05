"""Plays a time of chaos on a Postgres server of its own and prints the verdict: `make chaos MINUTES=5`.

Exit code 1 if anything happened that must not. The seed decides which faults come; when they take effect is
the machine's choice, so that a seed does not repeat a play exactly.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.chaos.play import Plan, play


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=5, help="for runs to come and faults to happen")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--pause", type=float, default=1.2, help="seconds between two faults, on average")
    given = parser.parse_args()
    plan = Plan(
        runs=given.runs, seconds=given.minutes * 60, seed=given.seed, workers=given.workers, pause=given.pause
    )
    print(
        f"seed {plan.seed}: {plan.runs:,} runs, {plan.workers} workers, {given.minutes:g} minutes", flush=True
    )
    verdict = play(plan, lambda line: print(line, file=sys.stderr, flush=True))
    print(verdict)
    return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main())
