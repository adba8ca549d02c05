//! Messages: put into inboxes, read by drivers.

use duramen_core::ids::Millis;
use duramen_core::run::Status;
use duramen_core::store::{Delivered, Delivery, Message, NewMessage};
use duramen_store_sql::{Columns, lists, message};
use rusqlite::{Row, Statement, params};

use crate::clock::instant;
use crate::error::Fault;
use crate::row::{Reader, signed};
use crate::session::Session;

/// What a delivery has to know of its run.
struct Target {
    status: Status,
    inbox_len: u64,
    ready_at: Option<Millis>,
    owner: Option<String>,
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
        if target.status.is_final() {
            // A repetition is answered as such even now: its sender asks whether the first arrived.
            return Ok(match self.first(new)? {
                Some(first) => answer(Delivery::Duplicate, first.fingerprint, target.owner),
                None => answer(Delivery::Finished, None, target.owner),
            });
        }
        let now = instant(new.now);
        let seq = signed(target.inbox_len + 1)?;
        let inserted = self.insert_message.execute(params![
            &*new.run_id,
            new.message_id,
            seq,
            new.kind.code(),
            new.name,
            now,
            new.fingerprint,
            &*new.payload,
        ])?;
        if inserted == 0 {
            let fingerprint = self.first(new)?.and_then(|first| first.fingerprint);
            return Ok(answer(Delivery::Duplicate, fingerprint, target.owner));
        }
        if target.awaited && target.status != Status::Running {
            // A run that is due already keeps its place in the line.
            let ready_at = target.ready_at.map_or(now, |ready_at| ready_at.min(now));
            let args = params![&*new.run_id, seq, ready_at];
            self.arrived_and_due.execute(args)?;
        } else {
            self.arrived.execute(params![&*new.run_id, seq])?;
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
        let inbox_len = found.count("inbox_len")?;
        let ready_at = found.integer_or_null("ready_at")?;
        let owner = found.text_or_null("owner")?.map(str::to_owned);
        let awaited = match (status, new.kind.wait_key(&new.name)) {
            (Status::Waiting, Some(key)) => lists::has(found.text("waits")?, &key),
            // A cancellation reaches a run whatever it does, unless it is parked.
            (Status::Waiting | Status::Queued | Status::Running, None) => true,
            _ => false,
        };
        Ok(Some(Target {
            status,
            inbox_len,
            ready_at,
            owner,
            awaited,
        }))
    }

    /// The message that came first with this id, if there is one.
    fn first(&mut self, new: &NewMessage) -> Result<Option<First>, Fault> {
        let mut rows = self.first.query(params![&*new.run_id, new.message_id])?;
        let first = |found: &Row<'_>| found.get(0).map(|fingerprint| First { fingerprint });
        Ok(rows.next()?.map(first).transpose()?)
    }
}

/// Reads the messages that a statement finds by one text.
pub(crate) fn messages(statement: &mut Statement<'_>, by: &str) -> Result<Vec<Message>, Fault> {
    let mut rows = statement.query([by])?;
    let mut messages = Vec::new();
    while let Some(found) = rows.next()? {
        messages.push(message(&mut Reader::new(found))?);
    }
    Ok(messages)
}
