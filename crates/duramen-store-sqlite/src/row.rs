//! How values stand in columns.

use std::sync::Arc;

use bytes::Bytes;
use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::{RunRow, Status};
use duramen_core::store::{Message, MessageKind};
use rusqlite::Row;
use rusqlite::types::ValueRef;

use crate::error::Fault;

/// Separates the items of a list in one text.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// `["a", "b"]` as `␟a␟b␟`, so that an item is found with its separators around it.
pub(crate) fn join(items: &[String]) -> String {
    if items.is_empty() {
        return String::new();
    }
    let length: usize = items.iter().map(|item| item.len() + 1).sum();
    let mut text = String::with_capacity(length + 1);
    text.push(SEPARATOR);
    for item in items {
        text.push_str(item);
        text.push(SEPARATOR);
    }
    text
}

/// The inverse of [`join`].
pub(crate) fn split(text: &str) -> Vec<String> {
    text.strip_prefix(SEPARATOR)
        .and_then(|text| text.strip_suffix(SEPARATOR))
        .map(|text| text.split(SEPARATOR).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// Whether a joined list has an item.
pub(crate) fn has(text: &str, item: &str) -> bool {
    text.split(SEPARATOR)
        .any(|found| found == item && !item.is_empty())
}

/// A count or index as SQLite keeps it.
pub(crate) fn signed(number: u64) -> Result<i64, Fault> {
    i64::try_from(number).map_err(|_| Fault::Invalid(format!("the number {number} is too large")))
}

fn damaged(what: &str) -> Fault {
    Fault::Damaged(format!("the column {what} has an impossible value"))
}

pub(crate) fn text<'r>(row: &'r Row<'_>, column: usize, what: &str) -> Result<&'r str, Fault> {
    row.get_ref(column)?.as_str().map_err(|_| damaged(what))
}

fn optional_text(row: &Row<'_>, column: usize, what: &str) -> Result<Option<String>, Fault> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(None),
        value => value
            .as_str()
            .map(|text| Some(text.to_owned()))
            .map_err(|_| damaged(what)),
    }
}

pub(crate) fn integer(row: &Row<'_>, column: usize, what: &str) -> Result<i64, Fault> {
    row.get_ref(column)?.as_i64().map_err(|_| damaged(what))
}

fn optional_integer(row: &Row<'_>, column: usize, what: &str) -> Result<Option<Millis>, Fault> {
    row.get_ref(column)?
        .as_i64_or_null()
        .map_err(|_| damaged(what))
}

pub(crate) fn count(row: &Row<'_>, column: usize, what: &str) -> Result<u64, Fault> {
    u64::try_from(integer(row, column, what)?).map_err(|_| damaged(what))
}

pub(crate) fn blob<'r>(row: &'r Row<'_>, column: usize, what: &str) -> Result<&'r [u8], Fault> {
    row.get_ref(column)?.as_blob().map_err(|_| damaged(what))
}

pub(crate) fn status(row: &Row<'_>, column: usize) -> Result<Status, Fault> {
    Status::from_code(integer(row, column, "status")?).ok_or_else(|| damaged("status"))
}

/// Reads the columns of [`crate::sql::ROW`], in their order.
pub(crate) fn run_row(row: &Row<'_>) -> Result<RunRow, Fault> {
    Ok(RunRow {
        run_id: text(row, 0, "run_id")?.into(),
        status: status(row, 1)?,
        epoch: integer(row, 2, "epoch")?,
        journal_len: count(row, 3, "journal_len")?,
        inbox_len: count(row, 4, "inbox_len")?,
        inbox_seen: count(row, 5, "inbox_seen")?,
        ready_at: optional_integer(row, 6, "ready_at")?,
        owner: optional_text(row, 7, "owner")?,
        updated_at: integer(row, 8, "updated_at")?,
        started_at: optional_integer(row, 9, "started_at")?,
        finished_at: optional_integer(row, 10, "finished_at")?,
        created_at: integer(row, 11, "created_at")?,
        deadline: optional_integer(row, 12, "deadline")?,
        workflow: text(row, 13, "workflow")?.to_owned(),
        version: text(row, 14, "version")?.to_owned(),
        waits: split(text(row, 15, "waits")?),
        tags: split(text(row, 16, "tags")?),
        seed: blob(row, 17, "seed")?
            .try_into()
            .map_err(|_| damaged("seed"))?,
        note: optional_text(row, 18, "note")?,
    })
}

/// Reads the columns of [`crate::sql::ENTRY`], in their order.
pub(crate) fn entry(row: &Row<'_>) -> Result<Entry, Fault> {
    let kind = Kind::from_code(integer(row, 1, "kind")?).ok_or_else(|| damaged("kind"))?;
    Ok(Entry {
        encoding: u8::try_from(integer(row, 0, "encoding")?).map_err(|_| damaged("encoding"))?,
        kind,
        op: Arc::from(text(row, 2, "op")?),
        at: integer(row, 3, "at")?,
        meta: optional_text(row, 4, "meta")?,
        payload: payload(blob(row, 5, "payload")?),
    })
}

/// Reads the columns of [`crate::sql::MESSAGE`], in their order.
pub(crate) fn message(row: &Row<'_>) -> Result<Message, Fault> {
    let kind = MessageKind::from_code(integer(row, 3, "kind")?).ok_or_else(|| damaged("kind"))?;
    Ok(Message {
        run_id: RunId::from(text(row, 0, "run_id")?),
        seq: count(row, 1, "seq")?,
        message_id: text(row, 2, "message_id")?.to_owned(),
        kind,
        name: text(row, 4, "name")?.to_owned(),
        at: integer(row, 5, "at")?,
        payload: payload(blob(row, 6, "payload")?),
    })
}

pub(crate) fn payload(bytes: &[u8]) -> Payload {
    if bytes.is_empty() {
        Bytes::new()
    } else {
        Bytes::copy_from_slice(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_round_trip_and_an_item_is_found_only_whole() {
        for items in [vec![], vec!["a"], vec!["event:x", "event:xy", "timer"]] {
            let items: Vec<String> = items.into_iter().map(str::to_owned).collect();
            assert_eq!(split(&join(&items)), items);
        }
        let text = join(&["event:xy".to_owned(), "timer".to_owned()]);
        assert!(has(&text, "timer"));
        assert!(!has(&text, "event:x"));
        assert!(!has(&text, ""));
        assert!(!has("", "timer"));
    }
}
