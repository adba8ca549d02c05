"""Processes that die around a commit: what was acknowledged is there, the rest is whole or absent."""

import random
import signal
import time
from collections.abc import Callable

import pytest

from duramen.testing import open_store
from tests.store.helpers import check_file, hear, start, wait_for


def test_what_was_acknowledged_survives_a_kill_at_any_moment(new_url: Callable[[], str]) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    for attempt in range(6):
        url = new_url()
        acknowledged = 0
        with start("drive", url) as child:
            hear(child)  # it began
            time.sleep(chance.uniform(0.0, 0.15))
            child.send_signal(signal.SIGKILL)
            assert child.stdout is not None
            for line in child.stdout:
                acknowledged = int(line.split()[1])
        assert child.returncode == -signal.SIGKILL
        check(url, acknowledged, f"seed {seed}, attempt {attempt}")


def check(url: str, acknowledged: int, why: str) -> None:
    async def look() -> None:
        store = open_store(url)
        lengths = [found["journal_len"] for found in await store.standing(["a", "b"]) if found]
        assert len(lengths) == 2, why
        # Each commit of a call is whole or not there. One whose run a message was just being put into may
        # have been sent by itself.
        assert abs(lengths[0] - lengths[1]) in {0, 2}, why
        for run_id, length in zip("ab", lengths, strict=True):
            assert length >= acknowledged, why
            assert length <= acknowledged + 2 or acknowledged == 0, f"more than was asked for ({why})"
            journal = await store.load(run_id, 0, 1_000_000)
            assert len(journal) == length, why
            assert len(journal) % 2 == 1, f"half a commit ({why})"
            assert all(len(entry["payload"]) == 5_000 for entry in journal[2::2]), why
            assert [entry["op"] for entry in journal[1::2]] == [f"s{n}" for n in range(1, len(journal), 2)], (
                why
            )
        # The next driver finds a store that works.
        unread = [message["seq"] for message in await store.unread("ann", [])]
        assert unread == list(range(1, len(unread) + 1)), why
        assert len(unread) >= (acknowledged - 1) // 2, why
        await store.close()

    wait_for(look())
    check_file(url, why)


@pytest.mark.parametrize("when", ["asked", "answered"])
@pytest.mark.parametrize("commits", [1, 3])
def test_a_process_that_exits_at_a_commit(url: str, commits: int, when: str) -> None:
    with start("drive_and_exit", url, commits, when) as child:
        output, _ = child.communicate(timeout=30)
    assert child.returncode == 7
    acknowledged = max(int(line.split()[1]) for line in output.splitlines())
    assert acknowledged == 2 * commits - 1

    async def length() -> int:
        store = open_store(url)
        journal = await store.load("a", 0, 100)
        (found,) = await store.standing(["a"])
        assert found is not None
        assert found["journal_len"] == len(journal)
        await store.close()
        return len(journal)

    # Asked for and not answered: either is right. Answered: it is there, though nobody was told.
    expected = {2 * commits + 1} if when == "answered" else {2 * commits - 1, 2 * commits + 1}
    assert wait_for(length()) in expected
