-- Duramen, Postgres (13 or newer), migration 1: runs, journals, inboxes.
--
-- Applied by `duramen migrate`, by `runtime.migrate()`, or by hand:
--
--     psql --set=ON_ERROR_STOP=1 --single-transaction -f 0001_initial.sql
--     psql … --set=schema=app --set=runs=app_runs -f 0001_initial.sql        other names
--
-- The names are psql's variables, with these defaults; the library puts in the same names in the same places and
-- passes over the lines with psql's own commands.
\if :{?schema} \else \set schema duramen \endif
\if :{?migrations} \else \set migrations duramen_schema_migrations \endif
\if :{?runs} \else \set runs runs \endif
\if :{?journal} \else \set journal journal \endif
\if :{?inbox} \else \set inbox inbox \endif
\if :{?run_data} \else \set run_data run_data \endif
\if :{?journal_json} \else \set journal_json journal_json \endif
\set runs_due :runs _due
\set runs_created :runs _created
\set runs_unread :runs _unread
\set inbox_unread :inbox _unread
\set inbox_set_aside :inbox _set_aside

-- Every key of a run's tables begins with the run id, and the tables do not refer to each other: no foreign keys, no
-- triggers, no sequences, no functions. What keeps a run's tables together is that every change of a run is one
-- statement or one transaction fenced by its row in `runs`.
-- Times are milliseconds since 1970-01-01 UTC by the database's clock. Texts compare by their bytes (COLLATE "C"), so that
-- orders and prefixes are the same on every server and in every store.

-- Not IF NOT EXISTS: that asks for the right to create schemas even where this one is there.
SELECT format('CREATE SCHEMA %I', :'schema') WHERE NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = :'schema') \gexec

-- `compatible_from`: the oldest migration whose library can still work on the schema after this one.
CREATE TABLE IF NOT EXISTS :"schema".:"migrations" (
    number          integer NOT NULL PRIMARY KEY,
    name            text    NOT NULL,
    compatible_from integer NOT NULL,
    applied_at      bigint  NOT NULL
);

