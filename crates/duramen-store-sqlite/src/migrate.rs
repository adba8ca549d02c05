//! The numbered migrations and what a file has of them.

use duramen_core::store::Schema;
use duramen_store_sql::{Found, Migration, Migrations};
use rusqlite::{Connection, OptionalExtension};

use crate::error::Fault;
use crate::sql;

pub(crate) const MIGRATIONS: Migrations = Migrations::new(&[Migration {
    name: "0001_initial",
    sql: include_str!("../../../migrations/sqlite/0001_initial.sql"),
}]);

pub(crate) fn found(connection: &Connection) -> Result<Found, Fault> {
    let exists = connection
        .query_row(sql::schema::EXISTS, [], |_| Ok(()))
        .optional()?;
    if exists.is_none() {
        return Ok(Found::NOTHING);
    }
    Ok(connection.query_row(sql::schema::FOUND, [], |row| {
        Ok(Found {
            number: row.get(0)?,
            compatible_from: row.get(1)?,
        })
    })?)
}

pub(crate) fn schema(connection: &Connection) -> Result<Schema, Fault> {
    Ok(found(connection)?.schema(MIGRATIONS))
}

/// Applies what is missing. The caller holds a write transaction, so that two processes that come at
/// once do it one after the other, and the second finds nothing to do.
pub(crate) fn apply(connection: &Connection) -> Result<Schema, Fault> {
    let mut schema = schema(connection)?;
    for (number, migration) in MIGRATIONS.after(schema.found) {
        connection.execute_batch(migration.sql)?;
        schema.found = number;
        schema.applied.push(migration.name.to_owned());
    }
    Ok(schema)
}
