-- Duramen, SQLite, migration 1: runs, journals, inboxes.
--
-- Applied by the library itself, by `duramen migrate`, or by hand: sqlite3 FILE < 0001_initial.sql
--
-- Every key begins with the run id, and the tables of one run do not refer to each other: no foreign
-- keys, no triggers, no counters shared by two runs. What keeps a run's tables together is that every
-- change of a run is one transaction fenced by its row in `runs`.
-- Times are milliseconds since 1970-01-01 UTC. Lists (tags, waits) are text with U+001F before,
-- between and after the items, so that one `instr` finds an item; an empty list is the empty text.

-- `compatible_from`: the oldest migration whose library can still work on the schema after this one.
CREATE TABLE IF NOT EXISTS duramen_schema_migrations (
    number          INTEGER NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL,
    compatible_from INTEGER NOT NULL,
    applied_at      INTEGER NOT NULL
) STRICT;

-- One small row for each run: who drives it, when it needs attention, how far its journal goes.
-- No payload stands here (the input is journal entry 0, the result the last entry), so that a commit
-- rewrites a row of some 200 bytes whatever the user's data weigh. WITHOUT ROWID: the row is found
-- with one descent instead of two. The columns that a commit reads or writes come first.
CREATE TABLE runs (
    run_id      TEXT    NOT NULL PRIMARY KEY,
    status      INTEGER NOT NULL, -- 0 queued 1 running 2 waiting 3 completed 4 failed 5 cancelled 6 terminated 7 stuck
    epoch       INTEGER NOT NULL, -- the fencing token
    journal_len INTEGER NOT NULL,
    inbox_len   INTEGER NOT NULL, -- the highest seq given out
    inbox_seen  INTEGER NOT NULL, -- the highest seq that a driver has taken note of
    ready_at    INTEGER,          -- start time, deadline or end of the lease; NULL: nothing to do
    owner       TEXT,             -- NULL unless running
    updated_at  INTEGER NOT NULL,
    started_at  INTEGER,
    finished_at INTEGER,
    created_at  INTEGER NOT NULL,
    deadline    INTEGER,
    workflow    TEXT    NOT NULL,
    version     TEXT    NOT NULL,
    waits       TEXT    NOT NULL,
    tags        TEXT    NOT NULL,
    seed        BLOB    NOT NULL,
    note        TEXT
) STRICT, WITHOUT ROWID;

-- Claims: for each status and workflow one descent, then due rows in order of `ready_at`, ties by run id
-- (which SQLite appends to the key). The workflow stands before the time so that due runs of
-- workflows which no process serves any more cost the others nothing: were the time first, every poll
-- would walk over them. Heartbeats read the range status = 1.
-- Cost: one delete and one insert for each change of status or due time; nothing for a commit that keeps
-- the lease, nothing at all for ended and stuck runs, which are not in it.
CREATE INDEX runs_due ON runs (status, workflow, version, ready_at) WHERE ready_at IS NOT NULL;

-- Lists, newest first. Cost: one insert for each run, nearly always at the end of the index; no column of it
-- ever changes.
CREATE INDEX runs_created ON runs (created_at, run_id);

-- Messages that reached a running run: empty nearly always, so that the poll for them is one probe.
-- Cost: one insert when such a message arrives and one delete when its driver has seen it.
CREATE INDEX runs_unread ON runs (owner) WHERE owner IS NOT NULL AND inbox_len > inbox_seen;

-- The journal, append-only. WITHOUT ROWID keeps a run's entries side by side in index order: loading one is a
-- range scan, appending touches the run's last page. The payload comes last, so that what stands
-- before it is read without following the pages of a long one. BLOB: bytes are kept exactly.
CREATE TABLE journal (
    run_id   TEXT    NOT NULL,
    idx      INTEGER NOT NULL,
    encoding INTEGER NOT NULL,
    kind     INTEGER NOT NULL,
    op       TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    meta     TEXT,
    payload  BLOB    NOT NULL,
    PRIMARY KEY (run_id, idx)
) STRICT, WITHOUT ROWID;

-- Messages to runs. The primary key is the dedupe rule. A consumed message stays for ever with its payload
-- emptied (the journal has it), so that a late repetition is still a duplicate.
CREATE TABLE inbox (
    run_id      TEXT    NOT NULL,
    message_id  TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    kind        INTEGER NOT NULL, -- 0 event 1 approval 2 cancel
    state       INTEGER NOT NULL, -- 0 new 1 consumed 2 set aside
    name        TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    fingerprint TEXT,
    note        TEXT,             -- why it was set aside
    payload     BLOB    NOT NULL,
    PRIMARY KEY (run_id, message_id)
) STRICT, WITHOUT ROWID;

-- What a driver has to read, in order of arrival. Cost: one insert and one delete in a message's life; holds only
-- what is unread.
CREATE INDEX inbox_unread ON inbox (run_id, seq) WHERE state = 0;

-- What people ask about refused messages. Cost: one insert for each refusal.
CREATE INDEX inbox_set_aside ON inbox (run_id, seq) WHERE state = 2;

-- What few runs have: a state object and a memo. Apart from `runs`, so that its rows stay small.
CREATE TABLE run_data (
    run_id TEXT NOT NULL PRIMARY KEY,
    state  BLOB,
    memo   BLOB
) STRICT, WITHOUT ROWID;

-- The journal for people: kinds by name, times as text, payloads as text (they are JSON unless the
-- application has an encoding of its own).
CREATE VIEW journal_json AS
SELECT run_id,
       idx,
       CASE kind
           WHEN 0 THEN 'run_created'
           WHEN 1 THEN 'step_completed'
           WHEN 2 THEN 'step_failed'
           WHEN 3 THEN 'step_attempt_failed'
           WHEN 4 THEN 'wait_opened'
           WHEN 5 THEN 'event_received'
           WHEN 6 THEN 'timer_fired'
           WHEN 7 THEN 'approval_requested'
           WHEN 8 THEN 'approval_resolved'
           WHEN 9 THEN 'value_recorded'
           WHEN 10 THEN 'child_started'
           WHEN 11 THEN 'child_finished'
           WHEN 12 THEN 'patch_marked'
           WHEN 13 THEN 'cancel_requested'
           WHEN 14 THEN 'run_finished'
           WHEN 15 THEN 'run_failed'
           WHEN 16 THEN 'run_cancelled'
           WHEN 17 THEN 'run_terminated'
           WHEN 18 THEN 'run_reopened'
           ELSE 'kind ' || kind
       END AS kind,
       op,
       meta,
       CAST(payload AS TEXT) AS payload,
       strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at
FROM journal;

INSERT INTO duramen_schema_migrations (number, name, compatible_from, applied_at)
VALUES (1, 'initial', 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
