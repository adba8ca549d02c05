//! For a connection of the user's: one run, scalar values, types beside them. See `crate::outside`.

/// Tells this database and schema from others, copies that were restored from a dump too. (A server's
/// address says nothing behind a pooler, and its identifier is another on each node of a distributed
/// one.)
pub(crate) const IDENTITY: &str = "SELECT concat_ws(' ', current_database(), \
     '{runs}'::regclass::oid, applied_at) FROM {migrations} WHERE number = 1";

/// The run is the driver's, and stays so until the transaction ends: whoever would take or change it waits, or goes
/// on to others.
pub(crate) const FENCE: &str = "SELECT 1 FROM {runs} WHERE run_id = $1::text AND status = 1 \
     AND (owner = $2::text) IS TRUE AND epoch = $3::bigint AND seed = $4::bytea FOR NO KEY UPDATE";

/// Behind the lock, with a snapshot of its own under READ COMMITTED. Under the stricter levels an entry that
/// it does not show is met at the journal's key.
pub(crate) const LENGTH: &str = "SELECT 1 FROM (SELECT idx FROM {journal} WHERE run_id = $1::text \
     ORDER BY idx DESC LIMIT 1) last WHERE last.idx = $2::bigint - 1";

/// The rows follow.
pub(crate) const APPEND: &str =
    "INSERT INTO {journal} (run_id, idx, at, encoding, kind, op, meta, payload) VALUES ";
pub(crate) const LEAVE: &str =
    "INSERT INTO {outgoing} (run_id, entry, number, kind, target, body, at) VALUES ";

/// An item of a stream, behind its last one. Under the stricter levels one that it does not show is met at the key.
pub(crate) const WRITE: &str = "INSERT INTO {stream_items} (run_id, stream, seq, idx, at, attempt, writer, payload) \
     SELECT $1::text, $2::text, coalesce((SELECT s.seq FROM {stream_items} s WHERE s.run_id = $1::text AND s.stream = $2::text \
     ORDER BY s.seq DESC LIMIT 1), 0) + 1, $3::bigint, $4::bigint, $5::integer, $6::text, $7::bytea";
/// Of the last item: all but so many are kept no longer.
pub(crate) const PRUNE: &str = "DELETE FROM {stream_items} s WHERE s.run_id = $1::text AND s.stream = $2::text \
     AND s.seq <= (SELECT l.seq FROM {stream_items} l WHERE l.run_id = $1::text AND l.stream = $2::text \
     ORDER BY l.seq DESC LIMIT 1) - $3::bigint \
     AND s.seq < (SELECT f.seq FROM {stream_items} f WHERE f.run_id = $1::text AND f.stream = $2::text \
     ORDER BY f.seq LIMIT 1) + $4::bigint";

/// Of a commit that does more than append.
pub(crate) const REWRITE: &str = concat!(
    "UPDATE {runs} r SET journal_len = $2::bigint, updated_at = $3::bigint, \
     inbox_seen = greatest(r.inbox_seen, least($4::bigint, r.inbox_len)), format = greatest(r.format, $5::smallint), \
     lane = ",
    lane!("r.", "greatest(r.format, $5::smallint)"),
    " WHERE r.run_id = $1::text"
);

macro_rules! read {
    ($set:literal) => {
        concat!(
            "WITH m AS (SELECT message_id, octet_length(payload) AS bytes FROM {inbox} \
             WHERE run_id = $1::text AND seq = $2::bigint AND state = 0), \
             done AS (UPDATE {inbox} i SET ",
            $set,
            " FROM m WHERE i.run_id = $1::text AND i.message_id = m.message_id) \
             UPDATE {runs} r SET unread = r.unread - 1, unread_bytes = r.unread_bytes - m.bytes \
             FROM m WHERE r.run_id = $1::text"
        )
    };
}
pub(crate) const CONSUME: &str = read!("state = 1, payload = ''::bytea, reply = $3::bytea");
pub(crate) const SET_ASIDE: &str = read!("state = 2, note = $3::text");

pub(crate) const PUT_STATE: &str = "INSERT INTO {run_data} (run_id, state) \
     VALUES ($1::text, $2::bytea) ON CONFLICT (run_id) DO UPDATE SET state = excluded.state";

