-- Duramen, Postgres (13 or newer), migration 1: runs, journals, inboxes, owners, what leaves a run, schedules.
--
-- Applied by `duramen migrate`, by `runtime.migrate()`, or by hand:
--
--     psql --set=ON_ERROR_STOP=1 --single-transaction -f 0001_initial.sql
--     psql ... --set=schema=app --set=runs=app_runs -f 0001_initial.sql        other names
--
-- The names are psql's variables, with these defaults; the library puts in the same names in the same places and
-- passes over the lines with psql's own commands.
\if :{?schema} \else \set schema duramen \endif
\if :{?migrations} \else \set migrations duramen_schema_migrations \endif
\if :{?runs} \else \set runs runs \endif
\if :{?journal} \else \set journal journal \endif
\if :{?inbox} \else \set inbox inbox \endif
\if :{?run_tags} \else \set run_tags run_tags \endif
\if :{?run_data} \else \set run_data run_data \endif
\if :{?outgoing} \else \set outgoing outgoing \endif
\if :{?stream_items} \else \set stream_items stream_items \endif
\if :{?owners} \else \set owners owners \endif
\if :{?schedules} \else \set schedules schedules \endif
\if :{?journal_json} \else \set journal_json journal_json \endif
\set runs_due :runs _due
\set runs_created :runs _created
\set runs_owned :runs _owned
\set runs_unread :runs _unread
\set runs_resting :runs _resting
\set runs_finished :runs _finished
\set runs_parent :runs _parent
\set runs_root :runs _root
\set inbox_unread :inbox _unread
\set inbox_set_aside :inbox _set_aside
\set outgoing_at :outgoing _at
\set schedules_due :schedules _due

