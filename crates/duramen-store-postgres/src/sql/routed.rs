//! What the routed flavour says in words of its own (`crate::flavour`), where the plain one goes over runs and owners at
//! once. Each statement is of one of three kinds:
//! - it names one run by its first parameter;
//! - it reads `runs` and nothing else, so that an engine can ask all parts and merge what they say;
//! - it is about owners, who are not in parts.

use std::borrow::Cow;

use duramen_store_sql::run_columns;
use tokio_postgres::types::Type;

use super::{Sql, lease};
use crate::options::Names;

/// The statements with one store's names in them.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) who: Sql,
    pub(crate) leases: Sql,
    pub(crate) alive: Sql,
    pub(crate) line: Sql,
    pub(crate) of_owner: Sql,
    pub(crate) holds: Sql,
    pub(crate) holds_of: Sql,
    pub(crate) strangers: Sql,
    pub(crate) one: Sql,
    pub(crate) weight: Sql,
    pub(crate) take: Sql,
    pub(crate) end: Sql,
    pub(crate) all_held: Sql,
    pub(crate) hand_over: Sql,
    pub(crate) ended: Sql,
    pub(crate) forget: Sql,
    pub(crate) owners: Sql,
    pub(crate) counts: Sql,
    pub(crate) unread: Sql,
}

impl Statements {
    pub(crate) fn new(names: &Names) -> Self {
        let sql = |template: &str, types: &'static [Type]| {
            let text = names.fill(template);
            Sql::new(text, Cow::Borrowed(types))
        };
        let who = [lease::ENDING, WHO].concat();
        Self {
            who: sql(&who, &[Type::INT8, Type::TEXT]),
            leases: sql(LEASES, &[Type::INT8]),
            alive: sql(ALIVE, &[Type::TEXT_ARRAY, Type::INT8_ARRAY]),
            line: sql(LINE, LINE_TYPES),
            of_owner: sql(OF_OWNER, &[Type::TEXT, Type::TEXT, Type::INT8]),
            holds: sql(HOLDS, &[Type::TEXT]),
            holds_of: sql(HOLDS_OF, &[Type::TEXT, Type::TEXT_ARRAY]),
            strangers: sql(STRANGERS, &[Type::TEXT_ARRAY]),
            one: sql(ONE, &[Type::TEXT]),
            weight: sql(WEIGHT, &[Type::TEXT, Type::INT8]),
            take: sql(TAKE, TAKE_TYPES),
            end: sql(END, lease::SUCCEED_TYPES),
            all_held: sql(ALL_HELD, &[Type::TEXT]),
            hand_over: sql(HAND_OVER, &[Type::TEXT, Type::TEXT, Type::TEXT]),
            ended: sql(ENDED, lease::FORGET_TYPES),
            forget: sql(FORGET, &[Type::TEXT]),
            owners: sql(OWNERS, &[]),
            counts: sql(COUNTS, &[]),
            unread: sql(UNREAD, &[Type::TEXT]),
        }
    }
}

/// Behind [`lease::ENDING`]: the instant, whether the claimer's lease lasts, who has ended, who there is.
const WHO: &str = " SELECT c.now, EXISTS (SELECT 1 FROM me), \
     ARRAY(SELECT o.owner FROM {owners} o WHERE o.owner > '' AND o.ended_at IS NOT NULL UNION SELECT owner FROM lapsed), \
     ARRAY(SELECT o.owner FROM {owners} o WHERE o.owner > '') FROM c";

/// Until when each lease counts, the earliest end first.
const LEASES: &str = concat!(
    "WITH c AS MATERIALIZED (SELECT coalesce($1::bigint, ",
    clock!(),
    ") AS now) SELECT c.now, o.owner, \
     CASE WHEN o.ended_at IS NULL THEN greatest(o.lease_until, c.now) ELSE c.now END AS until, \
     o.ended_at IS NULL AND o.lease_until > c.now, o.ended_at IS NOT NULL \
     FROM c LEFT JOIN {owners} o ON o.owner > '' ORDER BY until, o.owner"
);

/// Which of these have a lease that lasts.
const ALIVE: &str = concat!(
    "SELECT u.n FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS u(owner, given, n) \
     JOIN {owners} o ON o.owner = u.owner WHERE o.ended_at IS NULL AND o.lease_until > coalesce(u.given, ",
    clock!(),
    ")"
);

macro_rules! candidate {
    () => {
        "SELECT r.run_id, r.status, r.lane, r.owner, r.priority, r.ready_at, r.journal_start, r.journal_len, \
         r.unread_bytes::bigint FROM {runs} r WHERE "
    };
}

/// A line from a priority on, in the order in which runs are taken. It shows what is due and what is not: whoever
/// meets one that is not goes on with the next priority.
const LINE: &str = concat!(
    candidate!(),
    "r.status = $1 AND r.lane = $2 AND r.priority >= $3 AND r.ready_at >= $4 \
     ORDER BY r.priority, r.ready_at, r.run_id LIMIT $5"
);
const LINE_TYPES: &[Type] = &[Type::INT2, Type::TEXT, Type::INT2, Type::INT8, Type::INT8];

