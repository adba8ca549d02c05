//! Owners, and claims of what they may drive.

use duramen_store_sql::run_numbers;
use tokio_postgres::types::Type;

use super::inbox::page;

// A condition that every owner's name meets lets an index be used where all are looked at: a sequential scan, which
// sessions have off, would make the costs of all else that is planned with it look alike.

/// The instant, the claimer if its lease lasts, and the owners whose leases have ended: these are marked as ended
/// for good, by this statement, which also takes what they hold. A heartbeat that is under way has its
/// owner's row locked: that one is passed over. One that comes later waits for this statement, sees under
/// the lock that its owner has ended, and renews nothing. So no owner whose runs are being taken is renewed.
pub(crate) const ENDING: &str = concat!(
    "WITH RECURSIVE c AS MATERIALIZED (SELECT coalesce($1::bigint, ",
    clock!(),
    ") AS now), \
     me AS MATERIALIZED (SELECT o.owner FROM c, {owners} o WHERE o.owner = $2 AND o.ended_at IS NULL \
     AND o.lease_until > c.now), \
     late AS MATERIALIZED (SELECT o.owner FROM c, {owners} o WHERE o.owner > '' AND o.ended_at IS NULL AND o.lease_until <= c.now \
     AND (EXISTS (SELECT 1 FROM me)) IS TRUE FOR NO KEY UPDATE OF o SKIP LOCKED), \
     lapsed AS (UPDATE {owners} o SET ended_at = c.now FROM late l, c WHERE o.owner = l.owner AND o.ended_at IS NULL \
     RETURNING o.owner)"
);
const LINES: &str = ", line AS MATERIALIZED (SELECT k.*, c.now FROM c, unnest($3::smallint[], $4::text[]) \
     WITH ORDINALITY AS k(status, lane, place) WHERE (EXISTS (SELECT 1 FROM me)) IS TRUE)";

/// Owners that have ended, but for those that are known to hold nothing. The names that stand in runs and in no
/// row are looked for only in a look at everything (`floors.rs`): it goes from name to name through the index.
const GONE: &str = ", name(owner) AS (SELECT (SELECT r.owner FROM {runs} r WHERE r.owner > '' ORDER BY r.owner LIMIT 1) \
     WHERE $10 UNION ALL \
     SELECT (SELECT r.owner FROM {runs} r WHERE r.owner > n.owner ORDER BY r.owner LIMIT 1) FROM name n \
     WHERE n.owner IS NOT NULL), \
     gone AS MATERIALIZED (SELECT o.owner FROM {owners} o WHERE o.owner > '' AND o.ended_at IS NOT NULL AND o.owner <> ALL ($11::text[]) \
     UNION SELECT owner FROM lapsed \
     UNION SELECT n.owner FROM name n WHERE n.owner IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM {owners} o WHERE o.owner = n.owner))";

/// What is due, without a lock: for each line of queued or waiting runs and each priority one descent, from
/// its floor on; for each of ended owners' runs one descent for each such owner. There are ten priorities: to
/// look for all is as cheap as to find out which there are, and looks at nothing that is not due. (A probe
/// takes a microsecond.)
const DUE: &str = ", due AS MATERIALIZED (SELECT k.place, d.* FROM line k CROSS JOIN LATERAL (\
     SELECT d.* FROM generate_series(0, 9) AS p(priority) CROSS JOIN LATERAL (\
     SELECT r.run_id, r.status, r.lane, r.owner, r.priority, r.ready_at, r.journal_start, r.journal_len, r.unread_bytes \
     FROM {runs} r WHERE r.status = k.status AND r.lane = k.lane AND r.priority = p.priority::smallint \
     AND r.ready_at >= ($9::bigint[])[(k.place - 1) * 10 + p.priority + 1] AND r.ready_at <= k.now \
     ORDER BY r.ready_at, r.run_id LIMIT $12) d LIMIT $12) d WHERE k.status <> 1 \
     UNION ALL SELECT k.place, d.* FROM line k CROSS JOIN LATERAL (SELECT d.* FROM gone g CROSS JOIN LATERAL (\
     SELECT r.run_id, r.status, r.lane, r.owner, 0::smallint, 0::bigint, r.journal_start, r.journal_len, r.unread_bytes \
     FROM {runs} r WHERE r.owner = g.owner AND r.lane = k.lane ORDER BY r.run_id LIMIT $12) d \
     ORDER BY d.run_id LIMIT $12) d WHERE k.status = 1)";

