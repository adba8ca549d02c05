//! Messages: put into inboxes, read by drivers.

use std::collections::{BTreeMap, BTreeSet};

use duramen_core::ids::RunId;
use duramen_core::store::{
    Delivered, Delivery, InboxPage, MAX_UNREAD, MAX_UNREAD_BYTES, Message, NewMessage, Receipt,
};
use duramen_store_sql::{Columns, message, payload};
use futures_util::future::try_join_all;
use tokio_postgres::Row;

use crate::around::Errand;
use crate::error::Fault;
use crate::flavour::{Flavour, in_batches, place_in};
use crate::link::{Link, Params};
use crate::row::{Reader, clean, column, signed};
use crate::sql::{Book, Sql};

/// The most messages in one statement: their lists are compared element by element.
const MOST: usize = 128;
const HEAVY: usize = 8 << 20;
/// How often a statement that met the inbox's key is sent again with a new snapshot.
const REPEATS: u32 = 8;

/// What becomes of one message.
enum Fate {
    Told(Delivered),
    /// To be sent by itself.
    Alone,
    /// Others have the run locked.
    Locked,
}

/// Messages on their way over a connection.
pub(crate) struct Messages<'s> {
    pub(crate) link: &'s Link,
    pub(crate) book: &'s Book,
}

impl Errand for Messages<'_> {
    type Element = NewMessage;
    type Answer = Delivered;

    fn run_id(new: &NewMessage) -> &RunId {
        &new.run_id
    }

    fn blocked() -> Delivered {
        Delivered {
            result: Delivery::Blocked,
            fingerprint: None,
            owner: None,
        }
    }

    async fn ask(
        &self,
        batch: &[NewMessage],
        places: &[usize],
    ) -> Result<Vec<Option<Delivered>>, Fault> {
        deliver(self.link, self.book, batch, places).await
    }

    async fn ask_in_line(
        &self,
        batch: &[NewMessage],
        place: usize,
    ) -> Result<Option<Delivered>, Fault> {
        let sql = &self.book.deliver_in_line;
        match send(self.link, self.book, sql, &[&batch[place]], &[0]).await {
            Ok(mut fates) => Ok(match fates.pop() {
                Some(Fate::Told(delivered)) => Some(delivered),
                _ => None,
            }),
            Err(fault) if fault.is_locked() => Ok(None),
            Err(fault) => Err(fault),
        }
    }
}

/// Delivers messages in their order, one statement for many. None for those whose run is locked.
async fn deliver(
    link: &Link,
    book: &Book,
    batch: &[NewMessage],
    places: &[usize],
) -> Result<Vec<Option<Delivered>>, Fault> {
    let sent: Vec<&NewMessage> = places.iter().map(|place| &batch[*place]).collect();
    let mut answers: Vec<Option<Delivered>> = vec![None; sent.len()];
    let mut rest: Vec<usize> = (0..sent.len()).collect();
    // A run's messages keep their order: what follows one that has to wait waits as well.
    let mut busy: BTreeSet<&RunId> = BTreeSet::new();
    while !rest.is_empty() {
        let mut chunk = next_chunk(&sent, &mut rest);
        chunk.retain(|place| !busy.contains(&sent[*place].run_id));
        let mut alone = Vec::new();
        for (place, fate) in chunk
            .iter()
            .zip(send_apart(link, book, &sent, &chunk).await?)
        {
            match fate {
                Fate::Told(delivered) => answers[*place] = Some(delivered),
                Fate::Alone => alone.push(*place),
                Fate::Locked => {
                    busy.insert(&sent[*place].run_id);
                }
            }
        }
        for place in alone {
            if busy.contains(&sent[place].run_id) {
                continue;
            }
            match send(link, book, &book.deliver, &sent, &[place])
                .await?
                .pop()
            {
                Some(Fate::Told(delivered)) => answers[place] = Some(delivered),
                _ => {
                    busy.insert(&sent[place].run_id);
                }
            }
        }
    }
    Ok(answers)
}

