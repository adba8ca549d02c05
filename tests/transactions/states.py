"""What a connection may be in the midst of when `ctx.transaction` gets it, and what a function may leave
it in.

A state is a name, how to get there, and what has to become of the transaction: ``once`` (the effect is
there, and recorded), ``refused`` (a typed error at once, nothing recorded, no second call), ``failed`` (an
ordinary failed attempt, repeated by its rule). ``stays`` says that the function has committed by itself
what it wrote.
"""

from collections.abc import Callable
from dataclasses import dataclass
from inspect import isawaitable
from typing import Any

from tests.transactions.kits import Kit, SqlAlchemy

PSYCOPG = ("psycopg-sync", "psycopg-async")
ASYNCPG = ("asyncpg-async",)
SQLALCHEMY = ("sqlalchemy-sync", "sqlalchemy-async")
POSTGRES = (*PSYCOPG, *ASYNCPG, *SQLALCHEMY)
SQLITE = ("sqlite-sync", "sqlite-async")


@dataclass(frozen=True)
class State:
    name: str
    drivers: tuple[str, ...]
    outcome: str
    steps: Callable[..., Any]
    stays: bool = False
    says: str = ""


class Driven:
    """A connection of any driver, as steps see it: each gives something that may have to be awaited."""

    def __init__(self, kit: Kit, connection: Any) -> None:
        self.kit = kit
        self.raw = connection
        self.kept: list[Any] = []
        """What ends when nobody has it any more."""

    def sql(self, statement: str) -> Any:
        return self.kit.execute(self.raw, statement)

    def word(self, word: str) -> Any:
        return self.kit.insert(self.raw, word)


class Swallow:
    """Marks a step that is to fail, and whose error the function passes over."""

    def __init__(self, step: Callable[[], Any]) -> None:
        self.step = step


class Ours(Exception):
    """What a function raises."""


async def walk(steps: Any) -> None:
    """Go through a generator of steps with an async driver."""
    for step in steps:
        if isinstance(step, Swallow):
            try:
                await step.step()
            except Exception:  # noqa: BLE001 - the point of it
                pass
            else:
                raise AssertionError("it was to fail")
        elif isawaitable(step):
            await step


def walk_sync(steps: Any) -> None:
    for step in steps:
        if isinstance(step, Swallow):
            try:
                step.step()
            except Exception:  # noqa: BLE001 - the point of it
                pass
            else:
                raise AssertionError("it was to fail")


# -- at entry ------------------------------------------------------------------------------------------------


def entry(name: str, drivers: tuple[str, ...], outcome: str) -> Callable[[Callable[..., Any]], State]:
    says = "UnusableConnection" if outcome == "refused" else ""
    return lambda steps: State(name, drivers, outcome, steps, says=says)


def _isolation(level: str) -> Callable[[Driven], Any]:
    def steps(on: Driven) -> Any:
        import psycopg

        number = psycopg.IsolationLevel[level]
        if on.kit.is_async:
            yield on.raw.set_isolation_level(number)
        else:
            on.raw.isolation_level = number

    return steps


def _autocommit(on: Driven) -> Any:
    if on.kit.is_async:
        yield on.raw.set_autocommit(True)
    else:
        on.raw.autocommit = True


def _statement(sql: str) -> Callable[[Driven], Any]:
    def steps(on: Driven) -> Any:
        yield on.sql(sql)

    return steps


def _failed(on: Driven) -> Any:
    yield on.sql("BEGIN") if on.kit.driver in ASYNCPG else on.sql("SELECT 1")
    yield Swallow(lambda: on.sql("SELECT 1 / 0"))


def _block(on: Driven) -> Any:
    block = on.raw.transaction()
    on.kept.append(block)
    if on.kit.driver in ASYNCPG:
        yield block.start()
    else:
        yield block.__aenter__() if on.kit.is_async else block.__enter__()


def _pipeline(on: Driven) -> Any:
    pipeline = on.raw.pipeline()
    on.kept.append(pipeline)
    yield pipeline.__aenter__() if on.kit.is_async else pipeline.__enter__()


def _pipeline_at_work(on: Driven) -> Any:
    yield from _pipeline(on)
    yield on.sql("SELECT 1")


def _two_phases(on: Driven) -> Any:
    yield on.raw.tpc_begin("two phases")


def _begun_and_over(on: Driven) -> Any:
    yield on.sql("SELECT 1")
    yield on.raw.commit()


