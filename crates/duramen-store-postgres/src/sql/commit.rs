//! Run commits.
//!
//! **Why an append may leave the row alone.** Everything that changes a run's row (claims, interventions,
//! successions, messages, commits that release it) takes its lock first, and so does an append, which gives
//! it back unchanged. While an append holds it, nobody can take the run away; and what has taken it away
//! before shows in the version that is locked, which is the newest: the fence's conditions on the row are
//! checked again under the lock. So no append lands behind a claim or an intervention.
//!
//! What the lock does not renew is the snapshot from which the journal's length is read. That matters where
//! two writers of one run meet that differ in nothing but time:
//! - Two commits of one epoch and length (one is sent again while the first is still under way): the second
//!   may lock the row after the first has ended, see it unchanged, and not see the first's entries. Its
//!   own meet the journal's key. Nothing of the statement takes place then; it is sent again with a new
//!   snapshot, which shows the commit to be fenced.
//! - A commit without entries meets no key. It is sent behind its lock, in a transaction of two statements, so that
//!   the second one's snapshot is younger than the lock ([`LOCK`]).
//! - A claim of a running run may see its row unchanged, and not the last appends: it reads journal and length once
//!   more (`super::lease`). So does an intervention, which reads the length behind its lock.
//!
//! A snapshot that is too old on the other side (the entry before is not seen yet) fences a commit that
//! could have been kept; its driver finds out by `standing`.

use tokio_postgres::types::Type;

/// The commits whose rows are locked and pass. What others have locked is passed over.
///
/// `(r.owner = …) IS TRUE` is no condition for an index: a plan that is made while the table is empty may
/// otherwise go through all that an owner ever held, dead entries and all, for each commit (measured: 2,100
/// instead of 8,500 one-step runs a second).
pub(crate) const FENCE: &str = "WITH b AS MATERIALIZED (SELECT u.*, (SELECT j.idx FROM {journal} j \
     WHERE j.run_id = {run u} ORDER BY j.idx DESC LIMIT 1) = u.len - 1 AS fits \
     FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::bigint[]) \
     WITH ORDINALITY AS u(run_id, owner, epoch, seed, len, n)), \
     ok AS MATERIALIZED (SELECT b.n FROM b CROSS JOIN LATERAL (SELECT r.run_id FROM {runs} r \
     WHERE r.run_id = {run b} AND r.status = 1 AND (r.owner = b.owner) IS TRUE AND r.epoch = b.epoch AND r.seed = b.seed \
     FOR NO KEY UPDATE SKIP LOCKED) r WHERE b.fits), \
     entries AS (INSERT INTO {journal} (idx, at, encoding, kind, run_id, op, meta, payload) \
     SELECT e.idx, e.at, e.encoding, e.kind, e.run_id, e.op, e.meta, e.payload \
     FROM unnest($6::bigint[], $7::bigint[], $8::bigint[], $9::smallint[], $10::smallint[], $11::text[], \
     $12::text[], $13::text[], $14::bytea[]) AS e(n, idx, at, encoding, kind, run_id, op, meta, payload) \
     WHERE (e.n IN (SELECT n FROM ok)) IS TRUE)";

/// Messages that are consumed or set aside, each once.
pub(crate) const READ: &str = ", m AS MATERIALIZED (SELECT DISTINCT ON (m.n, m.seq) m.n, m.run_id, m.seq, m.note, m.reply, \
     u.message_id, u.bytes FROM unnest($25::bigint[], $26::text[], $27::bigint[], $28::text[], $29::bytea[]) \
     WITH ORDINALITY AS m(n, run_id, seq, note, reply, place) \
     CROSS JOIN LATERAL (SELECT i.message_id, octet_length(i.payload)::bigint AS bytes FROM {inbox} i \
     WHERE i.run_id = {run m} AND i.seq = m.seq AND i.state = 0 OFFSET 0) u \
     WHERE (m.n IN (SELECT n FROM ok)) IS TRUE ORDER BY m.n, m.seq, m.place)";