/// The next places: no message twice (the second is to be found a duplicate of the first).
fn next_chunk(sent: &[&NewMessage], rest: &mut Vec<usize>) -> Vec<usize> {
    let mut chunk = Vec::new();
    let mut later = Vec::new();
    let mut ids = BTreeSet::new();
    let mut bytes = 0;
    for place in rest.drain(..) {
        let new = sent[place];
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

/// One statement for all, or one for each run with all that it gets.
async fn send_apart(
    link: &Link,
    book: &Book,
    sent: &[&NewMessage],
    chunk: &[usize],
) -> Result<Vec<Fate>, Fault> {
    if book.flavour == Flavour::Plain {
        return send(link, book, &book.deliver, sent, chunk).await;
    }
    let mut of_runs: BTreeMap<&RunId, Vec<usize>> = BTreeMap::new();
    for place in chunk {
        of_runs
            .entry(&sent[*place].run_id)
            .or_default()
            .push(*place);
    }
    let each = of_runs
        .values()
        .map(|places| send(link, book, &book.deliver, sent, places));
    let fates = try_join_all(each).await?;
    let mut fates: BTreeMap<usize, Fate> = of_runs
        .into_values()
        .flatten()
        .zip(fates.into_iter().flatten())
        .collect();
    Ok(chunk
        .iter()
        .map(|place| fates.remove(place).unwrap_or(Fate::Locked))
        .collect())
}

async fn send(
    link: &Link,
    book: &Book,
    sql: &Sql,
    sent: &[&NewMessage],
    chunk: &[usize],
) -> Result<Vec<Fate>, Fault> {
    let new = || chunk.iter().map(|place| sent[*place]);
    if chunk.is_empty() {
        return Ok(Vec::new());
    }
    let run_ids: Vec<_> = new().map(|new| clean(&new.run_id)).collect();
    let message_ids: Vec<&str> = new().map(|new| &*new.message_id).collect();
    let kinds: Vec<i16> = new().map(|new| i16::from(new.kind.code())).collect();
    let names: Vec<&str> = new().map(|new| &*new.name).collect();
    let payloads: Vec<&[u8]> = new().map(|new| &*new.payload).collect();
    let fingerprints: Vec<_> = new()
        .map(|new| new.fingerprint.as_deref().map(clean))
        .collect();
    let given: Vec<Option<i64>> = new().map(|new| new.now).collect();
    let wait_keys: Vec<Option<String>> = new().map(|new| new.kind.wait_key(&new.name)).collect();
    let encodings: Vec<i16> = new().map(|new| i16::from(new.encoding)).collect();
    let distinct: Vec<_> = run_ids
        .iter()
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let (most, most_bytes) = (signed(MAX_UNREAD), signed(MAX_UNREAD_BYTES));
    let params: &Params<'_> = &[
        &run_ids,
        &message_ids,
        &kinds,
        &names,
        &payloads,
        &fingerprints,
        &given,
        &wait_keys,
        &encodings,
        &distinct,
        &most,
        &most_bytes,
    ];
    let params = book.of_run(params, &run_ids[0]);
    let mut repeats = 0;
    let rows = loop {
        match link.run_unless_locked(sql, &params).await {
            // The first of a duplicate came between snapshot and lock.
            Err(fault) if fault.is_of_a_key() && repeats < REPEATS => repeats += 1,
            other => break other?,
        }
    };
    let mut fates: Vec<Fate> = chunk.iter().map(|_| Fate::Locked).collect();
    for row in &rows {
        let n: i64 = column(row, 0, "n")?;
        let place = usize::try_from(n).ok().and_then(|n| n.checked_sub(1));
        if let Some(slot) = place.and_then(|place| fates.get_mut(place)) {
            *slot = fate(row)?;
        }
    }
    Ok(fates)
}

fn fate(row: &Row) -> Result<Fate, Fault> {
    let result = match column::<i16>(row, 1, "outcome")? {
        0 => Delivery::Delivered,
        1 => Delivery::Buffered,
        2 => Delivery::Duplicate,
        3 => Delivery::NotFound,
        4 => Delivery::Finished,
        5 => Delivery::Full,
        6 => return Ok(Fate::Alone),
        _ => return Ok(Fate::Locked),
    };
    Ok(Fate::Told(Delivered {
        result,
        owner: column(row, 2, "owner")?,
        fingerprint: column(row, 3, "fingerprint")?,
    }))
}

/// What the runs of an owner have not seen yet.
pub(crate) async fn unread(
    link: &Link,
    book: &Book,
    owner: &str,
    told: &[(RunId, u64)],
) -> Result<Vec<Message>, Fault> {
    if book.flavour == Flavour::Routed {
        return unread_apart(link, book, owner, told).await;
    }
    let run_ids: Vec<_> = told.iter().map(|(run_id, _)| clean(run_id)).collect();
    let seqs: Vec<i64> = told.iter().map(|(_, seq)| signed(*seq)).collect();
    let rows = link
        .read(&book.unread_of_owner, &[&clean(owner), &run_ids, &seqs])
        .await?;
    let mut messages: Vec<Message> = rows
        .iter()
        .map(|row| message(&mut Reader::new(row)))
        .collect::<Result<_, _>>()?;
    messages.sort_by(|a, b| (&a.run_id, a.seq).cmp(&(&b.run_id, b.seq)));
    Ok(messages)
}

/// First which runs have such, then of each a page.
async fn unread_apart(
    link: &Link,
    book: &Book,
    owner: &str,
    told: &[(RunId, u64)],
) -> Result<Vec<Message>, Fault> {
    let told: BTreeMap<&str, u64> = told.iter().map(|(run_id, seq)| (&**run_id, *seq)).collect();
    let rows = link.read(&book.routed.unread, &[&clean(owner)]).await?;
    let mut pages = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut c = Reader::new(row);
        let run_id: RunId = c.text("run_id")?.into();
        let seen = c.count("inbox_seen")?;
        let behind = seen.max(told.get(&*run_id).copied().unwrap_or(0));
        pages.push(async move { page(link, book, &run_id, behind).await });
    }
    let pages = try_join_all(pages).await?;
    let mut messages: Vec<Message> = pages.into_iter().flat_map(|page| page.messages).collect();
    messages.sort_by(|a, b| (&a.run_id, a.seq).cmp(&(&b.run_id, b.seq)));
    Ok(messages)
}

