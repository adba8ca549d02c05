//! Changes from outside a driver: statements of one transaction, which locks the run's row first. It is always a READ
//! COMMITTED one: what it reads and deletes behind the lock must be as new as the lock.

use tokio_postgres::types::Type;

/// Whether the run is there, and its row if others have not locked it.
pub(crate) const STANDING: &str = "SELECT w.there, r.status, r.journal_len \
     FROM (SELECT EXISTS (SELECT 1 FROM {runs} WHERE run_id = $1) AS there) w LEFT JOIN LATERAL (\
     SELECT r.status, r.journal_len FROM {runs} r WHERE r.run_id = $1 FOR UPDATE SKIP LOCKED) r ON TRUE";

/// Commits that only append leave the row's length behind.
pub(crate) const LENGTH: &str = "SELECT least(idx, 9223372036854775806) + 1 FROM {journal} WHERE run_id = $1 ORDER BY idx DESC LIMIT 1";

pub(crate) const TERMINATE: &str = concat!(
    "UPDATE {runs} r SET status = 6, epoch = r.epoch + 1, journal_len = $3, owner = NULL, ready_at = NULL, \
     waits = NULL, note = NULL, updated_at = $2, finished_at = $2, format = greatest(r.format, $4), lane = ",
    lane!("r.", "greatest(r.format, $4)"),
    " WHERE r.run_id = $1"
);

/// A queued run keeps its place in the line. With a version it stands in that one's lane from now on.
pub(crate) const REOPEN: &str = concat!(
    "UPDATE {runs} r SET status = 0, epoch = r.epoch + 1, journal_len = $3, owner = NULL, \
     ready_at = CASE WHEN r.status = 0 THEN r.ready_at ELSE c.now END, updated_at = c.now, waits = NULL, note = NULL, \
     finished_at = NULL, lost = 0, lost_at = 0, format = greatest(r.format, $4), version = coalesce($5, r.version), \
     lane = r.queue || chr(31) || r.workflow || chr(31) || coalesce($5, r.version) || chr(31) || greatest(r.format, $4)::text \
     FROM (SELECT coalesce($2::bigint, ",
    clock!(),
    ") AS now) c WHERE r.run_id = $1"
);
pub(crate) const REOPEN_TYPES: &[Type] =
    &[Type::TEXT, Type::INT8, Type::INT8, Type::INT2, Type::TEXT];
pub(crate) const CHANGE_TYPES: &[Type] = &[Type::TEXT, Type::INT8, Type::INT8, Type::INT2];

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

pub(crate) const LEAVE: &str = "INSERT INTO {outgoing} (run_id, entry, at, number, kind, target, body) \
     VALUES ($1, $2, $3, $4, $5, $6, $7)";
pub(crate) const LEAVE_TYPES: &[Type] = &[
    Type::TEXT,
    Type::INT8,
    Type::INT8,
    Type::INT4,
    Type::INT2,
    Type::TEXT,
    Type::BYTEA,
];

pub(crate) const DELETE: [&str; 7] = [
    "DELETE FROM {run_tags} t USING (SELECT r.run_id, r.created_at, unnest(r.tags) AS tag FROM {runs} r \
     WHERE r.run_id = $1 OFFSET 0) r WHERE t.run_id = $1 AND t.tag = r.tag AND t.created_at = r.created_at",
    "DELETE FROM {journal} WHERE run_id = $1",
    "DELETE FROM {inbox} WHERE run_id = $1",
    "DELETE FROM {run_data} WHERE run_id = $1",
    "DELETE FROM {outgoing} WHERE run_id = $1",
    "DELETE FROM {stream_items} WHERE run_id = $1",
    "DELETE FROM {runs} WHERE run_id = $1",
];