/// What becomes of them, where a statement is about several runs.
pub(crate) const READ_BY_RUNS: &str = ", reads AS (UPDATE {inbox} i SET \
     state = CASE WHEN m.note IS NULL THEN 1 ELSE 2 END, \
     payload = CASE WHEN m.note IS NULL THEN ''::bytea ELSE i.payload END, note = m.note, \
     reply = CASE WHEN m.note IS NULL THEN m.reply END \
     FROM m WHERE i.run_id = m.run_id AND i.message_id = m.message_id)";

/// The same where it is about one. With the run given, the server takes its messages for few, whatever it knows of them, and
/// would compare each that the run ever had with each that is read. A conflict with the key is found by the key. (None is
/// inserted: each was found above, and nobody deletes a run whose row is locked.)
pub(crate) const READ_BY_KEY: &str = ", reads AS (INSERT INTO {inbox} AS i \
     (seq, at, kind, encoding, state, run_id, message_id, name, payload, note, reply) \
     SELECT m.seq, 0, 0, 0, CASE WHEN m.note IS NULL THEN 1 ELSE 2 END, m.run_id, m.message_id, '', ''::bytea, m.note, \
     CASE WHEN m.note IS NULL THEN m.reply END FROM m \
     ON CONFLICT (run_id, message_id) DO UPDATE SET state = excluded.state, \
     payload = CASE WHEN excluded.note IS NULL THEN ''::bytea ELSE i.payload END, note = excluded.note, \
     reply = excluded.reply)";

/// And what else comes with them.
pub(crate) const READ_TOGETHER: &str = ", g AS MATERIALIZED (SELECT n, count(*) AS read, sum(bytes)::bigint AS bytes FROM m GROUP BY n), \
     states AS (INSERT INTO {run_data} (run_id, state) SELECT s.run_id, s.state \
     FROM unnest($30::bigint[], $31::text[], $32::bytea[]) AS s(n, run_id, state) \
     WHERE (s.n IN (SELECT n FROM ok)) IS TRUE \
     ON CONFLICT (run_id) DO UPDATE SET state = excluded.state), \
     leaving AS (INSERT INTO {outgoing} (entry, at, number, kind, run_id, target, body) \
     SELECT o.entry, o.at, o.number, o.kind, o.run_id, o.target, o.body \
     FROM unnest($33::bigint[], $34::bigint[], $35::bigint[], $36::integer[], $37::smallint[], $38::text[], \
     $39::text[], $40::bytea[]) AS o(n, entry, at, number, kind, run_id, target, body) \
     WHERE (o.n IN (SELECT n FROM ok)) IS TRUE)";

/// The rows of those commits that do more than append. Status 0 is that of a run that is continued as new, whose word
/// is its version; that of a stuck or a paused run is its note. 8, of one that is paused, becomes 2 if there is a
/// message that its driver has not seen. Without [`READ`] nothing is read.
pub(crate) const NOTHING_READ: &str = ", g AS MATERIALIZED (SELECT NULL::bigint AS n, NULL::bigint AS read, NULL::bigint AS bytes WHERE FALSE)";
pub(crate) const REWRITE: &str = concat!(
    ", took AS (UPDATE {runs} r SET journal_len = w.after, updated_at = w.at, \
     inbox_seen = greatest(r.inbox_seen, least(w.seen, r.inbox_len)), \
     unread = r.unread - coalesce(w.read, 0), unread_bytes = r.unread_bytes - coalesce(w.bytes, 0), \
     status = CASE WHEN w.status = 8 AND r.inbox_len > greatest(r.inbox_seen, w.seen) THEN 2 ELSE w.status END, owner = CASE w.status WHEN 1 THEN r.owner END, \
     ready_at = CASE WHEN w.status = 0 THEN w.ready_at WHEN w.status IN (2, 8) THEN \
     CASE WHEN r.inbox_len > greatest(r.inbox_seen, w.seen) THEN w.at ELSE w.ready_at END END, \
     waits = CASE WHEN w.status = 1 THEN r.waits WHEN w.status IN (2, 8) THEN string_to_array(w.waits, chr(31)) END, \
     finished_at = CASE WHEN w.status BETWEEN 3 AND 6 THEN w.at ELSE r.finished_at END, \
     note = CASE WHEN w.status = 1 THEN r.note WHEN w.status = 7 THEN w.word \
     WHEN w.status = 8 AND r.inbox_len <= greatest(r.inbox_seen, w.seen) THEN w.word END, \
     version = CASE w.status WHEN 0 THEN w.word ELSE r.version END, \
     journal_start = CASE w.status WHEN 0 THEN w.after - 1 ELSE r.journal_start END, \
     generation = CASE w.status WHEN 0 THEN r.generation + 1 ELSE r.generation END, \
     deadline = CASE WHEN w.status = 0 AND r.timeout IS NOT NULL THEN ",
    later!("w.ready_at", "r.timeout"),
    " ELSE r.deadline END, \
     lost = CASE w.status WHEN 0 THEN 0 ELSE r.lost END, lost_at = CASE w.status WHEN 0 THEN 0 ELSE r.lost_at END, \
     format = greatest(r.format, w.format), lane = CASE WHEN w.status = 0 THEN ",
    lane!("r.", "w.word", "greatest(r.format, w.format)"),
    " WHEN w.format > r.format THEN ",
    lane!("r.", "w.format"),
    " ELSE r.lane END \
     FROM (SELECT u.*, g.read, g.bytes FROM unnest($15::bigint[], $16::text[], $17::bigint[], $18::bigint[], $19::bigint[], \
     $20::smallint[], $21::smallint[], $22::bigint[], $23::text[], $24::text[]) \
     AS u(n, run_id, after, seen, at, format, status, ready_at, waits, word) LEFT JOIN g ON g.n = u.n) w \
     WHERE r.run_id = {run w} AND (w.n IN (SELECT n FROM ok)) IS TRUE \
     RETURNING w.n, w.run_id, w.status = 0 AS fresh, r.status = 2 AND r.inbox_len > r.inbox_seen AS due)"
);

