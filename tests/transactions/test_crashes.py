"""A process dies (`os._exit`) at each point of a transaction; another one takes its run over."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transactions.crashing import POINTS, program
from tests.transactions.kits import Kit

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


def crash_everywhere(kit: Kit, logs: Path) -> None:
    command = [sys.executable, "-m", "tests.transactions.crashing", kit.driver, kit.url]
    children = [
        subprocess.Popen([*command, point, str(logs)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for point in POINTS
    ]
    for child in children:
        _, errors = child.communicate(timeout=60)
        assert child.returncode == 9, errors


async def test_a_crash_at_any_point_neither_loses_nor_repeats_the_effect(kit: Kit, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    crash_everywhere(kit, logs)
    assert kit.words() == ["after the commit"]
    async with kit.runtime(program(kit, logs)) as runtime:
        while await runtime.count(status="completed") < len(POINTS):
            await asyncio.sleep(0.05)  # until the leases of the dead end
            await runtime.sweep()
        assert [await runtime.result(point) for point in POINTS] == [point.upper() for point in POINTS]
    assert sorted(kit.words()) == sorted(POINTS)
    calls = {point: len((logs / point).read_text().splitlines()) for point in POINTS}
    assert calls == {
        "before the function": 1,  # by the second process alone
        "in the function": 2,
        "before the commit": 2,
        "after the commit": 1,  # by the first
    }
