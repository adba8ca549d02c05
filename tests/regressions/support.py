"""What the regression and fault tests share: files, processes that die, and a look into the tables."""

import asyncio
import logging
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from duramen import Runtime, RunView, WorkflowDef, step_context
from duramen.testing import open_store
from tests.postgres import schemas

processes = multiprocessing.get_context("forkserver")
# Children are forked from a process that has these loaded and no threads: they begin within milliseconds.
processes.set_forkserver_preload(["pytest", "duramen", "duramen.testing", "tests.regressions.support"])

LATER = timedelta(hours=1)
"""Beyond every lease of these tests, and beyond their sleeps but the long ones."""

DIED = 77
"""Exit status of a child that ended itself in the middle of its work."""


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def in_future(ahead: timedelta = LATER) -> datetime:
    return datetime.now(UTC) + ahead


# -- the world outside: a file that no crash takes back ------------------------------------------------------


def note(ledger: str, what: str) -> None:
    """Add a line to the ledger; whole lines, whoever else writes."""
    with Path(ledger).open("a") as file:
        file.write(what + "\n")


def notes(ledger: Path | str) -> list[str]:
    path = Path(ledger)
    return path.read_text().splitlines() if path.exists() else []


async def work_on(ledger: str, what: str) -> str:
    """A step: its effect is a line with its idempotency key."""
    context = step_context()
    note(ledger, f"ran {what} {context.idempotency_key}")
    return what


async def die(ledger: str, what: str) -> str:
    """A step whose process ends in its middle, the first time."""
    note(ledger, f"ran {what} {step_context().idempotency_key}")
    if sum(line.startswith(f"ran {what} ") for line in notes(ledger)) == 1:
        os._exit(DIED)
    return what


async def hang(ledger: str, what: str) -> str:
    """A step that never ends the first time; for processes that are killed or stopped meanwhile."""
    note(ledger, f"ran {what} {step_context().idempotency_key}")
    if sum(line.startswith(f"ran {what} ") for line in notes(ledger)) == 1:
        await asyncio.Event().wait()
    return what


def ran(ledger: Path | str, what: str) -> int:
    """How often the step began."""
    return sum(line.startswith(f"ran {what} ") for line in notes(ledger))


# -- processes -----------------------------------------------------------------------------------------------


def _main(job: Callable[..., Coroutine[Any, Any, object]], args: tuple[Any, ...]) -> None:
    logging.disable(logging.CRITICAL)
    asyncio.run(job(*args))


class Child:
    """Another process that runs ``job(*args)``, a coroutine function; it is gone at the end of the block."""

    def __init__(self, job: Callable[..., Coroutine[Any, Any, object]], *args: Any) -> None:
        self.process = processes.Process(target=_main, args=(job, args), daemon=True)

    def __enter__(self) -> Self:
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join()
        self.process.close()

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        """Kill -9, and wait until it is dead."""
        self.process.kill()
        self.end()

    def end(self, timeout: float = 60) -> int:
        """Wait for its end; gives the exit status (below 0: killed by that signal)."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, "the child process did not end"
        return self.process.exitcode


def run_child(job: Callable[..., Coroutine[Any, Any, object]], *args: Any) -> int:
    with Child(job, *args) as child:
        return child.end()


def wait_until(condition: Callable[[], object], timeout: float = 30) -> None:
    """Look again and again; the time limit only ends a test that has failed."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "what the test waits for did not happen"
        time.sleep(0.005)


async def until(condition: Callable[[], Awaitable[object]], timeout: float = 30) -> None:
    async with asyncio.timeout(timeout):
        while not await condition():  # noqa: ASYNC110 - it looks at what another process does
            await asyncio.sleep(0.005)


async def until_true(condition: Callable[[], object]) -> None:
    """`wait_until` for tests whose loop has work to do meanwhile."""

    async def look() -> object:
        return condition()

    await until(look)


async def until_waiting(runtime: Runtime, run_id: str, *waits: str) -> RunView:
    """Wait until a run has paused (for all of `waits`)."""
    found: list[RunView] = []

    async def paused() -> bool:
        found[:] = [await runtime.get(run_id)]
        return found[0].status == "waiting" and set(waits) <= set(found[0].waits)

    await until(paused)
    return found[0]


async def until_status(runtime: Runtime, run_id: str, status: str) -> RunView:
    async def reached() -> bool:
        return (await runtime.get(run_id)).status == status

    await until(reached)
    return await runtime.get(run_id)


async def finish(runtime: Runtime, run_id: str, *, ahead: timedelta = LATER, passes: int = 30) -> RunView:
    """Sweep at later and later instants until a run has ended or is stuck."""
    instant = datetime.now(UTC)
    view = await runtime.get(run_id)
    for _ in range(passes):
        instant += ahead
        await runtime.sweep(now=instant)
        view = await runtime.get(run_id)
        if view.finished or view.status == "stuck":
            return view
    raise AssertionError(f"{run_id} is still {view.status} after {passes} sweeps: {view}")


def path_of(workflow: WorkflowDef[Any, Any]) -> str:
    """How another process finds a workflow."""
    return f"{workflow.module}:{workflow.handler.__name__}"


async def _start_there(url: str, path: str, name: str, value: Any, run_id: str) -> None:
    async with Runtime(url, workflows=[path]) as runtime:
        await runtime.start(name, value, run_id=run_id)
        await asyncio.Event().wait()


def start_there(url: str, workflow: WorkflowDef[Any, Any], value: Any, run_id: str) -> Child:
    """A process that starts a run, drives it, and stays until somebody ends it."""
    return Child(_start_there, url, path_of(workflow), workflow.name, value, run_id)


