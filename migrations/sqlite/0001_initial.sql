-- Duramen, SQLite, migration 1: owners, runs, journals, inboxes, what leaves runs, schedules.
--
-- Applied by the library itself, by `duramen migrate`, or by hand: sqlite3 FILE < 0001_initial.sql
--
-- Every key of a run's tables begins with the run id (that of `run_tags` ends with it), and these do not refer to each
-- other: no foreign keys, no triggers, no counters shared by two runs. What keeps a run's tables together is that
-- every change of a run is one transaction fenced by its row in `runs`.
-- Times are milliseconds since 1970-01-01 UTC. Lists (tags, waits) are text with U+001F before,
-- between and after the items, so that one `instr` finds an item; an empty list is the empty text.

-- `compatible_from`: the oldest migration whose library can still work on the schema after this one.
CREATE TABLE IF NOT EXISTS duramen_schema_migrations (
    number          INTEGER NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL,
    compatible_from INTEGER NOT NULL,
    applied_at      INTEGER NOT NULL
) STRICT;

-- Who drives runs: one row for each incarnation of a process, with the one lease that it has. A heartbeat rewrites this
-- row and nothing else, however many runs are in flight.
CREATE TABLE owners (
    owner       TEXT    NOT NULL PRIMARY KEY,
    label       TEXT,             -- for people: host and process
    serves      TEXT    NOT NULL, -- for people: a list
    format      INTEGER NOT NULL, -- the highest encoding that it reads
    started_at  INTEGER NOT NULL,
    seen_at     INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    ended_at    INTEGER           -- never NULL again: it cannot be renewed, its runs are anybody's
) STRICT, WITHOUT ROWID;

-- Each claim marks those whose lease has lapsed: one probe, however many ended owners are kept for people.
-- Cost: one delete and one insert for each heartbeat, in an index of one page.
CREATE INDEX owners_live ON owners (lease_until) WHERE ended_at IS NULL;

-- One small row for each run: who drives it, when it needs attention, how far its journal goes.
-- No payload stands here (the input is journal entry 0, the result the last entry), so that a commit that
-- writes it rewrites some 250 bytes whatever the user's data weigh; one that only appends to the journal does
-- not write it at all: `journal_len` and `updated_at` of a running run are as of its last claim or rewrite. WITHOUT ROWID:
-- the row is found with one descent instead of two. The columns that a commit reads or writes come first.
CREATE TABLE runs (
    run_id        TEXT    NOT NULL PRIMARY KEY,
    status        INTEGER NOT NULL, -- 0 queued 1 running 2 waiting 3 completed 4 failed 5 cancelled 6 terminated 7 stuck 8 paused
    epoch         INTEGER NOT NULL, -- the fencing token
    owner         TEXT,             -- NULL unless running
    seed          BLOB    NOT NULL, -- tells this life of the id from any other
    inbox_len     INTEGER NOT NULL, -- the highest seq given out
    inbox_seen    INTEGER NOT NULL, -- the highest seq that a driver has taken note of
    unread        INTEGER NOT NULL, -- messages that are neither consumed nor set aside,
    unread_bytes  INTEGER NOT NULL, -- and the sum of their payloads' lengths
    timeout       INTEGER,
    journal_len   INTEGER NOT NULL,
    ready_at      INTEGER,          -- of queued and waiting runs: start time or deadline; NULL: nothing to do
    updated_at    INTEGER NOT NULL,
    lost          INTEGER NOT NULL, -- drivers lost in a row over it,
    lost_at       INTEGER NOT NULL, -- at this length of the journal
    format        INTEGER NOT NULL, -- the least encoding that can read its journal and inbox
    priority      INTEGER NOT NULL, -- 0 to 9, lower first
    journal_start INTEGER NOT NULL, -- where the journal of the present generation begins
    generation    INTEGER NOT NULL, -- how often it was continued as new
    started_at    INTEGER,
    finished_at   INTEGER,
    created_at    INTEGER NOT NULL,
    deadline      INTEGER,
    lane          TEXT    NOT NULL, -- queue, workflow, version and format as one opaque key, U+001F between them
    queue         TEXT    NOT NULL,
    workflow      TEXT    NOT NULL,
    version       TEXT    NOT NULL,
    waits         TEXT    NOT NULL,
    tags          TEXT    NOT NULL,
    note          TEXT,             -- why a stuck run is stuck, or a paused one paused
    parent        TEXT,
    root          TEXT,
    origin        TEXT
) STRICT, WITHOUT ROWID;

