"""What a server may have against it: rights, passwords, versions of the schema, no server at all."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from psycopg import sql

from duramen import Runtime
from duramen.errors import (
    DuramenError,
    StoreError,
    StoreNewer,
    StoreReadOnly,
    StoreUnavailable,
    StoreUnmigrated,
)
from tests.postgres.schemas import connected, drop, migrate, new_schema, without_schema
from tests.postgres.server import Server, free_port, verifier
from tests.regressions.support import run_child
from tests.runtime.workflows import ALL, adding, waiting

pytestmark = pytest.mark.anyio
PASSWORD = "s3cret/with:odd@signs#%?"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def bare_url(postgres_server: str) -> Iterator[str]:
    """The URL of a store without its tables."""
    url = new_schema(postgres_server)
    yield url
    drop(url)


@pytest.fixture
def as_runner(postgres_url: str) -> Iterator[str]:
    """The URL of a store for a role that may read and write its rows, and nothing else."""
    base, schema = without_schema(postgres_url)
    role = sql.Identifier(f"{schema}_runner")
    place = sql.Identifier(schema)
    with psycopg.connect(base, autocommit=True) as connection:
        secret = sql.Literal(verifier(PASSWORD))
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, secret))
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(place, role))
        grant = "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO {}"
        connection.execute(sql.SQL(grant).format(place, role))
        yield as_user(postgres_url, f"{schema}_runner", PASSWORD)
        connection.execute(sql.SQL("DROP OWNED BY {}").format(role))
        connection.execute(sql.SQL("DROP ROLE {}").format(role))


def as_user(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{user}:{quote(password, safe='')}@{place}").geturl()


def duramen(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from duramen.cli import main; main()", *arguments],
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "300"},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


# -- rights --------------------------------------------------------------------------------------------------


async def test_a_role_that_may_not_migrate_may_do_all_the_rest(as_runner: str) -> None:
    async with Runtime(as_runner, workflows=ALL) as runtime:
        run = await runtime.start(adding, 41, memo={"a": 1}, tags=["t"])
        assert await run.result(timeout=10) == 42
        paused = await runtime.start(waiting, "go")
        await paused.signal("go", "word")
        assert await paused.result(timeout=10) == "word"
        await paused.timeline()
        assert await runtime.count() == len((await runtime.list()).items) == 2
        await runtime.enqueue(adding, 1, run_id="q")
        assert [each.kind for each in (await runtime.sweep()).queued] == ["completed"]
        await runtime.cancel("q")
        await runtime.enqueue(waiting, "x", run_id="t")
        assert await runtime.terminate("t")
        await runtime.retry("t")
        assert await runtime.delete("t", force=True)
        # There is nothing to do, so no right is needed.
        assert (await runtime.migrate()).applied == ()


async def test_what_a_role_may_not_do_is_an_error_with_the_reason_and_changes_nothing(
    as_runner: str, postgres_url: str
) -> None:
    base, schema = without_schema(postgres_url)
    with connected(postgres_url) as connection:
        connection.execute(
            "DROP TABLE runs, owners, journal, inbox, run_data, run_tags, outgoing, schedules, "
            "stream_items CASCADE"
        )
        connection.execute("DELETE FROM duramen_schema_migrations")
    with pytest.raises(DuramenError, match=r"permission denied.*grant this role") as caught:
        await Runtime(as_runner, workflows=ALL).migrate()
    assert PASSWORD not in str(caught.value)
    with psycopg.connect(base) as connection:
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = %s", (schema,))
        assert found.fetchone() == (1,)


async def test_a_role_that_may_only_read_is_told_so(as_runner: str, postgres_url: str) -> None:
    base, schema = without_schema(postgres_url)
    revoke = sql.SQL("REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} FROM {}")
    with psycopg.connect(base, autocommit=True) as connection:
        connection.execute(revoke.format(sql.Identifier(schema), sql.Identifier(f"{schema}_runner")))
    async with Runtime(as_runner, workflows=ALL) as runtime:
        assert await runtime.count() == 0
        with pytest.raises(DuramenError, match=r"permission denied.*grant this role"):
            await runtime.enqueue(adding, 1)


# -- passwords -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["wrong password", "no such user", "no such database", "nobody listens"])
async def test_a_server_that_does_not_let_us_in_is_an_error_without_the_password(
    postgres_url: str, how: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    url = as_user(postgres_url, "postgres" if how == "wrong password" else "nobody_here", PASSWORD)
    parts = urlsplit(url)
    match how:
        case "no such database":
            url = urlsplit(postgres_url)._replace(path="/none").geturl()
        case "nobody listens":
            url = parts._replace(netloc=f"{parts.netloc.rpartition(':')[0]}:{free_port()}").geturl()
        case _:
            pass
    runtime = Runtime(url, workflows=ALL)
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailable if how == "nobody listens" else StoreError) as caught:
            await runtime.open()
    said = f"{caught.value!r} {caught.value} {runtime!r} {caught.value.__cause__} {caught.value.__context__}"
    if how == "nobody listens":
        assert f"127.0.0.1:{urlsplit(url).port}" in str(caught.value)
    ran = await asyncio.to_thread(duramen, "runs", "list", "--store", url)
    assert (ran.returncode, ran.stdout) == (4, ""), ran
    assert ran.stderr.count("\n") == 1
    said += ran.stderr + caplog.text + "".join(capfd.readouterr())
    for secret in {PASSWORD, quote(PASSWORD, safe=""), urlsplit(postgres_url).password}:
        assert str(secret) not in said


# -- versions ------------------------------------------------------------------------------------------------


async def test_a_store_without_tables_names_the_command_and_stays_as_it_is(bare_url: str) -> None:
    with pytest.raises(StoreUnmigrated, match="duramen migrate"):
        await Runtime(bare_url, workflows=ALL).open()
    base, schema = without_schema(bare_url)
    with psycopg.connect(base) as connection:
        found = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,))
        assert found.fetchone() is None
    ran = await asyncio.to_thread(duramen, "runs", "list", "--store", bare_url)
    assert ran.returncode == 4
    assert "duramen migrate" in ran.stderr
    ran = await asyncio.to_thread(duramen, "migrate", bare_url)
    assert ran.returncode == 0, ran
    async with Runtime(bare_url, workflows=ALL) as runtime:
        assert await (await runtime.start(adding, 1)).result(timeout=10) == 2


@pytest.mark.parametrize(("compatible_from", "works"), [(1, True), (2, False)])
async def test_a_newer_schema_is_used_if_it_says_so_and_refused_otherwise(
    postgres_url: str, compatible_from: int, works: bool
) -> None:
    with connected(postgres_url) as connection:
        connection.execute(
            "INSERT INTO duramen_schema_migrations VALUES (99, 'later', %s, 0)", (compatible_from,)
        )
    runtime = Runtime(postgres_url, workflows=ALL)
    if not works:
        with pytest.raises(StoreNewer, match=r"99.*upgrade"):
            await runtime.open()
        return
    async with runtime:
        assert await (await runtime.start(adding, 1)).result(timeout=10) == 2


async def migrate_there(url: str) -> None:
    await Runtime(url, workflows=ALL).migrate()
    async with Runtime(url, workflows=ALL) as runtime:
        await runtime.count()


async def test_processes_that_migrate_at_once_make_one_schema(bare_url: str) -> None:
    ended = await asyncio.gather(*(asyncio.to_thread(run_child, migrate_there, bare_url) for _ in range(5)))
    assert set(ended) == {0}
    with connected(bare_url) as connection:
        found = connection.execute("SELECT number, count(*) FROM duramen_schema_migrations GROUP BY 1")
        assert all(times == 1 for _, times in found)


async def test_psql_makes_the_same_schema(
    own_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The migrations are plain SQL files: whoever may not run ours runs psql."""
    ours, theirs = own_server.new_database("ours"), own_server.new_database("theirs")
    migrate(ours)
    folder = own_server.folder / "migrations"
    folder.mkdir()
    for path in sorted((Path(__file__).parents[2] / "migrations" / "postgres").glob("*.sql")):
        (folder / path.name).write_bytes(path.read_bytes())
        own_server.run(
            "psql", "-X", "-q", "--set=ON_ERROR_STOP=1", "--single-transaction", "-f", folder / path.name,
            "-d", theirs,
        )  # fmt: skip

    def dump(url: str) -> str:
        told = own_server.run("pg_dump", "--schema-only", "--no-owner", "-d", url)
        # Newer versions write a random word against injections.
        return re.sub(r"(?m)^\\(un)?restrict .*$", "", told)

    assert dump(ours) == dump(theirs)
    async with Runtime(theirs, workflows=ALL) as runtime:
        assert await (await runtime.start(adding, 1)).result(timeout=10) == 2


