//! How values stand in columns.

use duramen_store_sql::{Columns, Damaged, lists};
use rusqlite::Row;
use rusqlite::types::{FromSqlResult, ValueRef};

use crate::error::Fault;

/// A count or index as SQLite keeps it.
pub(crate) fn signed(number: u64) -> Result<i64, Fault> {
    i64::try_from(number).map_err(|_| Fault::Invalid(format!("the number {number} is too large")))
}

/// Reads the columns of a row from a place on.
pub(crate) struct Reader<'r, 's> {
    row: &'r Row<'s>,
    place: usize,
}

impl<'r, 's> Reader<'r, 's> {
    pub(crate) fn new(row: &'r Row<'s>) -> Self {
        Self::at(row, 0)
    }

    pub(crate) fn at(row: &'r Row<'s>, place: usize) -> Self {
        Self { row, place }
    }

    fn next<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(ValueRef<'r>) -> FromSqlResult<T>,
    ) -> Result<T, Fault> {
        let value = self.row.get_ref(self.place)?;
        self.place += 1;
        read(value).map_err(|_| Damaged::column(name).into())
    }
}

impl Columns for Reader<'_, '_> {
    type Fault = Fault;

    fn integer(&mut self, name: &str) -> Result<i64, Fault> {
        self.next(name, |value| value.as_i64())
    }

    fn integer_or_null(&mut self, name: &str) -> Result<Option<i64>, Fault> {
        self.next(name, |value| value.as_i64_or_null())
    }

    fn code(&mut self, name: &str) -> Result<i64, Fault> {
        self.integer(name)
    }

    fn text(&mut self, name: &str) -> Result<&str, Fault> {
        self.next(name, |value| value.as_str())
    }

    fn text_or_null(&mut self, name: &str) -> Result<Option<&str>, Fault> {
        self.next(name, |value| value.as_str_or_null())
    }

    fn bytes(&mut self, name: &str) -> Result<&[u8], Fault> {
        self.next(name, |value| value.as_blob())
    }

    fn list(&mut self, name: &str) -> Result<Vec<String>, Fault> {
        self.text(name).map(lists::disclose)
    }
}
