"""A whole store in one file: SQLite through Python's own module, written to be read.

A run's row is kept as JSON; beside it stands the time that claims go by. Each method is one transaction in a
thread. SQLite's write lock makes the transactions of all threads and processes follow each other, so what is
read in one still holds when it writes.
"""

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from duramen import store as s
from duramen.errors import InvalidArgument, StoreClosed, StoreCorrupt, StoreFull, StoreLocked

SCHEMA = """
CREATE TABLE runs (run_id TEXT PRIMARY KEY, ready_at INTEGER, row TEXT, state BLOB, memo BLOB);
CREATE INDEX runs_ready ON runs (ready_at) WHERE ready_at IS NOT NULL;
CREATE TABLE journal (run_id TEXT, idx INTEGER, encoding INTEGER, kind TEXT, op TEXT, meta TEXT, payload BLOB,
                      at INTEGER, PRIMARY KEY (run_id, idx));
CREATE TABLE inbox (run_id TEXT, seq INTEGER, message_id TEXT, kind TEXT, name TEXT, payload BLOB, at INTEGER,
                    fingerprint TEXT, read INTEGER DEFAULT 0, refused TEXT,
                    PRIMARY KEY (run_id, seq), UNIQUE (run_id, message_id));
PRAGMA user_version = 1;
"""
ENTRY = "encoding, kind, op, meta, payload, at"
MESSAGE = "run_id, seq, message_id, kind, name, payload, at"
T = TypeVar("T")
FINAL = ("completed", "failed", "cancelled", "terminated")
LIVE = ("queued", "running", "waiting")
KINDS = {
    "recovery": ("running",),
    "wake": ("waiting",),
    "queued": ("queued",),
    "any": ("running", "waiting", "queued"),
}

TESTS: dict[str, Callable[[s.RunRow, Any], bool]] = {
    "workflow": lambda row, name: row["workflow"] == name,
    "version": lambda row, version: row["version"] == version,
    "status": lambda row, status: not status or row["status"] in status,
    "tag": lambda row, tag: tag in row["tags"],
    "waiting_for": lambda row, wait: wait in row["waits"],
    "created_after": lambda row, at: row["created_at"] > at,
    "created_before": lambda row, at: row["created_at"] < at,
    "id_prefix": lambda row, prefix: row["run_id"].startswith(prefix),
}


def instant(now: int | None) -> int:
    return time.time_ns() // 1_000_000 if now is None else now


def is_bad(text: str, longest: int = 255) -> bool:
    return not text or len(text) > longest or any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in text)


def transaction(work: Callable[..., T]) -> Callable[..., Coroutine[Any, Any, T]]:
    """A method whose body is a transaction in a thread."""

    async def call(self: "PythonStore", *args: Any) -> T:
        return await asyncio.to_thread(self.in_transaction, work, *args)

    return call


