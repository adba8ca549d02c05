//! Messages: put into inboxes, read by drivers.

use duramen_core::ids::Millis;
use duramen_core::run::Status;
use duramen_core::store::{
    Delivered, Delivery, INBOX_PAGE, INBOX_PAGE_BYTES, InboxPage, Message, MessageKind, NewMessage,
};
use duramen_store_sql::{Columns, lists, message};
use rusqlite::{Row, Statement, params};

use crate::clock::instant;
use crate::error::Fault;
use crate::row::{Reader, signed};
use crate::session::Session;
use crate::sql;

/// What a delivery has to know of its run.
struct Target {
    status: Status,
    inbox_len: u64,
    unread: u64,
    unread_bytes: u64,
    ready_at: Option<Millis>,
    format: u8,
    owner: Option<String>,
    begun: bool,
    awaited: bool,
}

/// The message that came first with an id.
struct First {
    fingerprint: Option<String>,
}

impl Session<'_> {
    pub(crate) fn deliver(&mut self, batch: &[NewMessage]) -> Result<Vec<Delivered>, Fault> {
        batch.iter().map(|new| self.deliver_one(new)).collect()
    }

    fn deliver_one(&mut self, new: &NewMessage) -> Result<Delivered, Fault> {
        let answer = |result, fingerprint, owner| Delivered {
            result,
            fingerprint,
            owner,
        };
        let Some(target) = self.target(new)? else {
            return Ok(answer(Delivery::NotFound, None, None));
        };
        let refusal = if target.status.is_final() {
            Some(Delivery::Finished)
        } else if target.status == Status::Paused && new.kind == MessageKind::Pause {
            // It could not be more so.
            Some(Delivery::Duplicate)
        } else if new.overfills(target.unread, target.unread_bytes) {
            Some(Delivery::Full)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            // A repetition is answered as such even now: its sender asks whether the first arrived.
            return Ok(match self.first(new)? {
                Some(first) => answer(Delivery::Duplicate, first.fingerprint, target.owner),
                None => answer(refusal, None, target.owner),
            });
        }
        let now = instant(new.now);
        let seq = signed(target.inbox_len + 1)?;
        let inserted = self.insert_message.execute(params![
            &*new.run_id,
            new.message_id,
            seq,
            new.kind.code(),
            new.encoding,
            new.name,
            now,
            new.fingerprint,
            &*new.payload,
        ])?;
        if inserted == 0 {
            let fingerprint = self.first(new)?.and_then(|first| first.fingerprint);
            return Ok(answer(Delivery::Duplicate, fingerprint, target.owner));
        }
        let bytes = signed(new.payload.len() as u64)?;
        let begun = target.begun || new.kind == MessageKind::Cancel;
        if target.awaited && target.status != Status::Running && begun {
            // A run that is due already keeps its place in the line.
            let ready_at = target.ready_at.map_or(now, |ready_at| ready_at.min(now));
            let args = params![&*new.run_id, seq, bytes, ready_at];
            self.arrived_and_due.execute(args)?;
        } else {
            self.arrived.execute(params![&*new.run_id, seq, bytes])?;
        }
        match target.status {
            Status::Queued | Status::Waiting if new.kind == MessageKind::Pause => {
                self.connection
                    .prepare_cached(sql::inbox::PAUSE)?
                    .execute(params![&*new.run_id, new.name, now])?;
            }
            Status::Paused if new.kind.frees() => {
                self.connection
                    .prepare_cached(sql::inbox::FREE)?
                    .execute(params![&*new.run_id, now])?;
            }
            _ => {}
        }
        if new.encoding > target.format {
            self.raise(&new.run_id, new.encoding)?;
        }
        let result = if target.awaited {
            Delivery::Delivered
        } else {
            Delivery::Buffered
        };
        Ok(answer(result, None, target.owner))
    }

    fn target(&mut self, new: &NewMessage) -> Result<Option<Target>, Fault> {
        let mut rows = self.target.query([&*new.run_id])?;
        let Some(mut found) = rows.next()?.map(Reader::new) else {
            return Ok(None);
        };
        let status = found.status()?;
        Ok(Some(Target {
            status,
            inbox_len: found.count("inbox_len")?,
            unread: found.count("unread")?,
            unread_bytes: found.count("unread_bytes")?,
            ready_at: found.integer_or_null("ready_at")?,
            format: found.small("format")?,
            owner: found.text_or_null("owner")?.map(str::to_owned),
            awaited: {
                let waits = found.text("waits")?;
                let key = new.kind.wait_key(&new.name);
                let waits_for_it = key.is_some_and(|key| lists::has(waits, &key));
                new.kind.makes_due(status, waits_for_it)
            },
            begun: found.integer_or_null("started_at")?.is_some(),
        }))
    }

    /// The message that came first with this id, if there is one.
    fn first(&mut self, new: &NewMessage) -> Result<Option<First>, Fault> {
        let mut rows = self.first.query(params![&*new.run_id, new.message_id])?;
        let first = |found: &Row<'_>| found.get(0).map(|fingerprint| First { fingerprint });
        Ok(rows.next()?.map(first).transpose()?)
    }
}

/// One more than a page has.
#[allow(clippy::cast_possible_wrap, reason = "a page is small")]
const MOST: i64 = INBOX_PAGE as i64 + 1;

/// Unread messages behind a number, as many as a page has.
pub(crate) fn page(
    statement: &mut Statement<'_>,
    run_id: &str,
    behind: u64,
) -> Result<InboxPage, Fault> {
    // No inbox reaches a number that SQLite cannot count to.
    let behind = i64::try_from(behind).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![run_id, behind, MOST])?;
    let mut messages: Vec<Message> = Vec::new();
    let mut bytes = 0;
    while let Some(found) = rows.next()? {
        let message = message(&mut Reader::new(found))?;
        bytes += message.payload.len();
        if messages.len() == INBOX_PAGE || (bytes > INBOX_PAGE_BYTES && !messages.is_empty()) {
            return Ok(InboxPage {
                messages,
                more: true,
            });
        }
        messages.push(message);
    }
    Ok(InboxPage {
        messages,
        more: false,
    })
}