/// The same for one run. An owner without a row has ended too, unless its run is held by nobody.
const GONE_ALONE: &str = ", gone AS MATERIALIZED (SELECT r.owner FROM {runs} r \
     LEFT JOIN {owners} o ON o.owner = r.owner WHERE r.run_id = $9 AND r.owner IS NOT NULL \
     AND (o.owner IS NULL OR o.ended_at IS NOT NULL OR (r.owner IN (SELECT owner FROM lapsed)) IS TRUE))";
const DUE_ALONE: &str = ", due AS MATERIALIZED (SELECT k.place, r.run_id, r.status, r.lane, r.owner, r.priority, \
     r.ready_at, r.journal_start, r.journal_len, r.unread_bytes FROM c, {runs} r, line k WHERE r.run_id = $9 \
     AND k.status = r.status AND k.lane = r.lane AND CASE r.status WHEN 1 THEN (r.owner IN (SELECT owner FROM gone)) IS TRUE \
     ELSE r.ready_at <= c.now END LIMIT $10)";

/// In turn from each line (`duramen_core::lanes`), as many as the budgets allow, are locked and taken, and come
/// with journal and inbox. Nothing else is locked: `LIMIT` stops the walk along the candidates, which locks
/// one after the other and passes over what others hold. If a byte budget is used up by candidates that
/// others hold, one run comes all the same (`rest`).
///
/// What journals weigh is read from them, as no row knows it: of no more than fifty thousand entries, where a claim with a
/// byte budget ends, too.
///
/// Whether a run still is what it was found to be is looked at again under its lock. The update meets its row
/// twice: as it is in the snapshot and, if that is not the newest, as it is now; its condition passes both
/// times. (Whoever claims a run raises its epoch, so that the row is not taken either where a lock should
/// not have kept them out.)
///
/// `current` is false when the row had changed between the snapshot and the lock: then journal and
/// inbox, read from the snapshot, may lack what came with that change (or hold a message that was set
/// aside with it), and are read again. A running run always is: commits that append leave its row alone,
/// so that it says nothing about whether the snapshot has them all. Its length, too, is that of the snapshot
/// then, and put right by [`RIGHT`].
const TAKE: &str = concat!(
    ", lined AS (SELECT due.*, row_number() OVER (PARTITION BY place ORDER BY priority, ready_at, run_id) AS rank FROM due), \
     numbered AS (SELECT lined.*, row_number() OVER (ORDER BY rank, place) AS n FROM lined ORDER BY rank, place LIMIT $window), \
     known AS (SELECT x.*, sum(CASE WHEN warm THEN 0 ELSE length - journal_start END) OVER (ORDER BY n) AS entries FROM (\
     SELECT o.*, ((o.run_id, o.length) IN (SELECT * FROM unnest($6::text[], $7::bigint[]))) IS TRUE AS warm \
     FROM (SELECT numbered.*, CASE status WHEN 1 THEN (SELECT least(j.idx, 9223372036854775806) + 1 FROM {journal} j \
     WHERE j.run_id = numbered.run_id ORDER BY j.idx DESC LIMIT 1) ELSE journal_len END AS length FROM numbered) o) x), \
     weighed AS MATERIALIZED (SELECT o.*, n = 1 OR $8::bigint IS NULL OR (entries <= 50000 \
     AND sum(least(unread_bytes, 8388608) + bytes) OVER (ORDER BY n) <= $8) AS fits FROM (SELECT known.*, \
     CASE WHEN warm OR $8::bigint IS NULL OR entries > 50000 THEN 0 ELSE (SELECT coalesce(sum(octet_length(j.payload)), 0) \
     FROM {journal} j WHERE j.run_id = known.run_id AND j.idx >= known.journal_start) END AS bytes FROM known) o), \
     first AS MATERIALIZED (SELECT o.n, o.warm, o.length, r.* FROM (SELECT * FROM weighed WHERE fits ORDER BY n OFFSET 0) o \
     CROSS JOIN LATERAL (SELECT r.run_id, r.status AS was, r.epoch FROM c, {runs} r WHERE r.run_id = o.run_id AND r.status = o.status \
     AND r.lane = o.lane AND r.owner IS NOT DISTINCT FROM o.owner AND (r.status = 1 OR r.ready_at <= c.now) \
     FOR NO KEY UPDATE OF r SKIP LOCKED) r LIMIT $5), \
     rest AS MATERIALIZED (SELECT o.n, o.warm, o.length, r.* FROM (SELECT * FROM weighed WHERE NOT fits \
     AND (EXISTS (SELECT 1 FROM first)) IS NOT TRUE ORDER BY n OFFSET 0) o \
     CROSS JOIN LATERAL (SELECT r.run_id, r.status AS was, r.epoch FROM c, {runs} r WHERE r.run_id = o.run_id AND r.status = o.status \
     AND r.lane = o.lane AND r.owner IS NOT DISTINCT FROM o.owner AND (r.status = 1 OR r.ready_at <= c.now) \
     FOR NO KEY UPDATE OF r SKIP LOCKED) r LIMIT least($5, 1)), \
     took AS (UPDATE {runs} r SET status = 1, owner = $2, epoch = r.epoch + 1, \
     started_at = coalesce(r.started_at, c.now), updated_at = c.now, ready_at = NULL, \
     journal_len = greatest(r.journal_len, p.length), \
     lost = CASE WHEN p.was <> 1 THEN r.lost WHEN r.lost_at = p.length THEN r.lost + 1 ELSE 1 END, \
     lost_at = CASE p.was WHEN 1 THEN p.length ELSE r.lost_at END \
     FROM (SELECT * FROM first UNION ALL SELECT * FROM rest) p, c WHERE r.run_id = p.run_id AND r.epoch <= p.epoch \
     RETURNING p.n, p.warm, p.was, r.*), \
     sent AS MATERIALIZED (SELECT t.*, t.was <> 1 AND (SELECT v.epoch + 1 = t.epoch AND v.status = t.was \
     AND v.inbox_len = t.inbox_len AND v.inbox_seen = t.inbox_seen AND v.unread = t.unread \
     FROM {runs} v WHERE v.run_id = t.run_id) AS current FROM took t) \
     SELECT 0::smallint AS part, (SELECT count(*) FROM weighed WHERE fits) AS n, c.now AS a, \
     (CASE WHEN (SELECT count(*) FROM took) >= $5 THEN (SELECT max(n) FROM took) IS NOT DISTINCT FROM $window OR EXISTS (SELECT 1 FROM weighed WHERE n > (SELECT coalesce(max(n), 0) FROM took)) \
     ELSE EXISTS (SELECT 1 FROM weighed w WHERE NOT w.fits AND (w.n IN (SELECT n FROM took)) IS NOT TRUE) END)::int::bigint AS b, \
     (EXISTS (SELECT 1 FROM me))::int::smallint AS c, NULL::smallint AS d, \
     NULL::text AS x, NULL::text AS y, NULL::bytea AS z, NULL::bigint[] AS numbers, \
     ARRAY(SELECT g.owner FROM gone g WHERE NOT EXISTS (SELECT 1 FROM {runs} r WHERE r.owner = g.owner)) AS texts FROM c \
     UNION ALL SELECT 1::smallint, t.n, t.current::int, t.warm::int, t.was, t.status, NULL, NULL, t.seed, ARRAY[",
    run_numbers!("t."),
    "]::bigint[], ARRAY[t.run_id, t.owner, t.queue, t.workflow, t.version, array_to_string(t.waits, chr(31)), \
     array_to_string(t.tags, chr(31)), t.note, t.parent, t.root, t.origin] FROM sent t \
     UNION ALL SELECT 2::smallint, t.n, j.idx, j.at, j.encoding, j.kind, j.op, j.meta, j.payload, NULL, NULL \
     FROM sent t CROSS JOIN LATERAL (SELECT * FROM {journal} WHERE run_id = t.run_id AND idx >= t.journal_start OFFSET 0) j \
     WHERE t.current AND NOT t.warm \
     UNION ALL SELECT 3::smallint, t.n, i.seq, i.at, i.kind, i.encoding, i.message_id, i.name, i.payload, NULL, NULL \
     FROM sent t CROSS JOIN LATERAL ",
    page!("t.run_id", "0"),
    " i WHERE t.current AND t.unread > 0"
);
/// How much was found for each line, and per line and priority the earliest of what was not taken.
const LEFT: &str = " UNION ALL SELECT 4::smallint, d.place, count(*), \
     min(d.ready_at) FILTER (WHERE (d.run_id IN (SELECT run_id FROM took)) IS NOT TRUE), \
     d.priority, NULL, NULL, NULL, NULL, NULL, NULL FROM due d WHERE $13 AND d.status <> 1 GROUP BY d.place, d.priority";