-- Claims: for each status (queued, waiting), lane and priority in use one descent, then due rows in order of
-- `ready_at`, ties by run id. The lane and the priority stand before the time, so that due runs of lanes which no
-- process serves any more, and runs of a higher priority that are not due, cost the others nothing: no claim walks
-- over a run that it cannot take.
-- Cost: one insert when a run is created or pauses with a deadline, one delete when it is claimed; nothing for
-- running, ended and stuck runs, which are not in it.
CREATE INDEX runs_due ON runs (status, lane, priority, ready_at, run_id) WHERE ready_at IS NOT NULL;

-- Running runs by owner: what a successor takes over, what is to be recovered from an owner that has ended (by lane), and
-- what is in hand. Cost: one insert when a run is claimed, one delete when it is let go; nothing for heartbeats
-- and for commits that keep the run. (The last two columns, as those of `runs_resting`, spare lists the look at the rows.)
CREATE INDEX runs_owned ON runs (owner, lane, run_id, created_at, waits) WHERE owner IS NOT NULL;

-- Runs that wait, and those that did not end well, are stuck or paused, which people are told to watch: by what they wait for
-- (its key with U+001F around it; the empty text for runs that wait for several things, and for those that wait for
-- nothing) and lane, newest first. Cost: one insert for a pause, one delete when the run is claimed; nothing for runs that end without either. One
-- index for all: each one more is opened by every statement that writes a row, whether or not the row is in it. (OR:
-- for IN with more than two values such a statement would make a table of them.)
CREATE INDEX runs_resting ON runs (
    status,
    (CASE WHEN instr(substr(waits, 2), char(31)) = length(waits) - 1 THEN waits ELSE '' END),
    lane, created_at, run_id, waits
) WHERE status = 2 OR status = 4 OR status = 5 OR status = 6 OR status = 7 OR status = 8;

-- Lists, newest first in each lane: those of a workflow, a queue or a version are read from their lanes alone, and all
-- runs from all lanes, which are as many as there are workflows and versions. Cost: one insert for each run, nearly
-- always behind the last of its lane; no column of it changes but for runs whose format is raised.
CREATE INDEX runs_created ON runs (lane, created_at, run_id);

-- What a purge looks for. Cost: one insert when a run ends, nearly always at the end of the index.
CREATE INDEX runs_finished ON runs (finished_at, run_id) WHERE finished_at IS NOT NULL;

-- Children of a run, newest first. Cost: nothing for runs without a parent.
CREATE INDEX runs_parent ON runs (parent, created_at, run_id) WHERE parent IS NOT NULL;

-- All of a family, likewise.
CREATE INDEX runs_root ON runs (root, created_at, run_id) WHERE root IS NOT NULL;

-- Messages that reached a running run: empty nearly always, so that the poll for them is one probe.
-- Cost: one insert when such a message arrives and one delete when its driver has seen it.
CREATE INDEX runs_unread ON runs (owner) WHERE owner IS NOT NULL AND inbox_len > inbox_seen;

-- The journal, append-only. WITHOUT ROWID keeps a run's entries side by side in index order: loading one is a
-- range scan, appending touches the run's last page, and the run's length is found by one descent to its last entry,
-- which is the fence of a commit: two drivers can never write the same index. The payload comes last, so that what stands
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
-- emptied (the journal has it), so that a late repetition is still a duplicate; with its reply, if it was given one.
CREATE TABLE inbox (
    run_id      TEXT    NOT NULL,
    message_id  TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    kind        INTEGER NOT NULL, -- 0 event 1 approval 2 cancel 3 child 4 update 5 pause 6 resume
    state       INTEGER NOT NULL, -- 0 new 1 consumed 2 set aside
    encoding    INTEGER NOT NULL, -- the least that can read it
    name        TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    fingerprint TEXT,
    note        TEXT,             -- why it was set aside
    reply       BLOB,             -- the answer to its sender
    payload     BLOB    NOT NULL,
    PRIMARY KEY (run_id, message_id)
) STRICT, WITHOUT ROWID;

