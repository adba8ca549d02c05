"""What users of libpq rely on, with a server: parameters, variables and files lead to the same connection."""

import asyncio
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from duramen import Context, RunFailed, RunStuck, Runtime, workflow
from duramen.errors import DuramenError, InvalidArgument, StoreError, StoreUnavailable
from tests.postgres.server import Server, server


@workflow
async def hello(ctx: Context, name: str) -> str:
    return f"hello {name}"


@workflow
async def waits(ctx: Context) -> None:
    await ctx.wait_for_event("go")


@workflow
async def fails(ctx: Context) -> None:
    raise ValueError("漢")


@workflow(name="漢")
async def named(ctx: Context) -> None: ...


@workflow(version="漢")
async def versioned(ctx: Context) -> None: ...


@workflow
async def steps(ctx: Context) -> str:
    return await ctx.step("漢", lambda: "done")


@pytest.fixture(scope="module")
def pg() -> Iterator[Server]:
    with server() as made:
        yield made


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("PG"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def database(pg: Server) -> str:
    return urlsplit(pg.new_database()).path[1:]


def connects(url: str) -> None:
    async def main() -> None:
        await Runtime(url).migrate()

    asyncio.run(main())


def told(pg: Server, url: str, column: str, database: str) -> set[Any]:
    """What the server says of the store's sessions."""

    async def main() -> set[Any]:
        runtime = Runtime(url)
        await runtime.migrate()
        async with runtime:
            await runtime.count()
            rows = await asyncio.to_thread(
                pg.sql,
                sql.SQL("SELECT {} FROM pg_stat_activity WHERE datname = %s").format(sql.Identifier(column)),
                database,
            )
            return {row[0] for row in rows}

    return asyncio.run(main())


# -- where the server is, and who asks -----------------------------------------------------------------------


def test_variables_alone_are_enough(pg: Server, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PGHOST": "127.0.0.1", "PGPORT": str(pg.port), "PGUSER": "postgres", "PGPASSWORD": pg.password,
        "PGDATABASE": database, "PGAPPNAME": "from a variable", "PGSSLMODE": "prefer",
        "PGCONNECT_TIMEOUT": "7",
        "PGTARGETSESSIONATTRS": "primary",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert told(pg, "postgresql://", "application_name", database) == {"from a variable"}


def test_a_file_of_passwords(
    pg: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://postgres@127.0.0.1:{pg.port}/{database}"
    path = tmp_path / "elsewhere"
    for where in (tmp_path / ".pgpass", path):
        with pytest.raises(StoreError):
            connects(f"{url}?passfile={tmp_path / 'nowhere'}")
        where.write_text(f"127.0.0.1:{pg.port}:*:postgres:{pg.password}\n")
        where.chmod(0o600)
        if where == path:
            (tmp_path / ".pgpass").unlink()
            monkeypatch.setenv("PGPASSFILE", str(path))
        connects(url)
    monkeypatch.delenv("PGPASSFILE")
    connects(f"{url}?passfile={quote(str(path), safe='')}")


def test_a_service(pg: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "services"
    path.write_text(
        f"[shop]\nhost=127.0.0.1\nport={pg.port}\nuser=postgres\npassword={pg.password}\ndbname={database}\n"
        "application_name=a service\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    assert told(pg, "postgresql:///?service=shop", "application_name", database) == {"a service"}
    monkeypatch.delenv("PGSERVICEFILE")
    connects(f"postgresql:///?service=shop&servicefile={quote(str(path), safe='')}")


def test_parameters_that_the_server_sees(pg: Server, database: str) -> None:
    url = pg.url_of(database, application_name="shop", keepalives="1", keepalives_count="2",
                    connect_timeout="5",
                    tcp_user_timeout="9000", keepalives_idle="30", keepalives_interval="5",
                    channel_binding="prefer", load_balance_hosts="random",
                    sslnegotiation="postgres")  # fmt: skip
    assert told(pg, url, "application_name", database) == {"shop"}
    assert told(pg, pg.url_of(database, fallback_application_name="shop"), "application_name", database) == {
        "shop"
    }
    assert told(pg, pg.url_of(database), "application_name", database) == {"duramen"}
    by_address = pg.url_of(database, hostaddr="127.0.0.1").replace("@127.0.0.1", "@no.such.host.invalid")
    connects(by_address)


def test_options_reach_the_server(pg: Server, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = pg.url_of(database)
    read_only = "-c default_transaction_read_only=on"
    with pytest.raises(StoreError, match="read-only"):
        connects(f"{url}?options={quote(read_only, safe='')}")
    monkeypatch.setenv("PGOPTIONS", read_only)
    with pytest.raises(StoreError, match="read-only"):
        connects(url)


def test_channel_binding_needs_encryption(pg: Server, database: str) -> None:
    with pytest.raises(StoreError):
        connects(pg.url_of(database, channel_binding="require", sslmode="disable"))
    with pytest.raises(StoreError, match=r"TLS|tls"):
        connects(pg.url_of(database, sslmode="require"))


# -- servers that write and servers that do not --------------------------------------------------------------


def test_the_server_that_is_asked_for(pg: Server) -> None:
    database = urlsplit(pg.new_database()).path[1:]
    connects(pg.url_of(database))
    standby = pg.standby()
    hosts = f"127.0.0.1:{standby.port},127.0.0.1:{pg.port}"
    both = pg.url_of(database).replace(f"127.0.0.1:{pg.port}", hosts)

    async def works(url: str) -> None:
        async with Runtime(url, workflows=[hello]) as runtime:
            assert await (await runtime.start(hello, "you")).result(timeout=20) == "hello you"

    for wanted in ("read-write", "primary"):
        asyncio.run(works(f"{both}?target_session_attrs={wanted}"))
        with pytest.raises(StoreUnavailable):
            connects(f"{standby.url_of(database)}?target_session_attrs={wanted}")
    asyncio.run(works(both))  # several hosts: the one that writes
    for wanted in ("read-only", "standby"):
        with pytest.raises(StoreUnavailable):
            connects(f"{pg.url_of(database)}?target_session_attrs={wanted}")
    with pytest.raises(InvalidArgument, match="primary"):
        connects(f"{both}?target_session_attrs=prefer-standby")


# -- passwords -----------------------------------------------------------------------------------------------


@contextmanager
def role(pg: Server) -> Iterator[str]:
    name = f"r_{secrets.token_hex(4)}"
    pg.sql(sql.SQL("CREATE ROLE {} SUPERUSER LOGIN").format(sql.Identifier(name)))
    try:
        yield name
    finally:
        pg.sql(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    password=st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12
    )
    | st.text(st.sampled_from("aZ09@:/?#[]%&=+, \\'\"é漢"), min_size=1, max_size=12)
)
@example("a@b/c:d?e#f")
@example("a+b c%20d")
@example("%")
def test_the_server_takes_exactly_the_password_that_was_encoded(pg: Server, password: str) -> None:
    with role(pg) as name:
        pg.sql(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), sql.Literal(password)))
        place = f"127.0.0.1:{pg.port}/postgres"
        secret = quote(password, safe="")
        for url in (
            f"postgresql://{name}:{secret}@{place}",
            f"postgresql://{place}?user={name}&password={secret}",
        ):

            async def look(url: str = url) -> None:
                await Runtime(url).schema()

            asyncio.run(look())

        def refusal(wrong: str) -> str:
            with pytest.raises(DuramenError) as refused:
                asyncio.run(look(f"postgresql://{name}:{wrong}@{place}"))
            return f"{refused.value} {refused.value!r}".replace(name, "").replace(str(pg.port), "")

        said, plain = refusal(f"{secret}x"), refusal("0123456789")
        assert not [
            password[at : at + 4]
            for at in range(len(password) - 3)
            if password[at : at + 4] in said and password[at : at + 4] not in plain
        ]


# -- databases of another encoding ---------------------------------------------------------------------------


def test_a_latin1_database(pg: Server) -> None:
    name = f"latin_{secrets.token_hex(4)}"
    latin = "CREATE DATABASE {} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    pg.sql(sql.SQL(latin).format(
        sql.Identifier(name)
    ))  # fmt: skip
    url = pg.url_of(name)
    connects(url)

    async def main() -> None:
        # Every claim of a process has the names of its workflows, every heartbeat its own.
        for options, what in (
            ({"workflows": [hello, named]}, "name '漢'"),
            ({"workflows": [hello, versioned]}, "version '漢'"),
            ({"workflows": [hello], "owner": "漢"}, "owner '漢'"),
        ):
            with pytest.raises(InvalidArgument, match=f"{what}.*ENCODING 'UTF8'"):
                await Runtime(url, **options).open()
        async with Runtime(url, workflows=[hello, waits, fails, steps], owner="é", work=True) as runtime:
            # Inputs, results, memos and reasons are bytes there: any text will do.
            run = await runtime.start(hello, "漢字 … é", run_id="é", tags=["ü"], memo="漢")
            assert await run.result(timeout=20) == "hello 漢字 … é"
            await runtime.start(waits, run_id="waits")
            for refused in (
                runtime.start(hello, "you", run_id="漢"),
                runtime.start(hello, "you", tags=["漢"]),
                runtime.signal("waits", "漢"),
            ):
                with pytest.raises(InvalidArgument, match="ENCODING 'UTF8'"):
                    await refused
            assert await runtime.terminate("waits", reason="漢")
            failed = await runtime.start(fails)
            with pytest.raises(RunFailed, match="漢"):
                await failed.result(timeout=20)
            parked = await runtime.start(steps)
            with pytest.raises(RunStuck, match="LATIN1"):
                await parked.result(timeout=20)
            # They have spoilt nothing for others.
            assert await (await runtime.start(hello, "you")).result(timeout=20) == "hello you"

    asyncio.run(main())

    with psycopg.connect(url) as connection:
        row = connection.execute("SHOW server_encoding").fetchone()
        assert row == ("LATIN1",)
