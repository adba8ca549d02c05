//! Schedules. Their table is not in parts, in whatever flavour: no statement here names a run.

use std::borrow::Cow;

use tokio_postgres::types::Type;

use super::Sql;
use crate::options::Names;

/// The statements with one store's names in them.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) change: Sql,
    pub(crate) insert: Sql,
    pub(crate) get: Sql,
    pub(crate) list: Sql,
    pub(crate) next: Sql,
}

impl Statements {
    pub(crate) fn new(names: &Names) -> Self {
        let sql = |template: &str, types| Sql::new(names.fill(template), Cow::Borrowed(types));
        Self {
            change: sql(CHANGE, CHANGE_TYPES),
            insert: sql(INSERT, INSERT_TYPES),
            get: sql(GET, &[Type::TEXT_ARRAY]),
            list: sql(LIST, &[Type::TEXT, Type::INT8]),
            next: sql(NEXT, NEXT_TYPES),
        }
    }
}

/// Rows that have the version that is expected are written, or removed where `gone` is true. What others have locked is
/// passed over. (The update meets its row as it is in the snapshot and as it is now: the version is asked for both
/// times.)
const CHANGE: &str = "WITH b AS MATERIALIZED (SELECT * FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], \
     $5::bigint[], $6::bytea[], $7::bytea[], $8::boolean[]) \
     AS b(id, expected, version, workflow, next_at, definition, state, gone)), \
     mine AS MATERIALIZED (SELECT b.id FROM (SELECT * FROM b ORDER BY id OFFSET 0) b CROSS JOIN LATERAL (\
     SELECT s.id FROM {schedules} s WHERE s.id = b.id AND (s.version = b.expected) IS TRUE FOR UPDATE OF s SKIP LOCKED) s), \
     written AS (UPDATE {schedules} s SET version = b.version, workflow = b.workflow, next_at = b.next_at, \
     definition = b.definition, state = b.state FROM b WHERE s.id = b.id AND (s.version = b.expected) IS TRUE AND NOT b.gone \
     AND (b.id IN (SELECT id FROM mine)) IS TRUE RETURNING s.id), \
     removed AS (DELETE FROM {schedules} s USING b WHERE s.id = b.id AND (s.version = b.expected) IS TRUE AND b.gone \
     AND (b.id IN (SELECT id FROM mine)) IS TRUE RETURNING s.id) \
     SELECT id FROM written UNION ALL SELECT id FROM removed";
const CHANGE_TYPES: &[Type] = &[
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BOOL_ARRAY,
];

/// In the order of their ids, so that two batches never wait for each other.
const INSERT: &str = "INSERT INTO {schedules} (id, version, workflow, next_at, definition, state) \
     SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[]) \
     AS b(id, version, workflow, next_at, definition, state) ORDER BY id ON CONFLICT (id) DO NOTHING RETURNING id";
const INSERT_TYPES: &[Type] = &[
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::TEXT_ARRAY,
    Type::INT8_ARRAY,
    Type::BYTEA_ARRAY,
    Type::BYTEA_ARRAY,
];

const GET: &str = "SELECT s.id, s.version, s.workflow, s.next_at, s.definition, s.state \
     FROM unnest($1::text[]) AS w(id) JOIN {schedules} s ON s.id = w.id";
const LIST: &str = "SELECT id, version, workflow, next_at, definition, state FROM {schedules} \
     WHERE id > $1 ORDER BY id LIMIT $2";

/// The instant, and the next ones of each workflow from the index alone. A row without an id carries the instant where
/// there are none.
const NEXT: &str = concat!(
    "WITH c AS MATERIALIZED (SELECT coalesce($1::bigint, ",
    clock!(),
    ") AS now) SELECT c.now, n.next_at, n.id FROM c LEFT JOIN LATERAL (\
     SELECT k.next_at, k.id FROM unnest($2::text[]) AS w(workflow) CROSS JOIN LATERAL (\
     SELECT s.next_at, s.id FROM {schedules} s WHERE s.workflow = w.workflow AND s.next_at IS NOT NULL \
     AND (s.next_at, s.id) > ($3, $4) ORDER BY s.next_at, s.id LIMIT $5) k \
     ORDER BY k.next_at, k.id LIMIT $5) n ON TRUE ORDER BY n.next_at, n.id"
);
const NEXT_TYPES: &[Type] = &[
    Type::INT8,
    Type::TEXT_ARRAY,
    Type::INT8,
    Type::TEXT,
    Type::INT8,
];