/// A new generation's journal begins anew. All that the statement's snapshot has of the former one goes; what it inserts
/// itself (of a continued run the beginning, and no more) the snapshot does not have. The ids come as an array, which can
/// only be looked up in the key: a join that is planned while the table is empty might go through all of it.
pub(crate) const FORGET_OF_RUNS: &str = ", gone AS (DELETE FROM {journal} j \
     WHERE j.run_id = ANY (ARRAY(SELECT t.run_id FROM took t WHERE t.fresh)))";
/// The same where the statement is about one run.
pub(crate) const FORGET_OF_ONE: &str = ", gone AS (DELETE FROM {journal} j \
     WHERE j.run_id = {run t} AND (TRUE IN (SELECT t.fresh FROM took t)) IS TRUE)";

/// 0: applied. 2: others have it locked, or it has just changed: to be asked again.
pub(crate) const ANSWER: &str = " SELECT n, 0::smallint AS outcome FROM ok \
     UNION ALL SELECT b.n, 2::smallint FROM b WHERE b.fits AND (b.n IN (SELECT n FROM ok)) IS NOT TRUE \
     AND (EXISTS (SELECT 1 FROM {runs} r WHERE r.run_id = {run b} AND r.status = 1 AND (r.owner = b.owner) IS TRUE \
     AND r.epoch = b.epoch AND r.seed = b.seed)) IS TRUE";
/// 1: applied, and due at once.
pub(crate) const ANSWER_DUE: &str = " UNION ALL SELECT n, 1::smallint FROM took WHERE due";

pub(crate) const TYPES: &[Type] = &[
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::INT8_ARRAY,
    // entries
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT2_ARRAY,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    // rows
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT2_ARRAY,
    Type::INT2_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    // messages
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    // states
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
    // outgoing items
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::INT4_ARRAY,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::TEXT_ARRAY,
    Type::BYTEA_ARRAY,
];
/// Those of a statement that appends and no more.
pub(crate) const APPEND_TYPES: &[Type] = TYPES.split_at(14).0;
/// Those of one that reads no message.
pub(crate) const ROW_TYPES: &[Type] = TYPES.split_at(24).0;

/// Locks what nobody else has locked, and says which of the others are there.
pub(crate) const LOCK: &str = "SELECT u.run_id, l.run_id IS NOT NULL, \
     (EXISTS (SELECT 1 FROM {runs} r WHERE r.run_id = {run u})) IS TRUE FROM unnest($1::text[]) AS u(run_id) \
     LEFT JOIN LATERAL (SELECT r.run_id FROM {runs} r WHERE r.run_id = {run u} FOR NO KEY UPDATE SKIP LOCKED) l ON TRUE";