/// The statement of a claim, and of a claim of one run.
pub(crate) fn claims() -> [String; 2] {
    let of_many = TAKE.replace("$window", "$12");
    let of_one = TAKE.replace("$window", "$10");
    [
        [ENDING, LINES, GONE, DUE, &of_many, LEFT].concat(),
        [ENDING, LINES, GONE_ALONE, DUE_ALONE, &of_one].concat(),
    ]
}

pub(crate) const CLAIM_TYPES: &[Type] = &[
    Type::INT8,
    Type::TEXT,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8,
    Type::INT8_ARRAY,
    Type::BOOL,
    Type::TEXT_ARRAY,
    Type::INT8,
    Type::BOOL,
];
pub(crate) const CLAIM_ALONE_TYPES: &[Type] = &[
    Type::INT8,
    Type::TEXT,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8,
    Type::TEXT,
    Type::INT8,
];

/// Journals of recovered runs, in a snapshot that is younger than the claim: nobody else can write them any more.
pub(crate) const JOURNALS: &str = "SELECT u.n, j.idx, j.at, j.encoding, j.kind, j.op, j.meta, j.payload \
     FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS u(run_id, start, n) \
     CROSS JOIN LATERAL (SELECT * FROM {journal} WHERE run_id = {run u} AND idx >= u.start OFFSET 0) j";
