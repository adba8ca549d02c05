"""What other processes do to a store in the tests: `python processes.py VERB URL ...` (or a SQLite file)."""

import asyncio
import ctypes
import os
import sqlite3
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from duramen.testing import open_store
from duramen.testing._contract.support import claim, commit, entry, live, message, new_run


def say(*words: object) -> None:
    """Acknowledge to the parent, in one write that no buffer holds back."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def drive(url: str) -> None:
    """Commit one run's steps one after another, and say each length once it is acknowledged."""
    store = open_store(url)
    await live(store, "ann")
    await store.create([new_run("a", owner="ann"), new_run("b", owner="ann")])
    say("acknowledged", 1)
    length = 1
    while True:
        pair = [entry(f"s{length}", b"%d" % length), entry(f"t{length}", b"7" * 5_000)]
        both = [commit(run_id, length=length, entries=pair) for run_id in "ab"]
        sent = asyncio.ensure_future(store.deliver([message("a", f"m{length}")]))
        outcomes = await store.commit(both)
        await sent
        assert [outcome["kind"] for outcome in outcomes] == ["applied", "applied"]
        length += 2
        say("acknowledged", length)


async def drive_and_exit(url: str, commits: str, when: str) -> None:
    """Stop dead just before asking for a commit to be made, while it is made, or just after the answer."""
    store = open_store(url)
    await live(store, "ann")
    await store.create([new_run("a", owner="ann")])
    say("acknowledged", 1)
    for n in range(int(commits)):
        asked = store.commit([commit("a", length=2 * n + 1, entries=[entry("s"), entry("t")])])
        if n == int(commits) - 1 and when == "asked":
            asyncio.ensure_future(asked)  # noqa: RUF006 - nobody will ever know
            await asyncio.sleep(0)
            os._exit(7)
        await asked
        if n == int(commits) - 1 and when == "answered":
            os._exit(7)
        say("acknowledged", 2 * n + 3)


async def take(url: str, owner: str, limit: str) -> None:
    """Claim until nothing is left, and say what was taken; begin when the parent says so."""
    store = open_store(url)
    await live(store, owner)
    say("ready")
    sys.stdin.readline()
    empty = 0
    while empty < 3:
        claimed = await store.claim(claim(owner, limit=int(limit)))
        for run in claimed["runs"]:
            say("took", run["row"]["run_id"], run["row"]["epoch"])
        outcomes = await store.commit([commit(run["row"]["run_id"], owner, 1) for run in claimed["runs"]])
        assert all(outcome["kind"] == "applied" for outcome in outcomes)
        empty = 0 if claimed["runs"] else empty + 1
    await store.close()


async def create(url: str, part: str) -> None:
    """Create runs; every second one is created by everybody."""
    store = open_store(url)
    say("ready")
    sys.stdin.readline()
    for n in range(0, 100, 10):
        names = [f"both{n + k}" if k % 2 else f"{part}{n + k}" for k in range(10)]
        for answer in await store.create([new_run(name, input=part.encode()) for name in names]):
            assert answer["kind"] != "blocked"
            say("created" if answer["kind"] == "created" else "found", answer["row"]["run_id"])
    await store.close()


async def lock(file: str) -> None:
    """Hold the file's write lock until the parent says that it is enough."""
    # Another process on purpose: two SQLite libraries in one break each other's locks.
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    say("ready")
    sys.stdin.readline()
    connection.execute("ROLLBACK")


async def integrity(file: str) -> None:
    """Say what SQLite thinks of the file."""
    say(*sqlite3.connect(file).execute("PRAGMA integrity_check").fetchall())


async def open_it(file: str) -> None:
    """Open the file, and say which error that gave."""
    try:
        store = open_store(f"sqlite:///{file}", busy_timeout=50)
        await store.create([new_run("new")])
    except Exception as error:  # noqa: BLE001 - it is what is asked for
        say(type(error).__name__, error)
    else:
        say("fine")


async def open_without_privileges(file: str) -> None:
    """Open the file as a process for which the modes of files count, even if the superuser started it."""
    if os.access(file, os.W_OK):
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2, 3):  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER
            libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP: for what is executed from here on
    os.execv(sys.executable, [sys.executable, __file__, "open_it", file])


VERBS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    verb.__name__: verb
    for verb in (drive, drive_and_exit, take, create, lock, integrity, open_it, open_without_privileges)
}

if __name__ == "__main__":
    asyncio.run(VERBS[sys.argv[1]](*sys.argv[2:]))
