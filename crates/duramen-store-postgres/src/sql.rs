//! Every statement of the store, by topic.
//!
//! A table stands as `{runs}`; its schema and name are put in once, when the store is opened.
//! Budget: one statement, and so one round trip and one commit, for a batch of creations, commits or
//! messages and for a claim with its journals and inboxes.
//!
//! Four rules keep the plans what they are meant to be whatever the tables' statistics say:
//! - batches come as arrays, and sessions have hash and merge joins and sequential scans off
//!   ([`SETTINGS`]): a batch is a nested loop that goes down the primary key once for each element. (Left
//!   to its choice, the planner hashes the whole table for a batch of 64.)
//! - `(x IN (SELECT …)) IS TRUE` is a hashed subplan, which cannot become a join;
//! - `CROSS JOIN LATERAL (… OFFSET 0)` is looked up once for each row before it. (A join with unread messages
//!   may start from all of them: the statistics nearly always say that there are none.)
//! - plans are generic: made once for a prepared statement, not for each array.
//!
//! One statement sees one snapshot. A row that it had to wait for, or that changed after the snapshot
//! was taken, is locked in its newest version, but what the statement reads of other tables is as old
//! as the snapshot. Where that matters it is said, and checked (`claim`).

use std::borrow::Cow;

use tokio_postgres::types::Type;

use crate::options::Names;

/// A statement with its parameters' types, so that no round trip asks for them.
#[derive(Debug)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) types: Cow<'static, [Type]>,
    /// Worth keeping on the server: its text is one of this file's, not made for one question.
    pub(crate) prepare: bool,
}

impl Sql {
    fn new(names: &Names, template: &str, types: &'static [Type]) -> Self {
        Self {
            text: names.fill(template),
            types: Cow::Borrowed(types),
            prepare: true,
        }
    }
}

/// The statements with one store's names in them.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) create: Sql,
    pub(crate) create_contested: Sql,
    pub(crate) rows: Sql,
    pub(crate) details: Sql,
    pub(crate) load: Sql,
    pub(crate) commit: Sql,
    pub(crate) commit_and_read: Sql,
    pub(crate) locked: Sql,
    pub(crate) claim: Sql,
    pub(crate) claim_alone: Sql,
    pub(crate) park: Sql,
    pub(crate) renew: Sql,
    pub(crate) next: Sql,
    pub(crate) deliver: Sql,
    pub(crate) first: Sql,
    pub(crate) unread: Sql,
    pub(crate) unread_of_owner: Sql,
    pub(crate) refused: Sql,
    pub(crate) standing: Sql,
    pub(crate) terminate: Sql,
    pub(crate) reopen: Sql,
    pub(crate) append: Sql,
    pub(crate) delete: [Sql; 4],
    pub(crate) found: Sql,
    pub(crate) identity: Sql,
}

impl Book {
    pub(crate) fn new(names: &Names) -> Self {
        let sql = |template: &str, types| Sql::new(names, template, types);
        let both = |one: &str, other: &str| format!("{one}{other}");
        let contested = both(run::ON_CONFLICT, run::RETURNING);
        let committed = both(commit::FENCED, commit::ANSWER);
        let read = both(&both(commit::FENCED, commit::READ), commit::ANSWER);
        Self {
            create: sql(run::CREATE, run::CREATE_TYPES),
            create_contested: sql(
                &run::CREATE.replacen(run::RETURNING, &contested, 1),
                run::CREATE_TYPES,
            ),
            rows: sql(run::ROWS, run::BY_IDS),
            details: sql(run::DETAILS, run::BY_IDS),
            load: sql(journal::LOAD, journal::LOAD_TYPES),
            commit: sql(&committed, commit::TYPES),
            commit_and_read: sql(&read, commit::READ_TYPES),
            locked: sql(commit::LOCKED, run::BY_IDS),
            claim: sql(&both(lease::DUE, lease::TAKE), lease::TYPES),
            claim_alone: sql(&both(lease::DUE_ALONE, lease::TAKE), lease::ALONE_TYPES),
            park: sql(lease::PARK, lease::PARK_TYPES),
            renew: sql(lease::RENEW, lease::RENEW_TYPES),
            next: sql(lease::NEXT, lease::NEXT_TYPES),
            deliver: sql(inbox::DELIVER, inbox::DELIVER_TYPES),
            first: sql(inbox::FIRST, inbox::FIRST_TYPES),
            unread: sql(inbox::UNREAD, inbox::UNREAD_TYPES),
            unread_of_owner: sql(inbox::UNREAD_OF_OWNER, inbox::UNREAD_TYPES),
            refused: sql(inbox::REFUSED, run::BY_IDS),
            standing: sql(intervene::STANDING, intervene::BY_ID),
            terminate: sql(intervene::TERMINATE, intervene::TERMINATE_TYPES),
            reopen: sql(intervene::REOPEN, intervene::REOPEN_TYPES),
            append: sql(intervene::APPEND, intervene::APPEND_TYPES),
            delete: intervene::DELETE.map(|template| sql(template, intervene::BY_ID)),
            found: sql(schema::FOUND, &[]),
            identity: sql(outside::IDENTITY, &[]),
        }
    }
}