pub(crate) const CREATE: &str = concat!(
    "WITH c AS (SELECT coalesce($8::bigint, ",
    clock!(),
    ") AS now), \
     b AS (SELECT c.now, coalesce($5::bigint, c.now) AS start, $6::bigint AS span FROM c), \
     new AS (INSERT INTO {runs} (epoch, journal_start, journal_len, updated_at, inbox_len, inbox_seen, unread, \
     unread_bytes, generation, lost_at, created_at, ready_at, started_at, timeout, deadline, lost, status, priority, \
     format, run_id, lane, queue, workflow, version, tags, seed, parent, root, origin) \
     SELECT 0, 0, 1, now, 0, 0, 0, 0, 0, 0, now, start, $11::bigint, span, CASE WHEN span IS NOT NULL THEN ",
    later!("start", "span"),
    " END, 0, 0, $12::smallint, $13::smallint, $1::text, $14::text, $15::text, $2::text, $3::text, \
     string_to_array($4::text, chr(31)), $7::bytea, $16::text, $17::text, $18::text FROM b \
     ON CONFLICT (run_id) DO NOTHING RETURNING run_id, workflow, created_at), \
     entry AS (INSERT INTO {journal} (idx, at, encoding, kind, run_id, op, meta, payload) \
     SELECT 0, created_at, 1, 0, run_id, '', NULL, $9::bytea FROM new), \
     memo AS (INSERT INTO {run_data} (run_id, memo) SELECT run_id, $10::bytea FROM new \
     WHERE $10::bytea IS NOT NULL), \
     tagged AS (INSERT INTO {run_tags} (created_at, tag, run_id) SELECT DISTINCT created_at, t.tag, run_id \
     FROM new CROSS JOIN LATERAL unnest(string_to_array($4::text, chr(31))) AS t(tag)) \
     SELECT TRUE, workflow FROM new"
);

/// With a snapshot of its own: it sees a run that the statement before only ran into.
pub(crate) const EXISTING: &str = "SELECT FALSE, workflow FROM {runs} WHERE run_id = $1::text";

/// Whoever sends to a run waits here for the others.
pub(crate) const LOCK: &str = "SELECT 1 FROM {runs} WHERE run_id = $1::text FOR NO KEY UPDATE";

/// The numbers are the bounds of an inbox (`duramen_core::store::MAX_UNREAD`).
pub(crate) const DELIVER: &str = concat!(
    "WITH t AS (SELECT r.status, r.inbox_len, CASE WHEN $3::smallint = 2 THEN r.status <= 2 \
     ELSE r.status = 2 AND ($8::text = ANY(r.waits)) IS TRUE END AS awaited, \
     $3::smallint = 2 OR (r.unread < 10000 AND r.unread_bytes + octet_length($5::bytea) <= 67108864) AS room, \
     coalesce($7::bigint, ",
    clock!(),
    ") AS at FROM {runs} r WHERE r.run_id = $1::text), \
     first AS (SELECT fingerprint FROM {inbox} WHERE run_id = $1::text AND message_id = $2::text), \
     kept AS (INSERT INTO {inbox} (seq, at, kind, encoding, state, run_id, message_id, name, fingerprint, payload) \
     SELECT t.inbox_len + 1, t.at, $3::smallint, $9::smallint, 0, $1::text, $2::text, $4::text, $6::text, $5::bytea \
     FROM t WHERE t.status NOT BETWEEN 3 AND 6 AND t.room \
     ON CONFLICT (run_id, message_id) DO NOTHING RETURNING seq), \
     due AS (UPDATE {runs} r SET inbox_len = kept.seq, unread = r.unread + 1, \
     unread_bytes = r.unread_bytes + octet_length($5::bytea), format = greatest(r.format, $9::smallint), lane = ",
    lane!("r.", "greatest(r.format, $9::smallint)"),
    ", ready_at = CASE WHEN t.awaited AND r.status <> 1 THEN least(r.ready_at, t.at) ELSE r.ready_at END \
     FROM kept, t WHERE r.run_id = $1::text) \
     SELECT CASE WHEN NOT EXISTS (SELECT 1 FROM t) THEN 'not_found' \
     WHEN EXISTS (SELECT 1 FROM kept) THEN CASE WHEN (SELECT awaited FROM t) THEN 'delivered' ELSE 'buffered' END \
     WHEN EXISTS (SELECT 1 FROM first) THEN 'duplicate' \
     WHEN (SELECT t.status NOT BETWEEN 3 AND 6 FROM t) THEN 'full' ELSE 'finished' END, \
     (SELECT fingerprint FROM first)"
);
