//! The numbered migrations and what a schema has of them.

use duramen_core::store::Schema;
use duramen_store_sql::{Found, Migration, Migrations};

use crate::error::Fault;
use crate::link::{Link, Transaction};
use crate::options::Names;
use crate::row::column;
use crate::sql::{self, Sql};

pub(crate) const MIGRATIONS: Migrations = Migrations::new(&[Migration {
    name: "0001_initial",
    sql: include_str!("../../../migrations/postgres/0001_initial.sql"),
}]);

/// How often a migrator that met another in the middle of its work begins anew.
const ATTEMPTS: u32 = 5;

pub(crate) async fn found(link: &Link, names: &Names) -> Result<Found, Fault> {
    match link.read(&Sql::once(names, sql::schema::FOUND), &[]).await {
        Ok(rows) => read(&rows),
        Err(fault) if fault.is_of_a_missing_table() => Ok(Found::NOTHING),
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
pub(crate) async fn migrate(link: &Link, names: &Names) -> Result<Schema, Fault> {
    // Where nothing is to be done no right is needed, and no lock.
    let there = found(link, names).await?;
    if !there.lacks(MIGRATIONS) {
        return Ok(there.schema(MIGRATIONS));
    }
    let mut attempt = 1;
    loop {
        let transaction = link.begin().await?;
        let result = apply(&transaction, names).await;
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

async fn apply(transaction: &Transaction, names: &Names) -> Result<Schema, Fault> {
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
    let found = Sql::once(names, sql::schema::FOUND);
    let mut schema = read(&transaction.run(&found, &[]).await?)?.schema(MIGRATIONS);
    for (number, migration) in MIGRATIONS.after(schema.found) {
        transaction
            .batch(&names.fill(&without_commands(migration.sql)))
            .await?;
        schema.found = number;
        schema.applied.push(migration.name.to_owned());
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
    fn migrations_are_ascii_so_that_a_database_of_any_encoding_takes_them() {
        for (_, migration) in MIGRATIONS.numbered() {
            assert!(migration.sql.is_ascii(), "{}", migration.name);
        }
    }

    #[test]
    fn every_name_of_a_migration_is_one_that_can_be_replaced() {
        for (_, migration) in MIGRATIONS.numbered() {
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
