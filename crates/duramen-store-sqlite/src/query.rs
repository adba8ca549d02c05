//! Queries, on a read connection.

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::Entry;
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Cursor, Filter, Message, NextDue, Page, RunDetail, WorkflowKey};
use rusqlite::types::Value;
use rusqlite::{Connection, params, params_from_iter};

use crate::clock::instant;
use crate::error::Fault;
use crate::inbox::messages;
use crate::row::{self, SEPARATOR, run_row};
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
    let Some(row) = rows.next()?.map(run_row).transpose()? else {
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
        let reason: Option<String> = found.get(7)?;
        refused.push((row::message(found)?, reason.unwrap_or_default()));
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
        entries.push(row::entry(found)?);
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
    filter: &Filter,
    limit: u32,
    cursor: Option<&Cursor>,
) -> Result<Page, Fault> {
    let mut terms = Terms::of(filter);
    if let Some(cursor) = cursor {
        terms.push(
            "(created_at, run_id) < (?, ?)",
            [
                Value::from(cursor.created_at),
                Value::from(cursor.run_id.to_string()),
            ],
        );
    }
    let mut text = terms.after(sql::query::LIST);
    text.push_str(sql::query::NEWEST_FIRST);
    // One row more than asked for, so that the last page is known to be the last.
    terms.values.push(Value::from(i64::from(limit) + 1));
    let mut statement = connection.prepare_cached(&text)?;
    let mut found = statement.query(params_from_iter(terms.values))?;
    let mut rows: Vec<RunRow> = Vec::new();
    while let Some(one) = found.next()? {
        rows.push(run_row(one)?);
    }
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|last| Cursor {
        created_at: last.created_at,
        run_id: last.run_id.clone(),
    });
    Ok(Page { rows, next })
}

pub(crate) fn count(connection: &Connection, filter: &Filter) -> Result<u64, Fault> {
    let terms = Terms::of(filter);
    let mut statement = connection.prepare_cached(&terms.after(sql::query::COUNT))?;
    let count: i64 = statement.query_row(params_from_iter(terms.values), |found| found.get(0))?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// The conditions of a filter. Their text depends only on which fields are there, so that the
/// statements stay few and cached.
pub(crate) struct Terms {
    text: Vec<String>,
    pub(crate) values: Vec<Value>,
}

impl Terms {
    pub(crate) fn of(filter: &Filter) -> Self {
        let mut terms = Self {
            text: Vec::new(),
            values: Vec::new(),
        };
        if let Some(workflow) = &filter.workflow {
            terms.push("workflow = ?", [Value::from(workflow.clone())]);
        }
        if let Some(version) = &filter.version {
            terms.push("version = ?", [Value::from(version.clone())]);
        }
        if !filter.status.is_empty() {
            let marks = vec!["?"; filter.status.len()].join(", ");
            let codes = filter.status.iter().map(|status| status.code().into());
            terms.push(&format!("status IN ({marks})"), codes);
        }
        for (column, item) in [("tags", &filter.tag), ("waits", &filter.waiting_for)] {
            match item {
                None => {}
                // No item is empty or has a separator in it; `instr` would find such a text all the same.
                Some(item) if item.is_empty() || item.contains(SEPARATOR) => terms.push("0", []),
                Some(item) => terms.push(
                    &format!("instr({column}, ?) > 0"),
                    [Value::from(format!("{SEPARATOR}{item}{SEPARATOR}"))],
                ),
            }
        }
        if let Some(after) = filter.created_after {
            terms.push("created_at > ?", [Value::from(after)]);
        }
        if let Some(before) = filter.created_before {
            terms.push("created_at < ?", [Value::from(before)]);
        }
        if let Some(prefix) = filter
            .id_prefix
            .as_ref()
            .filter(|prefix| !prefix.is_empty())
        {
            terms.push("run_id >= ?", [Value::from(prefix.clone())]);
            if let Some(end) = after_prefix(prefix) {
                terms.push("run_id < ?", [Value::from(end)]);
            }
        }
        terms
    }

    fn push(&mut self, text: &str, values: impl IntoIterator<Item = Value>) {
        self.text.push(text.to_owned());
        self.values.extend(values);
    }

    pub(crate) fn after(&self, select: &str) -> String {
        if self.text.is_empty() {
            return select.to_owned();
        }
        format!("{select} WHERE {}", self.text.join(" AND "))
    }
}

/// The least text that is greater than every text with this prefix (SQLite compares UTF-8 bytes,
/// whose order is that of the characters); none if there is no such text.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_text_of_its_length_or_less() {
        assert_eq!(after_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(after_prefix("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(after_prefix("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{10ffff}"), None);
    }
}
