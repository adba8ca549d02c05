//! Messages to runs.

use duramen_core::store::{INBOX_PAGE, INBOX_PAGE_BYTES};
use duramen_store_sql::message_columns;
use tokio_postgres::types::Type;

// They stand in the statements as numbers.
const _: () = assert!(INBOX_PAGE == 1_000 && INBOX_PAGE_BYTES == 8_388_608);

/// Rows first, locked, but for those that others have locked: the numbers given out below are a run's next.
/// A message that was there before the snapshot is a duplicate; one that came between snapshot and lock
/// is met at the key: nothing of the statement takes place then, and it is sent again.
///
/// What overfills an inbox depends on what was kept before it. So of a run whose inbox has no room for all
/// of its messages here nothing is kept, and they are sent one by one. So is it with those of a run that is to be
/// paused or freed: what the others do depends on that.
///
/// Outcomes: 0 delivered, 1 buffered, 2 duplicate, 3 not found, 4 finished, 5 full, 6 to be sent by itself, 7 locked
/// by others.
pub(crate) const DELIVER: &str = concat!(
    "WITH m AS MATERIALIZED (SELECT u.*, octet_length(u.payload)::bigint AS bytes, coalesce(u.given, ",
    clock!(),
    ") AS at FROM unnest(\
     $1::text[], $2::text[], $3::smallint[], $4::text[], $5::bytea[], $6::text[], $7::bigint[], $8::text[], $9::smallint[]) \
     WITH ORDINALITY AS u(run_id, message_id, kind, name, payload, fingerprint, given, wait_key, encoding, n)), \
     t AS MATERIALIZED (SELECT r.* FROM unnest($10::text[]) AS w(run_id) CROSS JOIN LATERAL (\
     SELECT r.run_id, r.status, r.inbox_len, r.unread, r.unread_bytes, r.waits, r.owner, r.started_at FROM {runs} r \
     WHERE r.run_id = {run w} FOR NO KEY UPDATE SKIP LOCKED) r), \
     old AS MATERIALIZED (SELECT m.n, i.fingerprint FROM m CROSS JOIN LATERAL (SELECT i.fingerprint FROM {inbox} i \
     WHERE i.run_id = {run m} AND i.message_id = m.message_id OFFSET 0) i), \
     new AS MATERIALIZED (SELECT x.*, x.inbox_len + row_number() OVER (PARTITION BY x.run_id ORDER BY x.n) AS seq, \
     (x.messages = 1 OR NOT x.apart) AND NOT x.vain AND ((x.unread + x.messages <= $11 AND x.unread_bytes + x.total <= $12) \
     OR (x.messages = 1 AND x.kind IN (2, 3, 5, 6))) AS keep \
     FROM (SELECT m.*, t.inbox_len, t.unread, t.unread_bytes, t.status, \
     m.kind = 2 OR t.started_at IS NOT NULL AS begun, t.status = 8 AND m.kind = 5 AS vain, \
     CASE m.kind WHEN 2 THEN t.status <= 2 OR t.status = 8 WHEN 5 THEN t.status = 1 WHEN 6 THEN t.status IN (1, 2, 8) \
     ELSE t.status = 2 AND (m.wait_key = ANY(t.waits)) IS TRUE END AS awaited, \
     bool_or(m.kind IN (5, 6) OR (m.kind = 2 AND t.status = 8)) OVER (PARTITION BY m.run_id) AS apart, \
     count(*) OVER (PARTITION BY m.run_id) AS messages, sum(m.bytes) OVER (PARTITION BY m.run_id) AS total \
     FROM m JOIN t ON t.run_id = m.run_id WHERE t.status NOT BETWEEN 3 AND 6 AND (m.n IN (SELECT n FROM old)) IS NOT TRUE) x), \
     kept AS (INSERT INTO {inbox} (seq, at, kind, encoding, state, run_id, message_id, name, fingerprint, payload) \
     SELECT seq, at, kind, encoding, 0, run_id, message_id, name, fingerprint, payload FROM new WHERE keep), \
     due AS (UPDATE {runs} r SET inbox_len = x.len, unread = r.unread + x.messages, \
     unread_bytes = r.unread_bytes + x.bytes, format = greatest(r.format, x.encoding), \
     lane = CASE WHEN x.encoding > r.format THEN ",
    lane!("r.", "x.encoding"),
    " ELSE r.lane END, ready_at = CASE WHEN x.at IS NULL THEN r.ready_at ELSE least(r.ready_at, x.at) END, \
     status = CASE WHEN x.pauses AND r.status IN (0, 2) THEN 8 \
     WHEN x.frees AND r.status = 8 THEN CASE WHEN r.started_at IS NULL THEN 0 ELSE 2 END ELSE r.status END, \
     note = CASE WHEN x.pauses AND r.status IN (0, 2) THEN x.name WHEN x.frees AND r.status = 8 THEN NULL ELSE r.note END, \
     updated_at = CASE WHEN (x.pauses AND r.status IN (0, 2)) OR (x.frees AND r.status = 8) THEN x.came ELSE r.updated_at END \
     FROM (SELECT run_id, max(seq) AS len, count(*) AS messages, sum(bytes)::bigint AS bytes, max(encoding) AS encoding, \
     min(at) FILTER (WHERE awaited AND begun AND status <> 1) AS at, bool_or(kind = 5) AS pauses, \
     bool_or(kind IN (2, 6)) AS frees, max(name) AS name, max(at) AS came FROM new WHERE keep GROUP BY run_id) x \
     WHERE r.run_id = {run x}) \
     SELECT m.n, (CASE WHEN new.keep THEN CASE WHEN new.awaited THEN 0 ELSE 1 END \
     WHEN t.run_id IS NULL THEN CASE WHEN EXISTS (SELECT 1 FROM {runs} r WHERE r.run_id = {run m}) THEN 7 ELSE 3 END \
     WHEN new.n IS NOT NULL THEN CASE WHEN new.messages > 1 THEN 6 WHEN new.vain THEN 2 ELSE 5 END \
     WHEN old.n IS NOT NULL THEN 2 ELSE 4 END)::smallint AS outcome, t.owner, old.fingerprint \
     FROM m LEFT JOIN t ON t.run_id = m.run_id LEFT JOIN new ON new.n = m.n LEFT JOIN old ON old.n = m.n"
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
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8,
    Type::INT8,
];

