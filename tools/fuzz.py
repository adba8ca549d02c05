"""Runs the fuzz targets with fresh cases for a while: `make fuzz MINUTES=10`.

The Rust targets are the property tests of the machine, the Python ones stand in tests/fuzz. They take turns,
in rounds of half a minute or so; none begins after the time is up. The first failure ends it and is shown:

- a case of the Rust targets is kept in crates/duramen-core/proptest-regressions, and tried first thereafter;
- one of the Python targets, as small as it gets, is to be written above its target as an `@example`.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def cargo(cases: int, seed: int) -> tuple[list[str], dict[str, str]]:
    """The Rust targets: so many cases each."""
    command = [
        "cargo",
        "test",
        "--quiet",
        "-p",
        "duramen-core",
        "--lib",
        "--",
        "machine::fuzz",
        "machine::properties",
    ]
    return command, {"PROPTEST_CASES": str(cases), "PROPTEST_RNG_SEED": str(seed), "DURAMEN_FUZZ": "1"}


def python(cases: int, seed: int) -> tuple[list[str], dict[str, str]]:
    """The Python targets: so many examples each."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--quiet",
        "--timeout=1800",
        f"--hypothesis-seed={seed}",
        "tests/fuzz",
    ]
    return command, {"DURAMEN_FUZZ": str(cases)}


def passed(output: str) -> int:
    """How many targets a round ran."""
    found = re.search(r"(\d+) passed", output)
    return int(found[1]) if found else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long to go on (default: 10)")
    parser.add_argument("--seed", type=int, help="begin with this seed instead of a random one")
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    began = time.monotonic()
    # Cases of each target in a round; set by how long the last round took.
    sizes = {"rust": 2000, "python": 500}
    tried = {"rust": 0, "python": 0}
    turn = 0
    while time.monotonic() - began < arguments.minutes * 60:
        kind = ("rust", "python")[turn % 2]
        command, settings = (cargo if kind == "rust" else python)(sizes[kind], seed)
        start = time.monotonic()
        ran = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, check=False
        )
        took = time.monotonic() - start
        targets = passed(ran.stdout)
        if ran.returncode != 0 or not targets:
            print(ran.stdout, ran.stderr, sep="\n")
            print(f"fuzz: {kind} failed with seed {seed} and {sizes[kind]} cases for each target")
            return 1
        tried[kind] += targets * sizes[kind]
        print(
            f"{kind:6}  seed {seed:10}  {targets} targets x {sizes[kind]:6} cases  {took:5.1f} s", flush=True
        )
        sizes[kind] = min(200_000, max(100, int(sizes[kind] * min(4, 30 / took))))
        seed = (seed + 1) % 2**32
        turn += 1
    print(
        f"fuzz: nothing found in {sum(tried.values())} cases ({tried['rust']} rust, {tried['python']} python)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