# -- servers that do not write -------------------------------------------------------------------------------


async def test_a_standby_is_refused_as_read_only_and_serves_once_it_is_promoted(own_server: Server) -> None:
    url = own_server.new_database("replicated")
    migrate(url)
    standby = own_server.standby()
    there = url.replace(f":{own_server.port}/", f":{standby.port}/")
    with pytest.raises(StoreReadOnly):
        async with Runtime(there, workflows=ALL) as runtime:
            await runtime.enqueue(adding, 1)
    await asyncio.to_thread(standby.promote)
    async with Runtime(there, workflows=ALL) as runtime:
        assert await (await runtime.start(adding, 1)).result(timeout=10) == 2


async def test_a_server_that_becomes_read_only_is_reported_as_such_and_used_again_later(
    own_server: Server,
) -> None:
    url = own_server.new_database("frozen")
    migrate(url)
    async with Runtime(url, workflows=ALL) as runtime:
        await runtime.enqueue(adding, 1, run_id="a")
        own_server.conf(default_transaction_read_only="on")
        try:
            async with asyncio.timeout(10):
                while True:
                    try:
                        await runtime.enqueue(adding, 1)
                    except StoreReadOnly:
                        break
                    await asyncio.sleep(0.05)
            assert (await runtime.get("a")).status == "queued"
            with pytest.raises(StoreReadOnly):
                await runtime.sweep()
        finally:
            own_server.conf(default_transaction_read_only="off")
        async with asyncio.timeout(20):
            while (await runtime.get("a")).status != "completed":
                try:
                    await runtime.sweep()
                except DuramenError:
                    await asyncio.sleep(0.05)
