//! The numbered migrations and what a schema has of them.

use duramen_core::store::{Schema, StoreError};

use crate::error::Fault;
use crate::link::{Link, Transaction};
use crate::options::Names;
use crate::row::column;
use crate::sql::{self, Book, Sql};

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
    sql: include_str!("../../../migrations/postgres/0001_initial.sql"),
}];

/// How often a migrator that met another in the middle of its work begins anew.
const ATTEMPTS: u32 = 5;

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

    /// Whether this build can work with it: a newer schema says from which build on that is so.
    pub(crate) fn check(self) -> Result<(), StoreError> {
        let (found, needed) = (self.number, needed());
        if found < needed {
            return Err(StoreError::Unmigrated { found, needed });
        }
        if self.compatible_from > needed {
            return Err(StoreError::Newer { found, needed });
        }
        Ok(())
    }
}

pub(crate) async fn found(link: &Link, book: &Book) -> Result<Found, Fault> {
    match link.read(&book.found, &[]).await {
        Ok(rows) => read(&rows),
        Err(fault) if fault.is_of_a_missing_table() => Ok(Found {
            number: 0,
            compatible_from: 0,
        }),
        Err(fault) => Err(fault),
    }
}

fn read(rows: &[tokio_postgres::Row]) -> Result<Found, Fault> {
    let number = |place| -> Result<u32, Fault> {
        let value: i32 = rows
            .first()
            .map_or(Ok(0), |row| column(row, place, "number"))?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    Ok(Found {
        number: number(0)?,
        compatible_from: number(1)?,
    })
}

/// Applies what is missing. Migrators that come at once do it one after the other: the second waits for
/// the first's lock and finds nothing to do.
pub(crate) async fn migrate(link: &Link, book: &Book, names: &Names) -> Result<Schema, Fault> {
    // Where nothing is to be done no right is needed, and no lock.
    let there = found(link, book).await?;
    if there.number >= needed() {
        return Ok(there.schema());
    }
    let mut attempt = 1;
    loop {
        let transaction = link.begin().await?;
        let result = apply(&transaction, book, names).await;
        match transaction.end(result).await {
            // Two have made the schema or the first table at one time; it is there now.
            Err(fault)
                if attempt < ATTEMPTS
                    && (fault.is_a_race_of_creators() || fault.asks_for_repetition()) =>
            {
                attempt += 1;
            }
            other => return other,
        }
    }
}

async fn apply(transaction: &Transaction, book: &Book, names: &Names) -> Result<Schema, Fault> {
    let exists = Sql {
        text: sql::schema::EXISTS.to_owned(),
        types: std::borrow::Cow::Borrowed(&[tokio_postgres::types::Type::NAME]),
        prepare: false,
    };
    if transaction
        .run(&exists, &[&names.schema()])
        .await?
        .is_empty()
    {
        transaction
            .batch(&names.fill("CREATE SCHEMA :\"schema\""))
            .await?;
    }
    transaction.batch(&names.fill(sql::schema::TABLE)).await?;
    transaction.batch(&names.fill(sql::schema::LOCK)).await?;
    let mut schema = read(&transaction.run(&book.found, &[]).await?)?.schema();
    for migration in &MIGRATIONS {
        if migration.number > schema.found {
            transaction
                .batch(&names.fill(&without_commands(migration.sql)))
                .await?;
            schema.found = migration.number;
            schema.applied.push(migration.name.to_owned());
        }
    }
    Ok(schema)
}

/// A migration without the lines that are for psql: its own commands, and what ends in one.
fn without_commands(sql: &str) -> String {
    sql.lines()
        .filter(|line| !line.starts_with('\\') && !line.ends_with("\\gexec"))
        .collect::<Vec<_>>()
        .join("\n")
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

    #[test]
    fn every_name_of_a_migration_is_one_that_can_be_replaced() {
        for migration in &MIGRATIONS {
            let text = Names::default().fill(&without_commands(migration.sql));
            assert!(!text.contains(":\""), "{}", migration.name);
            assert!(
                !text.contains('\\') || text.contains("'\\"),
                "{}",
                migration.name
            );
        }
    }
}
