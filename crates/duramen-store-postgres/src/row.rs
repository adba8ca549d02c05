//! How values stand in columns.

use std::borrow::Cow;

use bytes::Bytes;
use duramen_core::ids::{Millis, Payload};
use duramen_core::journal::{Entry, Kind};
use duramen_core::run::{RunRow, Seed, Status};
use duramen_core::store::{Message, MessageKind};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

use crate::error::Fault;

/// Separates the items of a list that crosses as one text.
pub(crate) const SEPARATOR: char = '\u{1f}';

/// A list as one text; none if it is empty.
pub(crate) fn join(items: &[String]) -> Option<String> {
    (!items.is_empty()).then(|| items.join("\u{1f}"))
}

/// The inverse of [`join`].
pub(crate) fn split(text: Option<&str>) -> Vec<String> {
    text.map(|text| text.split(SEPARATOR).map(str::to_owned).collect())
        .unwrap_or_default()
}

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

pub(crate) fn damaged(what: &str) -> Fault {
    Fault::Damaged(format!("the column {what} has an impossible value"))
}

pub(crate) fn column<'r, T: FromSql<'r>>(
    row: &'r Row,
    place: usize,
    what: &str,
) -> Result<T, Fault> {
    row.try_get(place).map_err(|_| damaged(what))
}

pub(crate) fn count(number: i64, what: &str) -> Result<u64, Fault> {
    u64::try_from(number).map_err(|_| damaged(what))
}

pub(crate) fn status(code: i16) -> Result<Status, Fault> {
    Status::from_code(i64::from(code)).ok_or_else(|| damaged("status"))
}

pub(crate) fn seed(bytes: &[u8]) -> Result<Seed, Fault> {
    bytes.try_into().map_err(|_| damaged("seed"))
}

pub(crate) fn payload(bytes: &[u8]) -> Payload {
    Bytes::copy_from_slice(bytes)
}

/// How many columns `row!` names.
pub(crate) const RUN_COLUMNS: usize = 19;

/// Reads the columns of `row!`, which come first.
pub(crate) fn run_row(row: &Row) -> Result<RunRow, Fault> {
    Ok(RunRow {
        status: status(column(row, 0, "status")?)?,
        epoch: column(row, 1, "epoch")?,
        journal_len: count(column(row, 2, "journal_len")?, "journal_len")?,
        inbox_len: count(column(row, 3, "inbox_len")?, "inbox_len")?,
        inbox_seen: count(column(row, 4, "inbox_seen")?, "inbox_seen")?,
        ready_at: column(row, 5, "ready_at")?,
        updated_at: column(row, 6, "updated_at")?,
        started_at: column(row, 7, "started_at")?,
        finished_at: column(row, 8, "finished_at")?,
        created_at: column(row, 9, "created_at")?,
        deadline: column(row, 10, "deadline")?,
        run_id: column::<&str>(row, 11, "run_id")?.into(),
        owner: column(row, 12, "owner")?,
        workflow: column(row, 13, "workflow")?,
        version: column(row, 14, "version")?,
        waits: column::<Option<Vec<String>>>(row, 15, "waits")?.unwrap_or_default(),
        tags: column::<Option<Vec<String>>>(row, 16, "tags")?.unwrap_or_default(),
        seed: seed(column(row, 17, "seed")?)?,
        note: column(row, 18, "note")?,
    })
}

/// Puts an entry together from its columns.
pub(crate) fn entry(
    encoding: i16,
    kind: i16,
    op: &str,
    at: Millis,
    meta: Option<&str>,
    bytes: &[u8],
) -> Result<Entry, Fault> {
    Ok(Entry {
        encoding: u8::try_from(encoding).map_err(|_| damaged("encoding"))?,
        kind: Kind::from_code(i64::from(kind)).ok_or_else(|| damaged("kind"))?,
        op: op.into(),
        meta: meta.map(str::to_owned),
        payload: payload(bytes),
        at,
    })
}

/// Reads `encoding, kind, op, at, meta, payload` from a place on.
pub(crate) fn entry_from(row: &Row, from: usize) -> Result<Entry, Fault> {
    entry(
        column(row, from, "encoding")?,
        column(row, from + 1, "kind")?,
        column(row, from + 2, "op")?,
        column(row, from + 3, "at")?,
        column(row, from + 4, "meta")?,
        column(row, from + 5, "payload")?,
    )
}

pub(crate) fn message_kind(code: i16) -> Result<MessageKind, Fault> {
    MessageKind::from_code(i64::from(code)).ok_or_else(|| damaged("kind"))
}

/// Reads `run_id, seq, message_id, kind, name, at, payload`, which come first.
pub(crate) fn message(row: &Row) -> Result<Message, Fault> {
    Ok(Message {
        run_id: column::<&str>(row, 0, "run_id")?.into(),
        seq: count(column(row, 1, "seq")?, "seq")?,
        message_id: column(row, 2, "message_id")?,
        kind: message_kind(column(row, 3, "kind")?)?,
        name: column(row, 4, "name")?,
        at: column(row, 5, "at")?,
        payload: payload(column(row, 6, "payload")?),
    })
}
