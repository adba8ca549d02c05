"""Only a proven outer COMMIT counts: every state of a connection, at entry and at exit, of every driver."""

import asyncio
from contextlib import suppress
from inspect import isawaitable
from typing import Any

import psycopg
import pytest

from duramen import Context, Retry, RunFailed, Runtime, StepFailed, workflow
from duramen._driving import transactions
from tests.transactions.kits import Kit, Postgres, SqlAlchemy, make
from tests.transactions.states import ENTRIES, EXITS, Driven, State, cells, opened, walk, walk_sync

pytestmark = pytest.mark.anyio

ATTEMPTS = 2


@pytest.fixture
def kit(request: pytest.FixtureRequest, driver: str) -> Kit:
    made = make(driver, request.getfixturevalue(f"{'sqlite' if 'sqlite' in driver else 'postgres'}_url"))
    asyncio.run(Runtime(made.url).migrate())
    made.create()
    return made


def named(cell: Any) -> str:
    return cell if isinstance(cell, str) else cell.name


async def play(kit: Kit, state: State, write: Any, calls: list[int], database: Any = None) -> None:
    """Run a workflow whose next step must not begin unless the transaction took place."""
    after: list[int] = []

    async def next_step() -> None:
        after.append(1)

    @workflow
    async def pay(ctx: Context, word: str) -> str:
        retry = Retry(attempts=ATTEMPTS, base=0.01)
        done = await ctx.transaction("write", write, word, retry=retry, database=database)
        await ctx.step("after", next_step)
        return done

    async with kit.runtime(pay) as runtime:
        run = await runtime.start(pay, "one", run_id="r")
        if state.outcome == "once":
            assert await run.result(timeout=20) == "ONE"
        else:
            with pytest.raises(RunFailed) as caught:
                await run.result(timeout=20)
            cause = caught.value.__cause__
            assert isinstance(cause, StepFailed)
            assert state.says in f"{cause.error.type_name} {cause.error} {cause.error.notes}"
        kinds = [entry.kind for entry in await runtime.timeline("r")]
        # What runs again afterwards finds everything as it was: nothing was reported that is not there.
        assert await runtime.count() == 1
    assert kinds.count("step_completed") == 2 * (state.outcome == "once")
    assert len(after) == (state.outcome == "once")
    assert kit.words() == ["one"] * (state.outcome == "once" or state.stays)
    assert kinds.count("step_attempt_failed") == (ATTEMPTS - 1) * (state.outcome == "failed")
    if state.name != "close()":  # whoever has lost his connection begins anew
        assert len(calls) <= (ATTEMPTS if state.outcome == "failed" else 1)


@pytest.mark.parametrize(("driver", "state"), cells(ENTRIES), ids=named)
async def test_a_connection_at_entry(kit: Kit, state: State) -> None:
    """It is one connection, in a state that it has before: the transaction is the outermost one, or none."""
    assert isinstance(kit, Postgres)
    calls: list[int] = []
    connection = await opened(kit)
    try:
        on = Driven(kit, connection)
        steps = state.steps(on)
        await (walk(steps) if kit.is_async else asyncio.to_thread(walk_sync, steps))
        await play(kit, state, kit.write(lambda: calls.append(1)), calls, database=connection)
        assert len(calls) == (state.outcome == "once")
    finally:
        with suppress(Exception):
            closed = connection.close()
            if isawaitable(closed):
                await closed
    assert kit.words() == ["one"] * (state.outcome == "once")