class PythonStore:
    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        self._db: sqlite3.Connection | None = db

    def in_transaction(self, work: Callable[..., T], *args: Any) -> T:
        with self._lock, typed_errors():
            if self._db is None:
                raise StoreClosed("the store is closed")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                answer = work(self, *args)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
            return answer

    def _sql(self, text: str, *values: Any) -> list[sqlite3.Row]:
        assert self._db is not None
        return self._db.execute(text, values).fetchall()

    def _row(self, run_id: str) -> s.RunRow | None:
        found = self._sql("SELECT row FROM runs WHERE run_id = ?", run_id)
        return json.loads(found[0]["row"]) if found else None

    def _put(self, row: s.RunRow) -> None:
        text = "UPDATE runs SET ready_at = ?, row = ? WHERE run_id = ?"
        self._sql(text, row["ready_at"], json.dumps(row), row["run_id"])

    def _release(self, row: s.RunRow, status: Any, ready_at: int | None) -> None:
        row.update(status=status, ready_at=ready_at, owner=None, waits=[], note=None)

    def _append(self, row: s.RunRow, entries: Sequence[s.Entry]) -> None:
        for entry in entries:
            values = map(cast("dict[str, Any]", entry).get, ENTRY.split(", "))
            text = f"INSERT INTO journal (run_id, idx, {ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            self._sql(text, row["run_id"], row["journal_len"], *values)
            row["journal_len"] += 1

    def _journal(self, run_id: str, start: int = 0, limit: int = -1) -> list[s.Entry]:
        text = f"SELECT {ENTRY} FROM journal WHERE run_id = ? AND idx >= ? ORDER BY idx LIMIT ?"
        return [cast("s.Entry", dict(found)) for found in self._sql(text, run_id, start, limit)]

    def _unread(self, run_id: str, beyond: int = 0) -> list[s.Message]:
        text = f"SELECT {MESSAGE} FROM inbox WHERE run_id = ? AND NOT read AND seq > ? ORDER BY seq"
        return [cast("s.Message", dict(found)) for found in self._sql(text, run_id, beyond)]

    def _rows(self, where: str = "TRUE", *values: Any) -> Iterator[s.RunRow]:
        for found in self._sql(f"SELECT row FROM runs WHERE {where}", *values):
            yield json.loads(found["row"])

    @transaction
    def migrate(self) -> s.Schema:
        if self._sql("PRAGMA user_version")[0][0] >= 1:
            return {"found": 1, "needed": 1, "applied": []}
        for statement in SCHEMA.split(";"):
            self._sql(statement)
        return {"found": 1, "needed": 1, "applied": ["initial"]}

    @transaction
    def schema(self) -> s.Schema:
        return {"found": self._sql("PRAGMA user_version")[0][0], "needed": 1, "applied": []}

    @transaction
    def create(self, batch: Sequence[s.NewRun], /) -> Sequence[s.Created]:
        for new in batch:
            if any(map(is_bad, (new["run_id"], new["workflow"], new["version"], *new["tags"]))):
                raise InvalidArgument("an id, name or tag is empty, too long or has a control character")
        return [self._create(new) for new in batch]

    def _create(self, new: s.NewRun) -> s.Created:
        existing = self._row(new["run_id"])
        if existing is not None:
            return {"created": False, "row": existing}
        now, start = instant(new["now"]), new["start"]
        lease: dict[str, Any] = {"status": "queued", "owner": None, "epoch": 0, "started_at": None}
        origin = now
        if start["kind"] == "leased":
            lease = {"status": "running", "owner": start["owner"], "epoch": 1, "started_at": now}
            lease["ready_at"] = now + start["lease"]
        else:
            origin = lease["ready_at"] = now if start["at"] is None else start["at"]
        row: Any = {
            **{field: new[field] for field in ("run_id", "workflow", "version", "tags", "seed")},
            **dict.fromkeys(("journal_len", "inbox_len", "inbox_seen"), 0),
            **lease,
            "created_at": now,
            "updated_at": now,
            "finished_at": None,
            "waits": [],
            "note": None,
            "deadline": None if new["timeout"] is None else origin + new["timeout"],
        }
        self._sql("INSERT INTO runs (run_id, memo) VALUES (?, ?)", row["run_id"], new["memo"])
        first = {
            "encoding": 1,
            "kind": "run_created",
            "op": "",
            "meta": None,
            "payload": new["input"],
            "at": now,
        }
        self._append(row, [cast("s.Entry", first)])
        self._put(row)
        return {"created": True, "row": row}

    @transaction
    def claim(self, claim: s.Claim, /) -> s.Claimed:
        now, used, warm = instant(claim["now"]), 0, set(map(tuple, claim["warm"]))
        claimed: s.Claimed = {"now": now, "runs": [], "more": False}
        for row in self._in_turn(claim, now):
            if len(claimed["runs"]) >= claim["limit"]:
                claimed["more"] = True
                break
            is_warm = (row["run_id"], row["journal_len"]) in warm
            journal = None if is_warm else self._journal(row["run_id"])
            used += sum(len(entry["payload"]) for entry in journal or ())
            too_much = claim["max_bytes"] is not None and used > claim["max_bytes"]
            if too_much and claimed["runs"] and not is_warm:
                claimed["more"] = True
                break
            was, here = row["status"], f"{row['journal_len']}@"
            if was == "running" and not (row["note"] or "").startswith(here):
                row["note"] = f"{here}{row['epoch']}"
            row.update(status="running", owner=claim["owner"], epoch=row["epoch"] + 1, updated_at=now)
            row["ready_at"] = now + claim["lease"]
            if row["started_at"] is None:
                row["started_at"] = now
            self._put(row)
            inbox = self._unread(row["run_id"])
            claimed["runs"].append({"row": row, "was": was, "journal": journal, "inbox": inbox})
        return claimed

    def _in_turn(self, claim: s.Claim, now: int) -> list[s.RunRow]:
        """Due runs in the order in which they are to be taken."""
        keys = list(dict.fromkeys((key["name"], key["version"]) for key in claim["workflows"]))
        lines = [(*key, status) for key in keys for status in KINDS[claim["due"]]]
        length = dict.fromkeys(lines, 0)
        due = list[tuple[int, int, s.RunRow]]()
        for row in self._rows("ready_at <= ? ORDER BY ready_at, run_id", now):
            line = (row["workflow"], row["version"], row["status"])
            if line in length and claim["run_id"] in {None, row["run_id"]}:
                length[line] += 1
                due.append((length[line], (lines.index(line) - claim["turn"]) % len(lines), row))
        return [row for _, _, row in sorted(due, key=lambda one: one[:2])]

    @transaction
    def commit(self, batch: Sequence[s.RunCommit], /) -> Sequence[s.CommitOutcome]:
        return [self._commit(commit) for commit in batch]

    def _commit(self, commit: s.RunCommit) -> s.CommitOutcome:
        end = commit["next"]
        if end["kind"] == "waiting" and any(is_bad(wait, 1_000) for wait in end["waits"]):
            return {"kind": "rejected", "reason": "a wait key is empty or has a control character"}
        if end["kind"] == "finished" and end["status"] not in FINAL:
            return {"kind": "rejected", "reason": f"a run cannot finish as {end['status']}"}
        row = self._row(commit["run_id"])
        fence = ("running", commit["owner"], commit["epoch"], commit["expected_len"])
        if row is None or (row["status"], row["owner"], row["epoch"], row["journal_len"]) != fence:
            return {"kind": "fenced"}
        self._append(row, commit["entries"])
        for read in commit["read"]:
            text = "UPDATE inbox SET read = 1, refused = ? WHERE run_id = ? AND seq = ? AND NOT read"
            self._sql(text, read["refused"], row["run_id"], read["seq"])
        if commit["state"] is not None:
            self._sql("UPDATE runs SET state = ? WHERE run_id = ?", commit["state"], row["run_id"])
        row["updated_at"] = commit["at"]
        row["inbox_seen"] = max(row["inbox_seen"], min(commit["inbox_seen"], row["inbox_len"]))
        due = False
        if end["kind"] == "waiting":
            due = row["inbox_len"] > row["inbox_seen"]
            self._release(row, "waiting", commit["at"] if due else end["ready_at"])
            row["waits"] = list(end["waits"])
        elif end["kind"] == "finished":
            self._release(row, end["status"], None)
            row["finished_at"] = commit["at"]
        elif end["kind"] == "stuck":
            self._release(row, "stuck", None)
            row["note"] = end["note"]
        self._put(row)
        return {"kind": "applied", "due": due}

    @transaction
    def heartbeat(self, beat: s.Heartbeat, /) -> s.Beat:
        now = instant(beat["now"])
        held = [row for row in self._rows("ready_at IS NOT NULL") if row["owner"] == beat["owner"]]
        for row in held:
            row["ready_at"] = now + beat["lease"]
            self._put(row)
        return {"now": now, "held": [(row["run_id"], row["epoch"]) for row in held]}

    @transaction
    def unread(self, owner: str, /) -> Sequence[s.Message]:
        held = [row for row in self._rows("ready_at IS NOT NULL") if row["owner"] == owner]
        return [message for row in held for message in self._unread(row["run_id"], row["inbox_seen"])]

    @transaction
    def deliver(self, batch: Sequence[s.NewMessage], /) -> Sequence[s.Delivered]:
        for new in batch:
            if is_bad(new["message_id"], 1_000) or (new["name"] and is_bad(new["name"], 1_000)):
                raise InvalidArgument("a message's id or name is empty or has a control character")
        return [self._deliver(new) for new in batch]

    def _deliver(self, new: s.NewMessage) -> s.Delivered:
        row = self._row(new["run_id"])
        if row is None:
            return {"result": "not_found", "fingerprint": None, "owner": None}
        text = "SELECT fingerprint FROM inbox WHERE run_id = ? AND message_id = ?"
        first = self._sql(text, new["run_id"], new["message_id"])
        if first:
            return {"result": "duplicate", "fingerprint": first[0]["fingerprint"], "owner": row["owner"]}
        if row["status"] in FINAL:
            return {"result": "finished", "fingerprint": None, "owner": row["owner"]}
        now, row["inbox_len"] = instant(new["now"]), row["inbox_len"] + 1
        self._sql(
            f"INSERT INTO inbox ({MESSAGE}, fingerprint) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            *(new["run_id"], row["inbox_len"], new["message_id"], new["kind"], new["name"]),
            *(new["payload"], now, new["fingerprint"]),
        )
        awaited = row["status"] == "waiting" and f"{new['kind']}:{new['name']}" in row["waits"]
        if new["kind"] == "cancel":
            awaited = row["status"] in LIVE
        if awaited and row["status"] != "running":
            row["ready_at"] = now if row["ready_at"] is None else min(row["ready_at"], now)
        self._put(row)
        return {"result": "delivered" if awaited else "buffered", "fingerprint": None, "owner": row["owner"]}

    @transaction
    def intervene(self, batch: Sequence[s.Intervention], /) -> Sequence[s.Intervened]:
        return [self._intervene(one) for one in batch]

    def _intervene(self, one: s.Intervention) -> s.Intervened:
        row = self._row(one["run_id"])
        if row is None:
            return "not_found"
        if one["kind"] == "terminate":
            if row["status"] in FINAL:
                return "not_allowed"
            self._release(row, "terminated", None)
            row.update(updated_at=one["entry"]["at"], finished_at=one["entry"]["at"])
            self._append(row, [one["entry"]])
        elif one["kind"] == "reopen":
            if row["status"] in {*LIVE, "completed"} or row["journal_len"] != one["expected_len"]:
                return "not_allowed"
            now = instant(one["now"])
            self._release(row, "queued", now)
            row.update(updated_at=now, finished_at=None)
            self._append(row, one["entries"])
        else:
            if row["status"] in LIVE and not one["force"]:
                return "not_allowed"
            for table in ("runs", "journal", "inbox"):
                self._sql(f"DELETE FROM {table} WHERE run_id = ?", row["run_id"])
            return "done"
        row["epoch"] += 1
        self._put(row)
        return "done"

    @transaction
    def get(self, run_ids: Sequence[str], /) -> Sequence[s.RunDetail | None]:
        return [self._get(run_id) for run_id in run_ids]

    def _get(self, run_id: str) -> s.RunDetail | None:
        row = self._row(run_id)
        if row is None:
            return None
        (data,) = self._sql("SELECT state, memo FROM runs WHERE run_id = ?", run_id)
        text = f"SELECT {MESSAGE}, refused FROM inbox WHERE run_id = ? AND refused IS NOT NULL ORDER BY seq"
        refused = self._sql(text, run_id)
        last = self._journal(run_id, row["journal_len"] - 1) if row["status"] in FINAL else [None]
        return {
            "row": row,
            "input": self._journal(run_id, 0, 1)[0]["payload"],
            "end": last[0],
            "state": data["state"],
            "memo": data["memo"],
            "refused": [(cast("s.Message", dict(found)), found["refused"]) for found in refused],
        }

    @transaction
    def load(self, run_id: str, start: int, limit: int, /) -> Sequence[s.Entry]:
        return self._journal(run_id, start, limit)

    @transaction
    def list(self, asked: s.Filter, limit: int, cursor: s.Cursor | None, /) -> s.Page:
        rows = [row for row in self._matching(asked) if cursor is None or place(row) < place(cursor)]
        rows.sort(key=place, reverse=True)
        more = len(rows) > limit > 0
        last = rows[limit - 1] if more else None
        return {
            "rows": rows[:limit],
            "next": last and {"created_at": last["created_at"], "run_id": last["run_id"]},
        }

    @transaction
    def count(self, asked: s.Filter, /) -> int:
        return sum(1 for _ in self._matching(asked))

    def _matching(self, asked: s.Filter) -> Iterator[s.RunRow]:
        for row in self._rows():
            if all(asked.get(field) is None or test(row, asked.get(field)) for field, test in TESTS.items()):
                yield row

    @transaction
    def next_due(self, workflows: Sequence[s.WorkflowKey], /) -> s.NextDue:
        for row in self._rows("ready_at IS NOT NULL ORDER BY ready_at"):
            if {"name": row["workflow"], "version": row["version"]} in workflows:
                return {"now": instant(None), "ready_at": row["ready_at"]}
        return {"now": instant(None), "ready_at": None}

    async def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None


def place(of: Any) -> tuple[int, str]:
    return of["created_at"], of["run_id"]


@contextmanager
def typed_errors() -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        kinds = {5: StoreLocked, 6: StoreLocked, 11: StoreCorrupt, 13: StoreFull, 26: StoreCorrupt}
        if code in kinds:
            raise kinds[code](str(error)) from error
        raise