-- What a driver has to read, in order of arrival. Cost: one insert and one delete in a message's life; holds only
-- what is unread.
CREATE INDEX inbox_unread ON inbox (run_id, seq) WHERE state = 0;

-- What people ask about refused messages. Cost: one insert for each refusal.
CREATE INDEX inbox_set_aside ON inbox (run_id, seq) WHERE state = 2;

-- What leaves a run, written by its commit and taken out when it was carried out: empty nearly always. It stands by
-- itself, so that what a run left behind is carried out after the run has ended too.
CREATE TABLE outgoing (
    run_id TEXT    NOT NULL,
    entry  INTEGER NOT NULL, -- the length of the journal before the commit
    number INTEGER NOT NULL, -- its place among the items of that commit
    kind   INTEGER NOT NULL, -- 0 a run to create 1 a message
    target TEXT    NOT NULL,
    at     INTEGER NOT NULL,
    body   BLOB    NOT NULL,
    PRIMARY KEY (run_id, entry, number)
) STRICT, WITHOUT ROWID;

-- What is still to be carried out, oldest first. Cost: one insert and one delete in an item's life.
CREATE INDEX outgoing_at ON outgoing (at, run_id, entry, number);

-- Items of streams, which handlers and steps write while they run. `seq` counts from 1 without a gap and is given out under
-- the write lock, so that whoever has read up to one has missed nothing before it; the last item of a stream always stays.
-- WITHOUT ROWID: a stream's items stand side by side, a page is a range scan, an append touches the last page.
-- Cost: nothing for runs without streams.
CREATE TABLE stream_items (
    run_id  TEXT    NOT NULL,
    stream  TEXT    NOT NULL,
    seq     INTEGER NOT NULL,
    idx     INTEGER NOT NULL, -- its place among what its writer wrote; what the writer wrote there and behind before is void
    attempt INTEGER NOT NULL, -- of the step; 0 for the handler's
    at      INTEGER NOT NULL,
    writer  TEXT    NOT NULL, -- the step's operation; '' for the handler; of later generations with '##' and a number
    payload BLOB    NOT NULL,
    PRIMARY KEY (run_id, stream, seq)
) STRICT, WITHOUT ROWID;

-- What few runs have: a state object and a memo. Apart from `runs`, so that its rows stay small.
CREATE TABLE run_data (
    run_id TEXT NOT NULL PRIMARY KEY,
    state  BLOB,
    memo   BLOB
) STRICT, WITHOUT ROWID;

-- The runs of each tag, newest first; written with the run, never changed. Cost: one insert for each tag of a run.
CREATE TABLE run_tags (
    tag        TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    run_id     TEXT    NOT NULL,
    PRIMARY KEY (tag, created_at, run_id)
) STRICT, WITHOUT ROWID;

-- What starts runs at their times. The definition and the state belong to the library; a change names the version that
-- it expects, and writes another.
CREATE TABLE schedules (
    id         TEXT    NOT NULL PRIMARY KEY,
    version    INTEGER NOT NULL,
    workflow   TEXT    NOT NULL,
    next_at    INTEGER,          -- when somebody has to look at it; NULL: paused, or it fires no more
    definition BLOB    NOT NULL,
    state      BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- What is due, by those who know the workflow: an idle look is one probe for each of these, however many schedules there are.
-- Cost: one delete and one insert for each look at a schedule.
CREATE INDEX schedules_due ON schedules (workflow, next_at, id) WHERE next_at IS NOT NULL;

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
           WHEN 19 THEN 'message_sent'
           WHEN 20 THEN 'update_accepted'
           WHEN 21 THEN 'update_finished'
           WHEN 22 THEN 'stream_written'
           WHEN 23 THEN 'step_progress'
           WHEN 24 THEN 'run_parked'
           ELSE 'kind ' || kind
       END AS kind,
       op,
       meta,
       CAST(payload AS TEXT) AS payload,
       strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS at
FROM journal;

INSERT INTO duramen_schema_migrations (number, name, compatible_from, applied_at)
VALUES (1, 'initial', 1, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER));
