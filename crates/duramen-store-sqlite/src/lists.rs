//! Lists and counts of runs.

use duramen_core::run::RunRow;
use duramen_core::store::{Cursor, Filter, Page};
use duramen_store_sql::filter::{self, Dialect};
use duramen_store_sql::{lists, run_row};
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use crate::error::Fault;
use crate::row::Reader;
use crate::sql;

pub(crate) fn list(
    connection: &Connection,
    wanted: &Filter,
    limit: u32,
    cursor: Option<&Cursor>,
) -> Result<Page, Fault> {
    let mut values = Values::default();
    let text = filter::list(&mut values, sql::query::LIST, wanted, limit, cursor);
    let mut statement = connection.prepare_cached(&text)?;
    let mut found = statement.query(params_from_iter(values.0))?;
    let mut rows: Vec<RunRow> = Vec::new();
    while let Some(one) = found.next()? {
        rows.push(run_row(&mut Reader::new(one))?);
    }
    Ok(filter::page(rows, limit))
}

pub(crate) fn count(connection: &Connection, wanted: &Filter) -> Result<u64, Fault> {
    let mut values = Values::default();
    let text = filter::count(&mut values, sql::query::COUNT, wanted);
    let mut statement = connection.prepare_cached(&text)?;
    let count: i64 = statement.query_row(params_from_iter(values.0), |found| found.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The values of a statement, in the order of its question marks.
#[derive(Default)]
pub(crate) struct Values(Vec<Value>);

impl Values {
    fn mark(&mut self, value: impl Into<Value>) -> String {
        self.0.push(value.into());
        "?".to_owned()
    }
}

impl Dialect for Values {
    fn text(&mut self, value: &str) -> String {
        self.mark(value.to_owned())
    }

    fn integer(&mut self, value: i64) -> String {
        self.mark(value)
    }

    fn contains(&mut self, column: &str, item: &str) -> String {
        match lists::sought(item) {
            Some(sought) => format!("instr({column}, {}) > 0", self.mark(sought)),
            None => "0".to_owned(),
        }
    }
}