/// What a session is told first.
pub(crate) const SETTINGS: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    // A bitmap loses the order of an index, and with it the early end of a claim.
    ("enable_bitmapscan", "off"),
    ("jit", "off"),
];

/// The database's clock in milliseconds: the same for a whole statement.
macro_rules! clock {
    () => {
        "(extract(epoch FROM statement_timestamp()) * 1000)::bigint"
    };
}

/// An instant and a span after it, without overflow.
macro_rules! later {
    ($at:literal, $span:literal) => {
        concat!(
            "CASE WHEN ",
            $span,
            " > 9223372036854775807 - ",
            $at,
            " THEN 9223372036854775807 ELSE ",
            $at,
            " + ",
            $span,
            " END"
        )
    };
}

pub(crate) mod run {
    use duramen_store_sql::{entry_columns, run_columns};

    use super::Type;

    /// Looks whether the id is free, which costs the log nothing. `ON CONFLICT` writes each row twice: first
    /// on trial, then confirmed; it is for those that lost a race ([`ON_CONFLICT`]).
    pub(crate) const CREATE: &str = concat!(
        "WITH b AS MATERIALIZED (SELECT u.*, coalesce(u.given, ",
        clock!(),
        ") AS now FROM unnest(\
         $1::text[], $2::smallint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[], \
         $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bytea[], $14::bytea[]) \
         AS u(run_id, status, epoch, owner, workflow, version, tags, seed, start_at, lease, timeout, given, \
         input, memo)), \
         new AS (INSERT INTO {runs} (epoch, journal_len, journal_bytes, inbox_len, inbox_seen, ready_at, \
         updated_at, started_at, created_at, deadline, status, run_id, owner, workflow, version, tags, seed) \
         SELECT epoch, 1, octet_length(input), 0, 0, \
         CASE status WHEN 1 THEN ",
        later!("now", "lease"),
        " ELSE coalesce(start_at, now) END, \
         now, CASE status WHEN 1 THEN now END, now, \
         CASE WHEN timeout IS NULL THEN NULL WHEN status = 1 THEN ",
        later!("now", "timeout"),
        " ELSE ",
        later!("coalesce(start_at, now)", "timeout"),
        " END, \
         status, run_id, owner, workflow, version, string_to_array(tags, E'\\x1f'), seed FROM b \
         WHERE NOT EXISTS (SELECT FROM {runs} r WHERE r.run_id = b.run_id) RETURNING run_id, created_at), \
         entry AS (INSERT INTO {journal} (idx, at, encoding, kind, run_id, op, meta, payload) \
         SELECT 0, now, 1, 0, run_id, '', NULL, input FROM b \
         WHERE (run_id IN (SELECT run_id FROM new)) IS TRUE), \
         memo AS (INSERT INTO {run_data} (run_id, memo) SELECT run_id, memo FROM b \
         WHERE memo IS NOT NULL AND (run_id IN (SELECT run_id FROM new)) IS TRUE) \
         SELECT run_id, created_at FROM new"
    );
    /// What stands before this takes the clause that lets the rows of others be.
    pub(crate) const RETURNING: &str = " RETURNING run_id, created_at), \
         entry AS";
    pub(crate) const ON_CONFLICT: &str = " ON CONFLICT (run_id) DO NOTHING";

    pub(crate) const CREATE_TYPES: &[Type] = &[
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::BYTEA_ARRAY,
        Type::BYTEA_ARRAY,
    ];

    pub(crate) const ROWS: &str = concat!(
        "SELECT ",
        run_columns!("r."),
        " FROM {runs} r WHERE r.run_id = ANY($1)"
    );

