"""The rule on which everything stands: the same order of delivery gives the same course of a run."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loop.driver import HOSTS, Diverged, Driver, Entry, on_host
from tests.loop.programs import KINDS, Boom, Machine, Node, program

CHOICES = st.lists(st.integers(0, 7), max_size=40)


def course(node: Node, choices: Sequence[int] = (), journal: Sequence[Entry] | None = None) -> Driver:
    driver = Driver(choices, journal)
    try:
        driver.run(lambda driver: Machine(driver).run(node))
    except (Boom, TimeoutError, asyncio.CancelledError, BaseExceptionGroup) as error:
        driver.reached = len(driver.trace)
        driver.note("raised", type(error).__name__)
    driver.loop.abandon()
    return driver


def shift_addresses() -> list[object]:
    """Take up some memory, so that whatever comes next has other addresses."""
    return [bytearray(size % 600 + 17) for size in range(3, 3000, 7)]


@settings(max_examples=250, deadline=None)
@given(seed=st.integers(0, 2**32), choices=CHOICES)
@pytest.mark.parametrize("host", HOSTS)
def test_same_order_of_delivery_gives_the_same_trace(host: str, seed: int, choices: list[int]) -> None:
    node = program(seed)
    first = on_host(host, lambda: course(node, choices))
    held = shift_addresses()
    second = on_host(host, lambda: course(node, choices))
    del held
    assert first.trace == second.trace
    assert first.journal == second.journal


@settings(max_examples=400, deadline=None)
@given(seed=st.integers(0, 2**32), choices=CHOICES)
def test_replay_that_answers_at_once_takes_the_course_of_the_first_pass(
    seed: int, choices: list[int]
) -> None:
    node = program(seed)
    first = course(node, choices)
    again = course(node, journal=first.journal)
    assert again.trace == first.trace
    assert again.journal == first.journal


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), choices=CHOICES, cut=st.integers(0, 30))
def test_replay_of_a_part_goes_on_like_the_whole(seed: int, choices: list[int], cut: int) -> None:
    node = program(seed)
    whole = course(node, choices)
    part = course(node, journal=whole.journal[:cut])
    if len(part.journal) == len(whole.journal):
        assert part.trace == whole.trace
    else:
        assert part.trace[: part.reached] == whole.trace[: part.reached]


@pytest.mark.parametrize("kind", KINDS)
def test_every_primitive_is_deterministic_under_many_orders(kind: str) -> None:
    for seed in range(12):
        parts = tuple(program(seed * 5 + index, 1) for index in range(3))
        node = (kind, seed % 3 + 1, *parts)
        for choices in ((), (1,) * 9, (2, 0, 1) * 5, (5, 3, 1, 0) * 4):
            first = course(node, choices)
            assert course(node, choices).trace == first.trace
            assert course(node, journal=first.journal).trace == first.trace


def test_answering_at_once_is_used_and_suspends_nothing() -> None:
    async def handler(driver: Driver) -> int:
        for _ in range(50):
            await driver.op()
        return driver.at_once

    first = Driver()
    assert first.run(handler) == 0
    assert Driver(journal=first.journal).run(handler) == 50


def test_changed_code_is_noticed_at_the_entry_that_no_longer_fits() -> None:
    async def before(driver: Driver) -> None:
        await driver.op("charge")

    async def after(driver: Driver) -> None:
        await driver.op("refund")

    first = Driver()
    first.run(before)
    with pytest.raises(Diverged):
        Driver(journal=first.journal).run(after)


def test_the_collector_changes_nothing() -> None:
    node = ("gather", 2, *(program(seed) for seed in range(6)))
    plain = course(node, (1, 2, 3) * 9).trace
    threshold = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        assert course(node, (1, 2, 3) * 9).trace == plain
    finally:
        gc.set_threshold(*threshold)


TRACES = """
import sys
from tests.loop.test_determinism import course, program
ballast = [bytearray(n % 900) for n in range(int(sys.argv[1]))]
for seed in range(120):
    print(course(program(seed, 4), [seed % 5, seed % 3, 2, 1] * 9).trace)
"""


def test_other_processes_take_the_same_course() -> None:
    def traces(ballast: int, hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", TRACES, str(ballast)],
            env={"PYTHONPATH": ":".join(path for path in sys.path if path), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    first = traces(0, "1")
    assert first.count("\n") == 120
    assert traces(12_345, "2") == first


async def cancel_many(driver: Driver, start: Callable[[list[Any]], Any]) -> None:
    async def worker(index: int) -> None:
        try:
            await driver.op("work")
        finally:
            driver.note("unwound", index)

    await start([worker(index) for index in range(40)])


@pytest.mark.parametrize("primitive", ["group", "wait"])
def test_many_tasks_are_cancelled_in_the_order_of_their_creation(primitive: str) -> None:
    async def group(workers: list[Any]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for worker in workers:
                    tasks.create_task(worker)
                await asyncio.sleep(1)
                raise Boom
        except* Boom:
            pass

    async def wait(workers: list[Any]) -> None:
        _, pending = await asyncio.wait([asyncio.create_task(worker) for worker in workers], timeout=1)
        for task in pending:
            task.cancel()
        await asyncio.wait(pending)

    driver = Driver(choices=[40])
    driver.run(lambda driver: cancel_many(driver, {"group": group, "wait": wait}[primitive]))
    assert [index for kind, index, *_ in driver.trace if kind == "unwound"] == list(range(40))