async def _sweep_there(url: str, path: str, ledger: str) -> None:
    async with Runtime(url, workflows=[path], warm=100) as runtime:
        await runtime.sweep()
        note(ledger, f"swept {os.getpid()}")
        await asyncio.Event().wait()


def sweep_there(url: str, workflow: WorkflowDef[Any, Any], ledger: str) -> Child:
    """A process that sweeps once, says so with a line ``swept PID``, and stays until somebody ends it."""
    return Child(_sweep_there, url, path_of(workflow), ledger)


# -- the journal and the tables ------------------------------------------------------------------------------


async def story(runtime: Runtime, run_id: str) -> list[str]:
    """A run's journal in short."""
    return [f"{event.kind} {event.op}".strip() for event in await runtime.timeline(run_id)]


@contextmanager
def _looking(url: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Something that asks a store's tables, past the store."""
    if not url.startswith("sqlite:///"):
        with schemas.connected(url) as postgres:
            yield lambda query, *args: postgres.execute(query.replace("?", "%s"), args or None).fetchall()
        return
    connection = sqlite3.connect(f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True)
    try:
        yield lambda query, *args: connection.execute(query, args).fetchall()
    finally:
        connection.close()


def _tables(url: str) -> list[str]:
    if not url.startswith("sqlite:///"):
        return schemas.tables(url)
    named = rows(url, "SELECT name FROM sqlite_master WHERE type = 'table'")
    return [name for (name,) in named if not name.startswith("sqlite_")]


def tables(url: str) -> dict[str, int]:
    """How many rows each table of a store has."""
    with _looking(url) as ask:
        return {name: ask(f'SELECT count(*) FROM "{name}"')[0][0] for name in _tables(url)}


def rows(url: str, query: str, *args: Any) -> list[tuple[Any, ...]]:
    """What a query finds; `?` stands for a value."""
    with _looking(url) as ask:
        return ask(query, *args)


def columns(url: str) -> list[tuple[str, str, str]]:
    """Each column of a store: its table, its name, its type."""
    if url.startswith("sqlite:///"):
        query = "SELECT m.name, p.name, p.type FROM sqlite_master m, pragma_table_info(m.name) p "
        return rows(url, query + "WHERE m.type = 'table'")
    query = "SELECT table_name, column_name, data_type FROM information_schema.columns "
    found = rows(url, query + "WHERE table_schema = current_schema()")
    return [column for column in found if column[0] in _tables(url)]


def size(url: str) -> int:
    """How many bytes a closed store takes."""
    if url.startswith("sqlite:///"):
        return Path(url.removeprefix("sqlite:///")).stat().st_size
    return sum(rows(url, "SELECT pg_total_relation_size(?::regclass)", name)[0][0] for name in _tables(url))


class WrappedStore:
    """A store whose changes a test may see, count, or die at."""

    def __init__(self, url: str, **options: Any) -> None:
        self.inner: Any = open_store(url, migrate=True, **options)

    def __getattr__(self, method: str) -> Any:
        return getattr(self.inner, method)


class DyingStore(WrappedStore):
    """Ends the process before or after the n-th change of the store, and notes which results are on the disk.

    Args:
        url: where the store is.
        ledger: takes a line ``recorded RUN/OP`` for each step whose result is durable.
        side: ``before``: the n-th call that wants to change something is not made any more; ``after``: the
            n-th that did change something was the last; ``never``: nobody dies.
        nth: 1 for the first.
    """

    def __init__(self, url: str, ledger: str, side: str, nth: int) -> None:
        super().__init__(url)
        self.ledger, self.side, self.nth = ledger, side, nth
        self.asked = self.changed = 0

    async def _change(self, method: str, argument: Any) -> Any:
        self.asked += 1
        if self.side == "before" and self.asked == self.nth:
            os._exit(DIED)
        answer = await getattr(self.inner, method)(argument)
        if method == "commit":
            for commit, outcome in zip(argument, answer, strict=True):
                for entry in commit["entries"] if outcome["kind"] == "applied" else ():
                    if entry["kind"] in {"step_completed", "step_failed"}:
                        note(self.ledger, f"recorded {commit['run_id']}/{entry['op']}")
        if any(_changed(method, each) for each in answer):
            self._count()
        return answer

    def _count(self) -> None:
        self.changed += 1
        if self.side == "after" and self.changed == self.nth:
            os._exit(DIED)

    async def create(self, batch: Any) -> Any:
        return await self._change("create", batch)

    async def commit(self, batch: Any) -> Any:
        return await self._change("commit", batch)

    async def deliver(self, batch: Any) -> Any:
        return await self._change("deliver", batch)

    async def claim(self, claim: Any) -> Any:
        found = await self.inner.claim(claim)
        if found["runs"]:  # others change nothing, and how many there are is a matter of timing
            self._count()
        return found


def _changed(method: str, answer: Any) -> bool:
    match method:
        case "create":
            return answer["kind"] == "created"
        case "commit":
            return answer["kind"] == "applied"
        case _:
            return answer["result"] in {"delivered", "buffered"}


def assert_no_recorded_step_ran_again(ledger: Path | str) -> None:
    """Once a step's result is on the disk it never begins again, whoever drives the run."""
    recorded: set[str] = set()
    for line in notes(ledger):
        what, *rest = line.split(" ")
        if what == "recorded":
            recorded.add(rest[-1])
        elif what == "ran":
            assert rest[-1] not in recorded, f"{line!r} after its result had been recorded"