    /// Rows with what people ask of them, all from one snapshot.
    pub(crate) const DETAILS: &str = concat!(
        "SELECT ",
        run_columns!("r."),
        ", w.n, first.payload, d.state, d.memo, ",
        entry_columns!("last."),
        " FROM unnest($1::text[]) WITH ORDINALITY AS w(run_id, n) \
         JOIN {runs} r ON r.run_id = w.run_id \
         LEFT JOIN {journal} first ON first.run_id = r.run_id AND first.idx = 0 \
         LEFT JOIN {journal} last ON last.run_id = r.run_id AND last.idx = r.journal_len - 1 \
         AND r.status BETWEEN 3 AND 6 \
         LEFT JOIN {run_data} d ON d.run_id = r.run_id"
    );
    pub(crate) const BY_IDS: &[Type] = &[Type::TEXT_ARRAY];
}

pub(crate) mod journal {
    use duramen_store_sql::entry_columns;

    use super::Type;

    pub(crate) const LOAD: &str = concat!(
        "SELECT ",
        entry_columns!(""),
        " FROM {journal} WHERE run_id = $1 AND idx >= $2 ORDER BY idx LIMIT $3"
    );
    pub(crate) const LOAD_TYPES: &[Type] = &[Type::TEXT, Type::INT8, Type::INT8];
}

pub(crate) mod commit {
    use super::Type;

    /// The fenced update. Rows of a batch are locked in the order of the arrays, which is that of the
    /// run ids, so that two batches never wait for each other. A commit that keeps the lease changes
    /// no indexed column: a HOT update, no index is touched.
    pub(crate) const FENCED: &str = "WITH b AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], \
         $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::smallint[], $10::bigint[], $11::text[], \
         $12::text[]) WITH ORDINALITY AS u(run_id, owner, epoch, len, grown, bytes, seen, at, status, ready_at, \
         waits, note, n)), \
         ok AS (UPDATE {runs} r SET journal_len = r.journal_len + b.grown, \
         journal_bytes = r.journal_bytes + b.bytes, \
         inbox_seen = greatest(r.inbox_seen, least(b.seen, r.inbox_len)), updated_at = b.at, status = b.status, \
         owner = CASE b.status WHEN 1 THEN r.owner END, \
         ready_at = CASE b.status WHEN 1 THEN r.ready_at WHEN 2 THEN \
         CASE WHEN r.inbox_len > greatest(r.inbox_seen, b.seen) THEN b.at ELSE b.ready_at END END, \
         waits = CASE b.status WHEN 1 THEN r.waits WHEN 2 THEN string_to_array(b.waits, E'\\x1f') END, \
         finished_at = CASE WHEN b.status BETWEEN 3 AND 6 THEN b.at ELSE r.finished_at END, \
         note = CASE b.status WHEN 1 THEN r.note ELSE b.note END \
         FROM b WHERE r.run_id = b.run_id AND r.status = 1 AND r.owner = b.owner AND r.epoch = b.epoch \
         AND r.journal_len = b.len \
         RETURNING b.n, r.status = 2 AND r.inbox_len > r.inbox_seen AS due), \
         entries AS (INSERT INTO {journal} (idx, at, encoding, kind, run_id, op, meta, payload) \
         SELECT e.idx, e.at, e.encoding, e.kind, e.run_id, e.op, e.meta, e.payload \
         FROM unnest($13::bigint[], $14::bigint[], $15::bigint[], $16::smallint[], $17::smallint[], $18::text[], \
         $19::text[], $20::text[], $21::bytea[]) AS e(n, idx, at, encoding, kind, run_id, op, meta, payload) \
         WHERE (e.n IN (SELECT n FROM ok)) IS TRUE)";

    /// For batches that read messages or set them aside.
    pub(crate) const READ: &str = ", reads AS (UPDATE {inbox} i SET state = CASE WHEN m.note IS NULL THEN 1 ELSE 2 END, \
         payload = CASE WHEN m.note IS NULL THEN '\\x'::bytea ELSE i.payload END, note = m.note \
         FROM unnest($22::bigint[], $23::text[], $24::bigint[], $25::text[]) AS m(n, run_id, seq, note) \
         CROSS JOIN LATERAL (SELECT u.message_id FROM {inbox} u WHERE u.run_id = m.run_id AND u.seq = m.seq \
         AND u.state = 0 OFFSET 0) u \
         WHERE i.run_id = m.run_id AND i.message_id = u.message_id AND (m.n IN (SELECT n FROM ok)) IS TRUE), \
         states AS (INSERT INTO {run_data} (run_id, state) SELECT s.run_id, s.state \
         FROM unnest($26::bigint[], $27::text[], $28::bytea[]) AS s(n, run_id, state) \
         WHERE (s.n IN (SELECT n FROM ok)) IS TRUE \
         ON CONFLICT (run_id) DO UPDATE SET state = excluded.state)";

    pub(crate) const ANSWER: &str = " SELECT n, due FROM ok";

