//! Runs as rows: how they begin, what is asked of them, what leaves them.

use duramen_store_sql::{entry_columns, run_columns};
use tokio_postgres::types::Type;

/// Looks whether the id is free, which costs the log nothing. (`ON CONFLICT` writes each row twice: first on
/// trial, then confirmed.) Whoever loses a race against another creation of the same id gets the
/// key's violation, and asks again with a newer snapshot.
///
/// A run that is to be leased to an owner without a lease that lasts (`{mine}`) is created queued.
pub(crate) const CREATE: &str = concat!(
    "WITH b AS MATERIALIZED (SELECT u.*, t.now, {mine} AS mine, CASE WHEN u.creator IS NULL \
     THEN coalesce(u.start_at, t.now) ELSE t.now END AS origin_at FROM unnest(\
     $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::smallint[], $8::smallint[], \
     $9::text[], $10::bytea[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::text[], \
     $17::text[], $18::text[], $19::bytea[], $20::bytea[], $29::text[]) \
     AS u(run_id, creator, lane, queue, workflow, version, priority, format, tags, seed, start_at, started_at, \
     timeout, given, length, parent, root, origin, input, memo, meta) \
     CROSS JOIN LATERAL (SELECT coalesce(u.given, ",
    clock!(),
    ") AS now) t), \
     new AS (INSERT INTO {runs} (epoch, journal_start, journal_len, updated_at, inbox_len, inbox_seen, unread, \
     unread_bytes, generation, lost_at, created_at, ready_at, started_at, timeout, deadline, lost, status, priority, \
     format, run_id, lane, owner, queue, workflow, version, tags, seed, parent, root, origin) \
     SELECT mine::int, 0, length, now, 0, 0, 0, 0, 0, 0, now, CASE WHEN NOT mine THEN origin_at END, \
     coalesce(started_at, CASE WHEN mine THEN now END), timeout, \
     CASE WHEN timeout IS NOT NULL THEN ",
    later!("origin_at", "timeout"),
    " END, 0, mine::int, priority, format, run_id, lane, CASE WHEN mine THEN creator END, queue, workflow, version, \
     string_to_array(tags, chr(31)), seed, parent, root, origin FROM b \
     WHERE NOT EXISTS (SELECT 1 FROM {runs} r WHERE r.run_id = {run b}) RETURNING run_id, created_at, status), \
     entry AS (INSERT INTO {journal} (idx, at, encoding, kind, run_id, op, meta, payload) \
     SELECT 0, now, 1, 0, run_id, '', meta, input FROM b \
     WHERE (run_id IN (SELECT run_id FROM new)) IS TRUE \
     UNION ALL SELECT e.idx, e.at, e.encoding, e.kind, e.run_id, e.op, e.meta, e.payload \
     FROM unnest($21::bigint[], $22::bigint[], $23::smallint[], $24::smallint[], $25::text[], $26::text[], $27::text[], \
     $28::bytea[]) AS e(idx, at, encoding, kind, run_id, op, meta, payload) \
     WHERE (e.run_id IN (SELECT run_id FROM new)) IS TRUE), \
     memo AS (INSERT INTO {run_data} (run_id, memo) SELECT run_id, memo FROM b \
     WHERE memo IS NOT NULL AND (run_id IN (SELECT run_id FROM new)) IS TRUE){tagged} \
     SELECT run_id, created_at, status FROM new"
);
/// Where a run of the batch has tags.
pub(crate) const TAGGED: &str = ", tagged AS (INSERT INTO {run_tags} (created_at, tag, run_id) \
     SELECT DISTINCT b.now, t.tag, b.run_id FROM b CROSS JOIN LATERAL unnest(string_to_array(b.tags, chr(31))) AS t(tag) \
     WHERE (b.run_id IN (SELECT run_id FROM new)) IS TRUE)";
/// In the plain flavour owners and runs are looked at together; in the routed one the owner is asked for before.
pub(crate) const MINE: &str = "EXISTS (SELECT 1 FROM {owners} o WHERE o.owner = u.creator \
     AND o.ended_at IS NULL AND o.lease_until > t.now)";
