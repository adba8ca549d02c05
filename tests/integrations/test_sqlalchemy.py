"""The described tables are those that the migrations make."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import create_engine, func, select

from duramen import Runtime
from duramen.integrations.sqlalchemy import STATUSES, tables

COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, coalesce(l.collname, '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE c.relnamespace = %s::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY 1, a.attnum
"""
INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = %s ORDER BY 1, 2"


def described(connection: psycopg.Connection[Any], schema: str) -> tuple[list[Any], list[Any]]:
    columns = connection.execute(COLUMNS, (schema,)).fetchall()
    indexes = connection.execute(INDEXES, (schema,)).fetchall()
    return columns, [(table, name, text.replace(f"{schema}.", "")) for table, name, text in indexes]


def migrate(url: str) -> str:
    asyncio.run(Runtime(url).migrate())
    return urlsplit(url).query.rpartition("=")[2]


def test_the_tables_are_described_as_the_migrations_make_them(
    postgres_url: str, postgres_server: str
) -> None:
    schema = migrate(postgres_url)
    copy = f"{schema}_copy"
    found = tables(schema=copy)
    found.runs.metadata.remove(found.journal_json)  # a view
    engine = create_engine(postgres_server.replace("postgresql:", "postgresql+psycopg:"))
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(copy)))
        try:
            found.runs.metadata.create_all(engine)
            made, described_ones = described(connection, schema), described(connection, copy)
        finally:
            engine.dispose()
            connection.execute("SET client_min_messages = 'warning'")
            connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(copy)))
    views = [column for column in made[0] if column[0] == "journal_json"]
    assert [column for column in made[0] if column not in views] == described_ones[0]
    assert made[1] == described_ones[1]
    view = tables(schema=schema).journal_json
    assert [name for _, name, *_ in views] == [column.name for column in view.columns]


def test_a_dashboard_reads_runs_by_status(postgres_url: str, postgres_server: str) -> None:
    schema = migrate(postgres_url)

    async def enqueue() -> None:
        from duramen import Context, workflow

        @workflow
        async def nothing(ctx: Context[None]) -> None:
            pass

        async with Runtime(postgres_url, workflows=[nothing]) as runtime:
            await runtime.enqueue_many([(nothing, None)] * 3)

    asyncio.run(enqueue())
    runs = tables(schema=schema).runs
    engine = create_engine(postgres_server.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.connect() as connection:
            query = select(runs.c.status, func.count()).group_by(runs.c.status)
            assert [tuple(row) for row in connection.execute(query)] == [(STATUSES["queued"], 3)]
    finally:
        engine.dispose()


def test_other_names_are_described() -> None:
    found = tables(schema="app", names={"runs": "app_runs", "duramen_schema_migrations": "app_migrations"})
    assert found.runs.fullname == "app.app_runs"
    assert found.migrations.fullname == "app.app_migrations"
    assert {index.name for index in found.runs.indexes} == {
        "app_runs_due",
        "app_runs_owned",
        "app_runs_created",
        "app_runs_unread",
        "app_runs_resting",
        "app_runs_finished",
        "app_runs_parent",
        "app_runs_root",
    }
    with pytest.raises(KeyError):
        STATUSES["gone"]