    /// Which of these runs others have locked.
    pub(crate) const LOCKED: &str = "WITH free AS MATERIALIZED (SELECT r.run_id FROM {runs} r WHERE r.run_id = ANY($1) \
         FOR NO KEY UPDATE SKIP LOCKED) \
         SELECT r.run_id FROM {runs} r WHERE r.run_id = ANY($1) AND (r.run_id IN (SELECT run_id FROM free)) IS NOT TRUE";

    /// Without the arrays of [`READ`].
    pub(crate) const TYPES: &[Type] = READ_TYPES.split_at(21).0;
    pub(crate) const READ_TYPES: &[Type] = &[
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2_ARRAY,
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
    ];
}

pub(crate) mod lease {
    use duramen_store_sql::run_numbers;

    use super::Type;

    /// One descent of `runs_due` for each line, from its floor on (`floors.rs`); what others hold is passed
    /// over.
    pub(crate) const DUE: &str = concat!(
        "WITH c AS MATERIALIZED (SELECT coalesce($1::bigint, ",
        clock!(),
        ") AS now), \
         due AS MATERIALIZED (SELECT d.*, k.place FROM c, \
         unnest($2::smallint[], $3::text[], $4::text[], $11::bigint[]) \
         WITH ORDINALITY AS k(status, workflow, version, floor, place) CROSS JOIN LATERAL (\
         SELECT r.run_id, r.status, r.ready_at, r.epoch, r.journal_len, r.journal_bytes FROM {runs} r \
         WHERE r.status = k.status AND r.workflow = k.workflow AND r.version = k.version \
         AND r.ready_at >= k.floor AND r.ready_at <= c.now ORDER BY r.ready_at, r.run_id LIMIT $5 + 1 FOR UPDATE SKIP LOCKED) d)"
    );

    /// The same for one run, whose lock is waited for: a claim of this run and no other is meant.
    /// Whoever held it may have changed its status. A subplan looks at all lines again then; a join (which
    /// an `EXISTS` becomes) would look at none but the line of the former status, and find nothing.
    pub(crate) const DUE_ALONE: &str = concat!(
        "WITH c AS MATERIALIZED (SELECT coalesce($1::bigint, ",
        clock!(),
        ") AS now), \
         due AS MATERIALIZED (SELECT r.run_id, r.status, r.ready_at, r.epoch, r.journal_len, r.journal_bytes, 1 AS place \
         FROM {runs} r, c WHERE r.run_id = $11 AND r.ready_at <= c.now AND ((r.status, r.workflow, r.version) IN (\
         SELECT * FROM unnest($2::smallint[], $3::text[], $4::text[]))) IS TRUE \
         LIMIT $5 + 1 FOR UPDATE OF r)"
    );