-- One small row for each run: who drives it, when it needs attention, how far its journal goes. No payload stands here
-- (the input is journal entry 0, the result the last entry). The columns of fixed width come first: nothing is lost to
-- padding. What every commit changes stands together: the log takes the part of a row between its first and its last
-- changed byte. Empty lists are NULL.
--
-- fillfactor: a commit that keeps the lease changes no indexed column, so its new row version stays on the page of the
-- old one (a HOT update: no index is touched, the next visitor clears the old version away) if the page has room. Runs
-- that are created together stand side by side and are driven together: then a page needs room for a new version of
-- each of its rows. Measured with 64 runs of ten steps in step, of the updates that could be HOT were HOT with 80: 83 %,
-- 65: 94 %, 50: 98.5 %. With 80 the others made every index longer, and the table was as large as with 50, because old
-- versions took the room that was not kept free. (Where nothing is driven it is half as large again.)
--
-- autovacuum: a run leaves one or two old versions that only vacuum clears (its end and its pauses change indexed
-- columns), and their entries in `runs_due` lie where claims look: so often, by 2 % instead of 20 % of the table.
CREATE TABLE :"schema".:"runs" (
    epoch         bigint   NOT NULL, -- the fencing token
    journal_len   bigint   NOT NULL,
    journal_bytes bigint   NOT NULL, -- the sum of the payloads' lengths: what loading the journal takes
    updated_at    bigint   NOT NULL,
    inbox_len     bigint   NOT NULL, -- the highest seq given out
    inbox_seen    bigint   NOT NULL, -- the highest seq that a driver has taken note of
    ready_at      bigint,            -- start time, deadline or end of the lease; NULL: nothing to do
    started_at    bigint,
    finished_at   bigint,
    created_at    bigint   NOT NULL,
    deadline      bigint,
    status        smallint NOT NULL, -- 0 queued 1 running 2 waiting 3 completed 4 failed 5 cancelled 6 terminated 7 stuck
    run_id        text     COLLATE "C" NOT NULL PRIMARY KEY,
    owner         text     COLLATE "C", -- NULL unless running
    workflow      text     COLLATE "C" NOT NULL,
    version       text     COLLATE "C" NOT NULL,
    waits         text[]   COLLATE "C",
    tags          text[]   COLLATE "C",
    seed          bytea    NOT NULL,
    note          text
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

-- Claims: for each status and workflow one descent, then due rows in order of `ready_at`, ties by run id. The workflow
-- stands before the time so that due runs of workflows which no process serves any more cost the others nothing.
-- Heartbeats read the range status = 1. Ended and stuck runs are not in it.
CREATE INDEX :"runs_due" ON :"schema".:"runs" (status, workflow, version, ready_at, run_id) WHERE ready_at IS NOT NULL;

-- Lists, newest first. Runs of one millisecond are sorted by their ids when read, which keeps the ids out of it.
CREATE INDEX :"runs_created" ON :"schema".:"runs" (created_at);

-- Messages that reached a running run: empty nearly always, so that the poll for them is one probe.
CREATE INDEX :"runs_unread" ON :"schema".:"runs" (owner) WHERE owner IS NOT NULL AND inbox_len > inbox_seen;

-- The journal, append-only: vacuum has nothing to clear but what is purged. bytea: bytes are kept exactly.
CREATE TABLE :"schema".:"journal" (
    idx      bigint   NOT NULL,
    at       bigint   NOT NULL,
    encoding smallint NOT NULL,
    kind     smallint NOT NULL,
    run_id   text     COLLATE "C" NOT NULL,
    op       text     COLLATE "C" NOT NULL,
    meta     text,
    payload  bytea    NOT NULL,
    PRIMARY KEY (run_id, idx)
);

-- Messages to runs. The primary key is the dedupe rule. A consumed message stays for ever with its payload emptied (the
-- journal has it), so that a late repetition is still a duplicate.
CREATE TABLE :"schema".:"inbox" (
    seq         bigint   NOT NULL,
    at          bigint   NOT NULL,
    kind        smallint NOT NULL, -- 0 event 1 approval 2 cancel
    state       smallint NOT NULL, -- 0 new 1 consumed 2 set aside
    run_id      text     COLLATE "C" NOT NULL,
    message_id  text     COLLATE "C" NOT NULL,
    name        text     COLLATE "C" NOT NULL,
    fingerprint text,
    note        text,              -- why it was set aside
    payload     bytea    NOT NULL,
    PRIMARY KEY (run_id, message_id)
);

-- What a driver has to read, in order of arrival: holds only what is unread.
CREATE INDEX :"inbox_unread" ON :"schema".:"inbox" (run_id, seq) WHERE state = 0;

-- What people ask about refused messages.
CREATE INDEX :"inbox_set_aside" ON :"schema".:"inbox" (run_id, seq) WHERE state = 2;

-- What few runs have: a state object and a memo. Apart from `runs`, so that its rows stay small.
CREATE TABLE :"schema".:"run_data" (
    run_id text  COLLATE "C" NOT NULL PRIMARY KEY,
    state  bytea,
    memo   bytea
);

-- The journal for people: kinds by name, times as times, payloads as text (they are JSON unless the application has an
-- encoding of its own). What is no text shows as hex: the pattern is that of well-formed UTF-8 (RFC 3629, 4) without NUL, so
-- that one odd payload cannot break a query over many.
CREATE VIEW :"schema".:"journal_json" AS
SELECT run_id,
       idx,
       coalesce((ARRAY['run_created', 'step_completed', 'step_failed', 'step_attempt_failed', 'wait_opened',
                       'event_received', 'timer_fired', 'approval_requested', 'approval_resolved', 'value_recorded',
                       'child_started', 'child_finished', 'patch_marked', 'cancel_requested', 'run_finished',
                       'run_failed', 'run_cancelled', 'run_terminated', 'run_reopened'])[kind + 1],
                'kind ' || kind) AS kind,
       op,
       meta,
       CASE WHEN encode(payload, 'hex') ~ ('^(0[1-9a-f]|[1-7][0-9a-f]'
                || '|(c[2-9a-f]|d[0-9a-f])[89ab][0-9a-f]'
                || '|(e0[ab]|e[1-9abcef][89ab]|ed[89])[0-9a-f][89ab][0-9a-f]'
                || '|(f0[9ab]|f[123][89ab]|f48)[0-9a-f]([89ab][0-9a-f]){2})*$')
            THEN convert_from(payload, 'UTF8')
            ELSE encode(payload, 'hex')
       END AS payload,
       to_timestamp(at / 1000.0) AS at
FROM :"schema".:"journal";

INSERT INTO :"schema".:"migrations" (number, name, compatible_from, applied_at)
VALUES (1, 'initial', 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint);
