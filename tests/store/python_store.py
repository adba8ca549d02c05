"""A whole store in one file: SQLite through Python's own module, written to be read.

A run's row is kept as JSON; beside it stand the few values by which runs are looked for. Each method is one
transaction in a thread. SQLite's write lock makes the transactions of all threads and processes follow each
other, so what is read in one still holds when it writes.
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

SCHEMA = """ CREATE TABLE owners (owner TEXT PRIMARY KEY, label TEXT, serves TEXT, format INTEGER, started_at
INTEGER, seen_at INTEGER, lease_until INTEGER, ended_at INTEGER); CREATE TABLE runs (run_id TEXT PRIMARY KEY,
lane TEXT, ready_at INTEGER, owner TEXT, row TEXT, state BLOB, memo BLOB); CREATE INDEX runs_ready ON runs
(ready_at) WHERE ready_at IS NOT NULL; CREATE INDEX runs_owner ON runs (owner, run_id) WHERE owner IS NOT
NULL; CREATE TABLE journal (run_id TEXT, idx INTEGER, encoding INTEGER, kind TEXT, op TEXT, meta TEXT, payload
BLOB, at INTEGER, PRIMARY KEY (run_id, idx)); CREATE TABLE inbox (run_id TEXT, seq INTEGER, message_id TEXT,
kind TEXT, name TEXT, payload BLOB, encoding INTEGER, at INTEGER, fingerprint TEXT, fate TEXT DEFAULT
'unread', reason TEXT, reply BLOB, PRIMARY KEY (run_id, seq), UNIQUE (run_id, message_id)); CREATE TABLE
outgoing (run_id TEXT, entry INTEGER, number INTEGER, kind TEXT, target TEXT, body BLOB, at INTEGER, PRIMARY
KEY (run_id, entry, number)); CREATE TABLE items (run_id TEXT, stream TEXT, seq INTEGER, writer TEXT, idx
INTEGER, attempt INTEGER, at INTEGER, payload BLOB, PRIMARY KEY (run_id, stream, seq)); CREATE TABLE schedules
(id TEXT PRIMARY KEY, version INTEGER, workflow TEXT, next_at INTEGER, definition BLOB, state BLOB); PRAGMA
user_version = 1; """
ENTRY = "encoding, kind, op, meta, payload, at"
MESSAGE = "run_id, seq, message_id, kind, name, payload, encoding, at"
ITEM = "seq, writer, idx, attempt, at, payload"
UNSENT = "run_id, entry, number, kind, target, body, at"
SCHEDULE = ("id", "version", "workflow", "next_at", "definition", "state")
T = TypeVar("T")
FINAL = ("completed", "failed", "cancelled", "terminated")
LIVE = ("queued", "running", "waiting")
OPEN = (*LIVE, "stuck", "paused")
LANE = ("workflow", "version", "queue", "format")
REACHED = {"cancel": (*LIVE, "paused"), "pause": ("running",), "resume": ("running", "waiting", "paused")}
STATUSES: dict[str, tuple[s.Status, ...]] = {
    "recovery": ("running",),
    "wake": ("waiting",),
    "queued": ("queued",),
    "any": ("running", "waiting", "queued"),
}

TESTS: dict[str, Callable[[s.RunRow, Any], bool]] = {
    "workflow": lambda row, name: row["workflow"] == name,
    "version": lambda row, version: row["version"] == version,
    "queue": lambda row, queue: row["queue"] == queue,
    "status": lambda row, status: not status or row["status"] in status,
    "tag": lambda row, tag: tag in row["tags"],
    "waiting_for": lambda row, wait: wait in row["waits"],
    "parent": lambda row, parent: row["parent"] == parent,
    "root": lambda row, root: row["root"] == root,
    "created_after": lambda row, at: row["created_at"] > at,
    "created_before": lambda row, at: row["created_at"] < at,
    "finished_before": lambda row, at: row["finished_at"] is not None and row["finished_at"] < at,
    "id_prefix": lambda row, prefix: row["run_id"].startswith(prefix),
}


def instant(now: int | None) -> int:
    return time.time_ns() // 1_000_000 if now is None else now


def has_control(text: str) -> bool:
    return any(ord(sign) < 32 or 127 <= ord(sign) < 160 for sign in text)


def is_bad_id(text: str) -> bool:
    return not 1 <= len(text) <= 255 or has_control(text)


def lane(row: s.RunRow) -> str:
    return s.lane_key(row["queue"], row["workflow"], row["version"], row["format"])


def never_kept(commit: s.RunCommit) -> str | None:
    """Why a commit can never be kept, if there is a reason."""
    end, entries = commit["next"], commit["entries"]
    if len(commit["outgoing"]) > 10_000:
        return "too many items leave the run at once"
    if commit["outgoing"] and not entries:
        return "items leave the run without an entry of its journal"
    if len(commit["written"]) > len(entries):
        return "items of streams come without entries of the journal"
    if has_bad_stream(commit["written"]):
        return "a stream's name cannot be used"
    if end["kind"] in {"waiting", "paused"} and any(not wait or has_control(wait) for wait in end["waits"]):
        return "a wait key is empty or has a control character"
    if end["kind"] == "finished" and end["status"] not in FINAL:
        return f"a run cannot finish as {end['status']}"
    if end["kind"] == "continued" and not (entries and entries[-1]["kind"] == "run_created"):
        return "a run that is continued as new must end with a new beginning"
    if end["kind"] == "continued" and is_bad_id(end["version"]):
        return "a run is continued under a version that cannot be kept"
    return None


def has_bad_stream(items: Sequence[s.StreamWrite]) -> bool:
    return any(is_bad_id(item["stream"]) for item in items)


def only_appends(commit: s.RunCommit) -> bool:
    is_running = commit["next"]["kind"] == "running"
    return is_running and not commit["read"] and commit["inbox_seen"] is None and commit["format"] is None


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

    # -- what the methods share ------------------------------------------------------------------------------

    def _row(self, run_id: str) -> s.RunRow | None:
        found = self._sql("SELECT row FROM runs WHERE run_id = ?", run_id)
        return json.loads(found[0]["row"]) if found else None

    def _put(self, row: s.RunRow) -> None:
        text = "UPDATE runs SET lane = ?, ready_at = ?, owner = ?, row = ? WHERE run_id = ?"
        self._sql(text, lane(row), row["ready_at"], row["owner"], json.dumps(row), row["run_id"])

    def _rows(self, where: str = "TRUE", *values: Any) -> Iterator[s.RunRow]:
        for found in self._sql(f"SELECT row FROM runs WHERE {where} ORDER BY run_id", *values):
            yield json.loads(found["row"])

    def _release(self, row: s.RunRow, status: s.Status, ready_at: int | None) -> None:
        row.update(status=status, ready_at=ready_at, owner=None, waits=[], note=None)

    def _length(self, run_id: str) -> int:
        text = "SELECT COALESCE(MAX(idx) + 1, 0) FROM journal WHERE run_id = ?"
        return self._sql(text, run_id)[0][0]

    def _append(self, run_id: str, entries: Sequence[s.Entry]) -> int:
        """Add to a journal, and say how long it is then."""
        length = self._length(run_id)
        text = f"INSERT INTO journal (run_id, idx, {ENTRY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        for entry in entries:
            what = (entry["encoding"], json.dumps(entry["kind"]), entry["op"], entry["meta"])
            self._sql(text, run_id, length, *what, entry["payload"], entry["at"])
            length += 1
        return length

    def _leave(self, run_id: str, entry: int, outgoing: Sequence[s.Outgoing], at: int) -> None:
        for number, item in enumerate(outgoing):
            text = f"INSERT INTO outgoing ({UNSENT}) VALUES (?, ?, ?, ?, ?, ?, ?)"
            self._sql(text, run_id, entry, number, item["kind"], item["target"], item["body"], at)

    def _journal(self, run_id: str, start: int = 0, limit: int = -1) -> list[s.Entry]:
        text = f"SELECT {ENTRY} FROM journal WHERE run_id = ? AND idx >= ? ORDER BY idx LIMIT ?"
        return [with_kind(found) for found in self._sql(text, run_id, start, limit)]

    def _page(self, run_id: str, behind: int) -> s.InboxPage:
        where = "run_id = ? AND fate = 'unread' AND seq > ?"
        text = f"SELECT {MESSAGE} FROM inbox WHERE {where} ORDER BY seq LIMIT ?"
        page: s.InboxPage = {"messages": [], "more": False}
        size = 0
        for found in self._sql(text, run_id, behind, s.INBOX_PAGE + 1):
            size += len(found["payload"])
            too_large = size > s.INBOX_PAGE_BYTES and page["messages"]
            if too_large or len(page["messages"]) == s.INBOX_PAGE:
                page["more"] = True
                break
            page["messages"].append(with_kind(found))
        return page

    # -- the schema ------------------------------------------------------------------------------------------

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

    # -- owners ----------------------------------------------------------------------------------------------

    def _owner_ends(self, owner: str, now: int) -> int:
        """When the runs of an owner are anybody's: `now` if it has ended, or is not known."""
        text = "SELECT lease_until FROM owners WHERE owner = ? AND ended_at IS NULL AND lease_until > ?"
        found = self._sql(text, owner, now)
        return found[0]["lease_until"] if found else now

    def _is_live(self, owner: str, now: int) -> bool:
        return self._owner_ends(owner, now) > now

    def _end(self, owner: str, now: int) -> None:
        self._sql("UPDATE owners SET ended_at = ? WHERE owner = ? AND ended_at IS NULL", now, owner)

    @transaction
    def heartbeat(self, beat: s.Heartbeat, /) -> s.Beat:
        name, now = beat["owner"], instant(beat["now"])
        if is_bad_id(name):
            raise InvalidArgument("the owner's name is empty, too long or has a control character")
        if not self._sql("SELECT 1 FROM owners WHERE owner = ?", name):
            self._register(name, now)
        elif not self._is_live(name, now):
            self._end(name, now)
            return {"now": now, "alive": False, "inherited": []}
        what = "label = ?, serves = ?, format = ?, seen_at = ?, lease_until = ?"
        told = (beat["label"], json.dumps(beat["serves"]), beat["format"], now, now + beat["lease"])
        self._sql(f"UPDATE owners SET {what} WHERE owner = ?", *told, name)
        inherited = list[tuple[str, int]]()
        if beat["succeeds"] is not None and beat["succeeds"] != name:
            self._end(beat["succeeds"], now)
            for row in self._rows("owner = ?", beat["succeeds"]):
                row["owner"] = name
                self._put(row)
                inherited.append((row["run_id"], row["epoch"]))
        return {"now": now, "alive": True, "inherited": inherited}

    def _register(self, name: str, now: int) -> None:
        holders = "SELECT owner FROM runs WHERE owner IS NOT NULL"
        text = f"DELETE FROM owners WHERE ended_at <= ? AND owner NOT IN ({holders})"
        self._sql(text, now - s.ENDED_OWNERS_KEPT)
        self._sql("INSERT INTO owners (owner, started_at) VALUES (?, ?)", name, now)

    @transaction
    def retire(self, owner: str, now: int | None, /) -> None:
        self._end(owner, instant(now))

    @transaction
    def owners(self) -> Sequence[s.OwnerRow]:
        held = "SELECT COUNT(*) FROM runs WHERE owner = owners.owner"
        found = self._sql(f"SELECT *, ({held}) AS held FROM owners ORDER BY owner")
        return [cast("Any", {**dict(one), "serves": json.loads(one["serves"])}) for one in found]

    @transaction
    def held(self, owner: str, after: str | None, limit: int, /) -> Sequence[tuple[str, int]]:
        rows = list(self._rows("owner = ? AND run_id > ?", owner, after or ""))
        return [(row["run_id"], row["epoch"]) for row in rows[:limit]]

    # -- claims ----------------------------------------------------------------------------------------------

    @transaction
    def claim(self, claim: s.Claim, /) -> s.Claimed:
        now, used, warm = instant(claim["now"]), 0, set(map(tuple, claim["warm"]))
        claimed: s.Claimed = {"now": now, "runs": [], "more": False, "lapsed": False}
        if not self._is_live(claim["owner"], now):
            claimed["lapsed"] = True
            return claimed
        # For good: no heartbeat can bring back an owner whose runs are taken here.
        self._sql("UPDATE owners SET ended_at = ? WHERE ended_at IS NULL AND lease_until <= ?", now, now)
        for row in self._in_turn(claim, now):
            if len(claimed["runs"]) >= claim["limit"]:
                claimed["more"] = True
                break
            length = self._length(row["run_id"])
            is_warm = (row["run_id"], length) in warm
            journal = None if is_warm else self._journal(row["run_id"], row["journal_start"])
            used += min(row["unread_bytes"], s.INBOX_PAGE_BYTES)
            used += sum(len(entry["payload"]) for entry in journal or ())
            if claim["max_bytes"] is not None and used > claim["max_bytes"] and claimed["runs"]:
                claimed["more"] = True
                break
            was = row["status"]
            if was == "running":
                row["lost"] = row["lost"] + 1 if row["lost_at"] == length else 1
                row["lost_at"] = length
            row.update(status="running", owner=claim["owner"], epoch=row["epoch"] + 1, ready_at=None)
            row.update(updated_at=now, journal_len=length)
            if row["started_at"] is None:
                row["started_at"] = now
            self._put(row)
            page = self._page(row["run_id"], 0)
            claimed["runs"].append(
                {
                    "row": row,
                    "was": was,
                    "journal": journal,
                    "inbox": page["messages"],
                    "inbox_more": page["more"],
                }
            )
        return claimed

    def _in_turn(self, claim: s.Claim, now: int) -> list[s.RunRow]:
        """Due runs in the order in which they are to be taken."""
        lines = [(key, status) for key in dict.fromkeys(claim["lanes"]) for status in STATUSES[claim["due"]]]
        standing: list[list[tuple[Any, s.RunRow]]] = [[] for _ in lines]
        for row in self._rows("ready_at <= ? OR owner IS NOT NULL", now):
            line = (lane(row), row["status"])
            if line not in lines or claim["run_id"] not in {None, row["run_id"]}:
                continue
            if row["owner"] is None:
                place = (row["priority"], row["ready_at"], row["run_id"])
            elif self._is_live(row["owner"], now):
                continue
            else:
                place = (0, 0, row["run_id"])
            standing[lines.index(line)].append((place, row))
        due = list[tuple[int, int, s.RunRow]]()
        for number, line in enumerate(standing):
            line.sort(key=lambda one: one[0])
            turn = (number - claim["turn"]) % len(lines)
            due += [(nth, turn, row) for nth, (_, row) in enumerate(line)]
        return [row for _, _, row in sorted(due, key=lambda one: one[:2])]

    @transaction
    def next_due(self, ask: s.DueAsk, /) -> s.NextDue:
        now = instant(ask["now"])
        instants = [
            row["ready_at"] if row["owner"] is None else self._owner_ends(row["owner"], now)
            for row in self._rows("ready_at IS NOT NULL OR owner IS NOT NULL")
            if row["status"] != "paused" and lane(row) in ask["lanes"]
        ]
        return {"now": now, "ready_at": min((at for at in instants if at is not None), default=None)}

    # -- runs ------------------------------------------------------------------------------------------------

    @transaction
    def create(self, batch: Sequence[s.NewRun], /) -> Sequence[s.Created]:
        for new in batch:
            ids = [new["run_id"], new["workflow"], new["version"], new["queue"], *new["tags"]]
            ids += [one for one in (new["parent"], new["root"], new["origin"]) if one is not None]
            if any(map(is_bad_id, ids)):
                raise InvalidArgument("an id, name or tag is empty, too long or has a control character")
            if not 0 <= new["priority"] <= 9:
                raise InvalidArgument(f"the priority {new['priority']} is not one of 0 to 9")
        return [self._create(new) for new in batch]

    def _create(self, new: s.NewRun) -> s.Created:
        existing = self._row(new["run_id"])
        if existing is not None:
            return {"kind": "exists", "row": existing}
        now, start = instant(new["now"]), new["start"]
        if start["kind"] == "leased" and not self._is_live(start["owner"], now):
            start = s.Queued(kind="queued", at=None)
        begins: dict[str, Any]
        if start["kind"] == "leased":
            begins = {"status": "running", "owner": start["owner"], "epoch": 1, "ready_at": None}
            started_at, origin = now, now
        else:
            origin = now if start["at"] is None else start["at"]
            begins = {"status": "queued", "owner": None, "epoch": 0, "ready_at": origin}
            started_at = None
        same = ["run_id", "workflow", "version", "queue", "priority", "tags", "timeout"]
        same += ["parent", "root", "origin"]
        zero = "journal_start journal_len generation inbox_len inbox_seen unread unread_bytes lost lost_at"
        row: Any = {
            **{field: cast("Any", new)[field] for field in same},
            **dict.fromkeys(zero.split(), 0),
            **begins,
            "seed": list(new["seed"]),
            "created_at": now,
            "started_at": started_at if new["started_at"] is None else new["started_at"],
            "updated_at": now,
            "finished_at": None,
            "format": max([1, *(entry["encoding"] for entry in new["entries"])]),
            "deadline": None if new["timeout"] is None else origin + new["timeout"],
            "waits": [],
            "note": None,
        }
        self._sql("INSERT INTO runs (run_id, memo) VALUES (?, ?)", row["run_id"], new["memo"])
        meta = new.get("meta")
        first = s.Entry(encoding=1, kind="run_created", op="", meta=meta, payload=new["input"], at=now)
        row["journal_len"] = self._append(row["run_id"], [first, *new["entries"]])
        self._put(row)
        return {"kind": "created", "row": row}

    @transaction
    def commit(self, batch: Sequence[s.RunCommit], /) -> Sequence[s.CommitOutcome]:
        return [self._commit(commit) for commit in batch]

    def _commit(self, commit: s.RunCommit) -> s.CommitOutcome:
        reason = never_kept(commit)
        if reason is not None:
            return {"kind": "rejected", "reason": reason}
        row = self._row(commit["run_id"])
        if row is None:
            return {"kind": "fenced"}
        life = (list(row["seed"]), row["status"], row["owner"], row["epoch"], self._length(row["run_id"]))
        fence = (list(commit["seed"]), "running", commit["owner"], commit["epoch"], commit["expected_len"])
        if life != fence:
            return {"kind": "fenced"}
        length = self._append(row["run_id"], commit["entries"])
        if commit["state"] is not None:
            self._sql("UPDATE runs SET state = ? WHERE run_id = ?", commit["state"], row["run_id"])
        self._leave(row["run_id"], commit["expected_len"], commit["outgoing"], commit["at"])
        self._write(row["run_id"], commit["written"])
        due = False
        if not only_appends(commit):
            row.update(journal_len=length, updated_at=commit["at"])
            row["format"] = max(row["format"], commit["format"] or 0)
            row["inbox_seen"] = max(row["inbox_seen"], min(commit["inbox_seen"] or 0, row["inbox_len"]))
            for read in commit["read"]:
                self._read(row, read)
            due = self._go_on(row, commit)
            self._put(row)
        return {"kind": "applied", "due": due}

    def _read(self, row: s.RunRow, read: s.ReadMessage) -> None:
        where = "WHERE run_id = ? AND seq = ? AND fate = 'unread'"
        found = self._sql(f"SELECT length(payload) FROM inbox {where}", row["run_id"], read["seq"])
        if not found:
            return  # it has its fate, or never was
        row["unread"] -= 1
        row["unread_bytes"] -= found[0][0]
        if read["refused"] is not None:
            what, values = "fate = 'set_aside', reason = ?", (read["refused"],)
        else:
            what, values = "fate = 'consumed', payload = x'', reply = ?", (read["reply"],)
        self._sql(f"UPDATE inbox SET {what} {where}", *values, row["run_id"], read["seq"])

    def _go_on(self, row: s.RunRow, commit: s.RunCommit) -> bool:
        """What becomes of the run. True if it is due at once."""
        end = commit["next"]
        if end["kind"] == "waiting":
            due = row["inbox_len"] > row["inbox_seen"]
            self._release(row, "waiting", commit["at"] if due else end["ready_at"])
            row["waits"] = list(end["waits"])
            return due
        if end["kind"] == "paused":
            due = row["inbox_len"] > row["inbox_seen"]
            self._release(row, "waiting" if due else "paused", commit["at"] if due else end["ready_at"])
            row.update(waits=list(end["waits"]), note=None if due else end["note"])
            return due
        if end["kind"] == "finished":
            self._release(row, end["status"], None)
            row["finished_at"] = commit["at"]
        elif end["kind"] == "stuck":
            self._release(row, "stuck", None)
            row["note"] = end["note"]
        elif end["kind"] == "continued":
            self._release(row, "queued", end["ready_at"])
            row.update(journal_start=row["journal_len"] - 1, generation=row["generation"] + 1)
            row["version"] = end["version"]
            self._sql("DELETE FROM journal WHERE run_id = ? AND idx < ?", row["run_id"], row["journal_start"])
            row.update(lost=0, lost_at=0)
            row["deadline"] = None if row["timeout"] is None else end["ready_at"] + row["timeout"]
        return False

    @transaction
    def intervene(self, batch: Sequence[s.Intervention], /) -> Sequence[s.Intervened]:
        for one in batch:
            if one["kind"] == "reopen" and one["version"] is not None and is_bad_id(one["version"]):
                raise InvalidArgument("a version is empty, too long or has a control character")
        return [self._intervene(one) for one in batch]

    def _intervene(self, one: s.Intervention) -> s.Intervened:
        row = self._row(one["run_id"])
        if row is None:
            return "not_found"
        entries: Sequence[s.Entry]
        if one["kind"] == "terminate":
            if row["status"] in FINAL:
                return "not_allowed"
            self._release(row, "terminated", None)
            entries = [one["entry"]]
            row.update(updated_at=one["entry"]["at"], finished_at=one["entry"]["at"])
        elif one["kind"] == "reopen":
            version, was = one["version"], row["status"]
            never = {"running", "completed"} if version else {*LIVE, "completed"}
            if was in never or row["journal_len"] != one["expected_len"]:
                return "not_allowed"
            now, entries = instant(one["now"]), one["entries"]
            self._release(row, "queued", row["ready_at"] if was == "queued" else now)
            row["version"] = version or row["version"]
            row.update(updated_at=now, finished_at=None, lost=0, lost_at=0)
        else:
            if row["status"] in {*LIVE, "paused"} and not one["force"]:
                return "not_allowed"
            for table in ("runs", "journal", "inbox", "outgoing", "items"):
                self._sql(f"DELETE FROM {table} WHERE run_id = ?", row["run_id"])
            return "done"
        row["epoch"] += 1
        row["format"] = max([row["format"], *(entry["encoding"] for entry in entries)])
        if entries:
            self._leave(row["run_id"], self._length(row["run_id"]), one["outgoing"], entries[-1]["at"])
        row["journal_len"] = self._append(row["run_id"], entries)
        self._put(row)
        return "done"

    @transaction
    def unsent(self, ask: s.UnsentAsk, /) -> Sequence[s.Unsent]:
        text = (
            f"SELECT {UNSENT} FROM outgoing WHERE at <= ? AND run_id = coalesce(?, run_id) "
            "ORDER BY at, run_id, entry, number LIMIT ?"
        )
        found = self._sql(text, ask["before"], ask["run_id"], ask["limit"])
        return [cast("s.Unsent", dict(one)) for one in found]

    @transaction
    def sent(self, items: Sequence[s.Unsent], /) -> None:
        for item in items:
            text = "DELETE FROM outgoing WHERE at = ? AND run_id = ? AND entry = ? AND number = ?"
            self._sql(text, item["at"], item["run_id"], item["entry"], item["number"])

    # -- streams ---------------------------------------------------------------------------------------------

    def _write(self, run_id: str, items: Sequence[s.StreamWrite]) -> None:
        for item in items:
            where = "WHERE run_id = ? AND stream = ?"
            of = (run_id, item["stream"])
            seq = self._sql(f"SELECT coalesce(max(seq), 0) FROM items {where}", *of)[0][0] + 1
            what = (item["writer"], item["index"], item["attempt"], item["at"], item["payload"])
            text = f"INSERT INTO items (run_id, stream, {ITEM}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            self._sql(text, *of, seq, *what)
            if item["keep"] is not None:
                first = self._sql(f"SELECT min(seq) FROM items {where}", *of)[0][0]
                upto = min(seq - max(1, item["keep"]), first + s.MOST_PRUNED - 1)
                self._sql(f"DELETE FROM items {where} AND seq <= ?", *of, upto)

    @transaction
    def append(self, batch: Sequence[s.StreamAppend], /) -> Sequence[s.Appended]:
        return [self._append_items(one) for one in batch]

    def _append_items(self, one: s.StreamAppend) -> s.Appended:
        if len(one["items"]) > 10_000 or has_bad_stream(one["items"]):
            return {"kind": "rejected", "reason": "too many items at once, or a stream's name cannot be used"}
        row = self._row(one["run_id"])
        if row is None:
            return {"kind": "fenced"}
        life = (list(row["seed"]), row["status"], row["owner"], row["epoch"])
        if life != (list(one["seed"]), "running", one["owner"], one["epoch"]):
            return {"kind": "fenced"}
        self._write(one["run_id"], one["items"])
        return {"kind": "applied"}

    @transaction
    def stream(self, ask: s.StreamAsk, /) -> s.StreamPage | None:
        row = self._row(ask["run_id"])
        if row is None:
            return None
        text = f"SELECT {ITEM} FROM items WHERE run_id = ? AND stream = ? AND seq >= ? ORDER BY seq LIMIT ?"
        items: list[s.StreamItem] = []
        size = 0
        for found in self._sql(text, ask["run_id"], ask["stream"], ask["start"], ask["limit"]):
            size += len(found["payload"])
            if items and size > s.STREAM_PAGE_BYTES:
                break
            items.append(cast("s.StreamItem", {**dict(found), "index": found["idx"]}))
        for item in items:
            del cast("Any", item)["idx"]
        return {"seed": row["seed"], "status": row["status"], "items": items}

    # -- messages --------------------------------------------------------------------------------------------

    @transaction
    def deliver(self, batch: Sequence[s.NewMessage], /) -> Sequence[s.Delivered]:
        for new in batch:
            if not new["message_id"] or has_control(new["message_id"]) or has_control(new["name"]):
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
        size, kind = len(new["payload"]), new["kind"]
        is_full = row["unread"] >= s.MAX_UNREAD or row["unread_bytes"] + size > s.MAX_UNREAD_BYTES
        if row["status"] == "paused" and kind == "pause":
            return {"result": "duplicate", "fingerprint": None, "owner": None}
        if is_full and kind not in ("cancel", "pause", "resume", "child"):
            return {"result": "full", "fingerprint": None, "owner": row["owner"]}
        now = instant(new["now"])
        row.update(inbox_len=row["inbox_len"] + 1, unread=row["unread"] + 1)
        row.update(unread_bytes=row["unread_bytes"] + size, format=max(row["format"], new["encoding"]))
        self._sql(
            f"INSERT INTO inbox ({MESSAGE}, fingerprint) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(new["run_id"], row["inbox_len"], new["message_id"], json.dumps(kind), new["name"]),
            *(new["payload"], new["encoding"], now, new["fingerprint"]),
        )
        status = row["status"]
        if kind in ("cancel", "pause", "resume"):  # a kind of a newer version is a dict
            awaited = status in REACHED[kind]
        else:
            awaited = status == "waiting" and f"{kind}:{new['name']}" in row["waits"]
        begun = row["started_at"] is not None
        if kind == "pause" and status in {"queued", "waiting"}:
            row.update(status="paused", note=new["name"], updated_at=now)
        elif kind in ("cancel", "resume") and status == "paused":
            row.update(status="waiting" if begun else "queued", note=None, updated_at=now)
        if awaited and status != "running" and (begun or kind == "cancel"):
            row["ready_at"] = now if row["ready_at"] is None else min(row["ready_at"], now)
        self._put(row)
        return {"result": "delivered" if awaited else "buffered", "fingerprint": None, "owner": row["owner"]}

    @transaction
    def unread(self, owner: str, told: Sequence[tuple[str, int]], /) -> Sequence[s.Message]:
        behind, found = dict(told), list[s.Message]()
        for row in self._rows("owner = ?", owner):
            seen = max(row["inbox_seen"], behind.get(row["run_id"], 0))
            found += self._page(row["run_id"], seen)["messages"]
        return found

    @transaction
    def inbox(self, run_id: str, behind: int, /) -> s.InboxPage:
        return self._page(run_id, behind)

    @transaction
    def receipts(self, messages: Sequence[tuple[str, str]], /) -> Sequence[s.Receipt | None]:
        return [self._receipt(run_id, message_id) for run_id, message_id in messages]

    def _receipt(self, run_id: str, message_id: str) -> s.Receipt | None:
        text = "SELECT fate, reason, reply FROM inbox WHERE run_id = ? AND message_id = ?"
        for found in self._sql(text, run_id, message_id):
            if found["fate"] == "consumed":
                return {"kind": "consumed", "reply": found["reply"]}
            if found["fate"] == "set_aside":
                return {"kind": "set_aside", "reason": found["reason"]}
            return {"kind": "unread"}
        return None

    # -- questions -------------------------------------------------------------------------------------------

    @transaction
    def get(self, run_ids: Sequence[str], /) -> Sequence[s.RunDetail | None]:
        return [self._get(run_id) for run_id in run_ids]

    def _get(self, run_id: str) -> s.RunDetail | None:
        row = self._row(run_id)
        if row is None:
            return None
        (data,) = self._sql("SELECT state, memo FROM runs WHERE run_id = ?", run_id)
        text = f"SELECT {MESSAGE}, reason FROM inbox WHERE run_id = ? AND fate = 'set_aside' ORDER BY seq"
        refused = list[tuple[s.Message, str]]()
        for found in self._sql(text, run_id):
            message: Any = with_kind(found)
            refused.append((message, message.pop("reason")))
        return {
            "row": row,
            "input": self._journal(run_id, row["journal_start"], 1)[0]["payload"],
            "end": self._journal(run_id)[-1] if row["status"] in FINAL else None,
            "state": data["state"],
            "memo": data["memo"],
            "refused": refused,
        }

    @transaction
    def standing(self, run_ids: Sequence[str], /) -> Sequence[s.Standing | None]:
        return [self._standing(run_id) for run_id in run_ids]

    def _standing(self, run_id: str) -> s.Standing | None:
        row = self._row(run_id)
        if row is None:
            return None
        same = ("status", "seed", "owner", "epoch", "generation", "ready_at")
        found = {field: row[field] for field in same}
        return cast("s.Standing", {**found, "journal_len": self._length(run_id)})

    @transaction
    def load(self, run_id: str, start: int, limit: int, /) -> Sequence[s.Entry]:
        if not self._sql("SELECT 1 FROM journal WHERE run_id = ? AND idx = ?", run_id, start):
            return []
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

    @transaction
    def census(self) -> Sequence[s.OpenRuns]:
        found: dict[tuple[Any, ...], s.OpenRuns] = {}
        for row in sorted(self._rows(), key=place):
            if row["status"] in FINAL:
                continue
            what = {field: cast("Any", row)[field] for field in LANE}
            key = (*what.values(), OPEN.index(row["status"]))
            oldest = s.Cursor(created_at=row["created_at"], run_id=row["run_id"])
            first = cast("s.OpenRuns", {**what, "status": row["status"], "count": 0, "oldest": oldest})
            found.setdefault(key, first)["count"] += 1
        return [found[key] for key in sorted(found)]

    def _matching(self, asked: s.Filter) -> Iterator[s.RunRow]:
        for row in self._rows():
            if all(asked.get(field) is None or test(row, asked.get(field)) for field, test in TESTS.items()):
                yield row

    # -- schedules -------------------------------------------------------------------------------------------

    @transaction
    def change_schedules(self, batch: Sequence[s.ScheduleChange], /) -> Sequence[bool]:
        for change in batch:
            row = change["row"]
            names = [change["id"], *([row["id"], row["workflow"]] if row is not None else [])]
            if any(map(is_bad_id, names)):
                raise InvalidArgument("an id or name is empty, too long or has a control character")
        return [self._change(change) for change in batch]

    def _change(self, change: s.ScheduleChange) -> bool:
        found = self._schedules("WHERE id = ?", change["id"])
        if (found[0]["version"] if found else None) != change["expected"]:
            return False
        self._sql("DELETE FROM schedules WHERE id = ?", change["id"])
        if (row := change["row"]) is not None:
            self._sql("INSERT INTO schedules VALUES (?, ?, ?, ?, ?, ?)", *(row[name] for name in SCHEDULE))
        return True

    def _schedules(self, where: str, *values: Any) -> Sequence[s.ScheduleRow]:
        return [cast("Any", dict(row)) for row in self._sql(f"SELECT * FROM schedules {where}", *values)]

    @transaction
    def get_schedules(self, ids: Sequence[str], /) -> Sequence[s.ScheduleRow | None]:
        return [next(iter(self._schedules("WHERE id = ?", one)), None) for one in ids]

    @transaction
    def list_schedules(self, after: str | None, limit: int, /) -> Sequence[s.ScheduleRow]:
        return self._schedules("WHERE id > ? ORDER BY id LIMIT ?", after or "", limit)

    @transaction
    def due_schedules(self, ask: s.ScheduleAsk, /) -> s.DueSchedules:
        now = instant(ask["now"])
        behind = tuple(ask["after"] or (-(2**63), ""))
        rows = self._schedules("WHERE next_at IS NOT NULL ORDER BY next_at, id")
        rows = [
            row
            for row in rows
            if row["workflow"] in ask["workflows"] and (row["next_at"] or 0, row["id"]) > behind
        ]
        due = [row for row in rows if (row["next_at"] or 0) <= now][: ask["limit"]]
        rest = rows[len(due) :]
        return {"now": now, "rows": due, "next_at": rest[0]["next_at"] if rest else None}

    async def close(self) -> None:
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None


def with_kind(found: sqlite3.Row) -> Any:
    """An entry or a message: its kind is a text, or a number of a newer version."""
    return {**dict(found), "kind": json.loads(found["kind"])}


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
