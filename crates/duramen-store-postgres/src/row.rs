//! How values stand in columns.

use std::borrow::Cow;
use std::error::Error;

use duramen_store_sql::{Columns, Damaged};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, Type};

use crate::error::Fault;

/// A text as Postgres keeps it, which cannot keep NUL. Ids with one are refused long before; this is for
/// reasons and notes, which may quote anything.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// A count or index as Postgres keeps it. Nothing reaches a number that it cannot count to.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn column<'r, T: FromSql<'r>>(
    row: &'r Row,
    place: usize,
    what: &str,
) -> Result<T, Fault> {
    row.try_get(place).map_err(|_| Damaged::column(what).into())
}

/// A number, however wide its column is.
struct Whole(i64);

impl<'r> FromSql<'r> for Whole {
    fn from_sql(of: &Type, raw: &'r [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(match *of {
            Type::INT2 => i16::from_sql(of, raw)?.into(),
            Type::INT4 => i32::from_sql(of, raw)?.into(),
            _ => i64::from_sql(of, raw)?,
        }))
    }

    fn accepts(of: &Type) -> bool {
        [Type::INT2, Type::INT4, Type::INT8].contains(of)
    }
}

/// Reads the columns of a row from a place on.
pub(crate) struct Reader<'r> {
    row: &'r Row,
    place: usize,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(row: &'r Row) -> Self {
        Self::at(row, 0)
    }

    pub(crate) fn at(row: &'r Row, place: usize) -> Self {
        Self { row, place }
    }

    pub(crate) fn next<T: FromSql<'r>>(&mut self, name: &str) -> Result<T, Fault> {
        let value = column(self.row, self.place, name)?;
        self.place += 1;
        Ok(value)
    }
}

impl Columns for Reader<'_> {
    type Fault = Fault;

    fn integer(&mut self, name: &str) -> Result<i64, Fault> {
        self.next::<Whole>(name).map(|number| number.0)
    }

    fn integer_or_null(&mut self, name: &str) -> Result<Option<i64>, Fault> {
        let number: Option<Whole> = self.next(name)?;
        Ok(number.map(|number| number.0))
    }

    fn code(&mut self, name: &str) -> Result<i64, Fault> {
        self.next::<i16>(name).map(i64::from)
    }

    fn text(&mut self, name: &str) -> Result<&str, Fault> {
        self.next(name)
    }

    fn text_or_null(&mut self, name: &str) -> Result<Option<&str>, Fault> {
        self.next(name)
    }

    fn bytes(&mut self, name: &str) -> Result<&[u8], Fault> {
        self.next(name)
    }

    fn list(&mut self, name: &str) -> Result<Vec<String>, Fault> {
        let items: Option<Vec<String>> = self.next(name)?;
        Ok(items.unwrap_or_default())
    }
}
