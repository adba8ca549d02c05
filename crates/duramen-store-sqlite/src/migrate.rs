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

/// What is there of the schema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    number: u32,
    /// The oldest migration whose library can still work with it.
    compatible_from: u32,
}

impl Found {
    pub(crate) fn schema(self) -> Schema {
        Schema {
            found: self.number,
            needed: needed(),
            applied: Vec::new(),
        }
    }

    pub(crate) fn lacks_migrations(self) -> bool {
        self.number < needed()
    }

    /// Whether this build can work with it: a newer schema says from which build on that is so.
    pub(crate) fn check(self) -> Result<(), StoreError> {
        let (found, needed) = (self.number, needed());
        if self.lacks_migrations() {
            return Err(StoreError::Unmigrated { found, needed });
        }
        if self.compatible_from > needed {
            return Err(StoreError::Newer { found, needed });
        }
        Ok(())
    }
}

pub(crate) fn found(connection: &Connection) -> Result<Found, Fault> {
    let exists = connection
        .query_row(sql::schema::EXISTS, [], |_| Ok(()))
        .optional()?;
    if exists.is_none() {
        return Ok(Found {
            number: 0,
            compatible_from: 0,
        });
    }
    Ok(connection.query_row(sql::schema::FOUND, [], |row| {
        Ok(Found {
            number: row.get(0)?,
            compatible_from: row.get(1)?,
        })
    })?)
}

pub(crate) fn schema(connection: &Connection) -> Result<Schema, Fault> {
    Ok(found(connection)?.schema())
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