    /// In turn from each line (`duramen_core::lines`), as many as the budgets allow, are taken, and come
    /// with journal and inbox. The note is what `RunRow::standing` says.
    ///
    /// The update meets a row twice: as it is in the snapshot and, if that is not the newest, as it is
    /// now. It must pass both times if it is now what was locked, which is never older: so `<=`, and no
    /// condition on the status, which a commit may have changed in between. (Whoever claims a run raises
    /// its epoch and whoever ends it makes its journal longer, so that the row is not taken either where
    /// a lock should not have kept them out.)
    ///
    /// `current` is false when the row had changed between the snapshot and the lock: then journal and
    /// inbox, read from the snapshot, may lack what came with that change (or hold a message that was set
    /// aside with it), and are read again.
    pub(crate) const TAKE: &str = concat!(
        ", lined AS (SELECT due.*, row_number() OVER (PARTITION BY place ORDER BY ready_at, run_id) AS rank, \
         ((run_id, journal_len) IN (SELECT * FROM unnest($6::text[], $7::bigint[]))) IS TRUE AS warm FROM due), \
         ranked AS MATERIALIZED (SELECT o.*, row_number() OVER w AS n, \
         sum(CASE WHEN o.warm THEN 0 ELSE o.journal_bytes END) OVER w AS bytes FROM lined o \
         WINDOW w AS (ORDER BY o.rank, o.place)), \
         pick AS MATERIALIZED (SELECT ranked.*, n <= $5 AND \
         bool_and(n = 1 OR warm OR $8::bigint IS NULL OR bytes <= $8) OVER (ORDER BY n) AS fits FROM ranked), \
         took AS (UPDATE {runs} r SET status = 1, owner = $9, epoch = r.epoch + 1, \
         started_at = coalesce(r.started_at, c.now), updated_at = c.now, \
         ready_at = ",
        later!("c.now", "$10::bigint"),
        ", \
         note = CASE WHEN p.status <> 1 THEN NULL WHEN starts_with(r.note, r.journal_len || '@') THEN r.note \
         ELSE r.journal_len || '@' || r.epoch END \
         FROM pick p, c WHERE p.fits AND r.run_id = p.run_id AND (r.epoch, r.journal_len) <= (p.epoch, p.journal_len) \
         RETURNING p.n, p.warm, p.status AS was, p.ready_at AS was_due, r.*) \
         SELECT 0::smallint AS part, 0::bigint AS n, c.now AS a, \
         (EXISTS (SELECT FROM pick WHERE NOT fits))::int::bigint AS b, NULL::smallint AS c, NULL::smallint AS d, \
         NULL::text AS x, NULL::text AS y, NULL::bytea AS z, NULL::bigint[] AS numbers, NULL::text[] AS texts FROM c \
         UNION ALL SELECT 1::smallint, t.n, (SELECT v.epoch + 1 = t.epoch AND v.status = t.was \
         AND v.journal_len = t.journal_len AND v.inbox_len = t.inbox_len AND v.inbox_seen = t.inbox_seen \
         FROM {runs} v WHERE v.run_id = t.run_id)::int, t.warm::int, t.was, t.status, NULL, NULL, t.seed, ARRAY[",
        run_numbers!("t."),
        ", t.was_due], \
         ARRAY[t.run_id, t.owner, t.workflow, t.version, array_to_string(t.waits, E'\\x1f'), \
         array_to_string(t.tags, E'\\x1f'), t.note] FROM took t \
         UNION ALL SELECT 2::smallint, t.n, j.idx, j.at, j.encoding, j.kind, j.op, j.meta, j.payload, NULL, NULL \
         FROM took t CROSS JOIN LATERAL (SELECT * FROM {journal} WHERE run_id = t.run_id OFFSET 0) j WHERE NOT t.warm \
         UNION ALL SELECT 3::smallint, t.n, i.seq, i.at, i.kind, NULL, i.message_id, i.name, i.payload, NULL, NULL \
         FROM took t CROSS JOIN LATERAL (SELECT * FROM {inbox} WHERE run_id = t.run_id AND state = 0 OFFSET 0) i \
         WHERE t.inbox_len > 0"
    );
    pub(crate) const TYPES: &[Type] = &[
        Type::INT8,
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::INT8_ARRAY,
    ];
    pub(crate) const ALONE_TYPES: &[Type] = &[
        Type::INT8,
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::INT8,
        Type::TEXT,
        Type::INT8,
        Type::TEXT,
    ];

    /// A run whose journal this build cannot read is set aside, so that it does not block the others.
    pub(crate) const PARK: &str = "UPDATE {runs} SET status = 7, owner = NULL, epoch = epoch + 1, \
         updated_at = $4, ready_at = NULL, waits = NULL, note = $3 \
         WHERE run_id = $1 AND epoch = $2 AND status = 1";
    pub(crate) const PARK_TYPES: &[Type] = &[Type::TEXT, Type::INT8, Type::TEXT, Type::INT8];

    /// What is locked right now (by a commit on its way, as a rule) is passed over and answered as held
    /// without being renewed; the caller comes back for it. So no user's transaction that touches one
    /// run can cost all others of this owner their leases.
    pub(crate) const RENEW: &str = concat!(
        "WITH c AS MATERIALIZED (SELECT coalesce($2::bigint, ",
        clock!(),
        ") AS now), \
         held AS MATERIALIZED (SELECT r.run_id, r.epoch FROM {runs} r \
         WHERE r.status = 1 AND r.owner = $1 AND r.ready_at >= $4), \
         free AS MATERIALIZED (SELECT r.run_id FROM held h JOIN {runs} r ON r.run_id = h.run_id \
         WHERE r.status = 1 AND r.owner = $1 ORDER BY r.run_id FOR UPDATE OF r SKIP LOCKED), \
         renewed AS (UPDATE {runs} r SET ready_at = ",
        later!("c.now", "$3::bigint"),
        " FROM free, c \
         WHERE r.run_id = free.run_id AND r.status = 1 AND r.owner = $1 RETURNING r.run_id, r.epoch) \
         SELECT c.now, renewed.run_id, renewed.epoch, TRUE FROM c LEFT JOIN renewed ON TRUE \
         UNION ALL SELECT c.now, h.run_id, h.epoch, FALSE FROM c, held h \
         WHERE (h.run_id NOT IN (SELECT run_id FROM renewed)) IS TRUE"
    );
    pub(crate) const RENEW_TYPES: &[Type] = &[Type::TEXT, Type::INT8, Type::INT8, Type::INT8];