pub(crate) const JOURNALS_TYPES: &[Type] = &[Type::TEXT_ARRAY, Type::INT8_ARRAY];

/// The length that the snapshot of a claim did not show: the run got further than it seemed.
pub(crate) const RIGHT: &str = "UPDATE {runs} SET journal_len = $3, lost = 1, lost_at = $3 \
     WHERE run_id = $1 AND epoch = $2 AND status = 1";
pub(crate) const RIGHT_TYPES: &[Type] = &[Type::TEXT, Type::INT8, Type::INT8];

/// A run whose journal this build cannot read is set aside, so that it does not block the others.
pub(crate) const PARK: &str = "UPDATE {runs} SET status = 7, owner = NULL, epoch = epoch + 1, \
     updated_at = $4, ready_at = NULL, waits = NULL, note = $3 \
     WHERE run_id = $1 AND epoch = $2 AND status = 1";
pub(crate) const PARK_TYPES: &[Type] = &[Type::TEXT, Type::INT8, Type::TEXT, Type::INT8];

/// The sign of life as a rule: one row, whose version stays on its page. It is looked at under its lock.
pub(crate) const BEAT: &str = concat!(
    "UPDATE {owners} o SET seen_at = c.now, lease_until = ",
    later!("c.now", "$3::bigint"),
    ", label = $4, serves = $5, format = $6 FROM (SELECT coalesce($2::bigint, ",
    clock!(),
    ") AS now) c WHERE o.owner = $1 AND o.ended_at IS NULL AND o.lease_until > c.now RETURNING c.now"
);
/// The first one.
pub(crate) const REGISTER: &str = concat!(
    "INSERT INTO {owners} (owner, label, serves, format, started_at, seen_at, lease_until) \
     SELECT $1, $4, $5, $6, c.now, c.now, ",
    later!("c.now", "$3::bigint"),
    " FROM (SELECT coalesce($2::bigint, ",
    clock!(),
    ") AS now) c ON CONFLICT (owner) DO NOTHING RETURNING started_at"
);
pub(crate) const BEAT_TYPES: &[Type] = &[
    Type::TEXT,
    Type::INT8,
    Type::INT8,
    Type::TEXT,
    Type::TEXT_ARRAY,
    Type::INT2,
];
/// Of one that comes too late.
pub(crate) const LAPSE: &str = concat!(
    "UPDATE {owners} o SET ended_at = coalesce(o.ended_at, c.now) FROM (SELECT coalesce($2::bigint, ",
    clock!(),
    ") AS now) c WHERE o.owner = $1 AND (o.ended_at IS NOT NULL OR o.lease_until <= c.now) RETURNING c.now"
);
pub(crate) const RETIRE: &str = concat!(
    "UPDATE {owners} SET ended_at = coalesce($2::bigint, ",
    clock!(),
    ") WHERE owner = $1 AND ended_at IS NULL"
);
pub(crate) const OWNER_TYPES: &[Type] = &[Type::TEXT, Type::INT8];
/// Those that ended long ago and hold nothing.
pub(crate) const FORGET: &str = "DELETE FROM {owners} o USING (SELECT l.owner FROM {owners} l \
     WHERE l.owner > '' AND l.ended_at <= $1::bigint - $2::bigint \
     AND NOT EXISTS (SELECT 1 FROM {runs} r WHERE r.owner = l.owner) FOR UPDATE OF l SKIP LOCKED) l \
     WHERE o.owner = l.owner";
pub(crate) const FORGET_TYPES: &[Type] = &[Type::INT8, Type::INT8];

