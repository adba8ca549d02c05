//! Queries, on a read connection.

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::Entry;
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Cursor, Filter, Message, NextDue, Page, RunDetail, WorkflowKey};
use duramen_store_sql::filter::{self, Dialect};
use duramen_store_sql::{Columns, entry, lists, message, run_row};
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use crate::clock::instant;
use crate::error::Fault;
use crate::inbox::messages;
use crate::row::Reader;
use crate::sql;

pub(crate) fn get(
    connection: &Connection,
    run_ids: &[RunId],
) -> Result<Vec<Option<RunDetail>>, Fault> {
    run_ids
        .iter()
        .map(|run_id| detail(connection, run_id))
        .collect()
}

fn detail(connection: &Connection, run_id: &str) -> Result<Option<RunDetail>, Fault> {
    let mut statement = connection.prepare_cached(sql::run::ROW)?;
    let mut rows = statement.query([run_id])?;
    let Some(row) = rows
        .next()?
        .map(|row| run_row(&mut Reader::new(row)))
        .transpose()?
    else {
        return Ok(None);
    };
    let first = load(connection, run_id, 0, 1)?.pop();
    let end = match row.journal_len.checked_sub(1) {
        Some(last) if row.status.is_final() => load(connection, run_id, last, 1)?.pop(),
        _ => None,
    };
    let (state, memo) = data(connection, run_id)?;
    let refused = if row.inbox_len == 0 {
        Vec::new()
    } else {
        refused(connection, run_id)?
    };
    Ok(Some(RunDetail {
        row,
        input: first.map(|entry| entry.payload).unwrap_or_default(),
        end,
        state,
        memo,
        refused,
    }))
}

type Data = (Option<Payload>, Option<Payload>);

fn data(connection: &Connection, run_id: &str) -> Result<Data, Fault> {
    let mut statement = connection.prepare_cached(sql::run::DATA)?;
    let mut rows = statement.query([run_id])?;
    let Some(found) = rows.next()? else {
        return Ok((None, None));
    };
    let payload = |column: usize| -> Result<_, Fault> {
        let bytes: Option<Vec<u8>> = found.get(column)?;
        Ok(bytes.map(Into::into))
    };
    Ok((payload(0)?, payload(1)?))
}

fn refused(connection: &Connection, run_id: &str) -> Result<Vec<(Message, String)>, Fault> {
    let mut statement = connection.prepare_cached(sql::inbox::REFUSED)?;
    let mut rows = statement.query([run_id])?;
    let mut refused = Vec::new();
    while let Some(found) = rows.next()? {
        let mut found = Reader::new(found);
        let message = message(&mut found)?;
        let reason = found.text_or_null("note")?.unwrap_or_default();
        refused.push((message, reason.to_owned()));
    }
    Ok(refused)
}

pub(crate) fn load(
    connection: &Connection,
    run_id: &str,
    from: u64,
    limit: u32,
) -> Result<Vec<Entry>, Fault> {
    // No journal reaches an index that SQLite cannot count to.
    let from = i64::try_from(from).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql::journal::LOAD)?;
    let mut rows = statement.query(params![run_id, from, limit])?;
    let mut entries = Vec::new();
    while let Some(found) = rows.next()? {
        entries.push(entry(&mut Reader::new(found))?);
    }
    Ok(entries)
}

pub(crate) fn unread(connection: &Connection, owner: &str) -> Result<Vec<Message>, Fault> {
    let mut statement = connection.prepare_cached(sql::inbox::UNREAD_OF_OWNER)?;
    let mut unread = messages(&mut statement, owner)?;
    unread.sort_by(|a, b| (&a.run_id, a.seq).cmp(&(&b.run_id, b.seq)));
    Ok(unread)
}

pub(crate) fn next_due(
    connection: &Connection,
    workflows: &[WorkflowKey],
) -> Result<NextDue, Fault> {
    let mut statement = connection.prepare_cached(sql::lease::NEXT)?;
    let mut ready_at: Option<Millis> = None;
    for status in [Status::Queued, Status::Running, Status::Waiting] {
        for key in workflows {
            let args = params![status.code(), key.name, key.version];
            let least: Option<Millis> = statement.query_row(args, |found| found.get(0))?;
            ready_at = match (ready_at, least) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
    }
    Ok(NextDue {
        now: instant(None),
        ready_at,
    })
}

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