def _autocommit_block(on: Driven) -> Any:
    yield from _autocommit(on)
    yield from _block(on)


def _nested(on: Driven) -> Any:
    yield on.raw.begin()
    yield on.raw.begin_nested()


def _begun(on: Driven) -> Any:
    yield on.raw.begin()


def _begun_in_two_phases(on: Driven) -> Any:
    if on.kit.is_async:
        yield on.raw.begin()
    else:
        yield on.raw.begin_twophase()


def _converters(on: Driven) -> Any:
    """Documented ways to have text come back as something else."""
    if on.kit.driver in ASYNCPG:
        yield on.raw.set_type_codec("text", schema="pg_catalog", encoder=str, decoder=lambda text: [text])
        return
    from psycopg.types.string import TextLoader

    class Listed(TextLoader):
        def load(self, data: Any) -> Any:
            return [super().load(data)]

    on.raw.adapters.register_loader("text", Listed)


def _empty_is_null(on: Driven) -> Any:
    from psycopg.types.string import StrDumper

    class EmptyIsNull(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(obj) if obj else None

    on.raw.adapters.register_dumper(str, EmptyIsNull)
    yield


ENTRIES = [
    State("as it comes", POSTGRES, "once", lambda on: ()),
    entry("autocommit", PSYCOPG, "once")(_autocommit),
    entry("a transaction that is over", (*PSYCOPG, *SQLALCHEMY), "once")(_begun_and_over),
    entry("repeatable read", PSYCOPG, "once")(_isolation("REPEATABLE_READ")),
    entry("serializable", PSYCOPG, "once")(_isolation("SERIALIZABLE")),
    entry("after SET", (*PSYCOPG, *SQLALCHEMY), "refused")(_statement("SET search_path = public")),
    entry("after SELECT", (*PSYCOPG, *SQLALCHEMY), "refused")(_statement("SELECT 1")),
    entry("after BEGIN", POSTGRES, "refused")(_statement("BEGIN")),
    entry("failed", POSTGRES, "refused")(_failed),
    entry("in a block", (*PSYCOPG, *ASYNCPG), "refused")(_block),
    entry("in a block, autocommit", PSYCOPG, "refused")(_autocommit_block),
    entry("converters of text", (*PSYCOPG, *ASYNCPG), "refused")(_converters),
    entry("text that becomes NULL", PSYCOPG, "refused")(_empty_is_null),
    entry("in a pipeline", PSYCOPG, "refused")(_pipeline),
    entry("in a pipeline at work", PSYCOPG, "refused")(_pipeline_at_work),
    entry("two phases", PSYCOPG, "refused")(_two_phases),
    entry("begun", SQLALCHEMY, "refused")(_begun),
    entry("nested", SQLALCHEMY, "refused")(_nested),
    entry("begun in two phases", SQLALCHEMY, "refused")(_begun_in_two_phases),
]


# -- at exit -------------------------------------------------------------------------------------------------


def _statements(*statements: str, error: type[Exception] | None = None) -> Callable[[Driven], Any]:
    """SQL after the word; ``+`` writes another one."""

    def steps(on: Driven) -> Any:
        for statement in statements:
            yield on.word("other") if statement == "+" else on.sql(statement)
        if error is not None:
            raise error

    return steps


def _swallowed(on: Driven) -> Any:
    yield Swallow(lambda: on.sql("SELECT 1 / 0" if "sqlite" not in on.kit.driver else "SELECT x"))


def _method(name: str, error: type[Exception] | None = None) -> Callable[[Driven], Any]:
    def steps(on: Driven) -> Any:
        yield getattr(on.raw, name)()
        if error is not None:
            raise error

    return steps


def _savepoint(on: Driven) -> Any:
    yield on.sql("SAVEPOINT mine")
    yield on.word("other")
    yield on.sql("ROLLBACK TO mine")


def _session(on: Driven) -> Any:
    from sqlalchemy import text
    from sqlalchemy.orm import Session

    with Session(bind=on.raw) as session:
        session.execute(text("SELECT 1"))
        session.commit()  # SQLAlchemy leaves a transaction that is not the session's to its owner
    yield


def at_exit(
    name: str,
    drivers: tuple[str, ...],
    outcome: str,
    steps: Callable[..., Any],
    says: str = "",
    *,
    stays: bool = False,
) -> State:
    says = says or {"refused": "UnusableConnection", "once": ""}.get(outcome, "")
    return State(name, drivers, outcome, steps, stays, says)


ENDS = ("COMMIT", "END", "ROLLBACK", "BEGIN")

EXITS = [
    at_exit("returns", (*POSTGRES, *SQLITE), "once", lambda on: ()),
    at_exit("raises", (*POSTGRES, *SQLITE), "failed", _statements(error=Ours), "Ours"),
    at_exit("a savepoint", (*POSTGRES, *SQLITE), "once", _savepoint),
    at_exit("an open savepoint", (*POSTGRES, *SQLITE), "once", _statements("SAVEPOINT mine")),
    at_exit("an error passed over", POSTGRES, "failed", _swallowed, "savepoint"),
    at_exit("an error passed over", SQLITE, "once", _swallowed),
    at_exit("COMMIT", POSTGRES, "refused", _statements("COMMIT"), stays=True),
    at_exit("COMMIT AND CHAIN", POSTGRES, "refused", _statements("COMMIT AND CHAIN"), stays=True),
    at_exit("COMMIT, BEGIN", POSTGRES, "refused", _statements("COMMIT", "BEGIN", "SELECT 1"), stays=True),
    at_exit("COMMIT, error", POSTGRES, "refused", _statements("COMMIT", error=Ours), stays=True),
    at_exit(
        "COMMIT, BEGIN, error", POSTGRES, "refused", _statements("COMMIT", "BEGIN", error=Ours), stays=True
    ),
    at_exit("COMMIT, SQL error", POSTGRES, "refused", _statements("COMMIT", "SELECT 1 / 0"), stays=True),
    at_exit("ROLLBACK", POSTGRES, "refused", _statements("ROLLBACK")),
    at_exit("ROLLBACK, BEGIN, a word", POSTGRES, "refused", _statements("ROLLBACK", "BEGIN", "+")),
    at_exit("ROLLBACK AND CHAIN, a word", POSTGRES, "refused", _statements("ROLLBACK AND CHAIN", "+")),
    at_exit("ROLLBACK, error", POSTGRES, "failed", _statements("ROLLBACK", error=Ours), "Ours"),
    *(at_exit(end, SQLITE, "failed", _statements(end), "ProgrammingError") for end in ENDS),
    at_exit("RELEASE of nothing", (*POSTGRES, *SQLITE), "failed", _statements("RELEASE SAVEPOINT no"), "no"),
    at_exit("commit()", PSYCOPG, "failed", _method("commit"), "ProgrammingError"),
    at_exit("rollback()", PSYCOPG, "failed", _method("rollback"), "ProgrammingError"),
    at_exit("autocommit", PSYCOPG, "failed", _autocommit, "ProgrammingError"),
    at_exit("commit()", SQLITE, "failed", _method("commit"), "ProgrammingError"),
    at_exit("rollback()", SQLITE, "failed", _method("rollback"), "ProgrammingError"),
    at_exit("commit()", SQLALCHEMY, "refused", _method("commit"), stays=True),
    at_exit("commit(), error", SQLALCHEMY, "refused", _method("commit", Ours), stays=True),
    at_exit("rollback()", SQLALCHEMY, "refused", _method("rollback")),
    at_exit("rollback(), error", SQLALCHEMY, "failed", _method("rollback", Ours), "Ours"),
    at_exit("a session's commit()", ("sqlalchemy-sync",), "once", _session),
    at_exit(
        "SET client_encoding",
        PSYCOPG,
        "refused",
        _statements("SET client_encoding TO sql_ascii"),
        "come back",
    ),
    at_exit(
        "SET TRANSACTION READ ONLY", POSTGRES, "failed", _statements("SET TRANSACTION READ ONLY"), "read-only"
    ),
    at_exit("in a pipeline", PSYCOPG, "refused", _pipeline_at_work),
    at_exit("close()", POSTGRES, "failed", _method("close"), "closed"),
    at_exit("close()", SQLITE, "failed", _method("close"), "closed"),
    at_exit(
        "OR ROLLBACK",
        SQLITE,
        "failed",
        _statements("INSERT OR ROLLBACK INTO words VALUES (NULL)"),
        "Integrity",
    ),
]


def cells(states: list[State]) -> list[tuple[str, State]]:
    return [(driver, state) for state in states for driver in state.drivers]


async def opened(kit: Kit) -> Any:
    """One connection, as the driver makes it."""
    if isinstance(kit, SqlAlchemy):
        made = kit.engine.connect()
        return await made.start() if kit.is_async else made
    made = kit.options["database"]()
    return await made if isawaitable(made) else made