@pytest.mark.parametrize(("driver", "state"), cells(EXITS), ids=named)
async def test_what_a_function_leaves(kit: Kit, state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    if state.name == "close()":
        monkeypatch.setattr(transactions, "_PATIENCE", 0.0)  # it cannot be told from one that was cut
    calls: list[int] = []
    used: list[Driven] = []

    async def write_async(connection: Any, word: str) -> str:
        calls.append(1)
        used.append(on := Driven(kit, connection))
        written = on.word(word)
        if isawaitable(written):
            await written
        await walk(state.steps(on))
        return word.upper()

    def write(connection: Any, word: str) -> str:
        calls.append(1)
        used.append(on := Driven(kit, connection))
        on.word(word)
        walk_sync(state.steps(on))
        return word.upper()

    await play(kit, state, write_async if kit.is_async else write, calls)


@pytest.mark.parametrize("driver", ["sqlalchemy-sync", "sqlalchemy-async"])
@pytest.mark.parametrize("level", ["AUTOCOMMIT", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_engines_with_a_level_of_isolation(kit: Kit, level: str) -> None:
    assert isinstance(kit, SqlAlchemy)
    outcome = "refused" if level == "AUTOCOMMIT" else "once"
    calls: list[int] = []
    engine = kit.engine.execution_options(isolation_level=level)
    state = State(level, (), outcome, lambda on: (), says="AUTOCOMMIT" if outcome == "refused" else "")
    await play(kit, state, kit.write(lambda: calls.append(1)), calls, database=engine)


@pytest.mark.parametrize("driver", ["sqlalchemy-sync", "sqlalchemy-async"])
async def test_an_engine_whose_connections_execute_something_first(kit: Kit) -> None:
    """What a `connect` event begins is part of the transaction that SQLAlchemy commits."""
    from sqlalchemy import event

    engine = kit.engine
    calls: list[int] = []

    def set_path(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SET search_path = public")
        cursor.close()

    event.listen(getattr(engine, "sync_engine", engine), "connect", set_path)
    state = State("connect", (), "once", lambda on: ())
    await play(kit, state, kit.write(lambda: calls.append(1)), calls, database=engine)


@pytest.mark.parametrize("driver", ["sqlalchemy-sync", "sqlalchemy-async"])
@pytest.mark.parametrize(
    ("statement", "outcome"), [("SELECT 1", "once"), ("ROLLBACK", "refused"), ("COMMIT", "once")]
)
async def test_an_engine_that_executes_something_in_commit(kit: Kit, statement: str, outcome: str) -> None:
    """A `commit` event comes after the last thing that is ours: what became of it is asked of the server."""
    from sqlalchemy import event

    engine = kit.engine
    calls: list[int] = []
    event.listen(
        getattr(engine, "sync_engine", engine), "commit", lambda conn: conn.exec_driver_sql(statement)
    )
    state = State("commit", (), outcome, lambda on: (), says="in COMMIT" if outcome == "refused" else "")
    await play(kit, state, kit.write(lambda: calls.append(1)), calls, database=engine)


@pytest.mark.parametrize("driver", ["asyncpg-async"])
async def test_a_single_connection_whose_transaction_cannot_be_ended_keeps_no_locks(kit: Kit) -> None:
    """A task of the function's goes on, and asyncpg takes no ROLLBACK meanwhile."""
    assert isinstance(kit, Postgres)
    connection = await opened(kit)
    left: list[asyncio.Task[Any]] = []

    async def write(connection: Any, word: str) -> None:
        await kit.insert(connection, word)
        left.append(asyncio.ensure_future(connection.execute("SELECT pg_sleep(0.5)")))
        await asyncio.sleep(0)

    state = State("a task", (), "failed", lambda on: (), says="")
    await play(kit, state, write, [], database=connection)
    assert connection.is_closed()
    await asyncio.gather(*left, return_exceptions=True)
    with psycopg.connect(kit.own_dsn, options="-c lock_timeout=20s") as other:
        other.execute(f"LOCK TABLE {kit.table} IN ACCESS EXCLUSIVE MODE")


class Proxy:
    """A connection in a wrapper that is none."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize("driver", ["psycopg-sync", "psycopg-async", "asyncpg-async"])
async def test_a_wrapper_is_refused(kit: Kit) -> None:
    connect = kit.options["database"]

    def wrapped() -> Any:
        return Proxy(connect())

    async def wrapped_async() -> Any:
        return Proxy(await connect())

    source = wrapped_async if kit.is_async else wrapped
    calls: list[int] = []
    state = State("wrapper", (), "refused", lambda on: (), says="UnusableConnection")
    await play(kit, state, kit.write(lambda: calls.append(1)), calls, database=source)
