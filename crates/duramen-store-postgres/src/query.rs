//! What people and drivers ask.

use std::collections::{BTreeMap, BTreeSet};

use duramen_core::ids::{Payload, RunId};
use duramen_core::journal::Entry;
use duramen_core::store::{Message, OutgoingKind, RunDetail, Standing, Unsent, UnsentAsk};
use duramen_store_sql::{Columns, Damaged, RUN_COLUMNS, entry, message, payload, run_row};
use tokio_postgres::Row;

use crate::error::Fault;
use crate::flavour::{in_batches, place_in};
use crate::link::{Link, Params};
use crate::row::{Reader, clean, column, signed};
use crate::sql::Book;

/// In the plain flavour all rows from one snapshot; a second question only for runs that got messages.
pub(crate) async fn get(
    link: &Link,
    book: &Book,
    run_ids: &[RunId],
) -> Result<Vec<Option<RunDetail>>, Fault> {
    let ids: Vec<_> = run_ids.iter().map(|run_id| clean(run_id)).collect();
    let batches = in_batches(book, &ids, async |ids| {
        link.read(&book.details, &book.of_run(&[&ids], &ids[0]))
            .await
    });
    let mut details: Vec<Option<RunDetail>> = vec![None; run_ids.len()];
    for (batch, rows) in batches.await?.iter().enumerate() {
        for row in rows {
            let place = place_in(batch, column(row, RUN_COLUMNS, "n")?);
            if let Some(slot) = place.and_then(|place| details.get_mut(place)) {
                *slot = Some(detail(row)?);
            }
        }
    }
    // A run may be asked for twice.
    let with_inbox: BTreeSet<&str> = details
        .iter()
        .flatten()
        .filter(|detail| detail.row.inbox_len > 0)
        .map(|detail| &*detail.row.run_id)
        .collect();
    let with_inbox: Vec<String> = with_inbox.into_iter().map(str::to_owned).collect();
    if !with_inbox.is_empty() {
        let refused = refused(link, book, &with_inbox).await?;
        for detail in details.iter_mut().flatten() {
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
    // Of a left join: all of its columns are there, or none.
    let ended = column::<Option<i64>>(row, next + 3, "at")?.is_some();
    Ok(RunDetail {
        row: run_row(&mut Reader::new(row))?,
        input: bytes(next, "payload")?.unwrap_or_default(),
        state: bytes(next + 1, "state")?,
        memo: bytes(next + 2, "memo")?,
        end: ended
            .then(|| entry(&mut Reader::at(row, next + 3)))
            .transpose()?,
        refused: Vec::new(),
    })
}

type Refused = BTreeMap<RunId, Vec<(Message, String)>>;

async fn refused(link: &Link, book: &Book, run_ids: &[String]) -> Result<Refused, Fault> {
    let mut refused = Refused::new();
    let batches = in_batches(book, run_ids, async |ids| {
        link.read(&book.refused, &book.of_run(&[&ids], &ids[0]))
            .await
    });
    for row in batches.await?.iter().flatten() {
        let mut columns = Reader::new(row);
        let found = message(&mut columns)?;
        let reason = columns.text_or_null("note")?.unwrap_or_default().to_owned();
        refused
            .entry(found.run_id.clone())
            .or_default()
            .push((found, reason));
    }
    Ok(refused)
}

/// Where runs stand, of each its row and journal from one snapshot.
pub(crate) async fn standing(
    link: &Link,
    book: &Book,
    run_ids: &[RunId],
) -> Result<Vec<Option<Standing>>, Fault> {
    let ids: Vec<_> = run_ids.iter().map(|run_id| clean(run_id)).collect();
    let mut found = vec![None; run_ids.len()];
    let batches = in_batches(book, &ids, async |ids| {
        link.read(&book.standing, &book.of_run(&[&ids], &ids[0]))
            .await
    });
    let batches = batches.await?;
    let rows = batches.iter().enumerate();
    for (batch, row) in rows.flat_map(|(batch, rows)| rows.iter().map(move |row| (batch, row))) {
        let mut c = Reader::new(row);
        let place = place_in(batch, c.integer("n")?);
        let standing = Standing {
            status: c.status()?,
            seed: c
                .bytes("seed")?
                .try_into()
                .map_err(|_| Damaged::column("seed"))?,
            owner: c.text_or_null("owner")?.map(str::to_owned),
            epoch: c.integer("epoch")?,
            journal_len: c.count("journal_len")?,
            generation: c.count("generation")?,
            ready_at: c.integer_or_null("ready_at")?,
        };
        if let Some(slot) = place.and_then(|place| found.get_mut(place)) {
            *slot = Some(standing);
        }
    }
    Ok(found)
}

/// What commits left to be carried out.
pub(crate) async fn unsent(
    link: &Link,
    book: &Book,
    ask: &UnsentAsk,
) -> Result<Vec<Unsent>, Fault> {
    let limit = i64::from(ask.limit);
    let rows = match ask.run_id.as_deref().map(clean) {
        Some(run_id) => {
            let sql = &book.unsent_of_run;
            link.read(sql, &[&ask.before, &limit, &run_id]).await?
        }
        None => link.read(&book.unsent, &[&ask.before, &limit]).await?,
    };
    rows.iter()
        .map(|row| {
            let mut c = Reader::new(row);
            Ok(Unsent {
                run_id: c.text("run_id")?.into(),
                entry: c.count("entry")?,
                number: c.small("number")?,
                kind: OutgoingKind::from_code(c.code("kind")?)
                    .ok_or_else(|| Damaged::column("kind"))?,
                target: c.text("target")?.into(),
                body: payload(c.bytes("body")?),
                at: c.integer("at")?,
            })
        })
        .collect()
}

/// Takes out what was carried out.
pub(crate) async fn sent(link: &Link, book: &Book, items: &[Unsent]) -> Result<(), Fault> {
    in_batches(book, items, async |items| {
        let run_ids: Vec<&str> = items.iter().map(|item| &*item.run_id).collect();
        let entries: Vec<i64> = items.iter().map(|item| signed(item.entry)).collect();
        let numbers: Vec<i32> = items
            .iter()
            .map(|item| i32::try_from(item.number).unwrap_or(i32::MAX))
            .collect();
        let ats: Vec<i64> = items.iter().map(|item| item.at).collect();
        let Some(run_id) = run_ids.first() else {
            return Ok(Vec::new());
        };
        let params: &Params<'_> = &[&run_ids, &entries, &numbers, &ats];
        link.run(&book.sent, &book.of_run(params, run_id)).await
    })
    .await?;
    Ok(())
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
    rows.iter()
        .map(|row| entry(&mut Reader::new(row)))
        .collect()
}
