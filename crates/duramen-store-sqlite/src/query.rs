//! Queries, on a read connection.

use std::collections::HashMap;

use duramen_core::ids::{Millis, Payload, RunId};
use duramen_core::journal::Entry;
use duramen_core::run::Status;
use duramen_core::store::{
    DueAsk, InboxPage, Message, NextDue, OutgoingKind, Receipt, RunDetail, Standing, Unsent,
    UnsentAsk,
};
use duramen_store_sql::{Columns, Damaged, entry, message, payload, run_row};
use rusqlite::{Connection, params};

use crate::clock::instant;
use crate::error::Fault;
use crate::inbox::page;
use crate::owners::{ends_at, holders};
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
    let first = load(connection, run_id, row.journal_start, 1)?.pop();
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
    let mut statement = connection.prepare_cached(sql::journal::PAGE)?;
    let mut rows = statement.query(params![run_id, from, limit])?;
    let mut entries = Vec::new();
    while let Some(found) = rows.next()? {
        entries.push(entry(&mut Reader::new(found))?);
    }
    Ok(entries)
}

pub(crate) fn standing(
    connection: &Connection,
    run_ids: &[RunId],
) -> Result<Vec<Option<Standing>>, Fault> {
    let mut statement = connection.prepare_cached(sql::run::STANDING)?;
    let mut one = |run_id: &RunId| {
        let mut rows = statement.query([&**run_id])?;
        let Some(mut found) = rows.next()?.map(Reader::new) else {
            return Ok(None);
        };
        Ok(Some(Standing {
            status: found.status()?,
            seed: found
                .bytes("seed")?
                .try_into()
                .map_err(|_| Damaged::column("seed"))?,
            owner: found.text_or_null("owner")?.map(str::to_owned),
            epoch: found.integer("epoch")?,
            journal_len: found.count("idx")?,
            generation: found.count("generation")?,
            ready_at: found.integer_or_null("ready_at")?,
        }))
    };
    run_ids.iter().map(&mut one).collect()
}

/// One probe for each run with something unseen; messages are read only of those that were not told of all.
pub(crate) fn unread(
    connection: &Connection,
    owner: &str,
    told: &[(RunId, u64)],
) -> Result<Vec<Message>, Fault> {
    // Of a run that stands twice in the list the first counts, as everywhere.
    let mut behind: HashMap<&str, u64> = HashMap::with_capacity(told.len());
    for (run_id, seq) in told {
        behind.entry(run_id).or_insert(*seq);
    }
    let mut unseen = connection.prepare_cached(sql::inbox::UNSEEN)?;
    let mut pages = connection.prepare_cached(sql::inbox::PAGE)?;
    let mut rows = unseen.query([owner])?;
    let mut unread = Vec::new();
    while let Some(found) = rows.next()? {
        let mut found = Reader::new(found);
        let run_id = found.text("run_id")?.to_owned();
        let seen = found.count("inbox_seen")?;
        let arrived = found.count("inbox_len")?;
        let behind = behind.get(&*run_id).map_or(seen, |told| seen.max(*told));
        if behind < arrived {
            unread.append(&mut page(&mut pages, &run_id, behind)?.messages);
        }
    }
    Ok(unread)
}

pub(crate) fn inbox(
    connection: &Connection,
    run_id: &str,
    behind: u64,
) -> Result<InboxPage, Fault> {
    let mut statement = connection.prepare_cached(sql::inbox::PAGE)?;
    page(&mut statement, run_id, behind)
}

pub(crate) fn receipts(
    connection: &Connection,
    messages: &[(RunId, String)],
) -> Result<Vec<Option<Receipt>>, Fault> {
    let mut statement = connection.prepare_cached(sql::inbox::RECEIPT)?;
    let mut one = |(run_id, message_id): &(RunId, String)| {
        let mut rows = statement.query(params![&**run_id, message_id])?;
        let Some(found) = rows.next()? else {
            return Ok(None);
        };
        let reply: Option<Vec<u8>> = found.get(2)?;
        let mut found = Reader::new(found);
        Ok(Some(match found.integer("state")? {
            0 => Receipt::Unread,
            1 => Receipt::Consumed {
                reply: reply.map(Payload::from),
            },
            _ => Receipt::SetAside {
                reason: found.text_or_null("note")?.unwrap_or_default().to_owned(),
            },
        }))
    };
    messages.iter().map(&mut one).collect()
}

pub(crate) fn unsent(connection: &Connection, ask: &UnsentAsk) -> Result<Vec<Unsent>, Fault> {
    let mut statement = connection.prepare_cached(match ask.run_id {
        None => sql::outgoing::UNSENT,
        Some(_) => sql::outgoing::UNSENT_OF_ONE,
    })?;
    let mut rows = match &ask.run_id {
        None => statement.query(params![ask.before, ask.limit])?,
        Some(run_id) => statement.query(params![ask.before, ask.limit, &**run_id])?,
    };
    let mut unsent = Vec::new();
    while let Some(found) = rows.next()? {
        let mut found = Reader::new(found);
        unsent.push(Unsent {
            run_id: found.text("run_id")?.into(),
            entry: found.count("entry")?,
            number: found.small("number")?,
            kind: OutgoingKind::from_code(found.integer("kind")?)
                .ok_or_else(|| Damaged::column("kind"))?,
            target: found.text("target")?.into(),
            at: found.integer("at")?,
            body: payload(found.bytes("body")?),
        });
    }
    Ok(unsent)
}

/// One descent for each owner that holds runs and lane, two for each line and priority in use.
pub(crate) fn next_due(connection: &Connection, ask: &DueAsk) -> Result<NextDue, Fault> {
    let now = instant(ask.now);
    let mut least: Option<Millis> = None;
    let mut found = |at: Millis| least = Some(least.map_or(at, |least| least.min(at)));
    let mut next_priority = connection.prepare_cached(sql::claim::NEXT_PRIORITY)?;
    let mut next = connection.prepare_cached(sql::claim::NEXT)?;
    for status in [Status::Queued.code(), Status::Waiting.code()] {
        for lane in &ask.lanes {
            let mut priority = -1_i64;
            while let Some(more) =
                next_priority.query_row(params![status, lane, priority], |row| row.get(0))?
            {
                priority = more;
                if let Some(at) =
                    next.query_row(params![status, lane, priority], |row| row.get(0))?
                {
                    found(at);
                }
            }
        }
    }
    let mut next_holder = connection.prepare_cached(sql::owner::NEXT_HOLDER)?;
    let mut holds = connection.prepare_cached(sql::owner::HOLDS)?;
    for holder in holders(&mut next_holder)? {
        for lane in &ask.lanes {
            if holds.exists(params![holder, lane])? {
                found(ends_at(connection, &holder, now)?);
                break;
            }
        }
    }
    Ok(NextDue {
        now,
        ready_at: least,
    })
}
