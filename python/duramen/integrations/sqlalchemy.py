"""The Postgres tables as SQLAlchemy `Table` objects, for dashboards and reports.

For reading: whatever writes to these tables goes through `duramen.Runtime`, which alone keeps a run's row,
journal and inbox in step. Needs ``pip install duramen[sqlalchemy]``.

>>> from sqlalchemy import func, select
>>> from duramen.integrations.sqlalchemy import STATUSES, tables
>>> runs = tables(schema="jobs").runs
>>> stuck = runs.c.status == STATUSES["stuck"]
>>> query = select(runs.c.workflow, func.count()).where(stuck).group_by(runs.c.workflow)
>>> print(" ".join(str(query).split()))
SELECT jobs.runs.workflow, count(*) AS count_1 FROM jobs.runs WHERE ... GROUP BY jobs.runs.workflow
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.type_api import TypeEngine

__all__ = ["STATUSES", "Tables", "tables"]

STATUSES: Mapping[str, int] = MappingProxyType(
    {
        "queued": 0,
        "running": 1,
        "waiting": 2,
        "completed": 3,
        "failed": 4,
        "cancelled": 5,
        "terminated": 6,
        "stuck": 7,
        "paused": 8,
    }
)
"""The numbers in ``runs.status`` by their names. They never change."""


class Tables(NamedTuple):
    """The tables and the view of one schema."""

    runs: Table
    """One row for each run. Times are milliseconds since 1970-01-01 UTC."""
    owners: Table
    """The processes that drive runs, or did in the last day; `Runtime.workers` says it for people."""
    journal: Table
    """What happened in each run, in order."""
    inbox: Table
    """Messages to runs; ``state`` is 0 new, 1 consumed, 2 set aside."""
    run_data: Table
    """The state object and the memo of the runs that have one."""
    run_tags: Table
    """The runs of each tag."""
    outgoing: Table
    """What has left a run and is still to be carried out; ``kind`` is 0 a run to create, 1 a message."""
    stream_items: Table
    """Items of streams, numbered by ``seq`` in each; see `duramen.StreamItem`."""
    schedules: Table
    """Schedules; `Runtime.schedules` reads them for people."""
    migrations: Table
    """Which migrations were applied."""
    journal_json: Table
    """A view of the journal for people: kinds by name, payloads as text."""


def tables(
    metadata: MetaData | None = None, *, schema: str = "duramen", names: Mapping[str, str] | None = None
) -> Tables:
    """Describe the tables of a schema.

    Args:
        metadata: takes the tables; default a new one, so that ``metadata.create_all`` of the application does
            not try to make them (`duramen migrate` does).
        schema: the schema, as given to `Runtime`.
        names: other names of tables, as given to `Runtime` (``tables=``).

    Raises:
        sqlalchemy.exc.InvalidRequestError: `metadata` has such a table already.
    """
    into = MetaData() if metadata is None else metadata
    other = dict(names or {})
    other.setdefault("migrations", other.get("duramen_schema_migrations", "duramen_schema_migrations"))

    def table(name: str, *parts: Column[Any] | PrimaryKeyConstraint) -> Table:
        return Table(other.get(name, name), into, *parts, schema=schema)

    found = Tables(
        runs=table(
            "runs",
            _number("epoch"),
            _number("journal_start"),
            _number("journal_len"),
            _number("updated_at"),
            _number("inbox_len"),
            _number("inbox_seen"),
            _number("lost_at"),
            _number("created_at"),
            _number("ready_at", null=True),
            _number("started_at", null=True),
            _number("finished_at", null=True),
            _number("timeout", null=True),
            _number("deadline", null=True),
            _column("unread", Integer()),
            _column("unread_bytes", Integer()),
            _column("generation", Integer()),
            _column("lost", Integer()),
            _column("status", SmallInteger()),
            _column("priority", SmallInteger()),
            _column("format", SmallInteger()),
            _text("run_id", key=True),
            _text("lane"),
            _text("owner", null=True),
            _text("queue"),
            _text("workflow"),
            _text("version"),
            _column("waits", ARRAY(Text(collation="C")), null=True),
            _column("tags", ARRAY(Text(collation="C")), null=True),
            _column("seed", LargeBinary()),
            _column("note", Text(), null=True),
            _text("parent", null=True),
            _text("root", null=True),
            _text("origin", null=True),
        ),
        owners=table(
            "owners",
            _text("owner", key=True),
            _column("label", Text(), null=True),
            _column("serves", ARRAY(Text()), null=True),
            _column("format", SmallInteger()),
            _number("started_at"),
            _number("seen_at"),
            _number("lease_until"),
            _number("ended_at", null=True),
        ),
        journal=table(
            "journal",
            _number("idx"),
            _number("at"),
            _column("encoding", SmallInteger()),
            _column("kind", SmallInteger()),
            _text("run_id"),
            _text("op"),
            _column("meta", Text(), null=True),
            _column("payload", LargeBinary()),
            PrimaryKeyConstraint("run_id", "idx"),
        ),
        inbox=table(
            "inbox",
            _number("seq"),
            _number("at"),
            _column("kind", SmallInteger()),
            _column("encoding", SmallInteger()),
            _column("state", SmallInteger()),
            _text("run_id", key=True),
            _text("message_id", key=True),
            _text("name"),
            _column("fingerprint", Text(), null=True),
            _column("note", Text(), null=True),
            _column("reply", LargeBinary(), null=True),
            _column("payload", LargeBinary()),
        ),
        run_data=table(
            "run_data",
            _text("run_id", key=True),
            _column("state", LargeBinary(), null=True),
            _column("memo", LargeBinary(), null=True),
        ),
        run_tags=table(
            "run_tags",
            _number("created_at"),
            _text("tag"),
            _text("run_id"),
            PrimaryKeyConstraint("tag", "created_at", "run_id"),
        ),
        outgoing=table(
            "outgoing",
            _number("entry"),
            _number("at"),
            _column("number", Integer()),
            _column("kind", SmallInteger()),
            _text("run_id"),
            _text("target"),
            _column("body", LargeBinary()),
            PrimaryKeyConstraint("run_id", "entry", "number"),
        ),
        stream_items=table(
            "stream_items",
            _number("seq"),
            _number("idx"),
            _number("at"),
            _column("attempt", Integer()),
            _text("run_id"),
            _text("stream"),
            _text("writer"),
            _column("payload", LargeBinary()),
            PrimaryKeyConstraint("run_id", "stream", "seq"),
        ),
        schedules=table(
            "schedules",
            _number("version"),
            _number("next_at", null=True),
            _text("id", key=True),
            _text("workflow"),
            _column("definition", LargeBinary()),
            _column("state", LargeBinary()),
        ),
        migrations=table(
            "migrations",
            _column("number", Integer(), key=True),
            _column("name", Text()),
            _column("compatible_from", Integer()),
            _number("applied_at"),
        ),
        journal_json=table(
            "journal_json",
            _text("run_id", null=True),
            _number("idx", null=True),
            _column("kind", Text(), null=True),
            _text("op", null=True),
            _column("meta", Text(), null=True),
            _column("payload", Text(), null=True),
            _column("at", DateTime(timezone=True), null=True),
        ),
    )
    _indexes(found)
    return found


def _indexes(found: Tables) -> None:
    """Those that queries of others can use; the conditions are as the server has them."""
    runs, inbox, outgoing = found.runs, found.inbox, found.outgoing

    def of_runs(name: str, *columns: str, where: ColumnElement[bool] | None = None) -> None:
        Index(f"{runs.name}_{name}", *(runs.c[column] for column in columns), postgresql_where=where)

    due = ("status", "lane", "priority", "ready_at", "run_id")
    of_runs("due", *due, where=runs.c.ready_at.is_not(None))
    of_runs("owned", "owner", "lane", "run_id", where=runs.c.owner.is_not(None))
    of_runs("created", "workflow", "created_at")
    of_runs("unread", "owner", where=runs.c.owner.is_not(None) & (runs.c.inbox_len > runs.c.inbox_seen))
    resting = [STATUSES[name] for name in ("waiting", "failed", "cancelled", "terminated", "stuck", "paused")]
    Index(
        f"{runs.name}_resting",
        runs.c.status,
        text(
            "(CASE WHEN cardinality(waits) = 1 AND octet_length(waits[1]) <= 1100 THEN waits[1] ELSE '' END)"
        ),
        runs.c.created_at,
        runs.c.run_id,
        postgresql_where=runs.c.status.in_(resting),
    )
    of_runs("finished", "finished_at", where=runs.c.finished_at.is_not(None))
    of_runs("parent", "parent", "created_at", "run_id", where=runs.c.parent.is_not(None))
    of_runs("root", "root", "created_at", "run_id", where=runs.c.root.is_not(None))
    Index(f"{outgoing.name}_at", *(outgoing.c[column] for column in ("at", "run_id", "entry", "number")))
    schedules = found.schedules.c
    looked_for = (schedules.workflow, schedules.next_at, schedules.id)
    Index(f"{found.schedules.name}_due", *looked_for, postgresql_where=schedules.next_at.is_not(None))
    for name, state in (("unread", 0), ("set_aside", 2)):
        Index(f"{inbox.name}_{name}", inbox.c.run_id, inbox.c.seq, postgresql_where=inbox.c.state == state)


def _column(name: str, of: TypeEngine[Any], *, null: bool = False, key: bool = False) -> Column[Any]:
    return Column(name, of, nullable=null, primary_key=key, autoincrement=False)


def _number(name: str, *, null: bool = False) -> Column[Any]:
    return _column(name, BigInteger(), null=null)


def _text(name: str, *, null: bool = False, key: bool = False) -> Column[Any]:
    return _column(name, Text(collation="C"), null=null, key=key)
