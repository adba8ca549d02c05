//! The numbered migrations and what a file has of them.

use duramen_core::store::{Schema, StoreError};
use rusqlite::{Connection, OptionalExtension};

use crate::error::Fault;
use crate::sql;

/// A migration: its number, its name and its statements, which record it as well.
struct Migration {
    number: u32,
    name: &'static str,
    sql: &'static str,
}

/// In order of their numbers; append, never change one that has been released.
const MIGRATIONS: [Migration; 1] = [Migration {
    number: 1,
    name: "0001_initial",
    sql: include_str!("../../../migrations/sqlite/0001_initial.sql"),
}];

/// The number of the newest migration of this build.
pub(crate) fn needed() -> u32 {
    MIGRATIONS.last().map_or(0, |migration| migration.number)
}

/// The number of the newest migration in the file; 0 if there is none.
pub(crate) fn found(connection: &Connection) -> Result<u32, Fault> {
    let exists = connection
        .query_row(sql::schema::EXISTS, [], |_| Ok(()))
        .optional()?;
    if exists.is_none() {
        return Ok(0);
    }
    Ok(connection.query_row(sql::schema::FOUND, [], |row| row.get(0))?)
}

pub(crate) fn schema(connection: &Connection) -> Result<Schema, Fault> {
    Ok(Schema {
        found: found(connection)?,
        needed: needed(),
        applied: Vec::new(),
    })
}

/// Applies what is missing. The caller holds a write transaction, so that two processes that come at
/// once do it one after the other, and the second finds nothing to do.
pub(crate) fn apply(connection: &Connection) -> Result<Schema, Fault> {
    let mut schema = schema(connection)?;
    for migration in &MIGRATIONS {
        if migration.number > schema.found {
            connection.execute_batch(migration.sql)?;
            schema.found = migration.number;
            schema.applied.push(migration.name.to_owned());
        }
    }
    Ok(schema)
}

/// Whether this build can work with the schema it found.
pub(crate) fn check(schema: &Schema) -> Result<(), StoreError> {
    let (found, needed) = (schema.found, schema.needed);
    match found.cmp(&needed) {
        std::cmp::Ordering::Less => Err(StoreError::Unmigrated { found, needed }),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(StoreError::Newer { found, needed }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_from_one_without_gaps_and_named_by_their_numbers() {
        for (place, migration) in (1_u32..).zip(&MIGRATIONS) {
            assert_eq!(migration.number, place);
            assert!(migration.name.starts_with(&format!("{place:04}_")));
        }
    }
}