/// A page of one run's unread messages.
pub(crate) async fn page(
    link: &Link,
    book: &Book,
    run_id: &str,
    behind: u64,
) -> Result<InboxPage, Fault> {
    let rows = link
        .read(&book.page, &[&clean(run_id), &signed(behind)])
        .await?;
    let found: i64 = rows.first().map_or(Ok(0), |row| column(row, 8, "found"))?;
    let messages: Vec<Message> = rows
        .iter()
        .map(|row| message(&mut Reader::new(row)))
        .collect::<Result<_, _>>()?;
    Ok(InboxPage {
        more: found > signed(messages.len() as u64),
        messages,
    })
}

/// What became of messages.
pub(crate) async fn receipts(
    link: &Link,
    book: &Book,
    messages: &[(RunId, String)],
) -> Result<Vec<Option<Receipt>>, Fault> {
    let batches = in_batches(book, messages, async |messages| {
        let run_ids: Vec<_> = messages.iter().map(|(run_id, _)| clean(run_id)).collect();
        let ids: Vec<_> = messages.iter().map(|(_, id)| clean(id)).collect();
        let Some(run_id) = run_ids.first() else {
            return Ok(Vec::new());
        };
        let params = book.of_run(&[&run_ids, &ids], run_id);
        link.read(&book.receipts, &params).await
    });
    let batches = batches.await?;
    let mut receipts = vec![None; messages.len()];
    let rows = batches.iter().enumerate();
    for (batch, row) in rows.flat_map(|(batch, rows)| rows.iter().map(move |row| (batch, row))) {
        let place = place_in(batch, column(row, 0, "n")?);
        if let Some(slot) = place.and_then(|place| receipts.get_mut(place)) {
            *slot = Some(match Reader::at(row, 1).code("state")? {
                0 => Receipt::Unread,
                1 => Receipt::Consumed {
                    reply: column::<Option<&[u8]>>(row, 3, "reply")?.map(payload),
                },
                _ => Receipt::SetAside {
                    reason: column::<Option<String>>(row, 2, "note")?.unwrap_or_default(),
                },
            });
        }
    }
    Ok(receipts)
}
