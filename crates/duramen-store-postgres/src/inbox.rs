//! Messages: put into inboxes, read by drivers.

use std::collections::BTreeSet;

use duramen_core::store::{Delivered, Delivery, Message, NewMessage};
use duramen_store_sql::{Columns, message};
use tokio_postgres::Row;

use crate::error::Fault;
use crate::link::Link;
use crate::row::{Reader, clean, column};
use crate::sql::Book;

/// The most messages in one statement: their lists are compared element by element.
const MOST: usize = 128;
const HEAVY: usize = 8 << 20;

/// Delivers messages in their order, one statement for many.
pub(crate) async fn deliver(
    link: &Link,
    book: &Book,
    batch: &[NewMessage],
) -> Result<Vec<Delivered>, Fault> {
    let mut answers: Vec<Option<Delivered>> = vec![None; batch.len()];
    let mut rest: Vec<usize> = (0..batch.len()).collect();
    while !rest.is_empty() {
        let chunk = next_chunk(batch, &mut rest);
        let found = send(link, book, batch, &chunk).await?;
        for (place, delivered) in chunk.into_iter().zip(found) {
            answers[place] = Some(delivered);
        }
    }
    Ok(answers.into_iter().flatten().collect())
}

/// The next places: no message twice (the second is to be found a duplicate of the first).
fn next_chunk(batch: &[NewMessage], rest: &mut Vec<usize>) -> Vec<usize> {
    let mut chunk = Vec::new();
    let mut later = Vec::new();
    let mut ids = BTreeSet::new();
    let mut bytes = 0;
    for place in rest.drain(..) {
        let new = &batch[place];
        // What follows a message that has to wait waits as well: a run's messages keep their order.
        let full = chunk.len() == MOST || bytes > HEAVY || !later.is_empty();
        if full || !ids.insert((&new.run_id, &new.message_id)) {
            later.push(place);
            continue;
        }
        bytes += new.payload.len();
        chunk.push(place);
    }
    *rest = later;
    chunk
}

async fn send(
    link: &Link,
    book: &Book,
    batch: &[NewMessage],
    chunk: &[usize],
) -> Result<Vec<Delivered>, Fault> {
    let sent: Vec<&NewMessage> = chunk.iter().map(|place| &batch[*place]).collect();
    let new = || sent.iter();
    let run_ids: Vec<_> = new().map(|new| clean(&new.run_id)).collect();
    let message_ids: Vec<&str> = new().map(|new| &*new.message_id).collect();
    let kinds: Vec<i16> = new()
        .map(|new| i16::try_from(new.kind.code()).unwrap_or(-1))
        .collect();
    let names: Vec<&str> = new().map(|new| &*new.name).collect();
    let payloads: Vec<&[u8]> = new().map(|new| &*new.payload).collect();
    let fingerprints: Vec<_> = new()
        .map(|new| new.fingerprint.as_deref().map(clean))
        .collect();
    let given: Vec<Option<i64>> = new().map(|new| new.now).collect();
    let wait_keys: Vec<Option<String>> = new().map(|new| new.kind.wait_key(&new.name)).collect();
    let distinct: Vec<_> = run_ids
        .iter()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let rows = link
        .run(
            &book.deliver,
            &[
                &run_ids,
                &message_ids,
                &kinds,
                &names,
                &payloads,
                &fingerprints,
                &given,
                &wait_keys,
                &distinct,
            ],
        )
        .await?;
    let mut answers = vec![
        Delivered {
            result: Delivery::NotFound,
            fingerprint: None,
            owner: None,
        };
        chunk.len()
    ];
    for row in &rows {
        let n: i64 = column(row, 0, "n")?;
        let Some(place) = usize::try_from(n).ok().and_then(|n| n.checked_sub(1)) else {
            continue;
        };
        if let (Some(answer), Some(new)) = (answers.get_mut(place), sent.get(place)) {
            *answer = delivered(link, book, row, new).await?;
        }
    }
    Ok(answers)
}

async fn delivered(
    link: &Link,
    book: &Book,
    row: &Row,
    new: &NewMessage,
) -> Result<Delivered, Fault> {
    let answer = |result, fingerprint, owner| Delivered {
        result,
        fingerprint,
        owner,
    };
    if column::<Option<i16>>(row, 1, "status")?.is_none() {
        return Ok(answer(Delivery::NotFound, None, None));
    }
    let standing = Reader::at(row, 1).status()?;
    let owner: Option<String> = column(row, 2, "owner")?;
    if column::<bool>(row, 3, "kept")? {
        let awaited = column::<Option<bool>>(row, 4, "awaited")?.unwrap_or(false);
        let result = if awaited {
            Delivery::Delivered
        } else {
            Delivery::Buffered
        };
        return Ok(answer(result, None, owner));
    }
    if column::<bool>(row, 5, "known")? {
        return Ok(answer(
            Delivery::Duplicate,
            column(row, 6, "fingerprint")?,
            owner,
        ));
    }
    if standing.is_final() {
        return Ok(answer(Delivery::Finished, None, owner));
    }
    // The first came while this one waited for its run: after the statement's snapshot.
    let first = link
        .read(&book.first, &[&&*new.run_id, &new.message_id])
        .await?;
    let fingerprint = first
        .first()
        .map(|row| column(row, 0, "fingerprint"))
        .transpose()?
        .flatten();
    Ok(answer(Delivery::Duplicate, fingerprint, owner))
}

/// What the runs of an owner have not seen yet.
pub(crate) async fn unread(link: &Link, book: &Book, owner: &str) -> Result<Vec<Message>, Fault> {
    let rows = link.read(&book.unread_of_owner, &[&clean(owner)]).await?;
    let mut messages: Vec<Message> = rows
        .iter()
        .map(|row| message(&mut Reader::new(row)))
        .collect::<Result<_, _>>()?;
    messages.sort_by(|a, b| (&a.run_id, a.seq).cmp(&(&b.run_id, b.seq)));
    Ok(messages)
}