-- Every key of a run's tables begins with the run id (that of `run_tags` ends with it), and the tables do not refer to
-- each other: no foreign keys, no triggers, no sequences, no functions. What keeps a run's tables together is that every
-- change of a run is one statement or one transaction fenced by its row in `runs`.
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
-- (the input is a journal entry, the result the last one). The columns of fixed width come first: nothing is lost to
-- padding. Empty lists are NULL.
--
-- A commit that only appends to the journal locks the row and leaves it as it is: no row version, nothing for vacuum. So
-- `journal_len` and `updated_at` of a running run are those of its last claim, and the journal's key says how long it is.
-- What rewrites a row (creation, claim, pause, end) changes indexed columns, so there is nothing to be had from room that
-- is kept free on its page but for messages to running runs and commits that read them.
--
-- autovacuum: a run leaves two or three old versions that only vacuum clears, and their entries in `runs_due` and
-- `runs_owned` lie where claims look: so often, by 2 % instead of 20 % of the table.
CREATE TABLE :"schema".:"runs" (
    epoch         bigint   NOT NULL, -- the fencing token
    journal_start bigint   NOT NULL, -- where the journal of the present generation begins
    journal_len   bigint   NOT NULL, -- of a running run: when it was claimed, or last rewritten
    updated_at    bigint   NOT NULL,
    inbox_len     bigint   NOT NULL, -- the highest seq given out
    inbox_seen    bigint   NOT NULL, -- the highest seq that a driver has taken note of
    lost_at       bigint   NOT NULL, -- the length at which drivers were lost last
    created_at    bigint   NOT NULL,
    ready_at      bigint,            -- start time or deadline of a queued or waiting run; NULL: only a message, or nothing
    started_at    bigint,
    finished_at   bigint,
    timeout       bigint,            -- how long the whole run may take
    deadline      bigint,
    unread        integer  NOT NULL, -- messages neither consumed nor set aside
    unread_bytes  integer  NOT NULL, -- and the sum of their payloads' lengths
    generation    integer  NOT NULL,
    lost          integer  NOT NULL, -- drivers in a row lost at `lost_at`
    status        smallint NOT NULL, -- 0 queued 1 running 2 waiting 3 completed 4 failed 5 cancelled 6 terminated 7 stuck 8 paused
    priority      smallint NOT NULL,
    format        smallint NOT NULL, -- the least encoding that can read journal and inbox
    run_id        text     COLLATE "C" NOT NULL PRIMARY KEY,
    lane          text     COLLATE "C" NOT NULL, -- queue, workflow, version and format as one key
    owner         text     COLLATE "C", -- NULL unless running
    queue         text     COLLATE "C" NOT NULL,
    workflow      text     COLLATE "C" NOT NULL,
    version       text     COLLATE "C" NOT NULL,
    waits         text[]   COLLATE "C",
    tags          text[]   COLLATE "C",
    seed          bytea    NOT NULL,  -- tells this life of the id from others, too
    note          text,
    parent        text     COLLATE "C",
    root          text     COLLATE "C",
    origin        text     COLLATE "C"
) WITH (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

-- Claims: for each status, lane and priority one descent, then due rows in order of `ready_at`, ties by run id. The lane
-- stands before the time so that due runs which no process serves any more cost the others nothing. Holds queued
-- and waiting runs only.
CREATE INDEX :"runs_due" ON :"schema".:"runs" (status, lane, priority, ready_at, run_id) WHERE ready_at IS NOT NULL;

-- What an owner holds; of an owner that has ended, what is to be taken, lane by lane. One entry for each claim.
CREATE INDEX :"runs_owned" ON :"schema".:"runs" (owner, lane, run_id) WHERE owner IS NOT NULL;

-- Lists, newest first for each workflow; a list of all runs is put together from those of all workflows. Runs of one
-- millisecond are sorted by their ids when read, which keeps the ids out of it.
CREATE INDEX :"runs_created" ON :"schema".:"runs" (workflow, created_at);

-- Messages that reached a running run: empty nearly always, so that the poll for them is one probe.
CREATE INDEX :"runs_unread" ON :"schema".:"runs" (owner) WHERE owner IS NOT NULL AND inbox_len > inbox_seen;

-- The lists that people watch: runs that wait, by what they wait for, and those that did not end well, are stuck or paused. The
-- empty text stands for runs that wait for several things or for nothing (and for names that an index could not hold).
-- One entry for each pause.
CREATE INDEX :"runs_resting" ON :"schema".:"runs" (
    status,
    (CASE WHEN cardinality(waits) = 1 AND octet_length(waits[1]) <= 1100 THEN waits[1] ELSE '' END),
    created_at, run_id
) WHERE status IN (2, 4, 5, 6, 7, 8);

-- What a purge takes, oldest end first: one entry for each run that has ended, without the id as in the list.
CREATE INDEX :"runs_finished" ON :"schema".:"runs" (finished_at) WHERE finished_at IS NOT NULL;

-- The children of a run.
CREATE INDEX :"runs_parent" ON :"schema".:"runs" (parent, created_at, run_id) WHERE parent IS NOT NULL;
CREATE INDEX :"runs_root" ON :"schema".:"runs" (root, created_at, run_id) WHERE root IS NOT NULL;

-- One row for each incarnation of a process, with the one lease that it has. A heartbeat rewrites this row, however many
-- runs are driven; no index holds what it changes, and half of each page is kept free, so that its new version stays on the
-- page of the old one (a HOT update), where the next visitor clears the old one away.
CREATE TABLE :"schema".:"owners" (
    owner       text     COLLATE "C" NOT NULL PRIMARY KEY,
    label       text,               -- host and process
    serves      text[],
    format      smallint NOT NULL,  -- the highest encoding that it reads
    started_at  bigint   NOT NULL,
    seen_at     bigint   NOT NULL,
    lease_until bigint   NOT NULL,
    ended_at    bigint              -- for good
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

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
    kind        smallint NOT NULL, -- 0 event 1 approval 2 cancel 3 child 4 update 5 pause 6 resume
    encoding    smallint NOT NULL, -- the least that can read it
    state       smallint NOT NULL, -- 0 new 1 consumed 2 set aside
    run_id      text     COLLATE "C" NOT NULL,
    message_id  text     COLLATE "C" NOT NULL,
    name        text     COLLATE "C" NOT NULL,
    fingerprint text,
    note        text,              -- why it was set aside
    reply       bytea,             -- the answer of the commit that consumed it
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

-- The runs of each tag, newest first; written with the run, never changed. One row for each tag of a run.
CREATE TABLE :"schema".:"run_tags" (
    created_at bigint NOT NULL,
    tag        text   COLLATE "C" NOT NULL,
    run_id     text   COLLATE "C" NOT NULL,
    PRIMARY KEY (tag, created_at, run_id)
);

-- What left a run with a commit and is still to be carried out: mostly empty. `entry` is the index of the commit's first
-- journal entry.
CREATE TABLE :"schema".:"outgoing" (
    entry  bigint   NOT NULL,
    at     bigint   NOT NULL,
    number integer  NOT NULL,
    kind   smallint NOT NULL, -- 0 a run to create 1 a message
    run_id text     COLLATE "C" NOT NULL,
    target text     COLLATE "C" NOT NULL,
    body   bytea    NOT NULL,
    PRIMARY KEY (run_id, entry, number)
) WITH (autovacuum_vacuum_scale_factor = 0.02);

-- What its commit's maker has left undone, oldest first.
CREATE INDEX :"outgoing_at" ON :"schema".:"outgoing" (at, run_id, entry, number);

-- Items of streams, which handlers and steps write while they run. `seq` counts from 1 without a gap: it is given out behind
-- the lock of the run's row, so that whoever has read up to one has missed nothing before it. The last item of a stream always
-- stays. Cost: nothing for runs without streams.
CREATE TABLE :"schema".:"stream_items" (
    seq     bigint  NOT NULL,
    idx     bigint  NOT NULL, -- its place among what its writer wrote; what the writer wrote there and behind before is void
    at      bigint  NOT NULL,
    attempt integer NOT NULL, -- of the step; 0 for the handler's
    run_id  text    COLLATE "C" NOT NULL,
    stream  text    COLLATE "C" NOT NULL,
    writer  text    COLLATE "C" NOT NULL, -- the step's operation; '' for the handler; of later generations with '##' and a number
    payload bytea   NOT NULL,
    PRIMARY KEY (run_id, stream, seq)
);

-- What starts runs at their times. The definition and the state belong to the library; a change names the version that it
-- expects, and writes another. Half of each page is kept free, as for owners.
CREATE TABLE :"schema".:"schedules" (
    version    bigint NOT NULL,
    next_at    bigint,              -- when somebody has to look at it; NULL: paused, or it fires no more
    id         text   COLLATE "C" NOT NULL PRIMARY KEY,
    workflow   text   COLLATE "C" NOT NULL,
    definition bytea  NOT NULL,
    state      bytea  NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

-- What is due, by those who know the workflow: an idle look is one probe for each of these, however many schedules there are.
CREATE INDEX :"schedules_due" ON :"schema".:"schedules" (workflow, next_at, id) WHERE next_at IS NOT NULL;

-- The journal for people: kinds by name, times as times, payloads as text (they are JSON unless the application has an
-- encoding of its own). What is no text shows as hex: the pattern is that of well-formed UTF-8 (RFC 3629, 4) without NUL, so
-- that one odd payload cannot break a query over many.
CREATE VIEW :"schema".:"journal_json" AS
SELECT run_id,
       idx,
       coalesce((ARRAY['run_created', 'step_completed', 'step_failed', 'step_attempt_failed', 'wait_opened',
                       'event_received', 'timer_fired', 'approval_requested', 'approval_resolved', 'value_recorded',
                       'child_started', 'child_finished', 'patch_marked', 'cancel_requested', 'run_finished',
                       'run_failed', 'run_cancelled', 'run_terminated', 'run_reopened',
                       'message_sent', 'update_accepted', 'update_finished', 'stream_written', 'step_progress', 'run_parked'])[kind + 1],
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
