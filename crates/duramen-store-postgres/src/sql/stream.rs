//! Items of streams: written behind the lock of the run's row, in a transaction whose statements each have a snapshot of their
//! own. Each names one run, so that both flavours say the same.

use duramen_core::store::STREAM_PAGE_BYTES;
use duramen_store_sql::item_columns;
use tokio_postgres::types::Type;

// It stands in a statement as a number.
const _: () = assert!(STREAM_PAGE_BYTES == 4_194_304);

/// The driver of a run, whatever the length of its journal; nothing is there if others have the row locked. Whether it is
/// there at all comes first.
pub(crate) const FENCE: &str = "SELECT w.there, r.fits FROM (SELECT EXISTS (SELECT 1 FROM {runs} WHERE run_id = $1) AS there) w \
     LEFT JOIN LATERAL (SELECT r.status = 1 AND (r.owner = $2) IS TRUE AND r.epoch = $3 AND r.seed = $4 AS fits \
     FROM {runs} r WHERE r.run_id = $1 FOR NO KEY UPDATE SKIP LOCKED) r ON TRUE";
pub(crate) const FENCE_TYPES: &[Type] = &[Type::TEXT, Type::TEXT, Type::INT8, Type::BYTEA];

/// Items of one stream behind its last one; gives the number of the last that was there before.
pub(crate) const WRITE: &str = "WITH l AS MATERIALIZED (SELECT coalesce((SELECT s.seq FROM {stream_items} s \
     WHERE s.run_id = $1 AND s.stream = $2 ORDER BY s.seq DESC LIMIT 1), 0) AS seq), \
     w AS (INSERT INTO {stream_items} (seq, idx, at, attempt, run_id, stream, writer, payload) \
     SELECT l.seq + i.n, i.idx, i.at, i.attempt, $1, $2, i.writer, i.payload FROM l CROSS JOIN \
     unnest($3::bigint[], $4::bigint[], $5::integer[], $6::text[], $7::bytea[]) WITH ORDINALITY \
     AS i(idx, at, attempt, writer, payload, n)) SELECT l.seq FROM l";
pub(crate) const WRITE_TYPES: &[Type] = &[
    Type::TEXT,
    Type::TEXT,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
];

/// What is kept no longer, up to so many.
pub(crate) const PRUNE: &str = "DELETE FROM {stream_items} s WHERE s.run_id = $1 AND s.stream = $2 \
     AND s.seq <= least($3, $4 - 1 + (SELECT f.seq FROM {stream_items} f WHERE f.run_id = $1 AND f.stream = $2 \
     ORDER BY f.seq LIMIT 1))";
pub(crate) const PRUNE_TYPES: &[Type] = &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT8];

/// The run's row once for each item of a page, and once if there is none.
pub(crate) const PAGE: &str = concat!(
    "SELECT r.status, r.seed, ",
    item_columns!("s."),
    " FROM {runs} r LEFT JOIN LATERAL (SELECT p.* FROM (SELECT q.*, row_number() OVER (ORDER BY q.seq) AS place, \
     sum(octet_length(q.payload)) OVER (ORDER BY q.seq ROWS UNBOUNDED PRECEDING) AS bytes \
     FROM (SELECT * FROM {stream_items} WHERE run_id = $1 AND stream = $2 AND seq >= $3 ORDER BY seq LIMIT $4) q) p \
     WHERE p.place = 1 OR p.bytes <= 4194304 OFFSET 0) s ON TRUE WHERE r.run_id = $1 ORDER BY s.seq"
);
pub(crate) const PAGE_TYPES: &[Type] = &[Type::TEXT, Type::TEXT, Type::INT8, Type::INT8];