    pub(crate) const NEXT: &str = concat!(
        "SELECT ",
        clock!(),
        " AS now, (SELECT min(d.ready_at) \
         FROM unnest($1::smallint[], $2::text[], $3::text[], $4::bigint[]) AS k(status, workflow, version, floor) CROSS JOIN LATERAL (\
         SELECT r.ready_at FROM {runs} r WHERE r.status = k.status AND r.workflow = k.workflow \
         AND r.version = k.version AND r.ready_at >= k.floor ORDER BY r.ready_at, r.run_id LIMIT 1) d) AS ready_at"
    );
    pub(crate) const NEXT_TYPES: &[Type] = &[
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
    ];
}

pub(crate) mod inbox {
    use duramen_store_sql::message_columns;

    use super::Type;

    /// Rows first, locked in the order of their ids: whoever sends to a run waits here for the others,
    /// and the numbers given out below are its next. A message that was there before the snapshot is
    /// found by `fresh`; one that came between snapshot and lock by the primary key (its number is then
    /// never given to another).
    pub(crate) const DELIVER: &str = concat!(
        "WITH m AS MATERIALIZED (SELECT u.*, coalesce(u.given, ",
        clock!(),
        ") AS at FROM unnest(\
         $1::text[], $2::text[], $3::smallint[], $4::text[], $5::bytea[], $6::text[], $7::bigint[], $8::text[]) \
         WITH ORDINALITY AS u(run_id, message_id, kind, name, payload, fingerprint, given, wait_key, n)), \
         t AS MATERIALIZED (SELECT r.run_id, r.status, r.inbox_len, r.waits, r.owner FROM {runs} r \
         WHERE r.run_id = ANY($9) ORDER BY r.run_id FOR UPDATE), \
         fresh AS MATERIALIZED (SELECT m.*, \
         t.inbox_len + row_number() OVER (PARTITION BY m.run_id ORDER BY m.n) AS seq, \
         CASE m.kind WHEN 2 THEN t.status <= 2 ELSE t.status = 2 AND (m.wait_key = ANY(t.waits)) IS TRUE END \
         AS awaited FROM m JOIN t ON t.run_id = m.run_id \
         WHERE t.status NOT BETWEEN 3 AND 6 AND NOT EXISTS (SELECT FROM {inbox} i \
         WHERE i.run_id = m.run_id AND i.message_id = m.message_id)), \
         kept AS (INSERT INTO {inbox} (seq, at, kind, state, run_id, message_id, name, fingerprint, payload) \
         SELECT seq, at, kind, 0, run_id, message_id, name, fingerprint, payload FROM fresh \
         ON CONFLICT (run_id, message_id) DO NOTHING RETURNING run_id, seq), \
         due AS (UPDATE {runs} r SET inbox_len = greatest(r.inbox_len, x.len), \
         ready_at = CASE WHEN x.at IS NULL OR r.status = 1 THEN r.ready_at ELSE least(r.ready_at, x.at) END \
         FROM (SELECT f.run_id, max(f.seq) AS len, min(f.at) FILTER (WHERE f.awaited) AS at \
         FROM fresh f JOIN kept k ON k.run_id = f.run_id AND k.seq = f.seq GROUP BY f.run_id) x \
         WHERE r.run_id = x.run_id) \
         SELECT m.n, t.status, t.owner, k.seq IS NOT NULL AS kept, f.awaited, i.seq IS NOT NULL AS known, \
         i.fingerprint FROM m LEFT JOIN t ON t.run_id = m.run_id LEFT JOIN fresh f ON f.n = m.n \
         LEFT JOIN kept k ON k.run_id = f.run_id AND k.seq = f.seq \
         LEFT JOIN {inbox} i ON i.run_id = m.run_id AND i.message_id = m.message_id"
    );
    pub(crate) const DELIVER_TYPES: &[Type] = &[
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT8_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
    ];

    pub(crate) const FIRST: &str =
        "SELECT fingerprint FROM {inbox} WHERE run_id = $1 AND message_id = $2";
    pub(crate) const FIRST_TYPES: &[Type] = &[Type::TEXT, Type::TEXT];

    pub(crate) const UNREAD: &str = concat!(
        "SELECT ",
        message_columns!("i."),
        " FROM {inbox} i WHERE i.run_id = $1 AND i.state = 0 ORDER BY i.seq"
    );
    pub(crate) const UNREAD_TYPES: &[Type] = &[Type::TEXT];