/// What an owner holds of a lane.
const OF_OWNER: &str = concat!(
    candidate!(),
    "r.owner = $1 AND r.lane = $2 ORDER BY r.run_id LIMIT $3"
);
const HOLDS: &str = "SELECT 1 FROM {runs} r WHERE r.owner = $1 LIMIT 1";
const HOLDS_OF: &str = "SELECT 1 FROM {runs} r WHERE r.owner = $1 AND r.lane = ANY ($2) LIMIT 1";

/// Names that stand in runs and in no row.
const STRANGERS: &str =
    "SELECT DISTINCT r.owner FROM {runs} r WHERE r.owner > '' AND r.owner <> ALL ($1)";

const ONE: &str = concat!(candidate!(), "r.run_id = $1");

/// How long a journal is and what it weighs; of one that is too long for any claim, the beginning.
const WEIGHT: &str = "SELECT coalesce(least(max(e.idx), 9223372036854775806) + 1, $2), coalesce(sum(octet_length(e.payload)), 0)::bigint \
     FROM (SELECT j.idx, j.payload FROM {journal} j WHERE j.run_id = $1 AND j.idx >= $2 ORDER BY j.idx LIMIT 50001) e";

/// Takes one run if it still is what it was found to be. Its owner, if it has one, was found to have ended, which is for
/// good. The update meets its row twice, as `lease::TAKE` does. Journal and inbox are read behind it.
const TAKE: &str = concat!(
    "UPDATE {runs} r SET status = 1, owner = $5, epoch = r.epoch + 1, \
     started_at = coalesce(r.started_at, $6), updated_at = $6, ready_at = NULL, \
     journal_len = greatest(r.journal_len, p.length), \
     lost = CASE WHEN $2 <> 1 THEN r.lost WHEN r.lost_at = p.length THEN r.lost + 1 ELSE 1 END, \
     lost_at = CASE $2 WHEN 1 THEN p.length ELSE r.lost_at END \
     FROM (SELECT l.run_id, l.epoch, CASE $2 WHEN 1 THEN (SELECT least(j.idx, 9223372036854775806) + 1 FROM {journal} j \
     WHERE j.run_id = $1 ORDER BY j.idx DESC LIMIT 1) ELSE l.journal_len END AS length \
     FROM {runs} l WHERE l.run_id = $1 AND l.status = $2 AND l.lane = $3 AND l.owner IS NOT DISTINCT FROM $4 \
     AND (l.status = 1 OR l.ready_at <= $6) FOR NO KEY UPDATE OF l SKIP LOCKED) p \
     WHERE r.run_id = $1 AND r.run_id = p.run_id AND r.epoch <= p.epoch RETURNING ",
    run_columns!("r.")
);
const TAKE_TYPES: &[Type] = &[
    Type::TEXT,
    Type::INT2,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
];

/// The former incarnation ends, if its successor lives.
const END: &str = concat!(
    "WITH c AS MATERIALIZED (SELECT coalesce($3::bigint, ",
    clock!(),
    ") AS now), \
     me AS MATERIALIZED (SELECT o.owner FROM {owners} o WHERE o.owner = $1 AND o.ended_at IS NULL), \
     ended AS (UPDATE {owners} o SET ended_at = c.now FROM c, me WHERE o.owner = $2 AND o.ended_at IS NULL) \
     SELECT owner FROM me"
);
const ALL_HELD: &str = "SELECT r.run_id FROM {runs} r WHERE r.owner = $1";
/// One run from an owner to the next.
const HAND_OVER: &str = "UPDATE {runs} r SET owner = $3 FROM (SELECT l.run_id FROM {runs} l \
     WHERE l.run_id = $1 AND (l.owner = $2) IS TRUE FOR NO KEY UPDATE SKIP LOCKED) f \
     WHERE r.run_id = $1 AND r.run_id = f.run_id AND (r.owner = $2) IS TRUE RETURNING r.run_id, r.epoch";

const ENDED: &str =
    "SELECT o.owner FROM {owners} o WHERE o.owner > '' AND o.ended_at <= $1::bigint - $2::bigint";
const FORGET: &str = "DELETE FROM {owners} o WHERE o.owner = $1 AND o.ended_at IS NOT NULL";

const OWNERS: &str = "SELECT o.owner, o.label, o.serves, o.format, o.started_at, o.seen_at, o.lease_until, o.ended_at, \
     0::bigint FROM {owners} o ORDER BY o.owner";
const COUNTS: &str = "SELECT r.owner, count(*) FROM {runs} r WHERE r.owner > '' GROUP BY r.owner";

const UNREAD: &str = "SELECT r.run_id, r.inbox_seen FROM {runs} r \
     WHERE r.owner = $1 AND r.owner IS NOT NULL AND r.inbox_len > r.inbox_seen";
