//! What people and drivers ask.

use std::borrow::Cow;
use std::collections::BTreeMap;

use duramen_core::ids::{Payload, RunId};
use duramen_core::journal::Entry;
use duramen_core::run::RunRow;
use duramen_core::store::{Cursor, Filter, Message, Page, RunDetail};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::error::Fault;
use crate::link::Link;
use crate::options::Names;
use crate::row::{RUN_COLUMNS, clean, column, entry_from, message, payload, run_row, signed};
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
    let ended = column::<Option<i16>>(row, next + 3, "encoding")?.is_some();
    Ok(RunDetail {
        row: run_row(row)?,
        input: bytes(next, "payload")?.unwrap_or_default(),
        state: bytes(next + 1, "state")?,
        memo: bytes(next + 2, "memo")?,
        end: ended.then(|| entry_from(row, next + 3)).transpose()?,
        refused: Vec::new(),
    })
}

type Refused = BTreeMap<RunId, Vec<(Message, String)>>;

async fn refused(link: &Link, book: &Book, run_ids: &[String]) -> Result<Refused, Fault> {
    let mut refused = Refused::new();
    for row in &link.read(&book.refused, &[&run_ids]).await? {
        let found = message(row)?;
        let reason: Option<String> = column(row, 7, "note")?;
        refused
            .entry(found.run_id.clone())
            .or_default()
            .push((found, reason.unwrap_or_default()));
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
    rows.iter().map(|row| entry_from(row, 0)).collect()
}

pub(crate) async fn list(
    link: &Link,
    names: &Names,
    filter: &Filter,
    limit: u32,
    cursor: Option<&Cursor>,
) -> Result<Page, Fault> {
    let (terms, text) = page(filter, limit, cursor);
    let found = terms.ask(link, names, &text).await?;
    let mut rows: Vec<RunRow> = found.iter().map(run_row).collect::<Result<_, _>>()?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|last| Cursor {
        created_at: last.created_at,
        run_id: last.run_id.clone(),
    });
    Ok(Page { rows, next })
}

/// The statement of one page, with one row more than asked for, so that the last page is known to be the
/// last.
pub(crate) fn page(filter: &Filter, limit: u32, cursor: Option<&Cursor>) -> (Terms, String) {
    let mut terms = Terms::of(filter);
    if let Some(cursor) = cursor {
        // The index has the time alone; the row comparison sorts out those of the same instant.
        let at = terms.value(Type::INT8, cursor.created_at);
        let run_id = terms.value(Type::TEXT, clean(&cursor.run_id).into_owned());
        terms.text.push(format!(
            "r.created_at <= {at} AND (r.created_at, r.run_id) < ({at}, {run_id})"
        ));
    }
    let most = terms.value(Type::INT8, i64::from(limit) + 1);
    let text = format!(
        "{}{}{most}",
        terms.after(sql::query::LIST),
        sql::query::NEWEST_FIRST
    );
    (terms, text)
}

pub(crate) async fn count(link: &Link, names: &Names, filter: &Filter) -> Result<u64, Fault> {
    let terms = Terms::of(filter);
    let text = terms.after(sql::query::COUNT);
    let rows = terms.ask(link, names, &text).await?;
    let count: i64 = rows.first().map_or(Ok(0), |row| column(row, 0, "count"))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The conditions of a filter, with their values as parameters.
#[derive(Default)]
pub(crate) struct Terms {
    text: Vec<String>,
    types: Vec<Type>,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Terms {
    pub(crate) fn of(filter: &Filter) -> Self {
        let mut terms = Self::default();
        let equal = [
            ("r.workflow", &filter.workflow),
            ("r.version", &filter.version),
        ];
        for (name, value) in equal {
            if let Some(value) = value {
                let mark = terms.value(Type::TEXT, clean(value).into_owned());
                terms.text.push(format!("{name} = {mark}"));
            }
        }
        if !filter.status.is_empty() {
            let codes: Vec<i16> = filter
                .status
                .iter()
                .filter_map(|status| i16::try_from(status.code()).ok())
                .collect();
            let mark = terms.value(Type::INT2_ARRAY, codes);
            terms.text.push(format!("r.status = ANY({mark})"));
        }
        for (name, item) in [("r.tags", &filter.tag), ("r.waits", &filter.waiting_for)] {
            if let Some(item) = item {
                let mark = terms.value(Type::TEXT, clean(item).into_owned());
                terms.text.push(format!("{mark} = ANY({name})"));
            }
        }
        if let Some(after) = filter.created_after {
            let mark = terms.value(Type::INT8, after);
            terms.text.push(format!("r.created_at > {mark}"));
        }
        if let Some(before) = filter.created_before {
            let mark = terms.value(Type::INT8, before);
            terms.text.push(format!("r.created_at < {mark}"));
        }
        if let Some(prefix) = filter.id_prefix.as_deref().filter(|one| !one.is_empty()) {
            terms.prefix(&clean(prefix));
        }
        terms
    }

    /// Ids from the prefix on to the least text that is greater than all with it (byte by byte, as
    /// the column's collation compares).
    fn prefix(&mut self, prefix: &str) {
        let from = self.value(Type::TEXT, prefix.to_owned());
        self.text.push(format!("r.run_id >= {from}"));
        if let Some(end) = after_prefix(prefix) {
            let until = self.value(Type::TEXT, end);
            self.text.push(format!("r.run_id < {until}"));
        }
    }

    /// Takes a value and gives its place in the text.
    fn value(&mut self, of: Type, value: impl ToSql + Sync + Send + 'static) -> String {
        self.types.push(of);
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    pub(crate) fn after(&self, select: &str) -> String {
        if self.text.is_empty() {
            return select.to_owned();
        }
        format!("{select} WHERE {}", self.text.join(" AND "))
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

/// The least text that is greater than every text with this prefix; none if there is no such text.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Surrogates are no characters: past the last one before them comes U+E000.
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}