    pub(crate) const UNREAD_OF_OWNER: &str = concat!(
        "SELECT ",
        message_columns!("i."),
        " FROM {runs} r \
         CROSS JOIN LATERAL (SELECT * FROM {inbox} WHERE run_id = r.run_id AND state = 0 AND seq > r.inbox_seen OFFSET 0) i \
         WHERE r.owner = $1 AND r.owner IS NOT NULL AND r.inbox_len > r.inbox_seen"
    );

    pub(crate) const REFUSED: &str = concat!(
        "SELECT ",
        message_columns!("i."),
        ", i.note FROM {inbox} i WHERE i.run_id = ANY($1) AND i.state = 2 ORDER BY i.run_id, i.seq"
    );
}

pub(crate) mod intervene {
    use super::Type;

    pub(crate) const STANDING: &str =
        "SELECT status, journal_len FROM {runs} WHERE run_id = $1 FOR UPDATE";
    pub(crate) const BY_ID: &[Type] = &[Type::TEXT];

    pub(crate) const TERMINATE: &str = "UPDATE {runs} SET status = 6, epoch = epoch + 1, \
         journal_len = journal_len + 1, journal_bytes = journal_bytes + $3, owner = NULL, ready_at = NULL, \
         waits = NULL, note = NULL, updated_at = $2, finished_at = $2 WHERE run_id = $1";
    pub(crate) const TERMINATE_TYPES: &[Type] = &[Type::TEXT, Type::INT8, Type::INT8];

    pub(crate) const REOPEN: &str = concat!(
        "UPDATE {runs} SET status = 0, epoch = epoch + 1, journal_len = journal_len + $3, \
         journal_bytes = journal_bytes + $4, owner = NULL, ready_at = coalesce($2, ",
        clock!(),
        "), \
         waits = NULL, note = NULL, updated_at = coalesce($2, ",
        clock!(),
        "), finished_at = NULL \
         WHERE run_id = $1"
    );
    pub(crate) const REOPEN_TYPES: &[Type] = &[Type::TEXT, Type::INT8, Type::INT8, Type::INT8];

    pub(crate) const APPEND: &str = "INSERT INTO {journal} (idx, at, encoding, kind, run_id, op, meta, payload) \
         SELECT e.idx, e.at, e.encoding, e.kind, $1, e.op, e.meta, e.payload \
         FROM unnest($2::bigint[], $3::bigint[], $4::smallint[], $5::smallint[], $6::text[], $7::text[], \
         $8::bytea[]) AS e(idx, at, encoding, kind, op, meta, payload)";
    pub(crate) const APPEND_TYPES: &[Type] = &[
        Type::TEXT,
        Type::INT8_ARRAY,
        Type::INT8_ARRAY,
        Type::INT2_ARRAY,
        Type::INT2_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::BYTEA_ARRAY,
    ];

    pub(crate) const DELETE: [&str; 4] = [
        "DELETE FROM {journal} WHERE run_id = $1",
        "DELETE FROM {inbox} WHERE run_id = $1",
        "DELETE FROM {run_data} WHERE run_id = $1",
        "DELETE FROM {runs} WHERE run_id = $1",
    ];
}

pub(crate) mod query {
    use duramen_store_sql::run_columns;

    pub(crate) const LIST: &str = concat!("SELECT ", run_columns!("r."), " FROM {runs} r");
    pub(crate) const COUNT: &str = "SELECT count(*) FROM {runs} r";
}

pub(crate) mod schema {
    pub(crate) const FOUND: &str =
        "SELECT coalesce(max(number), 0), coalesce(max(compatible_from), 0) FROM {migrations}";
    pub(crate) const EXISTS: &str = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
    pub(crate) const LOCK: &str = "LOCK TABLE {migrations} IN EXCLUSIVE MODE";
    pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS {migrations} (number integer NOT NULL PRIMARY KEY, \
         name text NOT NULL, compatible_from integer NOT NULL, applied_at bigint NOT NULL)";
}

/// For a connection of the user's: one run, scalar values, types beside them. See `crate::outside`.
pub(crate) mod outside {
    /// Tells this database and schema from others, copies that were restored from a dump too. (A server's
    /// address says nothing behind a pooler, and its identifier is another on each node of a distributed
    /// one.)
    pub(crate) const IDENTITY: &str = "SELECT concat_ws(' ', current_database(), \
         '{runs}'::regclass::oid, applied_at) FROM {migrations} WHERE number = 1";