/// A page of unread messages of one run behind a number: no more than a thousand and, but for one, 8 MiB.
macro_rules! page {
    ($run:literal, $behind:literal) => {
        concat!(
            "(SELECT p.* FROM (SELECT q.*, row_number() OVER (ORDER BY q.seq) AS place, count(*) OVER () AS found, \
             sum(octet_length(q.payload)) OVER (ORDER BY q.seq ROWS UNBOUNDED PRECEDING) AS bytes \
             FROM (SELECT * FROM {inbox} WHERE run_id = ",
            $run,
            " AND state = 0 AND seq > ",
            $behind,
            " ORDER BY seq LIMIT 1001) q) p WHERE p.place <= 1000 AND (p.place = 1 OR p.bytes <= 8388608) OFFSET 0)"
        )
    };
}
pub(crate) use page;

pub(crate) const PAGE: &str = concat!(
    "SELECT ",
    message_columns!("i."),
    ", i.found FROM ",
    page!("$1", "$2"),
    " i ORDER BY i.seq"
);
pub(crate) const PAGE_TYPES: &[Type] = &[Type::TEXT, Type::INT8];

pub(crate) const UNREAD_OF_OWNER: &str = concat!(
    "SELECT ",
    message_columns!("i."),
    " FROM {runs} r CROSS JOIN LATERAL (SELECT greatest(r.inbox_seen, \
     ($3::bigint[])[array_position($2::text[], r.run_id)]) AS seq OFFSET 0) behind CROSS JOIN LATERAL ",
    page!("r.run_id", "behind.seq"),
    " i WHERE r.owner = $1 AND r.owner IS NOT NULL AND r.inbox_len > r.inbox_seen"
);
pub(crate) const UNREAD_OF_OWNER_TYPES: &[Type] = &[Type::TEXT, Type::TEXT_ARRAY, Type::INT8_ARRAY];

pub(crate) const REFUSED: &str = concat!(
    "SELECT ",
    message_columns!("i."),
    ", i.note FROM unnest($1::text[]) AS w(run_id) JOIN {inbox} i ON i.run_id = {run w} AND i.state = 2 ORDER BY i.run_id, i.seq"
);

pub(crate) const RECEIPTS: &str = "SELECT u.n, i.state, i.note, i.reply \
     FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u(run_id, message_id, n) \
     CROSS JOIN LATERAL (SELECT * FROM {inbox} i WHERE i.run_id = {run u} AND i.message_id = u.message_id OFFSET 0) i";
pub(crate) const RECEIPTS_TYPES: &[Type] = &[Type::TEXT_ARRAY, Type::TEXT_ARRAY];