pub(crate) const MINE_BEFORE: &str = "$30::boolean";
pub(crate) const CREATE_TYPES: &[Type] = &[
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT2_ARRAY,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT2_ARRAY,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    Type::TEXT_ARRAY,
    // `MINE_BEFORE`
    Type::BOOL,
];
pub(crate) const CREATE_MANY_TYPES: &[Type] = CREATE_TYPES.split_at(29).0;

pub(crate) const ROWS: &str = concat!(
    "SELECT ",
    run_columns!("r."),
    " FROM unnest($1::text[]) AS w(run_id) JOIN {runs} r ON r.run_id = {run w}"
);

/// Rows with what people ask of them, all from one snapshot.
pub(crate) const DETAILS: &str = concat!(
    "SELECT ",
    run_columns!("r."),
    ", w.n, first.payload, d.state, d.memo, ",
    entry_columns!("last."),
    " FROM unnest($1::text[]) WITH ORDINALITY AS w(run_id, n) \
     JOIN {runs} r ON r.run_id = {run w} \
     LEFT JOIN LATERAL (SELECT j.payload FROM {journal} j WHERE j.run_id = {run w} AND j.idx = r.journal_start OFFSET 0) \
     first ON TRUE \
     LEFT JOIN LATERAL (SELECT * FROM {journal} j WHERE j.run_id = {run w} AND j.idx = r.journal_len - 1 \
     AND r.status BETWEEN 3 AND 6 OFFSET 0) last ON TRUE \
     LEFT JOIN {run_data} d ON d.run_id = {run w}"
);

/// Row and journal are of one snapshot, so that the length is exact.
pub(crate) const STANDING: &str = "SELECT w.n, r.status, r.seed, r.owner, r.epoch, \
     (SELECT least(j.idx, 9223372036854775806) + 1 FROM {journal} j WHERE j.run_id = {run w} ORDER BY j.idx DESC LIMIT 1), \
     r.generation, r.ready_at FROM unnest($1::text[]) WITH ORDINALITY AS w(run_id, n) \
     JOIN {runs} r ON r.run_id = {run w}";
pub(crate) const BY_IDS: &[Type] = &[Type::TEXT_ARRAY];
pub(crate) const BY_ID: &[Type] = &[Type::TEXT];

pub(crate) const LOAD: &str = concat!(
    "SELECT ",
    entry_columns!(""),
    " FROM {journal} WHERE run_id = $1 AND idx >= $2 AND idx - $2 < $3 \
     AND EXISTS (SELECT 1 FROM {journal} j WHERE j.run_id = $1 AND j.idx = $2) ORDER BY idx"
);
pub(crate) const LOAD_TYPES: &[Type] = &[Type::TEXT, Type::INT8, Type::INT8];

pub(crate) const UNSENT: &str = "SELECT run_id, entry, number, kind, target, body, at FROM {outgoing} \
     WHERE at <= $1 ORDER BY at, run_id, entry, number LIMIT $2";
pub(crate) const UNSENT_TYPES: &[Type] = &[Type::INT8, Type::INT8];
pub(crate) const UNSENT_OF_RUN: &str = "SELECT run_id, entry, number, kind, target, body, at \
     FROM (SELECT * FROM {outgoing} WHERE run_id = $3 AND (at <= $1) IS TRUE OFFSET 0) o ORDER BY at, run_id, entry, number LIMIT $2";
pub(crate) const UNSENT_OF_RUN_TYPES: &[Type] = &[Type::INT8, Type::INT8, Type::TEXT];

/// What others are taking out at this moment is left to them.
pub(crate) const SENT: &str = "DELETE FROM {outgoing} o USING (SELECT l.run_id, l.entry, l.number \
     FROM unnest($1::text[], $2::bigint[], $3::integer[], $4::bigint[]) AS u(run_id, entry, number, at) \
     CROSS JOIN LATERAL (SELECT l.run_id, l.entry, l.number FROM {outgoing} l WHERE l.run_id = {run u} \
     AND l.entry = u.entry AND l.number = u.number AND (l.at = u.at) IS TRUE FOR UPDATE SKIP LOCKED) l) gone \
     WHERE o.run_id = {run gone} AND o.entry = gone.entry AND o.number = gone.number";
pub(crate) const SENT_TYPES: &[Type] = &[
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::INT8_ARRAY,
];