    pub(crate) const FENCE: &str = "UPDATE {runs} SET journal_len = journal_len + $5::bigint, \
         journal_bytes = journal_bytes + $6::bigint, \
         inbox_seen = greatest(inbox_seen, least($7::bigint, inbox_len)), updated_at = $8::bigint \
         WHERE run_id = $1::text AND status = 1 AND owner = $2::text AND epoch = $3::bigint \
         AND journal_len = $4::bigint RETURNING 1";

    /// The rows follow.
    pub(crate) const APPEND: &str =
        "INSERT INTO {journal} (run_id, idx, at, encoding, kind, op, meta, payload) VALUES ";

    pub(crate) const CONSUME: &str = "UPDATE {inbox} SET state = 1, payload = ''::bytea \
         WHERE run_id = $1::text AND seq = $2::bigint AND state = 0";

    pub(crate) const SET_ASIDE: &str = "UPDATE {inbox} SET state = 2, note = $3::text \
         WHERE run_id = $1::text AND seq = $2::bigint AND state = 0";

    pub(crate) const PUT_STATE: &str = "INSERT INTO {run_data} (run_id, state) \
         VALUES ($1::text, $2::bytea) ON CONFLICT (run_id) DO UPDATE SET state = excluded.state";

    pub(crate) const CREATE: &str = concat!(
        "WITH c AS (SELECT coalesce($8::bigint, ",
        clock!(),
        ") AS now), \
         b AS (SELECT c.now, coalesce($5::bigint, c.now) AS start, $6::bigint AS timeout FROM c), \
         new AS (INSERT INTO {runs} (epoch, journal_len, journal_bytes, inbox_len, inbox_seen, ready_at, \
         updated_at, created_at, deadline, status, run_id, workflow, version, tags, seed) \
         SELECT 0, 1, octet_length($9::bytea), 0, 0, start, now, now, \
         CASE WHEN timeout IS NOT NULL THEN ",
        later!("start", "timeout"),
        " END, 0, $1::text, $2::text, $3::text, string_to_array($4::text, chr(31)), $7::bytea FROM b \
         ON CONFLICT (run_id) DO NOTHING RETURNING run_id, workflow, created_at), \
         entry AS (INSERT INTO {journal} (idx, at, encoding, kind, run_id, op, meta, payload) \
         SELECT 0, created_at, 1, 0, run_id, '', NULL, $9::bytea FROM new), \
         memo AS (INSERT INTO {run_data} (run_id, memo) SELECT run_id, $10::bytea FROM new \
         WHERE $10::bytea IS NOT NULL) \
         SELECT TRUE, workflow FROM new"
    );

    /// With a snapshot of its own: it sees a run that the statement before only ran into.
    pub(crate) const EXISTING: &str = "SELECT FALSE, workflow FROM {runs} WHERE run_id = $1::text";

    /// Whoever sends to a run waits here for the others.
    pub(crate) const LOCK: &str = "SELECT 1 FROM {runs} WHERE run_id = $1::text FOR UPDATE";

    pub(crate) const DELIVER: &str = concat!(
        "WITH t AS (SELECT r.status, r.inbox_len, CASE WHEN $3::smallint = 2 THEN r.status <= 2 \
         ELSE r.status = 2 AND ($8::text = ANY(r.waits)) IS TRUE END AS awaited, \
         coalesce($7::bigint, ",
        clock!(),
        ") AS at FROM {runs} r WHERE r.run_id = $1::text), \
         first AS (SELECT fingerprint FROM {inbox} WHERE run_id = $1::text AND message_id = $2::text), \
         kept AS (INSERT INTO {inbox} (seq, at, kind, state, run_id, message_id, name, fingerprint, payload) \
         SELECT t.inbox_len + 1, t.at, $3::smallint, 0, $1::text, $2::text, $4::text, $6::text, $5::bytea \
         FROM t WHERE t.status NOT BETWEEN 3 AND 6 \
         ON CONFLICT (run_id, message_id) DO NOTHING RETURNING seq), \
         due AS (UPDATE {runs} r SET inbox_len = kept.seq, \
         ready_at = CASE WHEN t.awaited AND r.status <> 1 THEN least(r.ready_at, t.at) ELSE r.ready_at END \
         FROM kept, t WHERE r.run_id = $1::text) \
         SELECT CASE WHEN NOT EXISTS (SELECT FROM t) THEN 'not_found' \
         WHEN EXISTS (SELECT FROM kept) THEN CASE WHEN (SELECT awaited FROM t) THEN 'delivered' ELSE 'buffered' END \
         WHEN EXISTS (SELECT FROM first) THEN 'duplicate' ELSE 'finished' END, \
         (SELECT fingerprint FROM first)"
    );
}