/// What the former incarnation still holds goes to the living one, but for what is locked: `left` says whether
/// there is such. (A commit of the former one that is under way is fenced off, or keeps its run from moving
/// until it has ended.)
pub(crate) const SUCCEED: &str = concat!(
    "WITH c AS MATERIALIZED (SELECT coalesce($3::bigint, ",
    clock!(),
    ") AS now), \
     me AS MATERIALIZED (SELECT o.owner FROM {owners} o WHERE o.owner = $1 AND o.ended_at IS NULL), \
     ended AS (UPDATE {owners} o SET ended_at = c.now FROM c, me WHERE o.owner = $2 AND o.ended_at IS NULL), \
     free AS MATERIALIZED (SELECT r.run_id FROM {runs} r WHERE r.owner = $2 AND (EXISTS (SELECT 1 FROM me)) IS TRUE \
     FOR NO KEY UPDATE SKIP LOCKED), \
     moved AS (UPDATE {runs} r SET owner = $1 FROM free f WHERE r.run_id = f.run_id AND (r.owner = $2) IS TRUE RETURNING r.run_id, r.epoch) \
     SELECT run_id, epoch FROM moved \
     UNION ALL SELECT NULL, 0 FROM {runs} r WHERE r.owner = $2 AND (r.run_id IN (SELECT run_id FROM moved)) IS NOT TRUE"
);
pub(crate) const SUCCEED_TYPES: &[Type] = &[Type::TEXT, Type::TEXT, Type::INT8];

pub(crate) const OWNERS: &str = "SELECT o.owner, o.label, o.serves, o.format, o.started_at, o.seen_at, o.lease_until, o.ended_at, \
     (SELECT count(*) FROM {runs} r WHERE r.owner = o.owner) FROM {owners} o ORDER BY o.owner";
pub(crate) const HELD: &str = "SELECT run_id, epoch FROM (SELECT r.run_id, r.epoch FROM {runs} r WHERE r.owner = $1 \
     AND r.run_id > $2 OFFSET 0) held ORDER BY run_id LIMIT $3";
pub(crate) const HELD_TYPES: &[Type] = &[Type::TEXT, Type::TEXT, Type::INT8];

/// The least instant of all lines, from their floors on, and the earliest end of a lease whose owner holds a
/// run of the lanes. Owners come in the order of these, so that the first that holds one decides. Whether a living
/// one holds any is asked in a look at everything only, as the answer may lie behind the dead entries of all that it has
/// driven: in between its lease counts in any case, which costs a look at the end of it.
pub(crate) const NEXT: &str = concat!(
    "WITH RECURSIVE c AS MATERIALIZED (SELECT coalesce($1::bigint, ",
    clock!(),
    ") AS now), \
     name(owner) AS (SELECT (SELECT r.owner FROM {runs} r WHERE r.owner > '' ORDER BY r.owner LIMIT 1) WHERE $5 UNION ALL \
     SELECT (SELECT r.owner FROM {runs} r WHERE r.owner > n.owner ORDER BY r.owner LIMIT 1) FROM name n WHERE n.owner IS NOT NULL), \
     holder AS MATERIALIZED (SELECT o.owner, CASE WHEN o.ended_at IS NULL THEN greatest(o.lease_until, c.now) ELSE c.now END AS until, \
     o.ended_at IS NULL AND o.lease_until > c.now AS lives \
     FROM {owners} o, c WHERE o.owner > '' AND (o.ended_at IS NULL OR o.owner <> ALL ($6::text[])) \
     UNION ALL SELECT n.owner, c.now, FALSE FROM name n, c WHERE n.owner IS NOT NULL \
     AND NOT EXISTS (SELECT 1 FROM {owners} o WHERE o.owner = n.owner)) \
     SELECT c.now, (SELECT min(d.ready_at) FROM unnest($2::smallint[], $3::text[]) WITH ORDINALITY AS k(status, lane, place) \
     CROSS JOIN generate_series(0, 9) AS p(priority) CROSS JOIN LATERAL (\
     SELECT r.ready_at FROM {runs} r WHERE r.status = k.status AND r.lane = k.lane AND r.priority = p.priority::smallint \
     AND r.ready_at >= ($4::bigint[])[(k.place - 1) * 10 + p.priority + 1] ORDER BY r.ready_at, r.run_id LIMIT 1) d \
     WHERE k.status <> 1), \
     (SELECT h.until FROM (SELECT * FROM holder ORDER BY until OFFSET 0) h WHERE (h.lives AND NOT $5) OR (EXISTS (\
     SELECT 1 FROM {runs} r WHERE r.owner = h.owner AND r.lane = ANY ($3::text[]))) IS TRUE LIMIT 1) FROM c"
);
pub(crate) const NEXT_TYPES: &[Type] = &[
    Type::INT8,
    Type::INT2_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::BOOL,
    Type::TEXT_ARRAY,
];
