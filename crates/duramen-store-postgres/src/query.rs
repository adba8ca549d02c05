//! What people and drivers ask.

use std::borrow::Cow;
use std::collections::BTreeMap;

use duramen_core::ids::{Payload, RunId};
use duramen_core::journal::Entry;
use duramen_core::run::RunRow;
use duramen_core::store::{Cursor, Filter, Message, Page, RunDetail};
use duramen_store_sql::filter::{self, Dialect};
use duramen_store_sql::{Columns, RUN_COLUMNS, entry, message, payload, run_row};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::error::Fault;
use crate::link::Link;
use crate::options::Names;
use crate::row::{Reader, clean, column, signed};
use crate::sql::{self, Book, Sql};

/// All rows from one snapshot; a second question only for runs that got messages.
pub(crate) async fn get(
    link: &Link,
    book: &Book,
    run_ids: &[RunId],
) -> Result<Vec<Option<RunDetail>>, Fault> {
    let ids: Vec<_> = run_ids.iter().map(|run_id| clean(run_id)).collect();
    let rows = link.read(&book.details, &[&ids]).await?;
    let mut details: Vec<Option<RunDetail>> = vec![None; run_ids.len()];
    for row in &rows {
        let n: i64 = column(row, RUN_COLUMNS, "n")?;
        let place = usize::try_from(n).ok().and_then(|n| n.checked_sub(1));
        if let Some(slot) = place.and_then(|place| details.get_mut(place)) {
            *slot = Some(detail(row)?);
        }
    }
    let with_inbox: Vec<String> = details
        .iter()
        .flatten()
        .filter(|detail| detail.row.inbox_len > 0)
        .map(|detail| detail.row.run_id.to_string())
        .collect();
    if !with_inbox.is_empty() {
        let refused = refused(link, book, &with_inbox).await?;
        for detail in details.iter_mut().flatten() {
            // Not taken out: a run may be asked for twice.
            let found = refused.get(&detail.row.run_id);
            detail.refused = found.cloned().unwrap_or_default();
        }
    }
    Ok(details)
}

fn detail(row: &Row) -> Result<RunDetail, Fault> {
    let bytes = |place: usize, what| -> Result<Option<Payload>, Fault> {
        Ok(column::<Option<&[u8]>>(row, place, what)?.map(payload))
    };
    let next = RUN_COLUMNS + 1;
    // Of a left join: all of its columns are there, or none.
    let ended = column::<Option<i64>>(row, next + 3, "at")?.is_some();
    Ok(RunDetail {
        row: run_row(&mut Reader::new(row))?,
        input: bytes(next, "payload")?.unwrap_or_default(),
        state: bytes(next + 1, "state")?,
        memo: bytes(next + 2, "memo")?,
        end: ended
            .then(|| entry(&mut Reader::at(row, next + 3)))
            .transpose()?,
        refused: Vec::new(),
    })
}

type Refused = BTreeMap<RunId, Vec<(Message, String)>>;

async fn refused(link: &Link, book: &Book, run_ids: &[String]) -> Result<Refused, Fault> {
    let mut refused = Refused::new();
    for row in &link.read(&book.refused, &[&run_ids]).await? {
        let mut columns = Reader::new(row);
        let found = message(&mut columns)?;
        let reason = columns.text_or_null("note")?.unwrap_or_default().to_owned();
        refused
            .entry(found.run_id.clone())
            .or_default()
            .push((found, reason));
    }
    Ok(refused)
}

pub(crate) async fn load(
    link: &Link,
    book: &Book,
    run_id: &str,
    from: u64,
    limit: u32,
) -> Result<Vec<Entry>, Fault> {
    let rows = link
        .read(
            &book.load,
            &[&clean(run_id), &signed(from), &i64::from(limit)],
        )
        .await?;
    rows.iter()
        .map(|row| entry(&mut Reader::new(row)))
        .collect()
}

pub(crate) async fn list(
    link: &Link,
    names: &Names,
    wanted: &Filter,
    limit: u32,
    cursor: Option<&Cursor>,
) -> Result<Page, Fault> {
    let (values, text) = page(wanted, limit, cursor);
    let found = values.ask(link, names, &text).await?;
    let rows: Vec<RunRow> = found
        .iter()
        .map(|row| run_row(&mut Reader::new(row)))
        .collect::<Result<_, _>>()?;
    Ok(filter::page(rows, limit))
}

/// The statement of one page.
pub(crate) fn page(wanted: &Filter, limit: u32, cursor: Option<&Cursor>) -> (Values, String) {
    let mut values = Values::default();
    let text = filter::list(&mut values, sql::query::LIST, wanted, limit, cursor);
    (values, text)
}

pub(crate) async fn count(link: &Link, names: &Names, wanted: &Filter) -> Result<u64, Fault> {
    let mut values = Values::default();
    let text = filter::count(&mut values, sql::query::COUNT, wanted);
    let rows = values.ask(link, names, &text).await?;
    let count: i64 = rows.first().map_or(Ok(0), |row| column(row, 0, "count"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The parameters of a statement.
#[derive(Default)]
pub(crate) struct Values {
    types: Vec<Type>,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Dialect for Values {
    const PREFIX: &'static str = "r.";

    fn kept<'t>(&self, text: &'t str) -> Cow<'t, str> {
        clean(text)
    }

    fn text(&mut self, value: &str) -> String {
        self.mark(Type::TEXT, clean(value).into_owned())
    }

    fn integer(&mut self, value: i64) -> String {
        self.mark(Type::INT8, value)
    }

    fn one_of(&mut self, column: &str, codes: &[i64]) -> String {
        let codes: Vec<i16> = codes
            .iter()
            .filter_map(|&code| i16::try_from(code).ok())
            .collect();
        format!("{column} = ANY({})", self.mark(Type::INT2_ARRAY, codes))
    }

    fn contains(&mut self, column: &str, item: &str) -> String {
        format!("{} = ANY({column})", self.text(item))
    }

    fn after(&mut self, cursor: &Cursor) -> String {
        // The index has the time alone; the row comparison sorts out those of the same instant.
        let at = self.integer(cursor.created_at);
        let run_id = self.text(&cursor.run_id);
        format!("r.created_at <= {at} AND (r.created_at, r.run_id) < ({at}, {run_id})")
    }
}

impl Values {
    /// Takes a value and gives its place in the text.
    fn mark(&mut self, of: Type, value: impl ToSql + Sync + Send + 'static) -> String {
        self.types.push(of);
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    pub(crate) fn sql(&self, names: &Names, text: &str) -> Sql {
        Sql {
            text: names.fill(text),
            types: Cow::Owned(self.types.clone()),
            prepare: false,
        }
    }

    async fn ask(self, link: &Link, names: &Names, text: &str) -> Result<Vec<Row>, Fault> {
        let sql = self.sql(names, text);
        let values: Vec<&(dyn ToSql + Sync)> = self
            .values
            .iter()
            .map(|value| &**value as &(dyn ToSql + Sync))
            .collect();
        link.read(&sql, &values).await
    }
}
